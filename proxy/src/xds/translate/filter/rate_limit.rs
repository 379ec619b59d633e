//! `local_ratelimit.v3.LocalRateLimit`

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use pillion_xds::envoy::config::route::v3 as route;
use pillion_xds::envoy::config::route::v3::rate_limit::action::ActionSpecifier;
use pillion_xds::envoy::extensions::common::ratelimit::v3 as common_pb;
use pillion_xds::envoy::extensions::filters::http::local_ratelimit::v3 as pb;
use pillion_xds::envoy::r#type::v3 as kinds;
use prost_types::Any;

use super::super::at::At;
use super::super::{common, headers, matcher};
use crate::model::Name;
use crate::model::filter::FilterKind;
use crate::model::rate_limit::{Buckets, DescribeBy, Limited, LocalRateLimit, Rate, TokenBucket};

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
        describe: limits_at.each(&config.rate_limits, describe),
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
    };
    Some(FilterKind::LocalRateLimit(Arc::new(made)))
}

/// Only 4xx and 5xx refuse; anything less becomes 429, as in Envoy.
fn status(at: &At<'_>, status: Option<&kinds::HttpStatus>) -> Option<StatusCode> {
    let Some(status) = status else { return Some(StatusCode::TOO_MANY_REQUESTS) };
    let code = u16::try_from(status.code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    match code {
        Some(code) if code.as_u16() >= 400 => Some(code),
        Some(_) => Some(StatusCode::TOO_MANY_REQUESTS),
        None => at.field("code").refuse("is no status of HTTP"),
    }
}

fn rate(at: &At<'_>, bucket: &kinds::TokenBucket) -> Option<Rate> {
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

fn describe(at: &At<'_>, limit: &route::RateLimit) -> Option<Vec<DescribeBy>> {
    at.field("stage").expect(limit.stage.unwrap_or(0) == 0, "is not supported here")?;
    at.field("disable_key").expect(limit.disable_key.is_empty(), "is not supported")?;
    let at = at.field("actions");
    at.expect(!limit.actions.is_empty(), "expected at least one")?;
    let made = at.each(&limit.actions, action);
    (made.len() == limit.actions.len()).then_some(made)
}

fn action(at: &At<'_>, action: &route::rate_limit::Action) -> Option<DescribeBy> {
    let key = |key: &str, default: &str| Name::from(if key.is_empty() { default } else { key });
    Some(match at.required(action.action_specifier.as_ref())? {
        ActionSpecifier::GenericKey(generic) => DescribeBy::Generic(
            key(&generic.descriptor_key, "generic_key"),
            generic.descriptor_value.as_str().into(),
        ),
        ActionSpecifier::RequestHeaders(header) => DescribeBy::Header(
            headers::name_of(
                &at.field("request_headers").field("header_name"),
                &header.header_name,
            )?,
            header.descriptor_key.as_str().into(),
            header.skip_if_absent,
        ),
        ActionSpecifier::QueryParameters(query) => DescribeBy::Query(
            query.query_parameter_name.as_str().into(),
            query.descriptor_key.as_str().into(),
            query.skip_if_absent,
        ),
        ActionSpecifier::RemoteAddress(_) => DescribeBy::RemoteAddress,
        ActionSpecifier::MaskedRemoteAddress(mask) => {
            let at = at.field("masked_remote_address");
            let bits = |value: Option<u32>, most: u8| {
                let value = value.unwrap_or_else(|| u32::from(most));
                u8::try_from(value)
                    .ok()
                    .filter(|bits| *bits <= most)
                    .or_else(|| at.refuse(format!("a mask of {value} bits is too long")))
            };
            DescribeBy::MaskedAddress(
                bits(mask.v4_prefix_mask_len, 32)?,
                bits(mask.v6_prefix_mask_len, 128)?,
            )
        }
        ActionSpecifier::DestinationCluster(_) => DescribeBy::DestinationCluster,
        ActionSpecifier::HeaderValueMatch(value) => {
            let field = at.field("header_value_match");
            let headers = field.field("headers").each(&value.headers, matcher::header);
            field.expect(headers.len() == value.headers.len(), "a matcher is refused")?;
            DescribeBy::HeaderMatch(
                key(&value.descriptor_key, "header_match"),
                value.descriptor_value.as_str().into(),
                headers,
                value.expect_match != Some(false),
            )
        }
        _ => return at.refuse("this action is not supported here"),
    })
}
