//! LEAST_REQUEST: the least loaded of a few random endpoints (power of two choices). Weights decide
//! who is looked at and how much load is much, so that without load the shares are the weights,
//! and under load each endpoint works in proportion to its weight.

use super::alias::Alias;
use super::{below, mix};

#[derive(Debug)]
pub(crate) struct LeastRequest {
    len: usize,
    choices: u32,
    /// None: all weigh the same.
    weighted: Option<(Alias, Box<[f64]>)>,
}

impl LeastRequest {
    pub(super) fn new(shares: &[f64], choice_count: u32) -> Self {
        let equal = shares.windows(2).all(|pair| pair[0] == pair[1]);
        let weighted = (!equal).then(|| (Alias::new(shares), shares.into()));
        Self { len: shares.len(), choices: choice_count.max(2), weighted }
    }

    pub(super) fn pick(&self, random: u64, active: impl Fn(usize) -> u32) -> Option<usize> {
        match (self.len, &self.weighted) {
            (0 | 1, _) => self.len.checked_sub(1),
            (_, None) => Some(self.of_equals(random, active)),
            (_, Some((alias, weights))) => self.of_weighted(random, active, alias, weights),
        }
    }

    fn of_equals(&self, random: u64, active: impl Fn(usize) -> u32) -> usize {
        let mut random = random;
        let mut best = below(self.len, random);
        let mut load = active(best);
        for _ in 1..self.choices {
            random = mix(random);
            // One of the others: comparing an endpoint with itself would waste the question.
            let other = (best + 1 + below(self.len - 1, random)) % self.len;
            let other_load = active(other);
            if other_load < load {
                (best, load) = (other, other_load);
            }
        }
        best
    }

    fn of_weighted(
        &self,
        random: u64,
        active: impl Fn(usize) -> u32,
        alias: &Alias,
        weights: &[f64],
    ) -> Option<usize> {
        let load = |index: usize| {
            weights.get(index).map_or(f64::MAX, |weight| f64::from(active(index)) / weight)
        };
        let mut random = random;
        let mut best = alias.pick(random)?;
        for _ in 1..self.choices {
            random = mix(random);
            let other = alias.pick(random)?;
            if other != best && load(other) < load(best) {
                best = other;
            }
        }
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_two_the_idle_one_is_always_taken() {
        let least = LeastRequest::new(&[1.0, 1.0], 2);
        for i in 0..1000 {
            assert_eq!(least.pick(mix(i), |index| [5, 4][index]), Some(1));
        }
        assert_eq!(LeastRequest::new(&[], 2).pick(1, |_| 0), None);
        assert_eq!(LeastRequest::new(&[1.0], 2).pick(1, |_| 9), Some(0));
    }

    #[test]
    fn idle_endpoints_share_by_weight() {
        let least = LeastRequest::new(&[1.0, 3.0], 2);
        let mut hits = [0_u32; 2];
        for i in 0..40_000_u64 {
            hits[least.pick(mix(i), |_| 0).unwrap()] += 1;
        }
        assert!((9_500..10_500).contains(&hits[0]), "{hits:?}");
    }

    proptest! {
        /// Requests that stay under way pile up in proportion to the weights.
        #[test]
        fn load_follows_weight(weights in prop::collection::vec(1_u32..10, 2..8), seed: u64) {
            let shares: Vec<f64> = weights.iter().map(|weight| f64::from(*weight)).collect();
            let least = LeastRequest::new(&shares, 2);
            let mut active = vec![0_u32; weights.len()];
            let mut random = seed;
            let total: u32 = weights.iter().sum();
            for _ in 0..total * 100 {
                random = mix(random);
                let index = least.pick(random, |index| active[index]).unwrap();
                active[index] += 1;
            }
            for (weight, active) in weights.iter().zip(&active) {
                let expected = weight * 100;
                prop_assert!(active.abs_diff(expected) <= expected / 2, "{weights:?} {active}");
            }
        }
    }
}
