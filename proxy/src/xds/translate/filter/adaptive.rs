//! `adaptive_concurrency.v3.AdaptiveConcurrency` and `admission_control.v3.AdmissionControl`

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::filters::http::adaptive_concurrency::v3 as pb;
use pillion_xds::envoy::extensions::filters::http::admission_control::v3 as admission;
use pillion_xds::envoy::r#type::v3 as kinds;
use prost_types::Any;

use super::super::at::At;
use super::super::common;
use crate::model::adaptive::{AdaptiveConcurrency, Admission, Gradient};
use crate::model::filter::FilterKind;
use crate::model::kept::Kept;

pub(super) fn concurrency(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    use pb::adaptive_concurrency::ConcurrencyControllerConfig as Kind;
    let config: pb::AdaptiveConcurrency = common::unpack(at, packed)?;
    let gradient_at = at.field("gradient_controller_config");
    let Some(Kind::GradientControllerConfig(gradient)) = &config.concurrency_controller_config
    else {
        return gradient_at.refuse("is missing");
    };
    let status = config.concurrency_limit_exceeded_status.as_ref();
    let status = status.and_then(|status| u16::try_from(status.code).ok());
    let status = status.filter(|code| *code >= 400).and_then(|c| StatusCode::from_u16(c).ok());
    Some(FilterKind::AdaptiveConcurrency(Arc::new(AdaptiveConcurrency {
        enabled: is_enabled(config.enabled.as_ref()),
        gradient: self::gradient(&gradient_at, gradient)?,
        status: status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        kept: Kept::default(),
    })))
}

fn is_enabled(flag: Option<&core::RuntimeFeatureFlag>) -> bool {
    flag.and_then(|flag| flag.default_value) != Some(false)
}

fn gradient(at: &At<'_>, config: &pb::GradientControllerConfig) -> Option<Gradient> {
    let limit_at = at.field("concurrency_limit_params");
    let limit = limit_at.required(config.concurrency_limit_params.as_ref())?;
    let rtt_at = at.field("min_rtt_calc_params");
    let rtt = rtt_at.required(config.min_rtt_calc_params.as_ref())?;
    let above_zero = |at: At<'_>, value: Option<u32>, default: u32| {
        at.expect(value != Some(0), "expected at least 1")?;
        Some(value.unwrap_or(default))
    };
    let share = |percent: Option<&kinds::Percent>, default: f64| {
        percent.map_or(default, |percent| (percent.value / 100.0).clamp(0.0, 1.0))
    };
    let update_at = limit_at.field("concurrency_update_interval");
    let update_interval =
        update_at.required(update_at.duration(limit.concurrency_update_interval))?;
    update_at.expect(!update_interval.is_zero(), "expected more than zero")?;
    let fixed_at = rtt_at.field("fixed_value");
    let fixed_min_rtt = fixed_at.duration(rtt.fixed_value);
    fixed_at.expect(fixed_min_rtt != Some(Duration::ZERO), "expected more than zero")?;
    let interval_at = rtt_at.field("interval");
    let interval = interval_at.duration(rtt.interval).filter(|interval| !interval.is_zero());
    let known = interval.is_some() || fixed_min_rtt.is_some();
    interval_at.expect(known, "expected an interval, or a fixed_value")?;
    Some(Gradient {
        max_concurrency: above_zero(
            limit_at.field("max_concurrency_limit"),
            limit.max_concurrency_limit,
            1000,
        )?,
        update_interval,
        interval: interval.unwrap_or(Duration::MAX),
        fixed_min_rtt: if interval.is_some() { None } else { fixed_min_rtt },
        request_count: above_zero(rtt_at.field("request_count"), rtt.request_count, 50)?,
        jitter: share(rtt.jitter.as_ref(), 0.15),
        min_concurrency: above_zero(rtt_at.field("min_concurrency"), rtt.min_concurrency, 3)?,
        buffer: share(rtt.buffer.as_ref(), 0.25),
        percentile: share(config.sample_aggregate_percentile.as_ref(), 0.5),
    })
}

pub(super) fn admission(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    use admission::admission_control::EvaluationCriteria as Kind;
    let config: admission::AdmissionControl = common::unpack(at, packed)?;
    let criteria_at = at.field("success_criteria");
    let Some(Kind::SuccessCriteria(criteria)) = &config.evaluation_criteria else {
        return criteria_at.refuse("is missing");
    };
    let defaults = Admission::default();
    let http_at = criteria_at.field("http_criteria");
    let http_at = http_at.field("http_success_status");
    let percent = |percent: Option<&core::RuntimePercent>, default: f64| {
        let value = percent.and_then(|percent| percent.default_value.as_ref());
        value.map_or(default, |percent| percent.value / 100.0)
    };
    let window = at.field("sampling_window").duration(config.sampling_window);
    let aggression = config.aggression.as_ref().map_or(1.0, |runtime| runtime.default_value);
    Some(FilterKind::Admission(Arc::new(Admission {
        enabled: is_enabled(config.enabled.as_ref()),
        http_success: match &criteria.http_criteria {
            None => defaults.http_success,
            Some(http) => http_at.each(&http.http_success_status, status_range),
        },
        grpc_success: criteria
            .grpc_criteria
            .as_ref()
            .map_or(defaults.grpc_success, |grpc| grpc.grpc_success_status.clone()),
        window: window.unwrap_or(defaults.window).max(Duration::from_secs(1)),
        aggression: aggression.max(1.0),
        success_threshold: percent(config.sr_threshold.as_ref(), 0.95).clamp(0.01, 1.0),
        rps_threshold: config.rps_threshold.as_ref().map_or(0, |runtime| runtime.default_value),
        max_rejection: percent(config.max_rejection_probability.as_ref(), 0.8).clamp(0.0, 1.0),
        kept: Kept::default(),
    })))
}

fn status_range(at: &At<'_>, range: &kinds::Int32Range) -> Option<(u16, u16)> {
    match (u16::try_from(range.start), u16::try_from(range.end)) {
        (Ok(start), Ok(end)) if start >= 100 && start < end && end <= 600 => Some((start, end)),
        _ => at.refuse("expected 100 to 600, the start before the end"),
    }
}
