//! `cluster.<name>.outlier_detection.*`

use super::Detector;
use super::rates::Origin;
use crate::telemetry::stats::{Count, Group, Item, Level, Reading};

/// The metrics of a cluster's outlier detection.
#[derive(Debug, Default)]
pub(crate) struct OutlierStats {
    /// Endpoints left out now.
    pub(crate) active: Level,
    /// Detections for which there was room, of the two oldest detectors (Envoy: deprecated).
    total: Count,
    consecutive_5xx: Count,
    success_rate: Count,
    /// Ejections.
    enforced_total: Count,
    /// Detections for which `max_ejection_percent` had no room.
    pub(crate) overflow: Count,
    detected: [Count; 7],
    enforced: [Count; 7],
}

/// Of [`index`]: detected, enforced.
const NAMES: [[&str; 2]; 7] = [
    ["ejections_detected_consecutive_5xx", "ejections_enforced_consecutive_5xx"],
    [
        "ejections_detected_consecutive_gateway_failure",
        "ejections_enforced_consecutive_gateway_failure",
    ],
    [
        "ejections_detected_consecutive_local_origin_failure",
        "ejections_enforced_consecutive_local_origin_failure",
    ],
    ["ejections_detected_success_rate", "ejections_enforced_success_rate"],
    [
        "ejections_detected_local_origin_success_rate",
        "ejections_enforced_local_origin_success_rate",
    ],
    ["ejections_detected_failure_percentage", "ejections_enforced_failure_percentage"],
    [
        "ejections_detected_local_origin_failure_percentage",
        "ejections_enforced_local_origin_failure_percentage",
    ],
];

impl OutlierStats {
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

impl Group for OutlierStats {
    fn each(&self, see: &mut dyn FnMut(Item<'_>, Reading)) {
        see(Item::plain("ejections_active"), Reading::Gauge(self.active.get()));
        let mut counter = |name: &str, value: u64| see(Item::plain(name), Reading::Counter(value));
        counter("ejections_total", self.total.get());
        counter("ejections_consecutive_5xx", self.consecutive_5xx.get());
        counter("ejections_success_rate", self.success_rate.get());
        counter("ejections_enforced_total", self.enforced_total.get());
        counter("ejections_overflow", self.overflow.get());
        // There is no detector of degradation.
        counter("ejections_detected_degradation", 0);
        for (index, [detected, enforced]) in NAMES.into_iter().enumerate() {
            counter(detected, self.detected[index].get());
            counter(enforced, self.enforced[index].get());
        }
    }

    fn reset(&self) {
        let alone = [&self.total, &self.consecutive_5xx, &self.success_rate];
        let more = [&self.enforced_total, &self.overflow];
        let all = alone.into_iter().chain(more).chain(&self.detected).chain(&self.enforced);
        all.for_each(Count::reset);
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
