//! `OutlierDetection`

use std::time::Duration;

use pillion_xds::envoy::config::cluster::v3 as pb;

use super::at::At;
use crate::model::cluster::{Enforcing, FailurePercentage, OutlierDetection, SuccessRate};

/// `OutlierDetection`
pub(super) fn detection(
    at: &At<'_>,
    config: &pb::OutlierDetection,
) -> Option<Box<OutlierDetection>> {
    let default = OutlierDetection::default();
    let interval = at.field("interval").duration(config.interval).unwrap_or(default.interval);
    at.field("interval").expect(!interval.is_zero(), "must be greater than 0")?;
    let base = at.field("base_ejection_time").duration(config.base_ejection_time);
    let base = base.unwrap_or(default.base_ejection_time);
    at.field("base_ejection_time").expect(!base.is_zero(), "must be greater than 0")?;
    let max = at.field("max_ejection_time").duration(config.max_ejection_time);
    if let Some(max) = max {
        let fits = max >= base;
        at.field("max_ejection_time").expect(fits, "must not be less than base_ejection_time")?;
    }
    let jitter = at.field("max_ejection_time_jitter").duration(config.max_ejection_time_jitter);
    let percent = |name, value, default| percent(at, name, value, default);
    Some(Box::new(OutlierDetection {
        consecutive_5xx: config.consecutive_5xx.unwrap_or(default.consecutive_5xx),
        consecutive_gateway_failure: config
            .consecutive_gateway_failure
            .unwrap_or(default.consecutive_gateway_failure),
        consecutive_local_origin_failure: config
            .consecutive_local_origin_failure
            .unwrap_or(default.consecutive_local_origin_failure),
        split_external_local_origin_errors: config.split_external_local_origin_errors,
        enforcing: enforcing(at, config, default.enforcing)?,
        success_rate: success_rate(config, default.success_rate),
        failure_percentage: FailurePercentage {
            threshold: percent(
                "failure_percentage_threshold",
                config.failure_percentage_threshold,
                default.failure_percentage.threshold,
            )?,
            minimum_hosts: config
                .failure_percentage_minimum_hosts
                .unwrap_or(default.failure_percentage.minimum_hosts),
            request_volume: config
                .failure_percentage_request_volume
                .unwrap_or(default.failure_percentage.request_volume),
        },
        interval,
        base_ejection_time: base,
        max_ejection_time: max.unwrap_or(default.max_ejection_time).max(base),
        max_ejection_time_jitter: jitter.unwrap_or(Duration::ZERO),
        max_ejection_percent: percent(
            "max_ejection_percent",
            config.max_ejection_percent,
            default.max_ejection_percent,
        )?,
        always_eject_one: config.always_eject_one_host.unwrap_or(false),
        uneject_by_check: config.successful_active_health_check_uneject_host.unwrap_or(true),
    }))
}

fn percent(at: &At<'_>, name: &str, value: Option<u32>, default: u32) -> Option<u32> {
    let value = value.unwrap_or(default);
    at.field(name).expect(value <= 100, "is a percentage: at most 100").map(|()| value)
}

fn success_rate(config: &pb::OutlierDetection, default: SuccessRate) -> SuccessRate {
    SuccessRate {
        minimum_hosts: config.success_rate_minimum_hosts.unwrap_or(default.minimum_hosts),
        request_volume: config.success_rate_request_volume.unwrap_or(default.request_volume),
        stdev_factor: config.success_rate_stdev_factor.unwrap_or(default.stdev_factor),
    }
}

fn enforcing(at: &At<'_>, config: &pb::OutlierDetection, default: Enforcing) -> Option<Enforcing> {
    let percent = |name, value, default| percent(at, name, value, default);
    Some(Enforcing {
        consecutive_5xx: percent(
            "enforcing_consecutive_5xx",
            config.enforcing_consecutive_5xx,
            default.consecutive_5xx,
        )?,
        consecutive_gateway_failure: percent(
            "enforcing_consecutive_gateway_failure",
            config.enforcing_consecutive_gateway_failure,
            default.consecutive_gateway_failure,
        )?,
        consecutive_local_origin_failure: percent(
            "enforcing_consecutive_local_origin_failure",
            config.enforcing_consecutive_local_origin_failure,
            default.consecutive_local_origin_failure,
        )?,
        success_rate: percent(
            "enforcing_success_rate",
            config.enforcing_success_rate,
            default.success_rate,
        )?,
        local_origin_success_rate: percent(
            "enforcing_local_origin_success_rate",
            config.enforcing_local_origin_success_rate,
            default.local_origin_success_rate,
        )?,
        failure_percentage: percent(
            "enforcing_failure_percentage",
            config.enforcing_failure_percentage,
            default.failure_percentage,
        )?,
        local_origin_failure_percentage: percent(
            "enforcing_failure_percentage_local_origin",
            config.enforcing_failure_percentage_local_origin,
            default.local_origin_failure_percentage,
        )?,
    })
}
