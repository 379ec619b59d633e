//! Upgrades: a request asks that its connection goes on in another protocol (RFC 9110 section 7.8),
//! or its stream does (extended CONNECT, RFC 8441). Inside of the proxy both look like the
//! first: `GET`, `connection: upgrade`, `upgrade: websocket`.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};

const UPGRADE_TOKEN: HeaderValue = HeaderValue::from_static("upgrade");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// What servers add to the key before they hash it (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The protocol that a request asks for, and what it needs to come back with. The request is in
/// HTTP/1's form afterwards. `random` makes the key that HTTP/2 clients do not send.
///
/// An upgrade to HTTP/2 (`h2c`) is not taken: the request goes on without it, as in Envoy.
pub fn take<B>(request: &mut Request<B>, random: u128) -> Option<Asked> {
    if let Some(protocol) = request.extensions_mut().remove::<Protocol>() {
        let kind = HeaderValue::from_str(protocol.as_str()).ok()?;
        *request.method_mut() = Method::GET;
        let websocket = is_websocket(&kind);
        let made_key = websocket && !request.headers().contains_key(SEC_WEBSOCKET_KEY);
        let headers = request.headers_mut();
        if made_key {
            let key = STANDARD.encode(random.to_be_bytes());
            headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).ok()?);
            headers.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
        }
        headers.remove(CONTENT_LENGTH);
        return Some(Asked { kind, connection: UPGRADE_TOKEN, key: None, made_key });
    }
    if request.version() != Version::HTTP_11
        || request.method() == Method::CONNECT
        || !names_upgrade(request.headers())
    {
        return None;
    }
    let kind = request.headers().get(UPGRADE)?.clone();
    if is(&kind, b"h2c") {
        request.headers_mut().remove(HTTP2_SETTINGS);
        return None;
    }
    let key = request.headers().get(SEC_WEBSOCKET_KEY).filter(|_| is_websocket(&kind)).cloned();
    let connection = request.headers().get(CONNECTION).filter(|line| is(line, b"upgrade"));
    let connection = connection.cloned().unwrap_or(UPGRADE_TOKEN);
    Some(Asked { kind, connection, key, made_key: false })
}

/// What a request asks to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Value of `upgrade`, such as `websocket`.
    pub kind: HeaderValue,
    /// Value of `connection`, as far as it is about this.
    pub connection: HeaderValue,
    /// `sec-websocket-key` of a client that waits for `sec-websocket-accept`.
    pub key: Option<HeaderValue>,
    /// The key is ours: the client does not know of it.
    pub made_key: bool,
}

impl Asked {
    /// Puts back what [`super::hop::strip`] takes away.
    pub fn restore(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, self.connection.clone());
        headers.insert(UPGRADE, self.kind.clone());
    }

    /// Makes of the upstream's agreement what this client waits for: 101 in HTTP/1.1, 200 in
    /// HTTP/2. `kind`: what the upstream calls it; None: it was asked in HTTP/2.
    pub fn agree<B>(&self, response: &mut Response<B>, kind: Option<HeaderValue>, http2: bool) {
        let headers = response.headers_mut();
        if self.made_key {
            headers.remove(SEC_WEBSOCKET_ACCEPT);
        } else if kind.is_none()
            && let Some(accept) = self.key.as_ref().and_then(accept)
        {
            // A server that was asked in HTTP/2 has no need of it.
            headers.entry(SEC_WEBSOCKET_ACCEPT).or_insert(accept);
        }
        headers.remove(CONTENT_LENGTH);
        if http2 {
            *response.status_mut() = StatusCode::OK;
        } else {
            headers.insert(CONNECTION, UPGRADE_TOKEN);
            headers.insert(UPGRADE, kind.unwrap_or_else(|| self.kind.clone()));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
    }
}

/// A request for an upgrade as HTTP/2 has it. Others stay as they are.
pub fn to_extended_connect<B>(request: &mut Request<B>) {
    let Some(kind) = request.headers_mut().remove(UPGRADE) else { return };
    let Ok(kind) = kind.to_str() else { return };
    request.extensions_mut().insert(Protocol::from(kind));
    *request.method_mut() = Method::CONNECT;
    request.headers_mut().remove(CONTENT_LENGTH);
}

/// The way back, for a request that was meant for HTTP/2 and goes to an HTTP/1 endpoint after all.
pub fn to_upgrade<B>(request: &mut Request<B>) {
    let Some(protocol) = request.extensions_mut().remove::<Protocol>() else { return };
    *request.method_mut() = Method::GET;
    if let Ok(kind) = HeaderValue::from_str(protocol.as_str()) {
        Asked { kind, connection: UPGRADE_TOKEN, key: None, made_key: false }
            .restore(request.headers_mut());
    }
}

fn is_websocket(kind: &HeaderValue) -> bool {
    is(kind, b"websocket")
}

fn is(value: &HeaderValue, word: &[u8]) -> bool {
    value.as_bytes().eq_ignore_ascii_case(word)
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
}

fn accept(key: &HeaderValue) -> Option<HeaderValue> {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(GUID);
    HeaderValue::from_str(&STANDARD.encode(context.finish())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn websocket() -> Request<()> {
        Request::get("/chat")
            .header(CONNECTION, "keep-alive, Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap()
    }

    #[test]
    fn a_client_of_http1_gets_its_key_answered() {
        let mut request = websocket();
        let asked = take(&mut request, 0).unwrap();
        assert_eq!(asked.kind, "websocket");
        let mut response = Response::new(());
        asked.agree(&mut response, None, false);
        assert_eq!(response.status(), 101);
        // The example of RFC 6455 section 1.3.
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn http2_and_http1_say_the_same_in_different_words() {
        let mut request = websocket();
        to_extended_connect(&mut request);
        assert_eq!(request.method(), Method::CONNECT);
        let asked = take(&mut request, 7).unwrap();
        assert_eq!((request.method(), asked.made_key), (&Method::GET, false));
        let mut bare = Request::new(());
        bare.extensions_mut().insert(Protocol::from_static("websocket"));
        let asked = take(&mut bare, 7).unwrap();
        assert!(asked.made_key && bare.headers().contains_key(SEC_WEBSOCKET_KEY));
        let mut response = Response::new(());
        response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("x"));
        asked.agree(&mut response, None, true);
        assert!(response.status() == 200 && response.headers().is_empty());
    }

    #[test]
    fn what_asks_for_nothing_or_for_h2c_goes_on_as_it_is() {
        assert_eq!(take(&mut Request::new(()), 0), None);
        let mut request = websocket();
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        assert_eq!(take(&mut request, 0), None);
        let mut request = websocket();
        request.headers_mut().insert(UPGRADE, HeaderValue::from_static("h2c"));
        request.headers_mut().insert(HTTP2_SETTINGS, HeaderValue::from_static("AAMAAABk"));
        assert_eq!(take(&mut request, 0), None);
        assert!(!request.headers().contains_key(HTTP2_SETTINGS));
    }
}
