//! How much traffic each priority gets: Envoy's arithmetic of overprovisioning, spill-over, degraded
//! endpoints and panic ("Priority levels" and "Panic threshold" in its load balancing documentation).

use std::ops::Add;

use crate::cluster::endpoint::Standing;

/// What a priority has: endpoints by number and by weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// All of them, those that do not count included.
    pub(crate) all: u32,
    pub(crate) healthy: u32,
    pub(crate) degraded: u32,
    /// Those that do not count.
    pub(crate) excluded: u32,
    /// The same by weight: those that count, the healthy, the degraded.
    pub(crate) weights: [u64; 3],
}

/// By which rules it is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Percent: 140.
    pub(crate) overprovisioning: u32,
    /// Percent: 50; 0 turns panic off.
    pub(crate) panic_threshold: u32,
    /// `weighted_priority_health`
    pub(crate) by_weight: bool,
}

/// Percent of the traffic by priority: both lists together make a hundred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loads {
    /// To healthy endpoints; to all of them where the priority panics.
    pub(crate) healthy: Vec<u32>,
    /// To degraded endpoints.
    pub(crate) degraded: Vec<u32>,
    /// Too few endpoints are left: health is not looked at.
    pub(crate) panic: Vec<bool>,
}

impl Counts {
    /// One more endpoint.
    pub(crate) fn count(&mut self, standing: Standing, excluded: bool, weight: u32) {
        let weight = u64::from(weight);
        self.all += 1;
        if excluded {
            self.excluded += 1;
        } else {
            self.weights[0] += weight;
        }
        match standing {
            Standing::Healthy => {
                self.healthy += 1;
                self.weights[1] += weight;
            }
            Standing::Degraded => {
                self.degraded += 1;
                self.weights[2] += weight;
            }
            Standing::Unhealthy => {}
        }
    }

    fn counting(&self) -> u64 {
        u64::from(self.all - self.excluded)
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            all: self.all + other.all,
            healthy: self.healthy + other.healthy,
            degraded: self.degraded + other.degraded,
            excluded: self.excluded + other.excluded,
            weights: [0, 1, 2].map(|at| self.weights[at] + other.weights[at]),
        }
    }
}

/// The share of every priority.
pub(crate) fn loads(levels: &[Counts], rules: &Rules) -> Loads {
    let of = |at: &Counts| availability(at, rules);
    let healthy: Vec<u32> = levels.iter().map(|at| of(at)[0]).collect();
    let degraded: Vec<u32> = levels.iter().map(|at| of(at)[1]).collect();
    let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
    if total == 0 && rules.panic_threshold == 0 {
        return everything_to_the_first(levels.len());
    }
    let panic: Vec<bool> =
        levels.iter().map(|at| total < 100 && panics(*at, rules.panic_threshold)).collect();
    if panic.iter().all(|panic| *panic) {
        return by_size(levels, panic);
    }
    shared(&healthy, &degraded, panic)
}

/// The same without some of the levels (`left_out`, by their place), as `previous_priorities` has
/// it: nobody panics. None: nothing would be left.
pub(crate) fn loads_without(levels: &[Counts], rules: &Rules, left_out: &[bool]) -> Option<Loads> {
    let of = |(place, at): (usize, &Counts)| match left_out.get(place) {
        Some(true) => [0, 0],
        _ => availability(at, rules),
    };
    let available: Vec<[u32; 2]> = levels.iter().enumerate().map(of).collect();
    let healthy: Vec<u32> = available.iter().map(|at| at[0]).collect();
    let degraded: Vec<u32> = available.iter().map(|at| at[1]).collect();
    let any = healthy.iter().chain(&degraded).any(|share| *share > 0);
    any.then(|| shared(&healthy, &degraded, vec![false; levels.len()]))
}

/// Percent of a level that can take requests, overprovisioned: healthy, degraded.
fn availability(at: &Counts, rules: &Rules) -> [u32; 2] {
    let available = |count: u64, all: u64| {
        let percent = u64::from(rules.overprovisioning) * count;
        percent.checked_div(all).unwrap_or(0).min(100) as u32
    };
    match (at.counting(), rules.by_weight) {
        (0, _) => [0, 0],
        (_, true) => [1, 2].map(|kind| available(at.weights[kind], at.weights[0])),
        (all, false) => [at.healthy, at.degraded].map(|count| available(count.into(), all)),
    }
}

fn shared(healthy: &[u32], degraded: &[u32], panic: Vec<bool>) -> Loads {
    let total = healthy.iter().chain(degraded).sum::<u32>().min(100);
    let mut left = 100;
    let mut loads = Loads {
        healthy: distribute(healthy, total, &mut left),
        degraded: distribute(degraded, total, &mut left),
        panic,
    };
    // What rounding left over goes to the first that can take it.
    if let Some(first) = healthy.iter().position(|available| *available > 0) {
        loads.healthy[first] += left;
    } else if let Some(first) = degraded.iter().position(|available| *available > 0) {
        loads.degraded[first] += left;
    }
    loads
}

fn panics(at: Counts, threshold: u32) -> bool {
    let usable = u64::from(at.healthy + at.degraded) * 100;
    match at.counting() {
        0 => threshold > 0,
        all => usable < u64::from(threshold.min(100)) * all,
    }
}

fn distribute(available: &[u32], total: u32, left: &mut u32) -> Vec<u32> {
    available
        .iter()
        .map(|available| {
            let load = (available * 100).checked_div(total).unwrap_or(0).min(*left);
            *left -= load;
            load
        })
        .collect()
}

/// Every priority panics: each gets traffic by the number of its endpoints.
fn by_size(levels: &[Counts], panic: Vec<bool>) -> Loads {
    let total: u64 = levels.iter().map(|at| u64::from(at.all)).sum();
    if total == 0 {
        return Loads { panic, ..everything_to_the_first(levels.len()) };
    }
    let mut healthy: Vec<u32> =
        levels.iter().map(|at| (u64::from(at.all) * 100 / total) as u32).collect();
    let left = 100 - healthy.iter().sum::<u32>();
    if let Some(first) = levels.iter().position(|at| at.all > 0) {
        healthy[first] += left;
    }
    Loads { degraded: vec![0; healthy.len()], healthy, panic }
}

fn everything_to_the_first(levels: usize) -> Loads {
    let mut healthy = vec![0; levels];
    if let Some(first) = healthy.first_mut() {
        *first = 100;
    }
    Loads { healthy, degraded: vec![0; levels], panic: vec![false; levels] }
}

/// Weight of a locality after its health: a locality with too few healthy endpoints passes a part
/// of its share on (`locality_weighted_lb_config`).
pub(crate) fn locality_weight(weight: u32, usable: u32, all: u32, overprovisioning: u32) -> f64 {
    if all == 0 {
        return 0.0;
    }
    let ratio = f64::from(usable) / f64::from(all) * f64::from(overprovisioning) / 100.0;
    f64::from(weight) * ratio.min(1.0)
}

#[cfg(test)]
#[path = "priority_tests.rs"]
mod tests;
