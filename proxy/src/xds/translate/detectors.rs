//! Where attributes of an OpenTelemetry resource come from.

use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::tracers::opentelemetry::resource_detectors::v3 as pb;

use super::at::At;
use super::common;
use crate::model::collector::Detector;

/// `resource_detectors`
pub(super) fn all(at: &At<'_>, detectors: &[core::TypedExtensionConfig]) -> Vec<Detector> {
    at.each(detectors, one).into_iter().flatten().collect()
}

fn one(at: &At<'_>, detector: &core::TypedExtensionConfig) -> Option<Vec<Detector>> {
    let at = at.field("typed_config");
    let packed = at.required(detector.typed_config.as_ref())?;
    match common::type_of(packed) {
        "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.EnvironmentResourceDetectorConfig" => {
            Some(vec![Detector::Environment])
        }
        "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.StaticConfigResourceDetectorConfig" =>
        {
            let fixed: pb::StaticConfigResourceDetectorConfig = common::unpack(&at, packed)?;
            let mut pairs: Vec<_> = fixed.attributes.into_iter().collect();
            pairs.sort();
            Some(pairs.into_iter().map(|(key, value)| Detector::Fixed(key, value)).collect())
        }
        other => at.refuse(format!("resource detector `{other}` is not supported")),
    }
}
