//! When a request is tried again, and after how long (Envoy: router filter, `RetryPolicy`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, StatusCode};

use crate::model::matcher::RequestView;
use crate::model::names;
use crate::model::retry::{RateLimited, ResetFormat};
use crate::model::route::{RetryOn, RetryPolicy};
use crate::telemetry::reason::{Reason, Refusal, Sent};

/// Back-off where the policy says nothing.
const BASE_INTERVAL: Duration = Duration::from_millis(25);

/// How a try ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// With response headers.
    Response(StatusCode, &'a HeaderMap),
    /// Without.
    Failure(&'a Refusal),
}

/// The retry policy of one exchange.
#[derive(Clone, Debug)]
pub struct Retries<'a> {
    policy: Option<&'a RetryPolicy>,
    on: RetryOn,
    left: u32,
    done: u32,
    /// Codes that the request itself names, beside those of the policy.
    codes: Vec<u16>,
    /// Response headers that it names.
    headers: Vec<HeaderName>,
}

/// How long to wait before a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// By the policy: longer with every retry.
    BackOff(Duration),
    /// As long as the endpoint asked for, and up to a half of that more.
    AsAsked(Duration),
}

impl Wait {
    /// The time itself.
    pub fn time(self) -> Duration {
        match self {
            Self::BackOff(time) | Self::AsAsked(time) => time,
        }
    }
}

/// Headers that ask for retries.
const ASKING: [HeaderName; 2] = [names::X_ENVOY_RETRY_ON, names::X_ENVOY_RETRY_GRPC_ON];

impl<'a> Retries<'a> {
    /// What the route allows, with what the client's `x-envoy-retry-on`,
    /// `x-envoy-retry-grpc-on` and `x-envoy-max-retries` add (`asked`: [`names::envoy`] of its headers).
    pub fn new(
        policy: Option<&'a RetryPolicy>,
        request: &RequestView<'_>,
        asked: &HeaderMap,
    ) -> Self {
        let mut on = policy.map(|policy| policy.on).unwrap_or_default();
        let mut left = policy.map_or(1, |policy| policy.num_retries);
        for name in ASKING.iter().filter(|_| !asked.is_empty()) {
            if let Some(text) = asked.get(name).and_then(|value| value.to_str().ok()) {
                for condition in text.split(',') {
                    on.enable(condition.trim());
                }
            }
        }
        let most = asked.get(names::X_ENVOY_MAX_RETRIES).and_then(|v| v.to_str().ok());
        if let Some(most) = most.and_then(|text| text.parse().ok()) {
            left = most;
        }
        let wanted = policy.is_none_or(|policy| {
            policy.request_headers.is_empty()
                || policy.request_headers.iter().any(|header| header.matches(request))
        });
        if !wanted || on == RetryOn::default() {
            left = 0;
        }
        let codes = match left > 0 && on.retriable_status_codes {
            true => listed(asked, names::X_ENVOY_RETRIABLE_STATUS_CODES),
            false => Vec::new(),
        };
        let headers = match left > 0 && on.retriable_headers {
            true => listed(asked, names::X_ENVOY_RETRIABLE_HEADER_NAMES),
            false => Vec::new(),
        };
        Self { policy, on, left, done: 0, codes, headers }
    }

    /// Whether any try may ever be repeated: only then is the request kept.
    pub fn possible(&self) -> bool {
        self.left > 0
    }

    /// Whether retries have been used up: what `URX` says.
    pub fn exhausted(&self) -> bool {
        self.left == 0 && self.done > 0
    }

    /// Whether the policy asks for another try after this outcome.
    pub fn wants(&self, outcome: &Outcome<'_>) -> bool {
        match outcome {
            Outcome::Response(status, headers) => self.wants_response(*status, headers),
            Outcome::Failure(refusal) => self.wants_failure(refusal),
        }
    }

    /// Use one retry; the time to wait before it, from a random number. `asked`: what the endpoint
    /// asked for ([`Self::asked`]). None: none is left.
    ///
    /// Full jitter: anything below `base * 2^n`, at most the maximum.
    pub fn take(&mut self, random: u64, asked: Option<Duration>) -> Option<Wait> {
        self.left = self.left.checked_sub(1)?;
        if let Some(asked) = asked {
            self.done += 1;
            return Some(Wait::AsAsked(asked + below(asked / 2, random)));
        }
        let base = self.policy.map(|p| p.base_interval).filter(|base| !base.is_zero());
        let base = base.unwrap_or(BASE_INTERVAL);
        let max = self.policy.map(|p| p.max_interval).filter(|max| !max.is_zero());
        let ceiling = base.saturating_mul(1 << self.done.min(16)).min(max.unwrap_or(base * 10));
        self.done += 1;
        Some(Wait::BackOff(below(ceiling, random)))
    }

    /// How long the endpoint asks to be left alone, if the policy listens to that
    /// (`rate_limited_retry_back_off`).
    pub fn asked(&self, outcome: &Outcome<'_>, now: SystemTime) -> Option<Duration> {
        let Outcome::Response(_, headers) = outcome else { return None };
        let RateLimited { headers: names, max_interval } = self.policy?.rate_limited.as_ref()?;
        let read = |(name, format): &(HeaderName, ResetFormat)| {
            let number: u64 = headers.get(name)?.to_str().ok()?.parse().ok()?;
            let interval = match format {
                ResetFormat::Seconds => Duration::from_secs(number),
                ResetFormat::UnixTimestamp => {
                    let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
                    Duration::from_secs(number.checked_sub(now).filter(|left| *left > 0)?)
                }
            };
            (interval <= *max_interval).then_some(interval)
        };
        names.iter().find_map(read)
    }

    fn wants_response(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let on = &self.on;
        let code = status.as_u16();
        let listed = || {
            self.policy.is_some_and(|policy| policy.status_codes.contains(&code))
                || self.codes.contains(&code)
        };
        let headers_match = || {
            let wanted = self.policy.map(|policy| policy.headers.as_slice()).unwrap_or_default();
            wanted.iter().any(|header| header.matches_headers(headers))
                || self.headers.iter().any(|name| headers.contains_key(name))
        };
        let wanted = (on.server_error && status.is_server_error())
            || (on.gateway_error && matches!(code, 502..=504))
            || (on.retriable_4xx && status == StatusCode::CONFLICT)
            || (on.retriable_status_codes && listed())
            || (on.retriable_headers && headers_match())
            || self.wants_grpc(headers);
        // A limit that was hit decides alone; where it cannot change anything it is not looked for.
        if wanted != on.rate_limited && headers.contains_key(names::X_ENVOY_RATELIMITED) {
            return on.rate_limited;
        }
        wanted
    }

    /// Only a trailers-only answer has its status in the headers; later is too late to retry.
    fn wants_grpc(&self, headers: &HeaderMap) -> bool {
        let on = &self.on;
        let any = on.grpc_cancelled
            || on.grpc_deadline_exceeded
            || on.grpc_resource_exhausted
            || on.grpc_internal
            || on.grpc_unavailable;
        let status = if any { headers.get(names::GRPC_STATUS) } else { None };
        let Some(status) = status else { return false };
        match status.as_bytes() {
            b"1" => self.on.grpc_cancelled,
            b"4" => self.on.grpc_deadline_exceeded,
            b"8" => self.on.grpc_resource_exhausted,
            b"13" => self.on.grpc_internal,
            b"14" => self.on.grpc_unavailable,
            _ => false,
        }
    }

    fn wants_failure(&self, refusal: &Refusal) -> bool {
        let on = &self.on;
        match refusal.reason {
            Reason::ConnectFailure | Reason::ConnectTimeout | Reason::TlsFailure => {
                on.connect_failure
                    || on.reset_before_request
                    || on.server_error
                    || on.gateway_error
                    || on.reset
                    || on.grpc_unavailable
            }
            Reason::RefusedStream => {
                on.refused_stream || on.server_error || on.gateway_error || on.reset
            }
            Reason::ConnectionTermination
            | Reason::RemoteReset
            | Reason::UpstreamProtocolError
            | Reason::PerTryTimeout
            | Reason::PerTryIdleTimeout => {
                on.server_error
                    || on.gateway_error
                    || on.reset
                    || (on.reset_before_request && refusal.sent == Sent::No)
            }
            // A limit, a policy or the client itself ended it: another try would only add load.
            _ => false,
        }
    }
}

/// Anything below, by a random number.
fn below(ceiling: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(random % nanos)
}

/// A header with a list; what cannot be read is left out.
fn listed<T: std::str::FromStr>(headers: &HeaderMap, name: HeaderName) -> Vec<T> {
    let text = headers.get(name).and_then(|value| value.to_str().ok());
    text.map(|text| text.split(',').filter_map(|one| one.trim().parse().ok()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
