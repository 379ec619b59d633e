//! Heads of requests and responses, parsed once. Names that are common are not allocated, and values share the
//! bytes that were read.

use bytes::Bytes;
use http::header::HeaderMap;
use http::uri::Uri;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, request, response,
};
use httparse::Header;

use super::Malformed;
use super::spelling::Spelling;
use crate::model::names;

/// So many lines are parsed without an allocation.
const USUAL_LINES: usize = 64;
const TOO_MANY: &str = "there are too many header lines";

/// Where a head ends, its empty line included. None: it is not whole.
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|at| match bytes.get(at + 1..)? {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// A request from its whole head. Where its body ends, the guard has found out already.
///
/// # Errors
/// It is no head of a request.
pub fn request(head: Bytes) -> Result<request::Parts, Malformed> {
    with_lines(&head, |lines| {
        let mut parsed = httparse::Request::new(lines);
        complete(parsed.parse(&head))?;
        let (mut parts, ()) = Request::new(()).into_parts();
        let method = parsed.method.unwrap_or_default();
        parts.method = Method::from_bytes(method.as_bytes())
            .map_err(|_| Malformed("the method is no token"))?;
        let target = head.slice_ref(parsed.path.unwrap_or_default().as_bytes());
        parts.uri =
            Uri::from_maybe_shared(target).map_err(|_| Malformed("the request target is none"))?;
        parts.version = version(parsed.version);
        let spelling = fields(&head, parsed.headers, &mut parts.headers)?;
        if let Some(spelling) = spelling {
            parts.extensions.insert(spelling);
        }
        Ok(parts)
    })
}

/// A response from its whole head.
///
/// # Errors
/// It is no head of a response.
pub fn response(head: Bytes) -> Result<response::Parts, Malformed> {
    with_lines(&head, |lines| {
        let mut parsed = httparse::Response::new(lines);
        complete(parsed.parse(&head))?;
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = StatusCode::from_u16(parsed.code.unwrap_or_default())
            .map_err(|_| Malformed("the status is none"))?;
        parts.version = version(parsed.version);
        let spelling = fields(&head, parsed.headers, &mut parts.headers)?;
        if let Some(spelling) = spelling {
            parts.extensions.insert(spelling);
        }
        Ok(parts)
    })
}

/// Trailer lines, with the empty line at their end.
///
/// # Errors
/// They are no header lines.
pub(super) fn trailers(lines: Bytes) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::new();
    with_lines(&lines, |room| match httparse::parse_headers(&lines, room) {
        Ok(httparse::Status::Complete((_, parsed))) => {
            fields(&lines, parsed, &mut headers).map(|_| ())
        }
        Ok(httparse::Status::Partial) => Err(Malformed("the trailers are not whole")),
        Err(error) => Err(explain(error)),
    })?;
    Ok(headers)
}

/// Room for as many header lines as there usually are, or if that was not enough, as there are.
fn with_lines<'h, T>(
    head: &'h Bytes,
    mut parse: impl FnMut(&mut [Header<'h>]) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    match parse(&mut [httparse::EMPTY_HEADER; USUAL_LINES]) {
        Err(Malformed(TOO_MANY)) => {
            let lines = memchr::memchr_iter(b'\n', head).count();
            parse(&mut vec![httparse::EMPTY_HEADER; lines])
        }
        parsed => parsed,
    }
}

fn complete(parsed: httparse::Result<usize>) -> Result<(), Malformed> {
    match parsed {
        Ok(httparse::Status::Complete(_)) => Ok(()),
        Ok(httparse::Status::Partial) => Err(Malformed("the head is not whole")),
        Err(error) => Err(explain(error)),
    }
}

fn explain(error: httparse::Error) -> Malformed {
    Malformed(match error {
        httparse::Error::HeaderName => "a header name is no token",
        httparse::Error::HeaderValue => "a header value has control characters",
        httparse::Error::NewLine => "a line ends with something else than CR LF",
        httparse::Error::Status => "the status is none",
        httparse::Error::Token => "the first line is no request line",
        httparse::Error::TooManyHeaders => TOO_MANY,
        httparse::Error::Version => "the version of HTTP is none",
    })
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 }
}

/// The lines into a map; how their names are spelled, if not in lower case.
fn fields(
    head: &Bytes,
    lines: &[Header<'_>],
    map: &mut HeaderMap,
) -> Result<Option<Spelling>, Malformed> {
    map.reserve(lines.len() + MORE);
    let mut mixed = false;
    for line in lines {
        let name = line.name.as_bytes();
        mixed |= name.iter().fold(false, |found, byte| found | byte.is_ascii_uppercase());
        let value = HeaderValue::from_maybe_shared(head.slice_ref(line.value))
            .map_err(|_| Malformed("a header value has control characters"))?;
        map.append(name_of(name)?, value);
    }
    if !mixed {
        return Ok(None);
    }
    let mut spelling = Spelling::new(head.clone());
    let start = head.as_ptr() as usize;
    for line in lines {
        spelling.push(line.name.as_ptr() as usize - start, line.name.len());
    }
    Ok(Some(spelling))
}

/// So many headers are usually added on the way.
const MORE: usize = 8;

/// A header's name. Those of every other request in a mesh cost no allocation.
fn name_of(name: &[u8]) -> Result<HeaderName, Malformed> {
    Ok(match name {
        b"x-request-id" => names::X_REQUEST_ID,
        b"x-forwarded-for" => HeaderName::from_static("x-forwarded-for"),
        b"x-forwarded-proto" => names::X_FORWARDED_PROTO,
        b"x-forwarded-client-cert" => HeaderName::from_static("x-forwarded-client-cert"),
        b"traceparent" => HeaderName::from_static("traceparent"),
        b"tracestate" => HeaderName::from_static("tracestate"),
        b"x-envoy-expected-rq-timeout-ms" => names::X_ENVOY_EXPECTED_TIMEOUT,
        b"x-envoy-upstream-service-time" => {
            HeaderName::from_static("x-envoy-upstream-service-time")
        }
        b"x-envoy-attempt-count" => HeaderName::from_static("x-envoy-attempt-count"),
        b"keep-alive" => names::KEEP_ALIVE,
        b"grpc-status" => names::GRPC_STATUS,
        _ => {
            return HeaderName::from_bytes(name)
                .map_err(|_| Malformed("a header name is no token"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn a_request_is_read_with_the_spelling_of_its_names() {
        let text =
            "POST /a?b=c HTTP/1.1\r\nHost: web\r\nX-One: 1\r\nx-one: 2\r\nTraceParent:  t \r\n\r\n";
        let parts = request(bytes(text)).unwrap();
        assert_eq!((parts.method, parts.uri.to_string()), (Method::POST, "/a?b=c".to_owned()));
        assert_eq!(parts.version, Version::HTTP_11);
        let ones: Vec<_> = parts.headers.get_all("x-one").iter().collect();
        assert_eq!(ones, ["1", "2"]);
        assert_eq!(parts.headers["traceparent"], "t");
        let spelling = parts.extensions.get::<Spelling>().unwrap();
        let one = HeaderName::from_static("x-one");
        assert_eq!(spelling.find(&one, 0), Some(&b"X-One"[..]));
        assert_eq!(spelling.find(&one, 1), Some(&b"x-one"[..]));
        assert_eq!(spelling.find(&one, 2), None);
    }

    #[test]
    fn lower_case_needs_no_spelling_and_many_lines_are_read_too() {
        let mut text = "GET * HTTP/1.0\r\n".to_owned();
        for number in 0..USUAL_LINES + 9 {
            text.push_str(&format!("x-{number}: {number}\r\n"));
        }
        text.push_str("\r\n");
        assert_eq!(end_of_head(text.as_bytes()), Some(text.len()));
        assert_eq!(end_of_head(&text.as_bytes()[..text.len() - 1]), None);
        let parts = request(bytes(&text)).unwrap();
        assert_eq!((parts.headers.len(), parts.version), (USUAL_LINES + 9, Version::HTTP_10));
        assert!(parts.extensions.get::<Spelling>().is_none());
    }

    #[test]
    fn a_response_is_read_and_what_is_none_is_refused() {
        let parts = response(bytes("HTTP/1.1 404 Not Found\r\nServer: x\r\n\r\n")).unwrap();
        assert_eq!(parts.status, StatusCode::NOT_FOUND);
        assert_eq!(parts.headers["server"], "x");
        let without_reason = response(bytes("HTTP/1.1 200\r\na: b\r\n\r\n")).unwrap();
        assert_eq!(without_reason.status, StatusCode::OK);
        for bad in [
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\0\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n",
            "hello\r\n\r\n",
        ] {
            assert!(response(bytes(bad)).is_err(), "{bad:?}");
        }
    }
}
