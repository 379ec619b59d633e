//! `cluster.<name>.outlier_detection.*`

use super::Detector;
use super::rates::Origin;
use crate::telemetry::stats::{Counter, Gauge, Scope};

/// The metrics of a cluster's outlier detection.
#[derive(Debug)]
pub(crate) struct OutlierStats {
    /// Endpoints left out now.
    pub(crate) active: Gauge,
    /// Detections for which there was room, of the two oldest detectors (Envoy: deprecated).
    total: Counter,
    consecutive_5xx: Counter,
    success_rate: Counter,
    /// Ejections.
    enforced_total: Counter,
    /// Detections for which `max_ejection_percent` had no room.
    pub(crate) overflow: Counter,
    detected: [Counter; 7],
    enforced: [Counter; 7],
}

const NAMES: [&str; 7] = [
    "consecutive_5xx",
    "consecutive_gateway_failure",
    "consecutive_local_origin_failure",
    "success_rate",
    "local_origin_success_rate",
    "failure_percentage",
    "local_origin_failure_percentage",
];

impl OutlierStats {
    /// `scope`: the cluster's.
    pub(crate) fn new(scope: &Scope) -> Self {
        let scope = scope.scope("outlier_detection", None);
        Self {
            active: scope.gauge("ejections_active"),
            total: scope.counter("ejections_total"),
            consecutive_5xx: scope.counter("ejections_consecutive_5xx"),
            success_rate: scope.counter("ejections_success_rate"),
            enforced_total: scope.counter("ejections_enforced_total"),
            overflow: scope.counter("ejections_overflow"),
            detected: NAMES.map(|name| scope.counter(&format!("ejections_detected_{name}"))),
            enforced: NAMES.map(|name| scope.counter(&format!("ejections_enforced_{name}"))),
        }
    }

    pub(crate) fn detected(&self, detector: Detector) {
        self.detected[index(detector)].inc();
        match detector {
            Detector::Consecutive5xx => self.consecutive_5xx.inc(),
            Detector::SuccessRate(Origin::External) => self.success_rate.inc(),
            _ => {}
        }
    }

    /// There is room for it, whether it is enforced or not.
    pub(crate) fn fits(&self, detector: Detector) {
        if matches!(detector, Detector::Consecutive5xx | Detector::SuccessRate(Origin::External)) {
            self.total.inc();
        }
    }

    pub(crate) fn enforced(&self, detector: Detector) {
        self.enforced_total.inc();
        self.enforced[index(detector)].inc();
    }
}

fn index(detector: Detector) -> usize {
    match detector {
        Detector::Consecutive5xx => 0,
        Detector::ConsecutiveGatewayFailure => 1,
        Detector::ConsecutiveLocalOriginFailure => 2,
        Detector::SuccessRate(Origin::External) => 3,
        Detector::SuccessRate(Origin::Local) => 4,
        Detector::FailurePercentage(Origin::External) => 5,
        Detector::FailurePercentage(Origin::Local) => 6,
    }
}
