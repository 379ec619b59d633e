//! `csrf.v3.CsrfPolicy`, `bandwidth_limit.v3.BandwidthLimit` and `grpc_stats.v3.FilterConfig`

use std::sync::Arc;
use std::time::Duration;

use pillion_xds::envoy::extensions::filters::http as pb;
use prost_types::Any;

use super::super::at::At;
use super::super::{common, matcher};
use crate::model::filter::FilterKind;
use crate::model::grpc_stats::{GrpcStats, Methods};
use crate::model::kept::Kept;
use crate::model::protection::{BandwidthLimit, Csrf};

pub(super) fn csrf(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::csrf::v3::CsrfPolicy = common::unpack(at, packed)?;
    let enabled = at.field("filter_enabled").required(config.filter_enabled.as_ref())?;
    let origins_at = at.field("additional_origins");
    Some(FilterKind::Csrf(Arc::new(Csrf {
        enabled: common::runtime_fraction(enabled),
        shadow: config.shadow_enabled.as_ref().map_or(0, common::runtime_fraction),
        origins: origins_at.each(&config.additional_origins, matcher::string),
    })))
}

pub(super) fn bandwidth(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    use pb::bandwidth_limit::v3::bandwidth_limit::EnableMode;
    let config: pb::bandwidth_limit::v3::BandwidthLimit = common::unpack(at, packed)?;
    at.field("stat_prefix").expect(!config.stat_prefix.is_empty(), "is empty")?;
    let on = config.runtime_enabled.as_ref().and_then(|flag| flag.default_value) != Some(false);
    let mode = if on { config.enable_mode() } else { EnableMode::Disabled };
    let limit_at = at.field("limit_kbps");
    limit_at.expect(config.limit_kbps != Some(0), "expected at least 1")?;
    let needed = mode == EnableMode::Disabled || config.limit_kbps.is_some();
    limit_at.expect(needed, "is missing")?;
    let interval_at = at.field("fill_interval");
    let interval = interval_at.duration(config.fill_interval).unwrap_or(Duration::from_millis(50));
    let fits = (Duration::from_millis(20)..=Duration::from_secs(1)).contains(&interval);
    interval_at.expect(fits, "expected 20ms to 1s")?;
    Some(FilterKind::BandwidthLimit(Arc::new(BandwidthLimit {
        stat_prefix: config.stat_prefix.as_str().into(),
        request: matches!(mode, EnableMode::Request | EnableMode::RequestAndResponse),
        response: matches!(mode, EnableMode::Response | EnableMode::RequestAndResponse),
        kbps: config.limit_kbps.unwrap_or(u64::MAX),
        interval,
        trailers: config.enable_response_trailers.then(|| config.response_trailer_prefix.clone()),
        kept: Kept::default(),
    })))
}

pub(super) fn grpc_stats(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    use pb::grpc_stats::v3::filter_config::PerMethodStatSpecifier as Per;
    let config: pb::grpc_stats::v3::FilterConfig = common::unpack(at, packed)?;
    let methods = match &config.per_method_stat_specifier {
        Some(Per::StatsForAllMethods(true)) => Methods::All,
        None | Some(Per::StatsForAllMethods(false)) => Methods::None,
        Some(Per::IndividualMethodStatsAllowlist(list)) => Methods::These(
            list.services
                .iter()
                .flat_map(|service| {
                    let methods = service.method_names.iter();
                    methods.map(|method| (service.name.clone(), method.clone()))
                })
                .collect(),
        ),
    };
    Some(FilterKind::GrpcStats(Arc::new(GrpcStats {
        methods,
        upstream_time: config.enable_upstream_stats,
        replace_dots: config.replace_dots_in_grpc_service_name,
        kept: Kept::default(),
    })))
}
