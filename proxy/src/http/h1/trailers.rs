//! Which trailers may follow a body (RFC 9110 section 6.5).

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    HOST, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName};

/// Those that could mean something else there (section 6.5.1).
const FORBIDDEN: [HeaderName; 12] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// The trailers that a head announces, and that may come.
pub fn announced(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let lines = headers.get_all(TRAILER).iter().filter_map(|line| line.to_str().ok());
    let names = lines.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok());
    names.filter(|name| !FORBIDDEN.contains(name))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_could_mean_something_else_does_not_trail() {
        let line = |text| (TRAILER, HeaderValue::from_static(text));
        let headers =
            HeaderMap::from_iter([line("x-sum, Content-Length ,, a b"), line("grpc-status")]);
        let names: Vec<_> = announced(&headers).collect();
        assert_eq!(names, ["x-sum", "grpc-status"]);
    }
}
