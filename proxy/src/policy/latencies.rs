//! A summary of latencies: buckets of 1.6 percent, whatever the number of samples.

use std::time::Duration;

/// Buckets in every power of two.
const FINE: u32 = 64;
/// Up to 2^36 microseconds, which is 19 hours.
const BUCKETS: usize = (FINE as usize) * 31;

/// Latencies of one window.
#[derive(Clone, Debug)]
pub struct Latencies {
    counts: Box<[u32]>,
    count: u32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into(), count: 0 }
    }
}

impl Latencies {
    /// One more.
    pub fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let index = index(micros).min(BUCKETS - 1);
        self.counts[index] = self.counts[index].saturating_add(1);
        self.count = self.count.saturating_add(1);
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The latency that this share of them (0 to 1) does not exceed; zero if there is none.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = (f64::from(self.count) * share).ceil().max(1.0) as u64;
        let mut so_far = 0;
        for (index, count) in self.counts.iter().enumerate() {
            so_far += u64::from(*count);
            if so_far >= wanted {
                return Duration::from_micros(middle(index));
            }
        }
        Duration::ZERO
    }

    /// None any more.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.count = 0;
    }
}

fn index(micros: u64) -> usize {
    let fine = u64::from(FINE);
    if micros < fine {
        return micros as usize;
    }
    let power = 63 - micros.leading_zeros() - FINE.trailing_zeros();
    (u64::from(power) * fine + (micros >> power)) as usize
}

/// The middle of a bucket, in microseconds.
fn middle(index: usize) -> u64 {
    let (index, fine) = (index as u64, u64::from(FINE));
    if index < 2 * fine {
        return index;
    }
    let power = index / fine - 1;
    ((index - power * fine) << power) + (1 << power) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_two_percent() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), Duration::ZERO);
        for micros in 1..=100_000 {
            latencies.add(Duration::from_micros(micros));
        }
        for (share, expected) in [(0.01, 1000.0), (0.5, 50_000.0), (0.99, 99_000.0)] {
            let found = latencies.quantile(share).as_micros() as f64;
            assert!((found / expected - 1.0).abs() < 0.02, "{share}: {found}");
        }
        latencies.clear();
        latencies.add(Duration::MAX);
        assert!(latencies.quantile(1.0) > Duration::from_secs(3600));
    }
}
