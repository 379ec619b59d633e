//! Outlier detection: endpoints that fail in a row are left out for a while, longer each time
//! (Envoy's "Outlier detection"). The clock and the dice are arguments.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::model::cluster::OutlierDetection;

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

/// Failures in a row of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
}

impl Monitor {
    /// Counts an event; says which rule it breaks, once per row of failures.
    pub(crate) fn observe(&self, config: &OutlierDetection, event: Event) -> Option<Detector> {
        let split = config.split_external_local_origin_errors;
        match event {
            Event::LocalFailure | Event::LocalTimeout if split => self
                .reached(&self.local_failures, config.consecutive_local_origin_failure)
                .then_some(Detector::ConsecutiveLocalOriginFailure),
            Event::LocalSuccess if split => {
                reset(&self.local_failures);
                None
            }
            Event::LocalFailure => self.status(config, 503),
            Event::LocalTimeout => self.status(config, 504),
            Event::LocalSuccess => self.status(config, 200),
            Event::Status(status) => {
                // It answered, so the way there works.
                reset(&self.local_failures);
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
            let gateway = found.is_some() && config.enforcing_consecutive_gateway_failure > 0;
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
    match detector {
        Detector::Consecutive5xx => config.enforcing_consecutive_5xx,
        Detector::ConsecutiveGatewayFailure => config.enforcing_consecutive_gateway_failure,
        Detector::ConsecutiveLocalOriginFailure => {
            config.enforcing_consecutive_local_origin_failure
        }
    }
}

/// Judges a detection. `ejected` of `total` endpoints are out already.
pub(crate) fn judge(
    config: &OutlierDetection,
    detector: Detector,
    (ejected, total): (usize, usize),
    random: u64,
) -> Verdict {
    if random % 100 >= u64::from(enforcing(config, detector)) {
        return Verdict::NotEnforced;
    }
    let percent = (ejected as u64 + 1) * 100;
    let limit = u64::from(config.max_ejection_percent) * total as u64;
    // One may always be ejected, or a small cluster would never be rid of a broken endpoint.
    if ejected == 0 || percent <= limit { Verdict::Eject } else { Verdict::Overflow }
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx: 3,
            enforcing_consecutive_5xx: 100,
            consecutive_gateway_failure: 2,
            enforcing_consecutive_gateway_failure: 0,
            split_external_local_origin_errors: false,
            consecutive_local_origin_failure: 2,
            enforcing_consecutive_local_origin_failure: 100,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(90),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 50,
            uneject_by_check: true,
        }
    }

    #[test]
    fn failures_in_a_row_are_detected_and_a_success_breaks_the_row() {
        let (monitor, config) = (Monitor::default(), config());
        let see = |status| monitor.observe(&config, Event::Status(status));
        assert_eq!([see(500), see(500), see(200), see(500), see(500)], [None; 5]);
        assert_eq!(see(500), Some(Detector::Consecutive5xx));
        assert_eq!(see(500), None);
        monitor.reset();
        assert_eq!(see(503), None);
        assert_eq!(see(503), Some(Detector::ConsecutiveGatewayFailure));
        assert_eq!(see(504), Some(Detector::Consecutive5xx));
    }

    #[test]
    fn local_failures_count_as_answers_unless_they_are_split() {
        let (monitor, mut config) = (Monitor::default(), config());
        for _ in 0..2 {
            monitor.observe(&config, Event::LocalFailure);
        }
        assert_eq!(monitor.observe(&config, Event::LocalTimeout), Some(Detector::Consecutive5xx));
        config.split_external_local_origin_errors = true;
        monitor.reset();
        assert_eq!(monitor.observe(&config, Event::LocalFailure), None);
        assert_eq!(monitor.observe(&config, Event::Status(500)), None);
        assert_eq!(monitor.observe(&config, Event::LocalFailure), None);
        assert_eq!(
            monitor.observe(&config, Event::LocalFailure),
            Some(Detector::ConsecutiveLocalOriginFailure)
        );
    }

    #[test]
    fn ejection_grows_and_shrinks() {
        let config = config();
        let mut ejection = Ejection::default();
        let mut now = Instant::now();
        for seconds in [30, 60, 90, 90] {
            ejection.eject(&config, now, 0);
            now += Duration::from_secs(seconds - 1);
            assert!(!ejection.returns(&config, now), "{seconds}");
            now += Duration::from_secs(1);
            assert!(ejection.returns(&config, now), "{seconds}");
        }
        // Three quiet intervals later it is back to the start.
        for _ in 0..4 {
            assert!(!ejection.returns(&config, now));
        }
        ejection.eject(&config, now, 0);
        assert!(ejection.returns(&config, now + Duration::from_secs(30)));
        assert_eq!(ejection.count(), 5);
    }

    #[test]
    fn jitter_spreads_returns() {
        let config =
            OutlierDetection { max_ejection_time_jitter: Duration::from_secs(5), ..config() };
        let now = Instant::now();
        let mut ejection = Ejection::default();
        ejection.eject(&config, now, 2_000);
        assert!(!ejection.returns(&config, now + Duration::from_secs(31)));
        assert!(ejection.returns(&config, now + Duration::from_secs(32)));
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_but_always_one(
            total in 1_usize..200,
            percent in 0_u32..101,
            random: u64,
        ) {
            let config = OutlierDetection { max_ejection_percent: percent, ..config() };
            let mut ejected = 0;
            for _ in 0..total {
                match judge(&config, Detector::Consecutive5xx, (ejected, total), random) {
                    Verdict::Eject => ejected += 1,
                    Verdict::Overflow => break,
                    Verdict::NotEnforced => prop_assert!(false, "enforcing is 100"),
                }
            }
            prop_assert!(ejected >= 1);
            prop_assert!(ejected == 1 || ejected * 100 <= percent as usize * total);
            prop_assert_eq!(
                judge(&config, Detector::ConsecutiveGatewayFailure, (0, total), random),
                Verdict::NotEnforced
            );
        }
    }
}
