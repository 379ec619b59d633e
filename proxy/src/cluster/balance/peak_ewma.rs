//! Peak EWMA: the cheaper of two random endpoints. An endpoint's cost is its latency times the
//! requests under way; latency is an average that forgets exponentially, except that a peak counts
//! at once (as in Finagle and linkerd, and in Envoy's `peak_ewma`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Load, below, mix};

#[derive(Debug)]
pub(crate) struct PeakEwma {
    weights: Box<[f64]>,
}

impl PeakEwma {
    pub(super) fn new(weights: &[f64]) -> Self {
        Self { weights: weights.into() }
    }

    pub(super) fn pick(&self, random: u64, load: &impl Load) -> Option<usize> {
        let len = self.weights.len();
        if len < 2 {
            return len.checked_sub(1);
        }
        let one = below(len, random);
        let other = (one + 1 + below(len - 1, mix(random))) % len;
        let cost = |index: usize| {
            let weight = self.weights.get(index).copied().unwrap_or(1.0);
            load.cost(index) * (f64::from(load.active(index)) + 1.0) / weight.max(f64::MIN_POSITIVE)
        };
        Some(if cost(other) < cost(one) { other } else { one })
    }
}

/// The latency of one endpoint, remembered. Workers write it without a lock: of two that write at
/// the same moment one may be lost, which an average can bear.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// Bits of the nanoseconds (`f64`). 0: nothing is known.
    average: AtomicU64,
    /// Nanoseconds from some moment to the last observation.
    at: AtomicU64,
}

impl Latency {
    /// An answer that took this long came at `now` (since some moment that is always the same).
    pub(crate) fn observe(&self, took: Duration, now: Duration, decay: Duration) {
        let took = took.as_nanos() as f64;
        let now = now.as_nanos() as u64;
        let average = f64::from_bits(self.average.load(Ordering::Relaxed));
        let keep = keep(now.saturating_sub(self.at.swap(now, Ordering::Relaxed)), decay);
        // A peak counts at once, and is forgotten slowly.
        let next = if took > average { took } else { average * keep + took * (1.0 - keep) };
        self.average.store(next.to_bits(), Ordering::Relaxed);
    }

    /// Nanoseconds that a request there is going to take. An endpoint that is not asked is forgiven:
    /// its average goes down as if it answered in no time.
    pub(crate) fn cost(&self, now: Duration, decay: Duration, default: Duration) -> f64 {
        let average = f64::from_bits(self.average.load(Ordering::Relaxed));
        if average <= 0.0 {
            return default.as_nanos() as f64;
        }
        let since = (now.as_nanos() as u64).saturating_sub(self.at.load(Ordering::Relaxed));
        average * keep(since, decay)
    }
}

/// Which share of the average is left after `since` nanoseconds.
fn keep(since: u64, decay: Duration) -> f64 {
    (-(since as f64) / (decay.as_nanos() as f64).max(1.0)).exp()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Busy;
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const DECAY: Duration = Duration::from_secs(10);

    #[test]
    fn the_cheaper_of_two_is_taken() {
        let ewma = PeakEwma::new(&[1.0, 1.0]);
        assert!((0..100).all(|i| ewma.pick(mix(i), &Busy(vec![3, 1])) == Some(1)));
        // Twice the weight is worth twice the cost.
        let ewma = PeakEwma::new(&[9.0, 1.0]);
        assert!((0..100).all(|i| ewma.pick(mix(i), &Busy(vec![1, 0])) == Some(0)));
        assert_eq!(PeakEwma::new(&[]).pick(1, &Busy(vec![])), None);
        assert_eq!(PeakEwma::new(&[1.0]).pick(1, &Busy(vec![])), Some(0));
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let latency = Latency::default();
        let cost = |now| latency.cost(now, DECAY, MS * 10) / 1e6;
        assert_eq!(cost(MS), 10.0);
        latency.observe(MS * 20, MS, DECAY);
        assert!((cost(MS) - 20.0).abs() < 1e-9);
        latency.observe(MS * 200, MS * 2, DECAY);
        assert!((cost(MS * 2) - 200.0).abs() < 1e-9);
        latency.observe(MS * 20, MS * 2 + DECAY, DECAY);
        let after = cost(MS * 2 + DECAY);
        assert!((80.0..90.0).contains(&after), "{after}");
        // Nobody asked for long: worth another try.
        assert!(cost(DECAY * 5) < 5.0);
    }
}
