//! Retries (`envoy.config.route.v3.RetryPolicy`, `HedgePolicy`).

use std::time::Duration;

use http::HeaderName;

use super::matcher::HeaderMatcher;
use super::metadata::{Fields, LB, Metadata, Value};

/// `RetryPolicy`
#[derive(Clone, Debug, Default)]
pub struct RetryPolicy {
    /// When.
    pub on: RetryOn,
    /// How often at most. Default 1.
    pub num_retries: u32,
    /// Each try. None: only the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// Each try, without a byte.
    pub per_try_idle_timeout: Option<Duration>,
    /// With `retriable-status-codes`.
    pub status_codes: Vec<u16>,
    /// With `retriable-headers`: any of these in the response.
    pub headers: Vec<HeaderMatcher>,
    /// Only requests that match one of these may be retried. Empty: all.
    pub request_headers: Vec<HeaderMatcher>,
    /// Do not try an endpoint twice (`previous_hosts`).
    pub avoid_previous_hosts: bool,
    /// Nor these, if others can be found.
    pub omit: OmitHosts,
    /// How often a pick may be thrown away for that. Default 1.
    pub host_selection_attempts: u32,
    /// After so many tries, and again after as many more, the priorities that were tried are left
    /// out (`previous_priorities`). None: never.
    pub leave_priorities_after: Option<u32>,
    /// What an endpoint says about when to come again.
    pub rate_limited: Option<RateLimited>,
    /// First back-off. Default 25 ms; it doubles with full jitter.
    pub base_interval: Duration,
    /// Longest back-off. Default 10 times the first.
    pub max_interval: Duration,
}

/// `retry_on`, as flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// Any 5xx answer, and everything below that `gateway_error`, `connect_failure`,
    /// `refused_stream` and `reset` say.
    pub server_error: bool,
    /// 502, 503, 504.
    pub gateway_error: bool,
    /// The connection was not made.
    pub connect_failure: bool,
    /// The stream was refused (`REFUSED_STREAM`).
    pub refused_stream: bool,
    /// No answer: disconnect, reset, per-try timeout.
    pub reset: bool,
    /// No answer, and not a byte of the request was sent.
    pub reset_before_request: bool,
    /// 409.
    pub retriable_4xx: bool,
    /// [`RetryPolicy::status_codes`].
    pub retriable_status_codes: bool,
    /// [`RetryPolicy::headers`].
    pub retriable_headers: bool,
    /// `x-envoy-ratelimited` in the response; without this such a response is never retried.
    pub rate_limited: bool,
    /// `grpc-status` 1.
    pub grpc_cancelled: bool,
    /// `grpc-status` 4.
    pub grpc_deadline_exceeded: bool,
    /// `grpc-status` 13.
    pub grpc_internal: bool,
    /// `grpc-status` 8.
    pub grpc_resource_exhausted: bool,
    /// `grpc-status` 14.
    pub grpc_unavailable: bool,
}

impl RetryOn {
    /// Turn on the condition of this name, as written in `retry_on`, `x-envoy-retry-on` and
    /// `x-envoy-retry-grpc-on`. False: there is none of that name.
    pub fn enable(&mut self, name: &str) -> bool {
        let flag = match name {
            "5xx" => &mut self.server_error,
            "gateway-error" => &mut self.gateway_error,
            "connect-failure" => &mut self.connect_failure,
            "refused-stream" => &mut self.refused_stream,
            "reset" => &mut self.reset,
            "reset-before-request" => &mut self.reset_before_request,
            "retriable-4xx" => &mut self.retriable_4xx,
            "retriable-status-codes" => &mut self.retriable_status_codes,
            "retriable-headers" => &mut self.retriable_headers,
            "envoy-ratelimited" => &mut self.rate_limited,
            "cancelled" => &mut self.grpc_cancelled,
            "deadline-exceeded" => &mut self.grpc_deadline_exceeded,
            "internal" => &mut self.grpc_internal,
            "resource-exhausted" => &mut self.grpc_resource_exhausted,
            "unavailable" => &mut self.grpc_unavailable,
            _ => return false,
        };
        *flag = true;
        true
    }
}

/// Endpoints that a retry is not sent to (`omit_canary_hosts`, `omit_host_metadata`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OmitHosts {
    /// Those with `canary: true`.
    pub canaries: bool,
    /// Those that have all fields of any of these.
    pub with: Vec<Fields>,
}

impl OmitHosts {
    /// No endpoint is left out.
    pub fn is_empty(&self) -> bool {
        !self.canaries && self.with.is_empty()
    }

    /// Whether an endpoint with this metadata is left out.
    pub fn omits(&self, metadata: &Metadata) -> bool {
        let Some(found) = metadata.get(LB) else { return false };
        let canary = || matches!(found.get("canary"), Some(Value::Bool(true)));
        (self.canaries && canary()) || self.with.iter().any(|wanted| has_all(found, wanted))
    }
}

/// A list has what any of its items is.
fn has_all(found: &Fields, wanted: &Fields) -> bool {
    wanted.iter().all(|(name, value)| match found.get(name) {
        Some(Value::List(several)) => several.contains(value),
        Some(one) => one == value,
        None => false,
    })
}

/// `RateLimitedRetryBackOff`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// Response headers that say when; the first that can be read counts.
    pub headers: Vec<(HeaderName, ResetFormat)>,
    /// A longer time is not waited for: the header does not count. Default 300 s.
    pub max_interval: Duration,
}

/// `ResetHeaderFormat`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetFormat {
    /// In so many seconds.
    Seconds,
    /// At that second since 1970.
    UnixTimestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(fields: &[(&str, Value)]) -> Metadata {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Metadata::from([(LB.to_owned(), fields.collect())])
    }

    #[test]
    fn canaries_and_endpoints_with_the_named_metadata_are_left_out() {
        let old = Value::Text("old".into());
        let host = metadata(&[("canary", Value::Bool(true)), ("stage", old.clone())]);
        let canaries = OmitHosts { canaries: true, with: Vec::new() };
        assert!(canaries.omits(&host));
        assert!(!canaries.omits(&metadata(&[("stage", old.clone())])));
        let by_stage = |value| OmitHosts {
            canaries: false,
            with: vec![Fields::from([("stage".to_owned(), value)])],
        };
        assert!(by_stage(old.clone()).omits(&host));
        assert!(!by_stage(Value::Text("new".into())).omits(&host));
        let several = metadata(&[("stage", Value::List(vec![Value::Null, old.clone()]))]);
        assert!(by_stage(old).omits(&several));
        assert!(!OmitHosts::default().omits(&host));
    }
}
