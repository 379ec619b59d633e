//! Distributions: fixed bounds (Envoy's, unless the bootstrap has others), one atomic add an
//! observation.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

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

/// Upper bounds of buckets, in order; [`BOUNDS`] by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds(Option<Arc<[f64]>>);

/// A distribution. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Spread>);

/// A distribution inside a group. Its buckets are made by the first observation.
#[derive(Debug, Default)]
pub struct Spread {
    bounds: Bounds,
    buckets: OnceLock<Box<Buckets>>,
}

#[derive(Debug)]
struct Buckets {
    /// One more than there are bounds: the last is everything above.
    counts: Box<[AtomicU64]>,
    /// In thousandths.
    sum: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Upper bounds of its buckets.
    pub bounds: Bounds,
    /// Observations at or below each of the bounds.
    pub cumulative: Vec<u64>,
    /// Observations.
    pub count: u64,
    /// Sum of them.
    pub sum: f64,
}

impl Bounds {
    /// These bounds, sorted.
    pub fn new(mut bounds: Vec<f64>) -> Self {
        bounds.sort_by(f64::total_cmp);
        Self(Some(bounds.into()))
    }

    /// The bounds, in order.
    pub fn as_slice(&self) -> &[f64] {
        self.0.as_deref().unwrap_or(&BOUNDS)
    }
}

impl Histogram {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Spread::new(bounds)))
    }

    /// Observe a value. Negative ones count as zero.
    pub fn record(&self, value: f64) {
        self.0.record(value);
    }

    /// What was observed so far.
    pub fn summary(&self) -> Summary {
        self.0.summary()
    }

    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Spread {
    /// Nothing observed so far.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, buckets: OnceLock::new() }
    }

    /// Observe a value. Negative ones count as zero.
    pub fn record(&self, value: f64) {
        let bounds = self.bounds.as_slice();
        let buckets = self.buckets.get_or_init(|| {
            let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
            Box::new(Buckets { counts, sum: AtomicU64::new(0) })
        });
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        if let Some(bucket) = buckets.counts.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        // Truncation is meant: thousandths are finer than anything that is read from here.
        buckets.sum.fetch_add((value.max(0.0) * 1000.0) as u64, Ordering::Relaxed);
    }

    /// What was observed so far.
    pub fn summary(&self) -> Summary {
        let size = self.bounds.as_slice().len();
        let (mut count, mut sum, mut cumulative) = (0, 0.0, vec![0; size]);
        if let Some(buckets) = self.buckets.get() {
            for (at, bucket) in buckets.counts.iter().enumerate() {
                count += bucket.load(Ordering::Relaxed);
                if let Some(slot) = cumulative.get_mut(at) {
                    *slot = count;
                }
            }
            sum = buckets.sum.load(Ordering::Relaxed) as f64 / 1000.0;
        }
        Summary { bounds: self.bounds.clone(), cumulative, count, sum }
    }
}

/// Two distributions with the same bounds.
impl Add<&Self> for Summary {
    type Output = Self;

    fn add(mut self, other: &Self) -> Self {
        self.cumulative.iter_mut().zip(&other.cumulative).for_each(|(one, more)| *one += more);
        self.count += other.count;
        self.sum += other.sum;
        self
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
        for (upto, bound) in self.cumulative.iter().zip(self.bounds.as_slice()) {
            if *upto as f64 >= rank && *upto > below {
                let share = (rank - below as f64) / (*upto - below) as f64;
                return Some(lower + (bound - lower) * share);
            }
            (below, lower) = (*upto, *bound);
        }
        self.bounds.as_slice().last().copied()
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

    #[test]
    fn bounds_can_be_others() {
        let spread = Spread::new(Bounds::new(vec![10.0, 1.0]));
        [0.5, 5.0, 50.0].into_iter().for_each(|value| spread.record(value));
        let summary = spread.summary();
        assert_eq!((summary.cumulative.as_slice(), summary.count), ([1, 2].as_slice(), 3));
        assert_eq!(summary.quantile(1.0), Some(10.0));
    }
}
