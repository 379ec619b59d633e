//! The head of a request as HTTP/2 wants it.

use std::io;
use std::mem;

use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, Method, Request, Uri, Version};
use http_body::Body as _;

use super::Error;
use crate::http::body::RequestBody;
use crate::http::h2::length;
use crate::http::presence::Presence;
use crate::http::{hop, upgrade};
use crate::model::names;

/// Headers that are different in every request. In the compression's table they would only take the place of others, and
/// be searched in vain by every request after; a value that is said to be sensitive does not get into it.
const UNIQUE: [HeaderName; 2] = [names::X_REQUEST_ID, names::TRACEPARENT];

/// How the head is taken out of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TakeHead {
    /// It stays there: this is a copy.
    pub(crate) again: bool,
    /// It goes over TLS: so its scheme says.
    pub(crate) tls: bool,
}

impl TakeHead {
    /// The head of this request. `learning`: names that every request has are to get into the compression's table.
    ///
    /// # Errors
    /// CONNECT that announces content.
    pub(super) fn take(
        self,
        request: &mut Request<RequestBody>,
        learning: bool,
    ) -> Result<Request<()>, Error> {
        let known = request.body().size_hint().exact();
        let present = Presence::of(request.headers());
        let mut head = if self.again { copy(request) } else { take(request) };
        if head.method() != Method::CONNECT || head.extensions().get::<Protocol>().is_some() {
            to_authority(&mut head, self.tls);
            if present.has(Presence::UPGRADE) {
                upgrade::to_extended_connect(&mut head);
            }
        }
        *head.version_mut() = Version::HTTP_2;
        if head.method() == Method::CONNECT
            && length(head.headers()).is_some_and(|length| length != 0)
        {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "CONNECT has no content");
            return Err(Error::Request(error.into()));
        }
        // A route may add what HTTP/2 forbids: that must not fail the request.
        hop::strip_present(head.headers_mut(), present);
        if let Some(length) = known.filter(|length| *length != 0 || expects_content(head.method()))
        {
            head.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
        }
        for name in UNIQUE.iter().filter(|_| !learning) {
            if let Some(value) = head.headers_mut().get_mut(name) {
                value.set_sensitive(true);
            }
        }
        Ok(head)
    }
}

fn take(request: &mut Request<RequestBody>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = mem::take(request.method_mut());
    *head.uri_mut() = mem::take(request.uri_mut());
    *head.headers_mut() = mem::take(request.headers_mut());
    if let Some(protocol) = request.extensions_mut().remove::<Protocol>() {
        head.extensions_mut().insert(protocol);
    }
    head
}

fn copy(request: &Request<RequestBody>) -> Request<()> {
    let mut head = Request::new(());
    head.method_mut().clone_from(request.method());
    head.uri_mut().clone_from(request.uri());
    head.headers_mut().clone_from(request.headers());
    if let Some(protocol) = request.extensions().get::<Protocol>() {
        head.extensions_mut().insert(protocol.clone());
    }
    head
}

/// The authority is in the target (RFC 9113 section 8.3.1).
fn to_authority(head: &mut Request<()>, tls: bool) {
    let host = head.headers_mut().remove(HOST);
    if head.uri().authority().is_some() {
        return;
    }
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = mem::take(head.uri_mut()).into_parts();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority.unwrap_or_else(|| Authority::from_static("localhost")));
    parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    *head.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

/// Servers may wait for content that these methods usually have (RFC 9110 section 8.6).
fn expects_content(method: &Method) -> bool {
    ![Method::GET, Method::HEAD, Method::DELETE, Method::CONNECT].contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKE: TakeHead = TakeHead { again: false, tls: true };

    fn request() -> Request<RequestBody> {
        Request::get("/cart?x=1")
            .header(HOST, "shop.local:8080")
            .header(names::X_REQUEST_ID, "1")
            .body(RequestBody::Empty)
            .unwrap()
    }

    #[test]
    fn a_head_is_taken_or_copied() {
        for (again, left) in [(true, "/cart?x=1"), (false, "/")] {
            let mut request = request();
            let head = TakeHead { again, ..TAKE }.take(&mut request, false).unwrap();
            assert_eq!(head.uri(), "https://shop.local:8080/cart?x=1");
            assert_eq!((head.headers().len(), head.version()), (1, Version::HTTP_2));
            assert_eq!(request.uri(), left);
            assert_eq!(request.headers().contains_key(HOST), again);
        }
    }

    #[test]
    fn the_table_learns_names_and_nothing_that_differs() {
        for learning in [true, false] {
            let head = TAKE.take(&mut request(), learning).unwrap();
            assert_eq!(head.headers()[names::X_REQUEST_ID].is_sensitive(), !learning);
        }
    }

    #[test]
    fn a_tunnel_has_no_content() {
        let mut tunnel = Request::connect("shop.local:443")
            .header(CONTENT_LENGTH, "3")
            .body(RequestBody::Empty)
            .unwrap();
        assert!(matches!(TAKE.take(&mut tunnel, false), Err(Error::Request(_))));
    }
}
