//! The gradient controller of adaptive concurrency (Envoy: adaptive concurrency filter): how many
//! requests may be under way, by how their latency compares with the best that was seen.

use std::time::{Duration, Instant};

use crate::model::adaptive::Gradient;

use super::latencies::Latencies;

/// In a row at the lower limit, outside of a measurement: what was measured is doubted.
const DOUBT_AFTER: u32 = 5;

/// What is measured and decided. Time and chance are given to it.
#[derive(Debug)]
pub struct Controller {
    config: Gradient,
    limit: u32,
    outstanding: u32,
    samples: Latencies,
    min_rtt: Duration,
    /// The limit to go back to when the best latency has been measured. None: it is not being
    /// measured.
    deferred: Option<u32>,
    /// Requests that began before do not tell about the best latency.
    epoch: Instant,
    /// When the limit is worked out again.
    next_limit: Instant,
    /// When the best latency is measured again. None: never.
    next_measurement: Option<Instant>,
    at_minimum: u32,
    told: Told,
}

/// What metrics tell about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Requests that may be under way.
    pub limit: u32,
    /// The last gradient, times 1000.
    pub gradient: u64,
    /// Above the product of limit and gradient.
    pub burst: u32,
    /// The best latency is being measured.
    pub measuring: bool,
    /// The best latency, in milliseconds.
    pub min_rtt_ms: u64,
    /// The latency of the last window, in milliseconds.
    pub sample_rtt_ms: u64,
}

impl Controller {
    /// One that begins by measuring the best latency, unless that is given.
    pub fn new(config: Gradient, now: Instant) -> Self {
        let fixed = config.fixed_min_rtt;
        let mut made = Self {
            limit: config.min_concurrency,
            outstanding: 0,
            samples: Latencies::default(),
            min_rtt: fixed.unwrap_or_default(),
            deferred: None,
            epoch: now,
            next_limit: now + config.update_interval,
            next_measurement: None,
            at_minimum: 0,
            told: Told { limit: config.min_concurrency, ..Told::default() },
            config,
        };
        match fixed {
            Some(fixed) => made.told.min_rtt_ms = millis(fixed),
            None => made.begin_measurement(now),
        }
        made
    }

    /// A request comes. False: it is one too many.
    pub fn admit(&mut self, now: Instant) -> bool {
        self.tick(now);
        if self.outstanding >= self.limit {
            return false;
        }
        self.outstanding += 1;
        true
    }

    /// A request that was admitted at `began` has been answered. `random` moves the next
    /// measurement.
    pub fn answered(&mut self, began: Instant, now: Instant, random: u64) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.tick(now);
        if began < self.epoch {
            return;
        }
        self.samples.add(now.saturating_duration_since(began));
        if self.deferred.is_some() && self.samples.count() >= self.config.request_count {
            self.end_measurement(now, random);
        }
    }

    /// A request that was admitted went away without an answer.
    pub fn gave_up(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// What metrics tell.
    pub fn told(&self) -> Told {
        Told { limit: self.limit, measuring: self.deferred.is_some(), ..self.told }
    }

    fn tick(&mut self, now: Instant) {
        if self.deferred.is_some() {
            return;
        }
        if self.next_measurement.is_some_and(|at| at <= now) {
            self.begin_measurement(now);
            return;
        }
        if self.next_limit <= now {
            self.next_limit = now + self.config.update_interval;
            if self.samples.count() > 0 {
                self.work_out(now);
            }
        }
    }

    fn begin_measurement(&mut self, now: Instant) {
        self.deferred = Some(self.limit);
        self.set_limit(self.config.min_concurrency, now);
        self.samples.clear();
        self.epoch = now;
    }

    fn end_measurement(&mut self, now: Instant, random: u64) {
        self.min_rtt = self.take_samples();
        self.told.min_rtt_ms = millis(self.min_rtt);
        let limit = self.deferred.take().unwrap_or(self.config.min_concurrency);
        self.set_limit(limit, now);
        let range = self.config.interval.mul_f64(self.config.jitter);
        let range = u64::try_from(range.as_millis()).unwrap_or(u64::MAX);
        let jitter = if range == 0 { 0 } else { random % range };
        self.next_measurement = Some(now + self.config.interval + Duration::from_millis(jitter));
        self.next_limit = now + self.config.update_interval;
    }

    fn work_out(&mut self, now: Instant) {
        let sample = self.take_samples();
        self.told.sample_rtt_ms = millis(sample);
        let best = self.min_rtt.as_micros() as f64 * (1.0 + self.config.buffer);
        let gradient = (best / (sample.as_micros().max(1) as f64)).clamp(0.5, 2.0);
        self.told.gradient = (gradient * 1000.0) as u64;
        let limit = f64::from(self.limit) * gradient;
        let burst = limit.sqrt();
        self.told.burst = burst as u32;
        let limit = ((limit + burst) as u32)
            .clamp(self.config.min_concurrency, self.config.max_concurrency);
        self.set_limit(limit, now);
    }

    fn set_limit(&mut self, limit: u32, now: Instant) {
        let least = self.config.min_concurrency;
        let stays = self.deferred.is_none() && self.limit == least && limit == least;
        self.at_minimum = if stays { self.at_minimum + 1 } else { 0 };
        self.limit = limit;
        if self.at_minimum >= DOUBT_AFTER && self.config.fixed_min_rtt.is_none() {
            self.next_measurement = Some(now);
        }
    }

    fn take_samples(&mut self) -> Duration {
        let latency = self.samples.quantile(self.config.percentile);
        self.samples.clear();
        latency
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn config() -> Gradient {
        Gradient {
            max_concurrency: 1000,
            update_interval: MS * 100,
            interval: MS * 10_000,
            fixed_min_rtt: None,
            request_count: 5,
            jitter: 0.0,
            min_concurrency: 3,
            buffer: 0.25,
            percentile: 0.5,
        }
    }

    /// Requests of the same latency, one after another.
    fn serve(controller: &mut Controller, now: &mut Instant, count: u32, latency: Duration) {
        for _ in 0..count {
            assert!(controller.admit(*now));
            let began = *now;
            *now += latency;
            controller.answered(began, *now, 0);
        }
    }

    #[test]
    fn the_best_latency_is_measured_first_and_with_few_requests() {
        let mut now = Instant::now();
        let mut controller = Controller::new(config(), now);
        assert!(controller.told().measuring);
        assert!((0..3).all(|_| controller.admit(now)));
        assert!(!controller.admit(now));
        (0..3).for_each(|_| controller.gave_up());
        serve(&mut controller, &mut now, 5, MS * 10);
        let told = controller.told();
        assert!(!told.measuring && (9..=11).contains(&told.min_rtt_ms), "{told:?}");
    }

    #[test]
    fn a_limit_grows_while_latency_is_good_and_shrinks_when_it_is_not() {
        let mut now = Instant::now();
        let mut controller = Controller::new(config(), now);
        serve(&mut controller, &mut now, 5, MS * 10);
        let mut before = controller.told().limit;
        for _ in 0..3 {
            serve(&mut controller, &mut now, 11, MS * 10);
            let told = controller.told();
            assert!(told.limit > before, "{told:?} after {before}");
            assert!((1200..=1300).contains(&told.gradient), "{told:?}");
            before = told.limit;
        }
        serve(&mut controller, &mut now, 3, MS * 100);
        let told = controller.told();
        assert_eq!(told.gradient, 500);
        let halved = f64::from(before) * 0.5;
        assert!(told.limit <= (halved + halved.sqrt()) as u32 + 1, "{told:?} after {before}");
    }

    #[test]
    fn the_best_latency_is_measured_again_in_time_and_when_it_is_doubted() {
        let mut now = Instant::now();
        let mut controller = Controller::new(config(), now);
        serve(&mut controller, &mut now, 5, MS * 10);
        now += MS * 10_000;
        assert!(controller.admit(now) && controller.told().measuring);
        controller.gave_up();
        serve(&mut controller, &mut now, 5, MS);
        // Ever so slow from now on: the limit stays at its minimum until nobody believes in 1 ms.
        let mut windows = 0;
        while !controller.told().measuring {
            serve(&mut controller, &mut now, 1, MS * 101);
            windows += 1;
            assert!(windows < 30);
        }
    }

    #[test]
    fn a_given_latency_is_never_measured() {
        let now = Instant::now();
        let fixed = Gradient { fixed_min_rtt: Some(MS * 7), ..config() };
        let told = Controller::new(fixed, now).told();
        assert_eq!((told.measuring, told.min_rtt_ms), (false, 7));
    }
}
