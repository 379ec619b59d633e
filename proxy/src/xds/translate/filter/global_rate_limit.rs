//! `ratelimit.v3.RateLimit` and `RateLimitPerRoute`

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use pillion_xds::envoy::extensions::filters::http::ratelimit::v3 as pb;
use pillion_xds::envoy::r#type::v3 as kinds;
use prost_types::Any;

use super::super::at::At;
use super::super::{common, headers, service};
use super::{describe, rate_limit};
use crate::model::filter::{FilterKind, Override};
use crate::model::global_rate_limit::{GlobalRateLimit, GlobalRateLimitRoute};
use crate::model::kept::Kept;

/// Envoy's default of `timeout`.
const TIMEOUT: Duration = Duration::from_millis(20);
const ALL: u32 = 1_000_000;

pub(super) fn filter(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::RateLimit = common::unpack(at, packed)?;
    at.field("domain").expect(!config.domain.is_empty(), "is empty")?;
    at.field("stage").expect(config.stage <= 10, "expected 0 to 10")?;
    let service_at = at.field("rate_limit_service");
    let asked = service_at.required(config.rate_limit_service.as_ref())?;
    let share = |share: Option<&_>, default| share.map_or(default, common::runtime_fraction);
    let deny = if config.failure_mode_deny { ALL } else { 0 };
    let status_at = at.field("rate_limited_status");
    let made = GlobalRateLimit {
        internal: match config.request_type.as_str() {
            "" | "both" => None,
            "internal" => Some(true),
            "external" => Some(false),
            _ => return at.field("request_type").refuse("expected internal, external or both"),
        },
        timeout: at.field("timeout").limit(config.timeout, Some(TIMEOUT)).unwrap_or(TIMEOUT),
        service: service::grpc(&service_at.field("grpc_service"), asked.grpc_service.as_ref())?,
        deny_on_failure: share(config.failure_mode_deny_percent.as_ref(), deny),
        status_on_failure: any_status(
            &at.field("status_on_error"),
            config.status_on_error.as_ref(),
        )?,
        resource_exhausted: config.rate_limited_as_resource_exhausted,
        status: rate_limit::status(&status_at, config.rate_limited_status.as_ref())?,
        response_headers: headers::ops(
            at,
            ("response_headers_to_add", &config.response_headers_to_add),
            ("", &[]),
        ),
        headers: config.enable_x_ratelimit_headers()
            == pb::rate_limit::XRateLimitHeadersRfcVersion::DraftVersion03,
        tell_limited: !config.disable_x_envoy_ratelimited_header,
        stat_prefix: config.stat_prefix.clone(),
        enabled: share(config.filter_enabled.as_ref(), ALL),
        enforced: share(config.filter_enforced.as_ref(), ALL),
        rules: at.field("rate_limits").each(&config.rate_limits, describe::rule),
        domain: config.domain,
        stage: config.stage,
        kept: Kept::default(),
    };
    Some(FilterKind::GlobalRateLimit(Arc::new(made)))
}

fn any_status(at: &At<'_>, status: Option<&kinds::HttpStatus>) -> Option<StatusCode> {
    let Some(status) = status else { return Some(StatusCode::INTERNAL_SERVER_ERROR) };
    let code = u16::try_from(status.code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    code.or_else(|| at.field("code").refuse("is no status of HTTP"))
}

pub(super) fn per_route(at: &At<'_>, packed: &Any) -> Option<Override> {
    let config: pb::RateLimitPerRoute = common::unpack(at, packed)?;
    let made = GlobalRateLimitRoute {
        host: describe::host_limits(config.vh_rate_limits),
        rules: at.field("rate_limits").each(&config.rate_limits, describe::rule),
        domain: (!config.domain.is_empty()).then(|| config.domain.as_str().into()),
    };
    Some(Override::Settings(FilterKind::GlobalRateLimitRoute(Arc::new(made))))
}
