//! Outliers by rates: whoever succeeds much less often than the others, or fails too often at all.
//! Computed once an interval from what was counted in it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Detector;
use crate::model::cluster::OutlierDetection;

/// Whose failures are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The endpoint's own: its answers.
    External,
    /// Those on the way to it, where they are counted apart.
    Local,
}

/// Requests of this interval.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    total: AtomicU64,
    success: AtomicU64,
}

impl Bucket {
    /// One more.
    pub(crate) fn count(&self, success: bool) {
        self.total.fetch_add(1, Ordering::Relaxed);
        if success {
            self.success.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the interval. None: there was no request.
    pub(crate) fn take(&self) -> Option<Sample> {
        let success = self.success.swap(0, Ordering::Relaxed);
        let total = self.total.swap(0, Ordering::Relaxed);
        // One that is counted between the two swaps is not worth a lock.
        let rate = success.min(total) as f64 * 100.0 / total as f64;
        (total > 0).then_some(Sample { rate, total })
    }
}

/// What an endpoint did in an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Percent of successes.
    pub(crate) rate: f64,
    /// Requests.
    pub(crate) total: u64,
}

/// What became of an interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Round {
    /// Mean of the rates that were compared, and the rate below which one is an outlier.
    pub(crate) average: Option<(f64, f64)>,
    /// Who, by index, and by which rule. In the order of Envoy: first all by success rate.
    pub(crate) found: Vec<(usize, Detector)>,
}

/// Compares the endpoints. `hosts` are all of them; `samples` has only those that are in and had
/// requests, by index.
pub(crate) fn round(
    config: &OutlierDetection,
    origin: Origin,
    hosts: usize,
    samples: &[(usize, Sample)],
) -> Round {
    let (rate, failure) = (&config.success_rate, &config.failure_percentage);
    let mut round = Round::default();
    if hosts < rate.minimum_hosts as usize && hosts < failure.minimum_hosts as usize {
        return round;
    }
    let with = |volume: u32| {
        let volume = u64::from(volume);
        samples.iter().filter(move |(_, sample)| sample.total >= volume)
    };
    let count = with(rate.request_volume).count();
    if count > 0 && count >= rate.minimum_hosts as usize {
        let rates: Vec<f64> = with(rate.request_volume).map(|(_, sample)| sample.rate).collect();
        let (mean, threshold) = threshold(&rates, f64::from(rate.stdev_factor) / 1000.0);
        round.average = Some((mean, threshold));
        let low = with(rate.request_volume).filter(|(_, sample)| sample.rate < threshold);
        round.found.extend(low.map(|(index, _)| (*index, Detector::SuccessRate(origin))));
    }
    let count = with(failure.request_volume).count();
    if count > 0 && count >= failure.minimum_hosts as usize {
        let high = with(failure.request_volume)
            .filter(|(_, sample)| 100.0 - sample.rate >= f64::from(failure.threshold));
        round.found.extend(high.map(|(index, _)| (*index, Detector::FailurePercentage(origin))));
    }
    round
}

/// Mean, and mean less so many standard deviations.
fn threshold(rates: &[f64], factor: f64) -> (f64, f64) {
    let count = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    (mean, mean - factor * variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cluster::{FailurePercentage, SuccessRate};

    fn samples(rates: &[f64]) -> Vec<(usize, Sample)> {
        rates.iter().map(|rate| Sample { rate: *rate, total: 100 }).enumerate().collect()
    }

    fn run(config: &OutlierDetection, all: &[(usize, Sample)]) -> Round {
        round(config, Origin::External, all.len(), all)
    }

    /// Vectors of the arithmetic, by hand: mean, deviation, threshold.
    #[test]
    fn the_threshold_is_so_many_deviations_below_the_mean() {
        for (rates, factor, mean, below) in [
            (vec![100.0, 100.0, 100.0, 100.0, 50.0], 1.9, 90.0, 52.0),
            (vec![50.0, 100.0, 100.0, 100.0, 100.0], 1.0, 90.0, 70.0),
            (vec![0.0, 100.0, 100.0, 100.0, 100.0], 1.9, 80.0, 4.0),
            (vec![80.0, 80.0, 80.0, 80.0, 80.0], 1.9, 80.0, 80.0),
            (vec![0.0, 100.0], 1.9, 50.0, -45.0),
        ] {
            let (found_mean, found) = threshold(&rates, factor);
            assert!((found_mean - mean).abs() < 1e-9, "{rates:?}: {found_mean}");
            assert!((found - below).abs() < 1e-9, "{rates:?}: {found}");
        }
    }

    #[test]
    fn who_is_far_below_the_others_is_found() {
        let config = OutlierDetection::default();
        let found = run(&config, &samples(&[100.0, 100.0, 100.0, 100.0, 50.0]));
        assert_eq!(found.found, [(4, Detector::SuccessRate(Origin::External))]);
        assert_eq!(found.average, Some((90.0, 52.0)));
        // All are the same: nobody is below.
        assert_eq!(run(&config, &samples(&[0.0; 5])).found.len(), 5);
        assert!(run(&config, &samples(&[90.0; 5])).found.is_empty());
    }

    #[test]
    fn too_few_endpoints_or_requests_say_nothing() {
        let config = OutlierDetection::default();
        assert_eq!(run(&config, &samples(&[100.0, 100.0, 100.0, 0.0])), Round::default());
        let mut few = samples(&[100.0, 100.0, 100.0, 100.0, 0.0]);
        few[0].1.total = 99;
        assert_eq!(run(&config, &few).average, None);
        // For failures alone fewer requests are enough.
        assert_eq!(run(&config, &few).found, [(4, Detector::FailurePercentage(Origin::External))]);
    }

    #[test]
    fn whoever_fails_too_often_is_found_however_the_others_are() {
        let config = OutlierDetection {
            success_rate: SuccessRate {
                minimum_hosts: 9,
                ..OutlierDetection::default().success_rate
            },
            failure_percentage: FailurePercentage {
                threshold: 85,
                minimum_hosts: 2,
                request_volume: 50,
            },
            ..OutlierDetection::default()
        };
        let found = run(&config, &samples(&[15.0, 15.1, 0.0])).found;
        let who: Vec<usize> = found.iter().map(|(index, _)| *index).collect();
        assert_eq!(who, [0, 2]);
    }

    #[test]
    fn an_interval_is_counted_once() {
        let bucket = Bucket::default();
        for success in [true, true, true, false] {
            bucket.count(success);
        }
        assert_eq!(bucket.take(), Some(Sample { rate: 75.0, total: 4 }));
        assert_eq!(bucket.take(), None);
    }
}
