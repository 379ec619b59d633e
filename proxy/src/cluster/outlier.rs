//! Outlier detection: endpoints that fail in a row, or more than the others, are left out for a
//! while, longer each time (Envoy's "Outlier detection"). The clock and the dice are arguments.

pub(crate) mod rates;
mod stats;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) use stats::OutlierStats;

use crate::model::cluster::OutlierDetection;
use rates::{Bucket, Origin};

/// What happened with a request, as far as an endpoint's health goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The endpoint answered with this status.
    Status(u16),
    /// We saw it fail: no connection, a reset.
    LocalFailure,
    /// It did not answer in time.
    LocalTimeout,
    /// It works, and there is no status to go by (TCP).
    LocalSuccess,
}

/// Which rule an endpoint broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detector {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
    SuccessRate(Origin),
    FailurePercentage(Origin),
}

/// Whether a detection has consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Eject,
    /// `enforcing_*` says that this one is only counted.
    NotEnforced,
    /// `max_ejection_percent` is used up.
    Overflow,
}

/// Failures in a row of one endpoint, and its successes in this interval.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
    /// What it answered; everything, without the split.
    pub(crate) external: Bucket,
    /// Whether it could be reached, with the split.
    pub(crate) local: Bucket,
}

impl Monitor {
    /// Counts an event; says which rule it breaks, once per row of failures.
    pub(crate) fn observe(&self, config: &OutlierDetection, event: Event) -> Option<Detector> {
        let split = config.split_external_local_origin_errors;
        match event {
            Event::LocalFailure | Event::LocalTimeout if split => {
                self.local.count(false);
                self.reached(&self.local_failures, config.consecutive_local_origin_failure)
                    .then_some(Detector::ConsecutiveLocalOriginFailure)
            }
            Event::LocalSuccess if split => {
                self.local.count(true);
                reset(&self.local_failures);
                None
            }
            Event::LocalFailure => self.status(config, 503),
            Event::LocalTimeout => self.status(config, 504),
            Event::LocalSuccess => self.status(config, 200),
            Event::Status(status) => {
                if split {
                    // It answered, so the way there works.
                    self.local.count(true);
                    reset(&self.local_failures);
                }
                self.status(config, status)
            }
        }
    }

    /// A fresh start, after an ejection or at its end.
    pub(crate) fn reset(&self) {
        reset(&self.server_errors);
        reset(&self.gateway_errors);
        reset(&self.local_failures);
    }

    fn status(&self, config: &OutlierDetection, status: u16) -> Option<Detector> {
        self.external.count(status < 500);
        if status < 500 {
            reset(&self.server_errors);
            reset(&self.gateway_errors);
            return None;
        }
        let mut found = None;
        if matches!(status, 502..=504) {
            if self.reached(&self.gateway_errors, config.consecutive_gateway_failure) {
                found = Some(Detector::ConsecutiveGatewayFailure);
            }
        } else {
            reset(&self.gateway_errors);
        }
        if self.reached(&self.server_errors, config.consecutive_5xx) {
            // Both at once: the one that has consequences.
            let gateway = found.is_some() && config.enforcing.consecutive_gateway_failure > 0;
            if !gateway {
                found = Some(Detector::Consecutive5xx);
            }
        }
        found
    }

    fn reached(&self, counter: &AtomicU32, limit: u32) -> bool {
        let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
        if limit == 0 || count < limit {
            return false;
        }
        reset(counter);
        true
    }
}

/// Most requests find nothing to reset: looking is cheaper than writing.
fn reset(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}

/// Percent of such detections that are enforced.
fn enforcing(config: &OutlierDetection, detector: Detector) -> u32 {
    let percent = &config.enforcing;
    match detector {
        Detector::Consecutive5xx => percent.consecutive_5xx,
        Detector::ConsecutiveGatewayFailure => percent.consecutive_gateway_failure,
        Detector::ConsecutiveLocalOriginFailure => percent.consecutive_local_origin_failure,
        Detector::SuccessRate(Origin::External) => percent.success_rate,
        Detector::SuccessRate(Origin::Local) => percent.local_origin_success_rate,
        Detector::FailurePercentage(Origin::External) => percent.failure_percentage,
        Detector::FailurePercentage(Origin::Local) => percent.local_origin_failure_percentage,
    }
}

/// Judges a detection. `ejected` of `total` endpoints are out already.
pub(crate) fn judge(
    config: &OutlierDetection,
    detector: Detector,
    (ejected, total): (usize, usize),
    random: u64,
) -> Verdict {
    let percent = (ejected as u64 + 1) * 100;
    let limit = u64::from(config.max_ejection_percent) * total as u64;
    let room = percent <= limit || (ejected == 0 && config.always_eject_one);
    if !room {
        Verdict::Overflow
    } else if random % 100 < u64::from(enforcing(config, detector)) {
        Verdict::Eject
    } else {
        Verdict::NotEnforced
    }
}

/// The ejections of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Ejection {
    /// Since when, and for how much longer than the rule says.
    out: Option<(Instant, Duration)>,
    /// How many in a short time: ejections grow with it, and it shrinks while the endpoint is well.
    multiplier: u32,
    /// Ejections ever.
    count: u32,
    /// Percent of successes in the last interval, by origin: external, local. None: too few
    /// requests.
    pub(crate) rates: [Option<f64>; 2],
}

impl Ejection {
    /// Leave it out from now on.
    pub(crate) fn eject(&mut self, config: &OutlierDetection, now: Instant, random: u64) {
        let longest = config.max_ejection_time + config.base_ejection_time;
        if config.base_ejection_time * self.multiplier < longest {
            self.multiplier += 1;
        }
        let jitter = u64::try_from(config.max_ejection_time_jitter.as_millis()).unwrap_or(u64::MAX);
        let jitter = random.checked_rem(jitter.saturating_add(1)).unwrap_or(0);
        self.out = Some((now, Duration::from_millis(jitter)));
        self.count += 1;
    }

    /// Asked once an interval. True: it returns now.
    pub(crate) fn returns(&mut self, config: &OutlierDetection, now: Instant) -> bool {
        let Some((since, jitter)) = self.out else {
            self.multiplier = self.multiplier.saturating_sub(1);
            return false;
        };
        let longest = config.max_ejection_time.max(config.base_ejection_time);
        let time = (config.base_ejection_time * self.multiplier).min(longest) + jitter;
        let over = now.saturating_duration_since(since) >= time;
        if over {
            self.out = None;
        }
        over
    }

    /// Back before its time.
    pub(crate) fn release(&mut self) {
        self.out = None;
    }

    /// Detection was turned off: back at once.
    pub(crate) fn pardon(&mut self) {
        *self = Self { count: self.count, ..Self::default() };
    }

    /// Ejections ever.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
#[path = "outlier_tests.rs"]
mod tests;
