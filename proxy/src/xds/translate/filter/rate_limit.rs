//! `local_ratelimit.v3.LocalRateLimit`

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use pillion_xds::envoy::extensions::common::ratelimit::v3 as common_pb;
use pillion_xds::envoy::extensions::filters::http::local_ratelimit::v3 as pb;
use pillion_xds::envoy::r#type::v3 as kinds;
use prost_types::Any;

use super::super::at::At;
use super::super::{common, headers};
use super::describe;
use crate::model::Name;
use crate::model::filter::FilterKind;
use crate::model::kept::Kept;
use crate::model::rate_limit::{Buckets, Limited, LocalRateLimit, Rate, TokenBucket};

/// Envoy's own floor of `fill_interval`.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);
/// Envoy's default of `max_dynamic_descriptors`.
const OPEN_VALUES: u32 = 20;

pub(super) fn filter(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::LocalRateLimit = common::unpack(at, packed)?;
    at.field("stat_prefix").expect(!config.stat_prefix.is_empty(), "is empty")?;
    let share = |share: Option<&_>| share.map_or(0, common::runtime_fraction);
    let most = config.max_dynamic_descriptors.unwrap_or(OPEN_VALUES).max(1) as usize;
    let limited_at = at.field("descriptors");
    let limits_at = at.field("rate_limits");
    let made = LocalRateLimit {
        stat_prefix: config.stat_prefix.as_str().into(),
        status: status(&at.field("status"), config.status.as_ref())?,
        resource_exhausted: config.rate_limited_as_resource_exhausted,
        bucket: match &config.token_bucket {
            Some(bucket) => Some(TokenBucket::new(rate(&at.field("token_bucket"), bucket)?)),
            None => None,
        },
        always_take_default: config.always_consume_default_token_bucket != Some(false),
        descriptors: limited_at.each(&config.descriptors, |at, item| limited(at, item, most)),
        describe: limits_at.each(&config.rate_limits, describe::rule),
        stage: config.stage,
        host: describe::host_limits(config.vh_rate_limits() as i32),
        per_connection: config.local_rate_limit_per_downstream_connection,
        enabled: share(config.filter_enabled.as_ref()),
        enforced: share(config.filter_enforced.as_ref()),
        response_headers: headers::ops(
            at,
            ("response_headers_to_add", &config.response_headers_to_add),
            ("", &[]),
        ),
        request_headers: headers::ops(
            at,
            (
                "request_headers_to_add_when_not_enforced",
                &config.request_headers_to_add_when_not_enforced,
            ),
            ("", &[]),
        ),
        headers: config.enable_x_ratelimit_headers()
            == common_pb::XRateLimitHeadersRfcVersion::DraftVersion03,
        kept: Kept::default(),
    };
    Some(FilterKind::LocalRateLimit(Arc::new(made)))
}

/// Only 4xx and 5xx refuse; anything less becomes 429, as in Envoy.
pub(super) fn status(at: &At<'_>, status: Option<&kinds::HttpStatus>) -> Option<StatusCode> {
    let Some(status) = status else { return Some(StatusCode::TOO_MANY_REQUESTS) };
    let code = u16::try_from(status.code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    match code {
        Some(code) if code.as_u16() >= 400 => Some(code),
        Some(_) => Some(StatusCode::TOO_MANY_REQUESTS),
        None => at.field("code").refuse("is no status of HTTP"),
    }
}

pub(in super::super) fn rate(at: &At<'_>, bucket: &kinds::TokenBucket) -> Option<Rate> {
    at.field("max_tokens").expect(bucket.max_tokens > 0, "expected at least 1")?;
    let per_fill = bucket.tokens_per_fill.unwrap_or(1);
    at.field("tokens_per_fill").expect(per_fill > 0, "expected at least 1")?;
    let at = at.field("fill_interval");
    let interval = at.required(at.duration(bucket.fill_interval))?;
    at.expect(interval >= SHORTEST_INTERVAL, "expected 50ms or more")?;
    Some(Rate::new(bucket.max_tokens, per_fill, interval))
}

fn limited(
    at: &At<'_>,
    descriptor: &common_pb::LocalRateLimitDescriptor,
    most: usize,
) -> Option<Limited> {
    at.field("entries").expect(!descriptor.entries.is_empty(), "expected at least one")?;
    let bucket_at = at.field("token_bucket");
    let rate = rate(&bucket_at, bucket_at.required(descriptor.token_bucket.as_ref())?)?;
    let entries: Vec<(Name, Name)> = descriptor
        .entries
        .iter()
        .map(|entry| (entry.key.as_str().into(), entry.value.as_str().into()))
        .collect();
    let buckets = if entries.iter().any(|(_, value)| value.is_empty()) {
        Buckets::Each(Mutex::default(), most)
    } else {
        Buckets::One(TokenBucket::new(rate))
    };
    Some(Limited { entries, rate, buckets })
}
