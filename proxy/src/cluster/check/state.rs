//! What the results of checks mean for an endpoint: Envoy's rules of thresholds and intervals. The
//! clock and the dice are arguments.

use std::time::Duration;

use crate::cluster::endpoint::Flags;
use crate::model::health_check::{HealthCheck, Intervals};

/// The result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// As it should be.
    Healthy,
    /// It works, and asks for little (`x-envoy-degraded`).
    Degraded,
    /// It is not well.
    Failed(Failure),
}

/// Why a check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It said so. Ends it at once.
    Active,
    /// It said so, with a status that counts by threshold (`retriable_statuses`).
    Retriable,
    /// No connection, or one that broke.
    Network,
    /// No answer in time.
    Timeout,
    /// It said so in an answer to an ordinary request.
    Passive,
}

/// Whether a result changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    Unchanged,
    /// A threshold is not reached yet.
    Pending,
    Changed,
}

/// What the log of events is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Add { first: bool },
    Eject(Failure),
    Failed { why: Failure, first: bool },
    Succeeded,
    Degraded,
    NoLongerDegraded,
}

/// What follows from a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) transition: Transition,
    pub(crate) events: Vec<Event>,
}

/// The results of one endpoint in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    /// There was no result yet.
    pub(crate) first: bool,
    successes: u32,
    failures: u32,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self { first: true, successes: 0, failures: 0 }
    }

    /// Takes a result, and sets the endpoint's flags by it.
    pub(crate) fn take(&mut self, config: &HealthCheck, flags: &Flags, finding: Finding) -> Step {
        let mut step = match finding {
            Finding::Healthy => self.success(config, flags, false),
            Finding::Degraded => self.success(config, flags, true),
            Finding::Failed(why) => self.failure(config, flags, why),
        };
        if flags.clear(Flags::PENDING_ACTIVE) {
            // It counts from now on, however it is.
            step.transition = Transition::Changed;
        }
        self.first = false;
        step
    }

    fn success(&mut self, config: &HealthCheck, flags: &Flags, degraded: bool) -> Step {
        self.failures = 0;
        let mut events = Vec::new();
        let mut transition = Transition::Unchanged;
        if flags.has(Flags::FAILED_ACTIVE) {
            self.successes += 1;
            // The very first result counts at once: a start is not held up by thresholds.
            if self.first || self.successes >= config.healthy_threshold {
                flags.clear(Flags::FAILED_ACTIVE | Flags::TIMED_OUT | Flags::EXCLUDED);
                transition = Transition::Changed;
                events.push(Event::Add { first: self.first });
            } else {
                transition = Transition::Pending;
            }
        }
        if config.events.as_ref().is_some_and(|events| events.all_successes) {
            events.push(Event::Succeeded);
        }
        if degraded != flags.has(Flags::DEGRADED_ACTIVE) {
            if degraded {
                flags.set(Flags::DEGRADED_ACTIVE);
                events.push(Event::Degraded);
            } else {
                flags.clear(Flags::DEGRADED_ACTIVE);
                events.push(Event::NoLongerDegraded);
            }
            if transition == Transition::Unchanged {
                transition = Transition::Changed;
            }
        }
        Step { transition, events }
    }

    fn failure(&mut self, config: &HealthCheck, flags: &Flags, why: Failure) -> Step {
        self.successes = 0;
        let mut events = Vec::new();
        let mut transition = Transition::Unchanged;
        if !flags.has(Flags::FAILED_ACTIVE) {
            self.failures += 1;
            let at_once = matches!(why, Failure::Active | Failure::Passive);
            if at_once || self.failures >= config.unhealthy_threshold {
                flags.set(Flags::FAILED_ACTIVE);
                transition = Transition::Changed;
                events.push(Event::Eject(why));
            } else {
                transition = Transition::Pending;
            }
        }
        // Not for those that are in: there it would look like more than it is.
        if why == Failure::Timeout && flags.has(Flags::FAILED_ACTIVE) {
            flags.set(Flags::TIMED_OUT);
        } else {
            flags.clear(Flags::TIMED_OUT);
        }
        if self.first || config.events.as_ref().is_some_and(|events| events.all_failures) {
            events.push(Event::Failed { why, first: self.first });
        }
        Step { transition, events }
    }
}

impl Intervals {
    /// Until the next check, after a result that was a success or not. `traffic`: the cluster had a
    /// connection at some time.
    pub(crate) fn next(
        &self,
        (healthy, transition): (bool, Transition),
        traffic: bool,
        random: u64,
    ) -> Duration {
        let pending = transition == Transition::Pending;
        let base = match (traffic, healthy, pending) {
            (true, true, false) => self.healthy,
            (true, true, true) => self.healthy_edge,
            (true, false, false) => self.unhealthy,
            (true, false, true) => self.unhealthy_edge,
            (false, true, false) => self.no_traffic_healthy,
            (false, _, _) => self.no_traffic,
        };
        let part = base.saturating_mul(self.jitter_percent) / 100;
        Self::at_least(base + below(part, random) + below(self.jitter, random.rotate_left(32)))
    }

    /// Until the very first check.
    pub(crate) fn first(&self, random: u64) -> Duration {
        if self.initial_jitter.is_zero() {
            return Duration::ZERO;
        }
        let part = below(self.initial_jitter, random);
        Self::at_least(part)
    }

    /// Never a busy loop.
    fn at_least(wait: Duration) -> Duration {
        wait.max(Duration::from_millis(1))
    }
}

/// A random part of it, in whole milliseconds.
fn below(limit: Duration, random: u64) -> Duration {
    let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random.checked_rem(millis).unwrap_or(0))
}

/// Whether all `segments` are in `bytes`, one after the other; gaps do not matter.
pub(crate) fn contains(segments: &[Vec<u8>], bytes: &[u8]) -> bool {
    let mut rest = bytes;
    segments.iter().all(|segment| {
        if segment.is_empty() {
            return true;
        }
        match rest.windows(segment.len()).position(|window| window == segment.as_slice()) {
            Some(at) => {
                rest = rest.get(at + segment.len()..).unwrap_or_default();
                true
            }
            None => false,
        }
    })
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
