//! Which endpoint of a list: one algorithm per file. Randomness, hash and load are arguments, so
//! the same code serves traffic, explains a decision and is tested by properties.

mod alias;
mod bounded;
mod least_request;
mod maglev;
mod murmur;
pub(crate) mod orca;
pub(crate) mod peak_ewma;
pub(crate) mod priority;
mod random;
mod ring_hash;
mod round_robin;
pub(crate) mod slow_start;
pub(crate) mod zone;

pub(crate) use round_robin::RoundRobin;

use bounded::Bound;
use least_request::LeastRequest;
use maglev::Table;
use peak_ewma::PeakEwma;
use ring_hash::Ring;
use xxhash_rust::xxh64::xxh64;

use crate::model::balancing::{Balancer, Hashing};

/// An algorithm, prepared for one list of endpoints.
#[derive(Debug)]
pub(crate) enum Picker {
    RoundRobin(RoundRobin),
    LeastRequest(LeastRequest),
    Random(usize),
    RingHash(Ring, Option<Bound>),
    Maglev(Table, Option<Bound>),
    /// Where the list begins, and how long it is.
    PickFirst(usize, usize),
    PeakEwma(PeakEwma),
}

/// How a picker is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe<'a> {
    pub(crate) balancer: &'a Balancer,
    pub(crate) hashing: &'a Hashing,
    /// Where a turn starts.
    pub(crate) seed: u64,
    /// The same for all lists of a cluster, as long as the cluster lives.
    pub(crate) lot: u64,
}

/// What is asked of a picker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Query {
    /// Fresh for every question.
    pub(crate) random: u64,
    /// Of the request, by the route's hash policy.
    pub(crate) hash: Option<u64>,
    /// How many endpoints were refused by the retry's host predicate before.
    pub(crate) attempt: u32,
}

/// What endpoints are doing now.
pub(crate) trait Load {
    /// Requests under way at an endpoint.
    fn active(&self, index: usize) -> u32;
    /// Requests under way in the whole cluster.
    fn active_in_all(&self) -> u32;
    /// What one more request costs there (`PeakEwma`).
    fn cost(&self, index: usize) -> f64;
}

impl Picker {
    /// `shares` are weights in any unit; `key` names an endpoint for the hashing algorithms (its
    /// address as text, as Envoy does).
    pub(crate) fn new(recipe: Recipe<'_>, shares: &[f64], key: impl Fn(usize) -> String) -> Self {
        let bound = |shares: &[f64]| Bound::new(shares, recipe.hashing.bound);
        match recipe.balancer {
            Balancer::RoundRobin | Balancer::Reported(_) => {
                Self::RoundRobin(RoundRobin::new(shares, recipe.seed))
            }
            Balancer::LeastRequest { choice_count, active_request_bias, full_scan } => {
                let choices = if *full_scan { u32::MAX } else { *choice_count };
                Self::LeastRequest(LeastRequest::new(shares, choices, *active_request_bias))
            }
            Balancer::Random => Self::Random(shares.len()),
            Balancer::RingHash { minimum_size, maximum_size, function } => {
                let shares = normalized(shares);
                let ring = Ring::new(&shares, key, (*minimum_size, *maximum_size), *function);
                Self::RingHash(ring, bound(&shares))
            }
            Balancer::Maglev { table_size } => {
                let shares = normalized(shares);
                Self::Maglev(Table::new(&shares, key, *table_size), bound(&shares))
            }
            Balancer::PickFirst { shuffle } => {
                let lot = |index: &usize| xxh64(key(*index).as_bytes(), recipe.lot);
                let first = if *shuffle { (0..shares.len()).min_by_key(lot) } else { None };
                Self::PickFirst(first.unwrap_or(0), shares.len())
            }
            Balancer::PeakEwma(_) => Self::PeakEwma(PeakEwma::new(shares)),
        }
    }

    /// Index of an endpoint; None if there is none.
    pub(crate) fn pick(&self, query: Query, load: &impl Load) -> Option<usize> {
        let hash = query.hash.unwrap_or(query.random);
        let within = |index: usize, bound: &Option<Bound>| match bound {
            None => index,
            Some(bound) => bound.pick(hash, index, load),
        };
        match self {
            Self::RoundRobin(turns) => turns.next(),
            Self::LeastRequest(least) => least.pick(query.random, load),
            Self::Random(len) => random::pick(*len, query.random),
            Self::RingHash(ring, bound) => {
                ring.pick(hash, query.attempt).map(|index| within(index, bound))
            }
            Self::Maglev(table, bound) => {
                table.pick(hash, query.attempt).map(|index| within(index, bound))
            }
            Self::PickFirst(first, len) => (first + query.attempt as usize).checked_rem(*len),
            Self::PeakEwma(ewma) => ewma.pick(query.random, load),
        }
    }
}

/// Shares of one. The arithmetic is Envoy's to the last bit: what rounding does to a ring or a table
/// must be the same there and here.
fn normalized(shares: &[f64]) -> Vec<f64> {
    let total: f64 = shares.iter().sum();
    shares.iter().map(|share| share / total).collect()
}

/// The next number of a sequence (SplitMix64), for when one random number has to serve for several
/// independent choices.
pub(crate) fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `random` scaled to `0..len`, without a division (Lemire).
pub(crate) fn below(len: usize, random: u64) -> usize {
    ((u128::from(random) * len as u128) >> 64) as usize
}

/// Loads for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::Load;

    /// So many requests at each.
    pub(crate) struct Busy(pub(crate) Vec<u32>);

    impl Load for Busy {
        fn active(&self, index: usize) -> u32 {
            self.0.get(index).copied().unwrap_or(0)
        }

        fn active_in_all(&self) -> u32 {
            self.0.iter().sum()
        }

        fn cost(&self, index: usize) -> f64 {
            f64::from(self.active(index) + 1)
        }
    }

    /// Nobody does anything.
    pub(crate) fn idle() -> Busy {
        Busy(Vec::new())
    }
}
