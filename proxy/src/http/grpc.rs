//! gRPC over HTTP: how a refusal looks to a gRPC client.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};

/// Whether these request headers open a gRPC call.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return false };
    let Some(rest) = kind.as_bytes().strip_prefix(b"application/grpc") else { return false };
    matches!(rest.first(), None | Some(b'+' | b';'))
}

/// `grpc-status` for an HTTP status (gRPC: "HTTP to gRPC Status Code Mapping").
pub fn status_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// `grpc-message`: percent-encoded, so that any text fits into a header.
pub fn message(text: &str) -> HeaderValue {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    const SET: &AsciiSet = &CONTROLS.add(b'%');
    let text = utf8_percent_encode(text, SET).to_string();
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("refused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_told_apart() {
        let with = |kind: &'static str| {
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))])
        };
        assert!(is_grpc(&with("application/grpc")));
        assert!(is_grpc(&with("application/grpc+json")));
        assert!(!is_grpc(&with("application/grpc-web")));
        assert!(!is_grpc(&HeaderMap::new()));
        assert_eq!(message("50% über\n").as_bytes(), b"50%25 %C3%BCber%0A");
    }
}
