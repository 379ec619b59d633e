//! Headers that belong to one hop (RFC 9110 section 7.6.1) and must not be forwarded.

use http::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::presence::Presence;
use crate::model::names::KEEP_ALIVE;

const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Take out everything that was meant for this hop only.
pub fn strip(headers: &mut HeaderMap) {
    let present = Presence::of(headers);
    strip_present(headers, present);
}

/// The same where it is known what is there.
pub fn strip_present(headers: &mut HeaderMap, present: Presence) {
    if !present.has(Presence::HOP_BY_HOP) {
        return;
    }
    if present.has(Presence::CONNECTION) {
        strip_named(headers);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    if present.has(Presence::TE) {
        keep_trailers(headers);
    }
}

fn keep_trailers(headers: &mut HeaderMap) {
    // `te: trailers` is an end-to-end promise in gRPC; any other value is for this hop.
    let trailers = headers.get(TE).map(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if trailers == Some(false) {
        let accepted = headers.get_all(TE).iter().any(names_trailers);
        headers.remove(TE);
        if accepted {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Headers that `connection` names, and `connection` itself. A peer cannot have `te` (handled
/// apart) or the routing headers removed this way.
fn strip_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name: &HeaderName| {
            !matches!(name.as_str(), "te" | "host" | "content-length")
                && !name.as_str().starts_with("x-forwarded-")
        })
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}

fn names_trailers(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| {
        text.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_headers_go_and_trailers_stay_accepted() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-mine, x-forwarded-for"),
            ("x-mine", "1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        left.sort_unstable();
        let want: [(&str, &[u8]); 3] =
            [("accept", b"*/*"), ("te", b"trailers"), ("x-forwarded-for", b"10.0.0.1")];
        assert_eq!(left, want);
    }
}
