//! Which endpoint of a list: one algorithm per file. Randomness, hash and load are arguments, so
//! the same code serves traffic, explains a decision and is tested by properties.

mod alias;
mod least_request;
mod maglev;
pub(crate) mod priority;
mod random;
mod ring_hash;
mod round_robin;

pub(crate) use round_robin::RoundRobin;

use least_request::LeastRequest;
use maglev::Table;
use ring_hash::Ring;

use crate::model::cluster::Balancer;

/// An algorithm, prepared for one list of endpoints.
#[derive(Debug)]
pub(crate) enum Picker {
    RoundRobin(RoundRobin),
    LeastRequest(LeastRequest),
    Random(usize),
    RingHash(Ring),
    Maglev(Table),
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

impl Picker {
    /// `shares` are weights in any unit; `key` names an endpoint for the hashing algorithms (its
    /// address as text, as Envoy does); `seed` is where a turn starts.
    pub(crate) fn new(
        balancer: &Balancer,
        shares: &[f64],
        key: impl Fn(usize) -> String,
        seed: u64,
    ) -> Self {
        match balancer {
            Balancer::RoundRobin => Self::RoundRobin(RoundRobin::new(shares, seed)),
            Balancer::LeastRequest { choice_count } => {
                Self::LeastRequest(LeastRequest::new(shares, *choice_count))
            }
            Balancer::Random => Self::Random(shares.len()),
            Balancer::RingHash { minimum_size, maximum_size } => {
                Self::RingHash(Ring::new(shares, key, *minimum_size, *maximum_size))
            }
            Balancer::Maglev { table_size } => Self::Maglev(Table::new(shares, key, *table_size)),
        }
    }

    /// Index of an endpoint; None if there is none. `active` tells the requests under way there.
    pub(crate) fn pick(&self, query: Query, active: impl Fn(usize) -> u32) -> Option<usize> {
        let hash = query.hash.unwrap_or(query.random);
        match self {
            Self::RoundRobin(turns) => turns.next(),
            Self::LeastRequest(least) => least.pick(query.random, active),
            Self::Random(len) => random::pick(*len, query.random),
            Self::RingHash(ring) => ring.pick(hash, query.attempt),
            Self::Maglev(table) => table.pick(hash, query.attempt),
        }
    }
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
