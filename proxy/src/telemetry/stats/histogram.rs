//! Distributions with Envoy's default buckets: fixed bounds, one atomic add an observation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets, as Envoy's default for Prometheus (milliseconds, mostly).
pub const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10000.0,
    30000.0,
    60000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// A distribution.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// One more than there are bounds: the last is everything above.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// In thousandths.
    sum: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Observations at or below each of [`BOUNDS`].
    pub cumulative: [u64; BOUNDS.len()],
    /// Observations.
    pub count: u64,
    /// Sum of them.
    pub sum: f64,
}

impl Histogram {
    /// Observe a value. Negative ones count as zero.
    pub fn record(&self, value: f64) {
        let bucket = BOUNDS.iter().position(|bound| value <= *bound).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.0.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        // Truncation is meant: thousandths are finer than anything that is read from here.
        self.0.sum.fetch_add((value.max(0.0) * 1000.0) as u64, Ordering::Relaxed);
    }

    /// What was observed so far.
    pub fn summary(&self) -> Summary {
        let mut cumulative = [0; BOUNDS.len()];
        let mut count = 0;
        for (slot, bucket) in cumulative.iter_mut().zip(&self.0.buckets) {
            count += bucket.load(Ordering::Relaxed);
            *slot = count;
        }
        if let Some(above) = self.0.buckets.last() {
            count += above.load(Ordering::Relaxed);
        }
        let sum = self.0.sum.load(Ordering::Relaxed) as f64 / 1000.0;
        Summary { cumulative, count, sum }
    }

    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Summary {
    /// The value below which `quantile` (0 to 1) of the observations lie, interpolated inside its
    /// bucket. None without observations.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = quantile.clamp(0.0, 1.0) * self.count as f64;
        let (mut below, mut lower) = (0, 0.0);
        for (upto, bound) in self.cumulative.iter().zip(BOUNDS) {
            if *upto as f64 >= rank && *upto > below {
                let share = (rank - below as f64) / (*upto - below) as f64;
                return Some(lower + (bound - lower) * share);
            }
            (below, lower) = (*upto, bound);
        }
        BOUNDS.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_fall_into_envoys_buckets() {
        let histogram = Histogram::default();
        for value in [0.5, 0.6, 7.0, 4_000_000.0] {
            histogram.record(value);
        }
        let summary = histogram.summary();
        assert_eq!(summary.count, 4);
        assert_eq!(&summary.cumulative[..4], &[1, 2, 2, 3]);
        assert!((summary.sum - 4_000_008.1).abs() < 0.001);
        assert!(summary.quantile(0.5).is_some_and(|p50| p50 <= 1.0));
        assert_eq!(Histogram::default().summary().quantile(0.5), None);
    }
}
