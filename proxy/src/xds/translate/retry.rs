//! `RetryPolicy`

use std::time::Duration;

use pillion_xds::envoy::config::route::v3 as pb;

use super::at::At;
use super::{common, matcher};
use crate::model::route::{RetryOn, RetryPolicy};

/// Envoy's default for `RetryBackOff.base_interval`.
const BASE_INTERVAL: Duration = Duration::from_millis(25);

/// `RetryPolicy`
pub(super) fn policy(at: &At<'_>, policy: &pb::RetryPolicy) -> Option<RetryPolicy> {
    let mut on = RetryOn::default();
    for name in policy.retry_on.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let known = on.enable(name);
        at.field("retry_on").expect(known, format!("`{name}` is not supported"))?;
    }
    let (base_interval, max_interval) = back_off(at, policy)?;
    let codes_at = at.field("retriable_status_codes");
    Some(RetryPolicy {
        on,
        num_retries: policy.num_retries.unwrap_or(1),
        per_try_timeout: at.field("per_try_timeout").limit(policy.per_try_timeout, None),
        per_try_idle_timeout: None,
        status_codes: codes_at.each(&policy.retriable_status_codes, |at, code| {
            u16::try_from(*code).ok().or_else(|| at.refuse(format!("{code} is no status")))
        }),
        headers: at.field("retriable_headers").each(&policy.retriable_headers, matcher::header),
        request_headers: at
            .field("retriable_request_headers")
            .each(&policy.retriable_request_headers, matcher::header),
        avoid_previous_hosts: avoid_previous_hosts(at, policy)?,
        host_selection_attempts: u32::try_from(policy.host_selection_retry_max_attempts)
            .unwrap_or(0)
            .max(1),
        base_interval,
        max_interval,
    })
}

fn back_off(at: &At<'_>, policy: &pb::RetryPolicy) -> Option<(Duration, Duration)> {
    let Some(back_off) = &policy.retry_back_off else {
        return Some((BASE_INTERVAL, BASE_INTERVAL * 10));
    };
    let at = at.field("retry_back_off");
    let base = at.field("base_interval").duration(at.required(back_off.base_interval))?;
    at.field("base_interval").expect(!base.is_zero(), "must be greater than 0")?;
    let max = at.field("max_interval").limit(back_off.max_interval, Some(base * 10))?;
    at.field("max_interval").expect(max >= base, "must not be less than base_interval")?;
    Some((base, max))
}

fn avoid_previous_hosts(at: &At<'_>, policy: &pb::RetryPolicy) -> Option<bool> {
    use pb::retry_policy::retry_host_predicate::ConfigType;
    let mut avoid = false;
    for (i, predicate) in policy.retry_host_predicate.iter().enumerate() {
        let list = at.field("retry_host_predicate");
        let at = list.index(i);
        let kind = match &predicate.config_type {
            Some(ConfigType::TypedConfig(packed)) => common::type_of(packed),
            None => predicate.name.as_str(),
        };
        match kind {
            "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            | "envoy.retry_host_predicates.previous_hosts" => avoid = true,
            other => return at.refuse(format!("`{other}` is not supported")),
        }
    }
    Some(avoid)
}
