//! ROUND_ROBIN: in turn, by weight. The turns of one round are laid out when the list is made
//! (earliest deadline first, as Envoy's scheduler orders them), so that a pick is one atomic add.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};

/// A round longer than this many turns, and than eight an endpoint, is laid out in rounded weights.
const LONGEST_ROUND: u64 = 4096;

/// Turns without end.
#[derive(Debug)]
pub(crate) struct RoundRobin {
    /// None: everyone once.
    round: Option<Box<[u32]>>,
    len: u64,
    next: AtomicU64,
}

impl RoundRobin {
    /// A share of zero gets no turn, unless all are zero: then all are equal.
    pub(crate) fn new(shares: &[f64], seed: u64) -> Self {
        let round = (!equal(shares)).then(|| round(&whole(shares)));
        let len = round.as_ref().map_or(shares.len(), |round| round.len()) as u64;
        // Proxies that start at the same moment must not all begin with the same endpoint.
        Self { round, len, next: AtomicU64::new(if len == 0 { 0 } else { seed % len }) }
    }

    /// Whose turn it is. None: there is nobody.
    pub(crate) fn next(&self) -> Option<usize> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(self.len)? as usize;
        match &self.round {
            None => Some(turn),
            Some(round) => round.get(turn).map(|index| *index as usize),
        }
    }
}

fn equal(shares: &[f64]) -> bool {
    shares.windows(2).all(|pair| pair[0] == pair[1])
}

/// Shares as the smallest whole numbers, or as near to them as a round of bounded length allows.
fn whole(shares: &[f64]) -> Vec<u64> {
    let limit = LONGEST_ROUND.max(shares.len() as u64 * 8);
    if shares.iter().all(|share| share.fract() == 0.0) {
        let exact: Vec<u64> = shares.iter().map(|share| *share as u64).collect();
        let divisor = exact.iter().copied().fold(0, gcd).max(1);
        if exact.iter().sum::<u64>() / divisor <= limit {
            return exact.iter().map(|share| share / divisor).collect();
        }
    }
    let scale = limit as f64 / shares.iter().sum::<f64>();
    let scaled = |share: &f64| {
        if *share <= 0.0 { 0 } else { ((share * scale).round() as u64).max(1) }
    };
    shares.iter().map(scaled).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Each gets as many turns as its number says, as far apart as possible.
fn round(turns: &[u64]) -> Box<[u32]> {
    let total = turns.iter().sum();
    let mut due = BinaryHeap::with_capacity(turns.len());
    // Deadlines are positive, so their bits are ordered as they are. Who waits longer wins a tie.
    let mut order = 0_u64;
    for (index, turns) in turns.iter().enumerate().filter(|(_, turns)| **turns > 0) {
        due.push(Reverse(((1.0 / *turns as f64).to_bits(), order, index, 1_u64)));
        order += 1;
    }
    let mut round = Vec::with_capacity(total as usize);
    while (round.len() as u64) < total {
        let Some(Reverse((_, _, index, taken))) = due.pop() else { break };
        round.push(index as u32);
        let turns = turns.get(index).copied().unwrap_or(1);
        due.push(Reverse((((taken + 1) as f64 / turns as f64).to_bits(), order, index, taken + 1)));
        order += 1;
    }
    round.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(shares: &[f64], count: usize) -> Vec<usize> {
        let turns = RoundRobin::new(shares, 0);
        (0..count).filter_map(|_| turns.next()).collect()
    }

    #[test]
    fn equals_take_turns_and_weights_are_spread() {
        assert_eq!(turns(&[], 3), Vec::<usize>::new());
        assert_eq!(turns(&[7.0, 7.0, 7.0], 4), [0, 1, 2, 0]);
        assert_eq!(turns(&[2.0, 1.0], 6), [0, 1, 0, 0, 1, 0]);
        assert_eq!(turns(&[0.0, 0.0], 2), [0, 1]);
        assert_eq!(turns(&[1.0, 0.0], 2), [0, 0]);
    }

    #[test]
    fn a_seed_says_where_to_begin() {
        assert_eq!(RoundRobin::new(&[1.0, 1.0, 1.0], 5).next(), Some(2));
    }

    #[test]
    fn very_uneven_weights_need_no_long_round() {
        let turns = RoundRobin::new(&[4_000_000_000.0, 1.0, 3.0], 0);
        assert!(turns.len <= LONGEST_ROUND + 2, "{}", turns.len);
        let round = turns.round.as_ref().unwrap();
        assert!(round.contains(&1) && round.contains(&2));
    }

    proptest! {
        #[test]
        fn a_round_gives_each_its_share(weights in prop::collection::vec(1_u32..40, 1..30)) {
            let shares: Vec<f64> = weights.iter().map(|weight| f64::from(*weight)).collect();
            let total: u32 = weights.iter().sum();
            let mut hits = vec![0_u32; weights.len()];
            for index in turns(&shares, total as usize * 3) {
                hits[index] += 1;
            }
            let expected: Vec<u32> = weights.iter().map(|weight| weight * 3).collect();
            prop_assert_eq!(hits, expected);
        }
    }
}
