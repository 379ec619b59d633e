//! The endpoints of a cluster in one version, laid out for picking: shares of priorities, lists of
//! who may be picked, and a picker for each list. Made anew when endpoints or their health change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::balance::priority::{Counts, Loads, Rules, loads, locality_weight};
use super::balance::{Picker, Query, RoundRobin, mix};
use super::endpoint::{Endpoint, Standing};
use crate::model::cluster::{Balancer, Cluster};
use crate::model::endpoint::{Assignment, DropOverload, Health, Locality as Place};

/// Endpoints, ready to be picked from.
#[derive(Debug, Default)]
pub(crate) struct EndpointSet {
    /// All of them, in the order of the configuration.
    pub(crate) endpoints: Box<[Arc<Endpoint>]>,
    pub(crate) drops: Box<[DropOverload]>,
    pub(crate) counts: Counts,
    /// Those with a share of the traffic.
    shares: Box<[Share]>,
}

/// A part of a priority that gets a part of the traffic.
#[derive(Debug)]
struct Share {
    /// Percent, up to and including; the last one has 100.
    upto: u32,
    panic: bool,
    /// None: it panics, and then nobody is to be picked.
    source: Option<Source>,
}

#[derive(Debug)]
enum Source {
    Flat(List),
    /// First a locality by weight, then an endpoint in it.
    Localities(RoundRobin, Box<[List]>),
}

#[derive(Debug)]
struct List {
    endpoints: Box<[Arc<Endpoint>]>,
    picker: Picker,
}

/// `LocalityLbEndpoints` with live endpoints.
#[derive(Debug)]
pub(crate) struct Locality {
    pub(crate) place: Arc<Place>,
    pub(crate) priority: u32,
    pub(crate) weight: Option<u32>,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
}

/// Which endpoints of a priority a share goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choose {
    Healthy,
    Degraded,
    /// Panic: everyone, but those that are going away only if there is nobody else.
    Anyone {
        draining_too: bool,
    },
}

impl EndpointSet {
    pub(crate) fn new(
        cluster: &Cluster,
        assignment: &Assignment,
        localities: &[Locality],
        seed: u64,
    ) -> Self {
        let overprovisioning = match assignment.overprovisioning_factor {
            0 => 140,
            factor => factor,
        };
        let mut priorities: BTreeMap<u32, Vec<&Locality>> = BTreeMap::new();
        for locality in localities {
            priorities.entry(locality.priority).or_default().push(locality);
        }
        let levels: Vec<Vec<&Locality>> = priorities.into_values().collect();
        let counts: Vec<Counts> = levels.iter().map(|level| count(level)).collect();
        let rules = Rules {
            overprovisioning,
            panic_threshold: cluster.panic_threshold,
            by_weight: assignment.weighted_priority_health,
        };
        let loads = loads(&counts, &rules);
        let layout = Layout { cluster, overprovisioning, seed };
        Self {
            endpoints: localities.iter().flat_map(|at| at.endpoints.iter().cloned()).collect(),
            drops: assignment.drop_overloads.as_slice().into(),
            counts: counts.iter().fold(Counts::default(), |all, one| all + *one),
            shares: layout.shares(&levels, &loads),
        }
    }

    /// An endpoint, and whether health was ignored to find one.
    pub(crate) fn pick(&self, query: Query) -> Option<(&Arc<Endpoint>, bool)> {
        let share = match &*self.shares {
            [only] => only,
            shares => {
                let roll = (query.hash.unwrap_or(query.random) % 100) as u32 + 1;
                shares.get(shares.partition_point(|share| share.upto < roll))?
            }
        };
        // The priority was chosen by this number already: the endpoint needs another.
        let query = Query { random: mix(query.random), ..query };
        let list = match share.source.as_ref()? {
            Source::Flat(list) => list,
            Source::Localities(turns, lists) => lists.get(turns.next()?)?,
        };
        let index = list.picker.pick(query, |index| {
            list.endpoints
                .get(index)
                .map_or(u32::MAX, |at| at.host.counters.rq_active.load(Ordering::Relaxed))
        })?;
        list.endpoints.get(index).map(|endpoint| (endpoint, share.panic))
    }
}

fn count(localities: &[&Locality]) -> Counts {
    let mut counts = Counts::default();
    for endpoint in localities.iter().flat_map(|at| &at.endpoints) {
        counts.count(endpoint.standing(), endpoint.is_excluded(), endpoint.weight);
    }
    counts
}

/// What is the same for all shares.
struct Layout<'a> {
    cluster: &'a Cluster,
    overprovisioning: u32,
    seed: u64,
}

impl Layout<'_> {
    fn shares(&self, levels: &[Vec<&Locality>], loads: &Loads) -> Box<[Share]> {
        let mut upto = 0;
        let mut shares = Vec::new();
        let columns = [(&loads.healthy, false), (&loads.degraded, true)];
        for (column, degraded) in columns {
            for ((level, load), panic) in levels.iter().zip(column).zip(&loads.panic) {
                if *load == 0 {
                    continue;
                }
                upto += load;
                let choose = match (*panic, degraded) {
                    (true, _) => Choose::Anyone { draining_too: all_drain(level) },
                    (false, true) => Choose::Degraded,
                    (false, false) => Choose::Healthy,
                };
                let nobody = *panic && self.cluster.fail_on_panic;
                let source = (!nobody).then(|| self.source(level, choose));
                shares.push(Share { upto, panic: *panic, source });
            }
        }
        shares.into()
    }

    fn source(&self, level: &[&Locality], choose: Choose) -> Source {
        let by_locality =
            self.cluster.locality_weighted && !matches!(choose, Choose::Anyone { .. });
        let weights: Vec<f64> = level
            .iter()
            .map(|at| if by_locality { self.weight_of(at, choose) } else { 0.0 })
            .collect();
        if weights.iter().all(|weight| *weight <= 0.0) {
            let all = level.iter().flat_map(|at| &at.endpoints);
            return Source::Flat(self.list(all.map(|at| (at, f64::from(at.weight))), choose));
        }
        // Hashing has to see all endpoints at once: localities become a factor of their weights.
        if matches!(self.cluster.balancer, Balancer::RingHash { .. } | Balancer::Maglev { .. }) {
            let total: f64 = weights.iter().sum();
            let weighted = level.iter().zip(&weights).flat_map(|(at, weight)| {
                let usable = at.endpoints.iter().filter(|at| chosen(at, choose));
                let sum: f64 = usable.map(|at| f64::from(at.weight)).sum();
                at.endpoints.iter().map(move |at| (at, f64::from(at.weight) / sum * weight / total))
            });
            return Source::Flat(self.list(weighted, choose));
        }
        let lists = level
            .iter()
            .map(|at| self.list(at.endpoints.iter().map(|at| (at, f64::from(at.weight))), choose))
            .collect();
        Source::Localities(RoundRobin::new(&weights, self.seed), lists)
    }

    fn weight_of(&self, locality: &Locality, choose: Choose) -> f64 {
        let usable = locality.endpoints.iter().filter(|at| chosen(at, choose)).count();
        let all = locality.endpoints.len();
        let weight = locality.weight.unwrap_or(0);
        locality_weight(weight, usable as u32, all as u32, self.overprovisioning)
    }

    fn list<'e>(
        &self,
        endpoints: impl Iterator<Item = (&'e Arc<Endpoint>, f64)>,
        choose: Choose,
    ) -> List {
        let (endpoints, weights): (Vec<Arc<Endpoint>>, Vec<f64>) = endpoints
            .filter(|(endpoint, _)| chosen(endpoint, choose))
            .map(|(endpoint, weight)| (endpoint.clone(), weight))
            .unzip();
        let key = |index: usize| {
            endpoints
                .get(index)
                .map_or_else(String::new, |at: &Arc<Endpoint>| at.address.to_string())
        };
        let picker = Picker::new(&self.cluster.balancer, &weights, key, self.seed);
        List { endpoints: endpoints.into(), picker }
    }
}

fn chosen(endpoint: &Endpoint, choose: Choose) -> bool {
    match choose {
        Choose::Healthy => endpoint.standing() == Standing::Healthy,
        Choose::Degraded => endpoint.standing() == Standing::Degraded,
        Choose::Anyone { draining_too } => draining_too || endpoint.health != Health::Draining,
    }
}

fn all_drain(level: &[&Locality]) -> bool {
    level.iter().flat_map(|at| &at.endpoints).all(|at| at.health == Health::Draining)
}
