//! `health_check.v3.HealthCheck`

use std::sync::Arc;

use pillion_xds::envoy::extensions::filters::http::health_check::v3 as pb;
use prost_types::Any;

use super::super::at::At;
use super::super::{common, matcher};
use crate::model::Name;
use crate::model::filter::{FilterKind, HealthCheckFilter};

/// `health_check.v3.HealthCheck`
pub(super) fn filter(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::HealthCheck = common::unpack(at, packed)?;
    let pass_through = at.field("pass_through_mode").required(config.pass_through_mode)?;
    let cache_at = at.field("cache_time");
    let cache_time = cache_at.limit(config.cache_time, None);
    let fits = pass_through || cache_time.is_none();
    cache_at.expect(fits, "there is nothing to keep where pass_through_mode is off")?;
    let mut clusters: Vec<(Name, u32)> = config
        .cluster_min_healthy_percentages
        .iter()
        .map(|(name, percent)| (name.as_str().into(), percent.value.clamp(0.0, 100.0) as u32))
        .collect();
    clusters.sort();
    Some(FilterKind::HealthCheck(Arc::new(HealthCheckFilter {
        pass_through,
        cache_time,
        clusters,
        headers: at.field("headers").each(&config.headers, matcher::header),
    })))
}
