//! LEAST_REQUEST: the least loaded of a few random endpoints (power of two choices). Weights decide
//! who is looked at and how much load is much, so that without load the shares are the weights,
//! and under load each endpoint works in proportion to its weight.

use super::alias::Alias;
use super::{Load, below, mix};

#[derive(Debug)]
pub(crate) struct LeastRequest {
    len: usize,
    choices: u32,
    /// How much requests under way count, where weights differ.
    bias: f64,
    /// None: all weigh the same.
    weighted: Option<(Alias, Box<[f64]>)>,
}

impl LeastRequest {
    /// As many choices as there are endpoints, or more: all are looked at.
    pub(super) fn new(shares: &[f64], choices: u32, bias: f64) -> Self {
        let equal = shares.windows(2).all(|pair| pair[0] == pair[1]);
        let weighted = (!equal).then(|| (Alias::new(shares), shares.into()));
        Self { len: shares.len(), choices: choices.max(2), bias, weighted }
    }

    pub(super) fn pick(&self, random: u64, load: &impl Load) -> Option<usize> {
        match (self.len, &self.weighted) {
            (0 | 1, _) => self.len.checked_sub(1),
            (_, None) if self.choices == u32::MAX => self.of_all(random, load),
            (_, None) => Some(self.of_equals(random, load)),
            (_, Some((alias, weights))) => self.of_weighted(random, load, alias, weights),
        }
    }

    /// Of several that are equally idle, the first one after a random place.
    fn of_all(&self, random: u64, load: &impl Load) -> Option<usize> {
        let start = below(self.len, random);
        let after = (0..self.len).map(|step| (start + step) % self.len);
        after.min_by_key(|index| load.active(*index))
    }

    fn of_equals(&self, random: u64, load: &impl Load) -> usize {
        let mut random = random;
        let mut best = below(self.len, random);
        let mut least = load.active(best);
        for _ in 1..self.choices {
            random = mix(random);
            // One of the others: comparing an endpoint with itself would waste the question.
            let other = (best + 1 + below(self.len - 1, random)) % self.len;
            let other_load = load.active(other);
            if other_load < least {
                (best, least) = (other, other_load);
            }
        }
        best
    }

    fn of_weighted(
        &self,
        random: u64,
        load: &impl Load,
        alias: &Alias,
        weights: &[f64],
    ) -> Option<usize> {
        let mut random = random;
        let mut best = alias.pick(random)?;
        if self.bias <= 0.0 {
            return Some(best);
        }
        let heaviness = |index: usize| {
            let active = f64::from(load.active(index));
            let biased = if self.bias == 1.0 { active } else { active.powf(self.bias) };
            weights.get(index).map_or(f64::MAX, |weight| biased / weight)
        };
        // Looking at all is for equals; here it would always be the heaviest that is idle.
        let choices = if self.choices == u32::MAX { 2 } else { self.choices };
        for _ in 1..choices {
            random = mix(random);
            let other = alias.pick(random)?;
            if other != best && heaviness(other) < heaviness(best) {
                best = other;
            }
        }
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Busy, idle};
    use super::*;

    #[test]
    fn of_two_the_idle_one_is_always_taken() {
        let least = LeastRequest::new(&[1.0, 1.0], 2, 1.0);
        for i in 0..1000 {
            assert_eq!(least.pick(mix(i), &Busy(vec![5, 4])), Some(1));
        }
        assert_eq!(LeastRequest::new(&[], 2, 1.0).pick(1, &idle()), None);
        assert_eq!(LeastRequest::new(&[1.0], 2, 1.0).pick(1, &Busy(vec![9])), Some(0));
    }

    #[test]
    fn idle_endpoints_share_by_weight() {
        let least = LeastRequest::new(&[1.0, 3.0], 2, 1.0);
        let mut hits = [0_u32; 2];
        for i in 0..40_000_u64 {
            hits[least.pick(mix(i), &idle()).unwrap()] += 1;
        }
        assert!((9_500..10_500).contains(&hits[0]), "{hits:?}");
    }

    #[test]
    fn a_full_scan_finds_the_idle_one_and_no_bias_is_weight_alone() {
        let least = LeastRequest::new(&[1.0; 50], u32::MAX, 1.0);
        let mut active = vec![3; 50];
        active[31] = 2;
        for i in 0..100 {
            assert_eq!(least.pick(mix(i), &Busy(active.clone())), Some(31));
        }
        let by_weight = LeastRequest::new(&[1.0, 3.0], 2, 0.0);
        let busy = Busy(vec![0, 100]);
        let heavy = (0..40_000).filter(|i| by_weight.pick(mix(*i), &busy) == Some(1)).count();
        assert!((29_500..30_500).contains(&heavy), "{heavy}");
    }

    proptest! {
        /// Requests that stay under way pile up in proportion to the weights.
        #[test]
        fn load_follows_weight(weights in prop::collection::vec(1_u32..10, 2..8), seed: u64) {
            let shares: Vec<f64> = weights.iter().map(|weight| f64::from(*weight)).collect();
            let least = LeastRequest::new(&shares, 2, 1.0);
            let mut active = vec![0_u32; weights.len()];
            let mut random = seed;
            let total: u32 = weights.iter().sum();
            for _ in 0..total * 100 {
                random = mix(random);
                let index = least.pick(random, &Busy(active.clone())).unwrap();
                active[index] += 1;
            }
            for (weight, active) in weights.iter().zip(&active) {
                let expected = weight * 100;
                prop_assert!(active.abs_diff(expected) <= expected / 2, "{weights:?} {active}");
            }
        }
    }
}
