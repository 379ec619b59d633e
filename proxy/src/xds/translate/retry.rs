//! `RetryPolicy`

use std::time::Duration;

use pillion_xds::envoy::config::route::v3 as pb;
use pillion_xds::envoy::extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use pillion_xds::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use super::at::At;
use super::{common, headers, matcher};
use crate::model::metadata::LB;
use crate::model::retry::{OmitHosts, RateLimited, ResetFormat, RetryOn, RetryPolicy};

/// Envoy's default for `RetryBackOff.base_interval`.
const BASE_INTERVAL: Duration = Duration::from_millis(25);

/// Envoy's default for `RateLimitedRetryBackOff.max_interval`.
const LONGEST_RESET: Duration = Duration::from_secs(300);

/// `RetryPolicy`
pub(super) fn policy(at: &At<'_>, policy: &pb::RetryPolicy) -> Option<RetryPolicy> {
    let mut on = RetryOn::default();
    for name in policy.retry_on.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let known = on.enable(name);
        at.field("retry_on").expect(known, format!("`{name}` is not supported"))?;
    }
    let (base_interval, max_interval) = back_off(at, policy)?;
    let (avoid_previous_hosts, omit) = host_predicates(at, policy)?;
    let codes_at = at.field("retriable_status_codes");
    Some(RetryPolicy {
        on,
        num_retries: policy.num_retries.unwrap_or(1),
        per_try_timeout: at.field("per_try_timeout").limit(policy.per_try_timeout, None),
        per_try_idle_timeout: at
            .field("per_try_idle_timeout")
            .limit(policy.per_try_idle_timeout, None),
        status_codes: codes_at.each(&policy.retriable_status_codes, |at, code| {
            u16::try_from(*code).ok().or_else(|| at.refuse(format!("{code} is no status")))
        }),
        headers: at.field("retriable_headers").each(&policy.retriable_headers, matcher::header),
        request_headers: at
            .field("retriable_request_headers")
            .each(&policy.retriable_request_headers, matcher::header),
        avoid_previous_hosts,
        omit,
        leave_priorities_after: retry_priority(at, policy)?,
        rate_limited: match &policy.rate_limited_retry_back_off {
            Some(back_off) => {
                Some(rate_limited(&at.field("rate_limited_retry_back_off"), back_off)?)
            }
            None => None,
        },
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

/// Whether endpoints that were tried are avoided, and which others.
fn host_predicates(at: &At<'_>, policy: &pb::RetryPolicy) -> Option<(bool, OmitHosts)> {
    use pb::retry_policy::retry_host_predicate::ConfigType;
    let (mut avoid, mut omit) = (false, OmitHosts::default());
    let list = at.field("retry_host_predicate");
    for (i, predicate) in policy.retry_host_predicate.iter().enumerate() {
        let at = list.index(i);
        let at = at.field("typed_config");
        let typed = predicate.config_type.as_ref();
        let packed = typed.map(|ConfigType::TypedConfig(packed)| packed);
        match packed.map_or(predicate.name.as_str(), |packed| common::type_of(packed)) {
            "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            | "envoy.retry_host_predicates.previous_hosts" => avoid = true,
            "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"
            | "envoy.retry_host_predicates.omit_canary_hosts" => omit.canaries = true,
            "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig" => {
                let config: OmitHostMetadataConfig = common::unpack(&at, packed?)?;
                let wanted = config.metadata_match.as_ref().map(common::metadata);
                let wanted = wanted.and_then(|mut wanted| wanted.remove(LB));
                omit.with.extend(wanted.filter(|fields| !fields.is_empty()));
            }
            other => return at.refuse(format!("`{other}` is not supported")),
        }
    }
    Some((avoid, omit))
}

#[expect(clippy::option_option, reason = "refused, none and some are three things")]
fn retry_priority(at: &At<'_>, policy: &pb::RetryPolicy) -> Option<Option<u32>> {
    use pb::retry_policy::retry_priority::ConfigType;
    let Some(priority) = &policy.retry_priority else { return Some(None) };
    let at = at.field("retry_priority");
    let at = at.field("typed_config");
    let Some(ConfigType::TypedConfig(packed)) = &priority.config_type else {
        return at.refuse("is missing");
    };
    let kind = common::type_of(packed);
    let known = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";
    at.expect(kind == known, format!("`{kind}` is not supported"))?;
    let config: PreviousPrioritiesConfig = common::unpack(&at, packed)?;
    let every = u32::try_from(config.update_frequency).ok().filter(|every| *every > 0);
    every.map_or_else(
        || at.field("update_frequency").refuse("must be greater than 0"),
        |every| Some(Some(every)),
    )
}

fn rate_limited(
    at: &At<'_>,
    back_off: &pb::retry_policy::RateLimitedRetryBackOff,
) -> Option<RateLimited> {
    use pb::retry_policy::ResetHeaderFormat as Format;
    let headers_at = at.field("reset_headers");
    headers_at.expect(!back_off.reset_headers.is_empty(), "expected at least one header")?;
    let headers = headers_at.each(&back_off.reset_headers, |at, header| {
        let format = match header.format() {
            Format::Seconds => ResetFormat::Seconds,
            Format::UnixTimestamp => ResetFormat::UnixTimestamp,
        };
        Some((headers::name_of(&at.field("name"), &header.name)?, format))
    });
    let max_interval = at.field("max_interval").duration(back_off.max_interval);
    Some(RateLimited { headers, max_interval: max_interval.unwrap_or(LONGEST_RESET) })
}

/// `HedgePolicy`. What Envoy does not implement is refused by its mark.
pub(super) fn hedges(policy: Option<&pb::HedgePolicy>) -> Option<bool> {
    policy.map(|policy| policy.hedge_on_per_try_timeout)
}
