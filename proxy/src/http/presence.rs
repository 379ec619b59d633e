//! Which headers a message has, of those that many steps ask for and most messages lack: one look at its names is cheaper
//! than a search for each of them.

use std::ops::BitOr;

use http::HeaderMap;

/// A set of headers. What is not in it is not in the message, as long as nobody adds it; what is may have been
/// removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence(u32);

const OTHER_FORWARDED: Presence = Presence(1);
const OTHER_ENVOY: Presence = Presence(1 << 1);
const OTHER_TRACE: Presence = Presence(1 << 2);

impl Presence {
    /// `connection`
    pub const CONNECTION: Self = Self(1 << 3);
    /// `upgrade`
    pub const UPGRADE: Self = Self(1 << 4);
    /// `te`
    pub const TE: Self = Self(1 << 5);
    /// `keep-alive`
    pub const KEEP_ALIVE: Self = Self(1 << 6);
    /// `proxy-connection` or `transfer-encoding`.
    pub const FRAMING: Self = Self(1 << 7);
    /// `expect`
    pub const EXPECT: Self = Self(1 << 8);
    /// `content-type`
    pub const CONTENT_TYPE: Self = Self(1 << 9);
    /// `x-forwarded-for`
    pub const FORWARDED_FOR: Self = Self(1 << 10);
    /// `x-forwarded-proto`
    pub const FORWARDED_PROTO: Self = Self(1 << 11);
    /// `x-forwarded-client-cert`
    pub const FORWARDED_CLIENT_CERT: Self = Self(1 << 12);
    /// One that begins with `x-forwarded-`.
    pub const FORWARDED: Self = Self(
        Self::FORWARDED_FOR.0
            | Self::FORWARDED_PROTO.0
            | Self::FORWARDED_CLIENT_CERT.0
            | OTHER_FORWARDED.0,
    );
    /// `x-envoy-force-trace`
    pub const FORCE_TRACE: Self = Self(1 << 13);
    /// `x-envoy-decorator-operation`
    pub const DECORATOR: Self = Self(1 << 14);
    /// `x-envoy-immediate-health-check-fail`
    pub const IMMEDIATE_FAIL: Self = Self(1 << 20);
    /// `x-envoy-expected-rq-timeout-ms`, which each sidecar tells the next.
    pub const EXPECTED_TIMEOUT: Self = Self(1 << 21);
    /// One that begins with `x-envoy-`, but for that.
    pub const ENVOY_BESIDE: Self =
        Self(Self::FORCE_TRACE.0 | Self::DECORATOR.0 | Self::IMMEDIATE_FAIL.0 | OTHER_ENVOY.0);
    /// One that begins with `x-envoy-`.
    pub const ENVOY: Self = Self(Self::EXPECTED_TIMEOUT.0 | Self::ENVOY_BESIDE.0);
    /// One that begins with `x-pillion-`.
    pub const PILLION: Self = Self(1 << 15);
    /// `x-request-id`
    pub const REQUEST_ID: Self = Self(1 << 16);
    /// `x-client-trace-id`
    pub const CLIENT_TRACE_ID: Self = Self(1 << 17);
    /// `tracestate`
    pub const TRACE_STATE: Self = Self(1 << 18);
    /// The context of a trace: W3C's headers or B3's.
    pub const TRACE: Self = Self(Self::TRACE_STATE.0 | OTHER_TRACE.0);
    /// One that begins with `grpc-`.
    pub const GRPC: Self = Self(1 << 19);
    /// All that is for one hop only.
    pub const HOP_BY_HOP: Self = Self(
        Self::CONNECTION.0 | Self::UPGRADE.0 | Self::TE.0 | Self::KEEP_ALIVE.0 | Self::FRAMING.0,
    );

    /// What these headers have.
    pub fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |all, name| all | of_name(name.as_str()))
    }

    /// Whether one of these may be there.
    pub fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
}

impl BitOr for Presence {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// By the first letter: most names are none of these.
fn of_name(name: &str) -> Presence {
    match (name.as_bytes().first(), name) {
        (Some(b'x'), _) => of_custom(name.strip_prefix("x-").unwrap_or_default()),
        (Some(b'c'), "connection") => Presence::CONNECTION,
        (Some(b'c'), "content-type") => Presence::CONTENT_TYPE,
        (Some(b't'), "te") => Presence::TE,
        (Some(b't'), "transfer-encoding") => Presence::FRAMING,
        (Some(b't'), "tracestate") => Presence::TRACE_STATE,
        (Some(b't'), "traceparent") | (Some(b'b'), "b3") => OTHER_TRACE,
        (Some(b'u'), "upgrade") => Presence::UPGRADE,
        (Some(b'k'), "keep-alive") => Presence::KEEP_ALIVE,
        (Some(b'p'), "proxy-connection") => Presence::FRAMING,
        (Some(b'e'), "expect") => Presence::EXPECT,
        (Some(b'g'), _) if name.starts_with("grpc-") => Presence::GRPC,
        _ => Presence::default(),
    }
}

/// By what follows `x-`.
fn of_custom(name: &str) -> Presence {
    match name.as_bytes() {
        [b'e', b'n', b'v', b'o', b'y', b'-', rest @ ..] => match rest {
            b"force-trace" => Presence::FORCE_TRACE,
            b"decorator-operation" => Presence::DECORATOR,
            b"immediate-health-check-fail" => Presence::IMMEDIATE_FAIL,
            b"expected-rq-timeout-ms" => Presence::EXPECTED_TIMEOUT,
            _ => OTHER_ENVOY,
        },
        [b'f', b'o', b'r', b'w', b'a', b'r', b'd', b'e', b'd', b'-', rest @ ..] => match rest {
            b"for" => Presence::FORWARDED_FOR,
            b"proto" => Presence::FORWARDED_PROTO,
            b"client-cert" => Presence::FORWARDED_CLIENT_CERT,
            _ => OTHER_FORWARDED,
        },
        [b'p', ..] if name.starts_with("pillion-") => Presence::PILLION,
        [b'r', ..] if name == "request-id" => Presence::REQUEST_ID,
        [b'c', ..] if name == "client-trace-id" => Presence::CLIENT_TRACE_ID,
        [b'b', b'3', b'-', ..] => OTHER_TRACE,
        _ => Presence::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_header_is_found_and_nothing_else() {
        let table = [
            ("connection", Presence::CONNECTION),
            ("upgrade", Presence::UPGRADE),
            ("te", Presence::TE),
            ("keep-alive", Presence::KEEP_ALIVE),
            ("proxy-connection", Presence::FRAMING),
            ("transfer-encoding", Presence::FRAMING),
            ("expect", Presence::EXPECT),
            ("content-type", Presence::CONTENT_TYPE),
            ("x-forwarded-for", Presence::FORWARDED_FOR),
            ("x-forwarded-proto", Presence::FORWARDED_PROTO),
            ("x-forwarded-client-cert", Presence::FORWARDED_CLIENT_CERT),
            ("x-forwarded-host", OTHER_FORWARDED),
            ("x-envoy-force-trace", Presence::FORCE_TRACE),
            ("x-envoy-decorator-operation", Presence::DECORATOR),
            ("x-envoy-immediate-health-check-fail", Presence::IMMEDIATE_FAIL),
            ("x-envoy-expected-rq-timeout-ms", Presence::EXPECTED_TIMEOUT),
            ("x-envoy-retry-on", OTHER_ENVOY),
            ("x-pillion-retriable", Presence::PILLION),
            ("x-request-id", Presence::REQUEST_ID),
            ("x-client-trace-id", Presence::CLIENT_TRACE_ID),
            ("traceparent", OTHER_TRACE),
            ("tracestate", Presence::TRACE_STATE),
            ("b3", OTHER_TRACE),
            ("x-b3-traceid", OTHER_TRACE),
            ("grpc-status", Presence::GRPC),
            ("x", Presence::default()),
            ("x-", Presence::default()),
            ("x-forwarded", Presence::default()),
            ("x-request-ids", Presence::default()),
            ("content-length", Presence::default()),
            ("host", Presence::default()),
            ("x-envoys", Presence::default()),
        ];
        let mut all = HeaderMap::new();
        let mut union = Presence::default();
        for (name, expected) in table {
            let name = http::HeaderName::from_static(name);
            let value = http::HeaderValue::from_static("1");
            let one = HeaderMap::from_iter([(name.clone(), value.clone())]);
            assert_eq!(Presence::of(&one), expected, "{name}");
            all.insert(name, value);
            union = union | expected;
        }
        assert_eq!(Presence::of(&all), union);
        for (part, whole) in [
            (Presence::FORWARDED_FOR, Presence::FORWARDED),
            (OTHER_FORWARDED, Presence::FORWARDED),
            (Presence::DECORATOR, Presence::ENVOY),
            (OTHER_ENVOY, Presence::ENVOY),
            (Presence::TRACE_STATE, Presence::TRACE),
            (OTHER_TRACE, Presence::TRACE),
        ] {
            assert!(whole.has(part));
        }
        assert!(union.has(Presence::EXPECT | Presence::TE));
        assert!(!Presence::EXPECT.has(Presence::TE));
    }
}
