//! Heads on their way out: names as they came, or in lower case, or in title case.

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, TRANSFER_ENCODING};
use http::{Extensions, HeaderMap, HeaderName, Method, StatusCode, Uri, request, response};

use super::Framing;
use super::spelling::Spelling;
use crate::http::number::Digits;

/// Which line of a request stands for its target (RFC 9112 section 3.2).
fn target<'u>(method: &Method, uri: &'u Uri) -> &'u str {
    if method == Method::CONNECT
        && let Some(authority) = uri.authority()
    {
        return authority.as_str();
    }
    uri.path_and_query().map_or("/", |path| path.as_str())
}

/// Write the head of a request. What ends its body is told by `framing` alone; a `content-length` that the head has
/// itself is written only with [`Framing::None`]. An authority in its target wins over a `host` that says something else
/// (RFC 9112 section 3.2.2).
pub fn request(head: &RequestHead<'_>, framing: Framing, out: &mut BytesMut) {
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let target = target(head.method, head.uri).as_bytes();
    out.reserve(room(head.headers) + target.len() + authority.map_or(0, <[u8]>::len));
    out.put_slice(head.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target);
    out.put_slice(b" HTTP/1.1\r\n");
    let names = Names::of(head.extensions, false);
    if let Some(authority) = authority {
        names.write(&HOST, 0, out);
        line(authority, out);
    }
    fields((head.headers, authority.is_some()), &names, framing, out);
    out.put_slice(b"\r\n");
}

/// The parts of a request that its head is made of.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Where its target is: the path, or for CONNECT the authority.
    pub uri: &'a Uri,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Where its [`Spelling`] is.
    pub extensions: &'a Extensions,
}

impl<'a> From<&'a request::Parts> for RequestHead<'a> {
    fn from(parts: &'a request::Parts) -> Self {
        let request::Parts { method, uri, headers, extensions, .. } = parts;
        Self { method, uri, headers, extensions }
    }
}

impl<'a, B> From<&'a http::Request<B>> for RequestHead<'a> {
    fn from(request: &'a http::Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

/// How a response is written.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// What follows its head. With [`Framing::None`] a `content-length` of its own stays: of HEAD, or 304.
    pub framing: Framing,
    /// The request was HTTP/1.0: the answer says so as well.
    pub http_10: bool,
    /// `close` or `keep-alive`, where its head has no `connection` of its own.
    pub connection: Option<&'static str>,
    /// Names begin with capitals, if nothing tells how they were spelled.
    pub title_case: bool,
    /// For `date`, where its head has none.
    pub date: Option<&'a [u8]>,
}

/// Write the head of a response.
pub fn response(parts: &response::Parts, reply: Reply<'_>, out: &mut BytesMut) {
    out.reserve(room(&parts.headers));
    if reply.http_10 {
        out.put_slice(b"HTTP/1.0 ");
    } else if parts.status == StatusCode::OK {
        // Nearly all of them.
        out.put_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.put_slice(b"HTTP/1.1 ");
    }
    if reply.http_10 || parts.status != StatusCode::OK {
        out.put_slice(parts.status.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(parts.status.canonical_reason().unwrap_or("<none>").as_bytes());
        out.put_slice(b"\r\n");
    }
    let names = Names::of(&parts.extensions, reply.title_case);
    let (connection, date) = fields((&parts.headers, false), &names, reply.framing, out);
    if let Some(value) = reply.connection.filter(|_| !connection) {
        names.write(&CONNECTION, 0, out);
        line(value.as_bytes(), out);
    }
    if let Some(now) = reply.date.filter(|_| !date) {
        names.write(&DATE, 0, out);
        line(now, out);
    }
    out.put_slice(b"\r\n");
}

/// How many bytes a head will be, generously.
fn room(headers: &HeaderMap) -> usize {
    128 + headers.len() * 48
}

/// The lines of a head, and what ends its body. Whether `connection` and `date` are among them. `hosted`: `host` is
/// written already.
fn fields(
    (headers, hosted): (&HeaderMap, bool),
    names: &Names<'_>,
    framing: Framing,
    out: &mut BytesMut,
) -> (bool, bool) {
    let (mut connection, mut date, mut framed) = (false, false, false);
    let mut before: Option<&HeaderName> = None;
    let mut nth = 0;
    for (name, value) in headers {
        // Lines with the same name follow each other.
        nth = if names.matters() && before == Some(name) { nth + 1 } else { 0 };
        before = Some(name);
        if *name == CONTENT_LENGTH {
            match framing {
                Framing::None => {}
                Framing::Length(length) if !std::mem::replace(&mut framed, true) => {
                    names.write(name, nth, out);
                    decimal(length, out);
                    continue;
                }
                Framing::Length(_) | Framing::Chunked | Framing::UntilClose => continue,
            }
        } else if *name == TRANSFER_ENCODING || (hosted && *name == HOST) {
            continue;
        }
        connection |= *name == CONNECTION;
        date |= *name == DATE;
        names.write(name, nth, out);
        line(value.as_bytes(), out);
    }
    match framing {
        Framing::Length(length) if !framed => {
            names.write(&CONTENT_LENGTH, 0, out);
            decimal(length, out);
        }
        Framing::Chunked => {
            names.write(&TRANSFER_ENCODING, 0, out);
            line(b"chunked", out);
        }
        Framing::Length(_) | Framing::None | Framing::UntilClose => {}
    }
    (connection, date)
}

fn line(value: &[u8], out: &mut BytesMut) {
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

fn decimal(number: u64, out: &mut BytesMut) {
    line(Digits::of(number).as_bytes(), out);
}

/// How names are written.
enum Names<'a> {
    Lower,
    Title,
    /// As they came; those that did not, in lower case.
    AsSpelled(&'a Spelling, bool),
}

impl<'a> Names<'a> {
    fn of(extensions: &'a Extensions, title_case: bool) -> Self {
        match extensions.get() {
            Some(spelling) => Self::AsSpelled(spelling, title_case),
            None if title_case => Self::Title,
            None => Self::Lower,
        }
    }

    /// Which of several lines with a name it is.
    fn matters(&self) -> bool {
        matches!(self, Self::AsSpelled(..))
    }

    fn write(&self, name: &HeaderName, nth: usize, out: &mut BytesMut) {
        match self {
            Self::Lower => out.put_slice(name.as_str().as_bytes()),
            Self::Title => title(name, out),
            Self::AsSpelled(spelling, title_case) => match spelling.find(name, nth) {
                Some(written) => out.put_slice(written),
                None if *title_case => title(name, out),
                None => out.put_slice(name.as_str().as_bytes()),
            },
        }
        out.put_slice(b": ");
    }
}

/// `x-request-id` as `X-Request-Id`.
fn title(name: &HeaderName, out: &mut BytesMut) {
    let mut first = true;
    for byte in name.as_str().bytes() {
        out.put_u8(if first { byte.to_ascii_uppercase() } else { byte });
        first = byte == b'-';
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::head;
    use super::*;

    fn written(text: &'static str, framing: Framing) -> String {
        let parts = head::request(Bytes::from_static(text.as_bytes())).unwrap();
        let mut out = BytesMut::new();
        request(&RequestHead::from(&parts), framing, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_request_is_written_as_it_was_read() {
        for text in [
            "GET /a?b HTTP/1.1\r\nhost: web\r\nX-a: 1\r\nx-A: 2\r\n\r\n",
            "CONNECT web:443 HTTP/1.1\r\nhost: web:443\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nhost: web\r\n\r\n",
            "HEAD / HTTP/1.1\r\nContent-Length: 7\r\n\r\n",
        ] {
            assert_eq!(written(text, Framing::None), text);
        }
    }

    #[test]
    fn an_authority_in_the_target_is_the_host() {
        let text = "GET http://web:80/a HTTP/1.1\r\nHost: other\r\nx: 1\r\n\r\n";
        let want = "GET /a HTTP/1.1\r\nHost: web:80\r\nx: 1\r\n\r\n";
        assert_eq!(written(text, Framing::None), want);
        let text = "GET http://web HTTP/1.1\r\n\r\n";
        assert_eq!(written(text, Framing::None), "GET / HTTP/1.1\r\nhost: web\r\n\r\n");
    }

    #[test]
    fn what_ends_the_body_is_told_once() {
        let text = "POST / HTTP/1.1\r\nContent-length: 7\r\na: b\r\n\r\n";
        let want = "POST / HTTP/1.1\r\nContent-length: 1234567890\r\na: b\r\n\r\n";
        assert_eq!(written(text, Framing::Length(1_234_567_890)), want);
        let want = "POST / HTTP/1.1\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(written(text, Framing::Chunked), want);
        let text = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(
            written(text, Framing::Length(0)),
            "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
        );
        assert_eq!(written(text, Framing::Chunked), text);
    }

    #[test]
    fn an_answer_says_what_is_missing_and_no_more() {
        let parts = head::response(Bytes::from_static(
            b"HTTP/1.1 404 x\r\nx-one: 1\r\ndate: today\r\n\r\n",
        ));
        let reply = Reply {
            framing: Framing::Length(3),
            http_10: true,
            connection: Some("keep-alive"),
            title_case: true,
            date: Some(b"now"),
        };
        let mut out = BytesMut::new();
        response(&parts.unwrap(), reply, &mut out);
        let want = "HTTP/1.0 404 Not Found\r\nX-One: 1\r\nDate: today\r\nContent-Length: 3\r\n\
                    Connection: keep-alive\r\n\r\n";
        assert_eq!(out, want);
    }
}
