//! Admission control (Envoy: admission control filter): requests are refused by chance, the more
//! the fewer of the last ones were answered well.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::adaptive::Admission;

/// Answers are counted in steps of this.
const STEP: Duration = Duration::from_secs(1);

/// How the requests of a sliding window went. Time and chance are given to it.
#[derive(Debug, Default)]
pub struct History {
    steps: VecDeque<(Instant, Counts)>,
    all: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    requests: u64,
    successes: u64,
}

impl History {
    /// A request was answered, well or not.
    pub fn record(&mut self, config: &Admission, success: bool, now: Instant) {
        self.forget(config, now);
        let fresh = self.steps.back().is_some_and(|(since, _)| now - *since < STEP);
        if !fresh {
            self.steps.push_back((now, Counts::default()));
        }
        let step = self.steps.back_mut().map(|(_, counts)| counts);
        for counts in step.into_iter().chain([&mut self.all]) {
            counts.requests += 1;
            counts.successes += u64::from(success);
        }
    }

    /// Whether a request is refused. `random`: of 0 to 1.
    pub fn refuses(&mut self, config: &Admission, now: Instant, random: f64) -> bool {
        self.forget(config, now);
        if self.rps(now) < f64::from(config.rps_threshold) {
            return false;
        }
        self.probability(config) > random
    }

    /// Requests a second, over the window as far as it is filled.
    fn rps(&self, now: Instant) -> f64 {
        let age = self.steps.front().map_or(0, |(since, _)| (now - *since).as_secs());
        (self.all.requests / age.max(1)) as f64
    }

    fn probability(&self, config: &Admission) -> f64 {
        let (requests, successes) = (self.all.requests as f64, self.all.successes as f64);
        let excess = (requests - successes / config.success_threshold) / (requests + 1.0);
        excess.max(0.0).powf(1.0 / config.aggression).min(config.max_rejection)
    }

    fn forget(&mut self, config: &Admission, now: Instant) {
        while let Some((since, counts)) = self.steps.front()
            && now.saturating_duration_since(*since) >= config.window
        {
            self.all.requests -= counts.requests;
            self.all.successes -= counts.successes;
            self.steps.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Admission {
        Admission {
            success_threshold: 0.95,
            aggression: 1.0,
            max_rejection: 0.8,
            ..Admission::default()
        }
    }

    fn after(successes: u32, failures: u32, config: &Admission) -> f64 {
        let mut history = History::default();
        let now = Instant::now();
        (0..successes).for_each(|_| history.record(config, true, now));
        (0..failures).for_each(|_| history.record(config, false, now));
        history.probability(config)
    }

    #[test]
    fn the_probability_is_that_of_the_formula() {
        let config = config();
        assert_eq!(after(100, 0, &config), 0.0);
        assert_eq!(after(95, 5, &config), 0.0);
        let half = (100.0 - 50.0 / 0.95) / 101.0;
        assert!((after(50, 50, &config) - half).abs() < 1e-9);
        assert_eq!(after(0, 100, &config), 0.8);
        let eager = Admission { aggression: 2.0, ..config };
        assert!((after(50, 50, &eager) - f64::sqrt(half)).abs() < 1e-9);
    }

    #[test]
    fn few_requests_are_never_refused_and_old_ones_forgotten() {
        let config = Admission { rps_threshold: 10, ..config() };
        let mut history = History::default();
        let now = Instant::now();
        (0..9).for_each(|_| history.record(&config, false, now));
        assert!(!history.refuses(&config, now, 0.0));
        (0..9).for_each(|_| history.record(&config, false, now));
        assert!(history.refuses(&config, now, 0.5) && !history.refuses(&config, now, 0.9));
        let later = now + config.window;
        assert!(!history.refuses(&config, later, 0.0));
        assert_eq!(history.all, Counts::default());
    }
}
