//! How long an exchange and each of its tries may take.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::model::names;
use crate::model::route::{Forward, RetryPolicy};

/// Deadlines of one exchange. None: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request to the end of the response.
    pub global: Option<Duration>,
    /// Each try, up to its response headers.
    pub per_try: Option<Duration>,
    /// Each try without a byte either way, up to the end of its response.
    pub per_try_idle: Option<Duration>,
    /// The whole stream, from its first byte.
    pub max_stream: Option<Duration>,
}

/// The route's timeouts, with what the client's `x-envoy-upstream-rq-*` and `grpc-timeout`
/// headers change (Envoy: router filter, "HTTP headers (consumed)"). `envoys`: [`names::envoy`] of the headers.
pub fn timeouts(
    route: &Forward,
    retry: Option<&RetryPolicy>,
    headers: &HeaderMap,
    envoys: &HeaderMap,
) -> Timeouts {
    let mut global = route.timeout;
    if let Some(asked) = header_millis(envoys, names::X_ENVOY_TIMEOUT) {
        global = (!asked.is_zero()).then_some(asked);
    }
    let mut max_stream = route.max_stream_duration;
    let listens = route.max_grpc_timeout.is_some() || route.grpc_timeout_header_max.is_some();
    let asked = if listens { headers.get(names::GRPC_TIMEOUT) } else { None };
    let asked = asked.and_then(|value| value.to_str().ok());
    let asked = asked.and_then(parse_grpc_timeout).map(|asked| {
        // An offset that leaves nothing is none.
        asked.checked_sub(route.grpc_timeout_offset).filter(|left| !left.is_zero()).unwrap_or(asked)
    });
    if let Some(limit) = route.max_grpc_timeout
        && is_grpc(headers)
    {
        let bounded = asked.map(|asked| if limit.is_zero() { asked } else { asked.min(limit) });
        global = bounded.or(Some(limit)).filter(|limit| !limit.is_zero());
    }
    if let Some(limit) = route.grpc_timeout_header_max
        && let Some(asked) = asked
    {
        max_stream = Some(if limit.is_zero() { asked } else { asked.min(limit) });
    }
    let per_try = header_millis(envoys, names::X_ENVOY_PER_TRY_TIMEOUT)
        .or_else(|| retry.and_then(|retry| retry.per_try_timeout));
    // A try that may take longer than the whole is no limit.
    let per_try = per_try.filter(|t| !t.is_zero() && global.is_none_or(|whole| *t < whole));
    Timeouts {
        global,
        per_try,
        per_try_idle: retry.and_then(|retry| retry.per_try_idle_timeout),
        max_stream: max_stream.filter(|limit| !limit.is_zero()),
    }
}

/// `application/grpc`, and what begins so.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

fn header_millis(headers: &HeaderMap, name: HeaderName) -> Option<Duration> {
    headers.get(name)?.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

/// `TimeoutValue TimeoutUnit` of the gRPC protocol: at most 8 digits and one of `HMSmun`.
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_parsed_by_the_letter() {
        assert_eq!(parse_grpc_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_grpc_timeout("2H"), Some(Duration::from_secs(7200)));
        for bad in ["", "m", "123456789S", "5x", "-1S", "1.5S"] {
            assert_eq!(parse_grpc_timeout(bad), None, "{bad}");
        }
    }
}
