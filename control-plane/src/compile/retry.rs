//! What is tried again.

use std::time::Duration;

use pillion_xds::any::pack;
use pillion_xds::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use pillion_xds::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, retry_host_predicate,
};
use pillion_xds::envoy::config::route::v3::{HeaderMatcher, RetryPolicy};
use pillion_xds::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;

use super::proto::duration;
use crate::intent::{Retry, RouteRetry};

/// Response header of a sidecar that refused a request which its workload provably never saw.
pub(crate) const RETRIABLE_HEADER: &str = "x-pillion-retriable";

/// Safe for a method that may be repeated.
const ON_SAFE_METHODS: &str = "connect-failure,refused-stream,reset,retriable-headers";
/// Safe for every method: the request was provably not processed.
const ON_ANY_METHOD: &str = "connect-failure,refused-stream,reset-before-request,retriable-headers";
/// What gRPC clients can retry on (gRFC A44).
const GRPC_CONDITIONS: [&str; 5] =
    ["cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"];
const DEFAULT_RETRIES: u32 = 2;

/// What a route says about retries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plan<'a> {
    /// Nothing: the safe default.
    Default,
    /// A policy.
    Policy(&'a Retry),
    /// The `retry` field of the rule.
    Rule(&'a RouteRetry),
}

/// The safe default for methods that may be repeated (RFC 9110, 9.2.1), or for all.
pub(crate) fn safe(repeatable: bool, per_try_timeout: Option<Duration>) -> RetryPolicy {
    let on = if repeatable { ON_SAFE_METHODS } else { ON_ANY_METHOD };
    policy(on.to_owned(), DEFAULT_RETRIES, per_try_timeout)
}

/// What a policy or rule asks for.
pub(crate) fn explicit(plan: Plan<'_>, per_try_timeout: Option<Duration>) -> RetryPolicy {
    let (mut on, codes, attempts, backoff) = match plan {
        Plan::Default => return safe(false, per_try_timeout),
        Plan::Policy(retry) => (retry.on.clone(), &retry.codes, retry.attempts, retry.backoff),
        Plan::Rule(retry) => {
            let on = ON_ANY_METHOD.split(',').map(str::to_owned).collect();
            (on, &retry.codes, retry.attempts, retry.backoff)
        }
    };
    if attempts == 0 {
        // A policy without conditions retries nothing, and still carries the limit of the one try.
        return RetryPolicy {
            num_retries: Some(0),
            per_try_timeout: per_try_timeout.map(duration),
            ..RetryPolicy::default()
        };
    }
    let mut also = |condition: &str| {
        if !on.iter().any(|known| known == condition) {
            on.push(condition.to_owned());
        }
    };
    also("retriable-headers");
    if !codes.is_empty() {
        also("retriable-status-codes");
    }
    RetryPolicy {
        retriable_status_codes: codes.clone(),
        retry_back_off: backoff.map(|base| RetryBackOff {
            base_interval: Some(duration(base)),
            max_interval: Some(duration(base * 10)),
        }),
        ..policy(on.join(","), attempts, per_try_timeout)
    }
}

/// What a gRPC client can do of it; `None` if nothing (it still repeats by itself what was not sent).
pub(crate) fn for_grpc(plan: Plan<'_>) -> Option<RetryPolicy> {
    let Plan::Policy(retry) = plan else { return None };
    let known = retry.on.iter().filter(|on| GRPC_CONDITIONS.contains(&on.as_str()));
    let on: Vec<&str> = known.map(String::as_str).collect();
    (retry.attempts > 0 && !on.is_empty()).then(|| RetryPolicy {
        retry_on: on.join(","),
        num_retries: Some(retry.attempts),
        ..RetryPolicy::default()
    })
}

/// On the way from a sidecar to its own workload: a connection that the workload had closed already.
pub(crate) fn to_own_workload() -> RetryPolicy {
    RetryPolicy {
        retry_on: "reset-before-request".to_owned(),
        num_retries: Some(1),
        ..RetryPolicy::default()
    }
}

fn policy(retry_on: String, retries: u32, per_try_timeout: Option<Duration>) -> RetryPolicy {
    RetryPolicy {
        retry_on,
        num_retries: Some(retries),
        per_try_timeout: per_try_timeout.map(duration),
        // The next try goes elsewhere, if there is an elsewhere. Of two endpoints, the one that failed has nothing to do and
        // is drawn three times of four by least request: ten draws missed the other one now and then.
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack(
                &PreviousHostsPredicate::default(),
            ))),
        }],
        host_selection_retry_max_attempts: 40,
        retriable_headers: vec![HeaderMatcher {
            name: RETRIABLE_HEADER.to_owned(),
            header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
            ..HeaderMatcher::default()
        }],
        ..RetryPolicy::default()
    }
}
