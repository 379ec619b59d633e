//! How traffic is spread over endpoints: first a priority by its health, then a locality where these
//! have shares of their own, then an endpoint by the balancer's algorithm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::balance::priority::{Counts, Loads, Rules, loads, locality_weight};
use super::balance::zone::{self, Plan, Proxies, Size};
use super::balance::{Load, Picker, Query, Recipe, RoundRobin, mix};
use super::clock;
use super::endpoint::{Endpoint, Standing};
use super::set::Locality;
use super::stats::ClusterStats;
use crate::model::balancing::{Balancer, LocalityRouting, PeakEwma, ZoneAware};
use crate::model::cluster::Cluster;
use crate::model::endpoint::{Assignment, Health};
use crate::model::metadata::{self, Value};

/// The parts of some endpoints that get traffic. None: there is nobody.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    shares: Box<[Share]>,
    /// There are endpoints, well or not.
    any: bool,
}

/// A part of a priority that gets a part of the traffic.
#[derive(Debug)]
struct Share {
    /// Percent, up to and including; the last one has 100.
    upto: u32,
    panic: bool,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Too few are healthy, and the configuration says that this means no one
    /// (`fail_traffic_on_panic`).
    Nobody,
    Flat(List),
    /// First a locality by weight, then an endpoint in it.
    Localities(RoundRobin, Box<[List]>),
    /// First a zone, with the own one preferred. A part of the requests does without zones.
    Zones(Box<Zones>),
}

#[derive(Debug)]
struct Zones {
    plan: Plan,
    lists: Box<[List]>,
    flat: List,
    /// Of ten thousand requests, those that are routed so.
    enabled: u64,
    stats: Arc<ClusterStats>,
}

#[derive(Debug)]
struct List {
    endpoints: Box<[Arc<Endpoint>]>,
    picker: Picker,
    ewma: Option<PeakEwma>,
    /// Requests under way in the cluster, where loads are bounded by that.
    active: Option<Arc<ClusterStats>>,
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

/// What is the same for all endpoints of a cluster.
pub(crate) struct Layout<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) assignment: &'a Assignment,
    /// Where turns start.
    pub(crate) seed: u64,
    /// The same as long as the cluster lives.
    pub(crate) lot: u64,
    /// Where the proxies of this kind are. None: nobody knows, and zones do not matter.
    pub(crate) proxies: Option<&'a Proxies>,
    /// What an endpoint weighs at this moment.
    pub(crate) weight: &'a dyn Fn(&Endpoint) -> f64,
    /// Whether weights of localities count.
    pub(crate) locality_weighted: bool,
    /// Knows how many requests are under way in the cluster.
    pub(crate) stats: &'a Arc<ClusterStats>,
}

/// Endpoints of each priority.
pub(crate) fn counts(localities: &[Locality]) -> Vec<Counts> {
    by_priority(localities).iter().map(|level| count(level)).collect()
}

fn by_priority(localities: &[Locality]) -> Vec<Vec<&Locality>> {
    let mut priorities: BTreeMap<u32, Vec<&Locality>> = BTreeMap::new();
    for locality in localities {
        priorities.entry(locality.priority).or_default().push(locality);
    }
    priorities.into_values().collect()
}

fn count(localities: &[&Locality]) -> Counts {
    let mut counts = Counts::default();
    for endpoint in localities.iter().flat_map(|at| &at.endpoints) {
        counts.count(endpoint.standing(), endpoint.is_excluded(), endpoint.weight);
    }
    counts
}

impl Spread {
    pub(crate) fn new(layout: &Layout<'_>, localities: &[Locality]) -> Self {
        let levels = by_priority(localities);
        let counts: Vec<Counts> = levels.iter().map(|level| count(level)).collect();
        let rules = Rules {
            overprovisioning: layout.overprovisioning(),
            panic_threshold: layout.cluster.panic_threshold,
            by_weight: layout.assignment.weighted_priority_health,
        };
        let loads = loads(&counts, &rules);
        let any = localities.iter().any(|at| !at.endpoints.is_empty());
        Self { shares: layout.shares(&levels, &loads), any }
    }

    /// Whether there is no endpoint at all.
    pub(crate) fn is_empty(&self) -> bool {
        !self.any
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
        let list = match &share.source {
            Source::Nobody => return None,
            Source::Flat(list) => list,
            Source::Localities(turns, lists) => lists.get(turns.next()?)?,
            Source::Zones(zones) => zones.list(mix(query.random)),
        };
        list.pick(query).map(|endpoint| (endpoint, share.panic))
    }
}

impl Zones {
    fn list(&self, random: u64) -> &List {
        if random % 10_000 >= self.enabled {
            return &self.flat;
        }
        let picked = self.plan.pick(mix(random));
        self.count(picked);
        picked.and_then(|index| self.lists.get(index)).unwrap_or(&self.flat)
    }

    fn count(&self, picked: Option<usize>) {
        let stats = &self.stats;
        match &self.plan {
            Plan::Flat => {}
            Plan::Direct(_) => stats.lb_zone_routing_all_directly.inc(),
            Plan::Residual { own: Some((own, _)), .. } if picked == Some(*own) => {
                stats.lb_zone_routing_sampled.inc();
            }
            Plan::Residual { spare, .. } => {
                stats.lb_zone_routing_cross_zone.inc();
                if spare.last().is_none_or(|total| *total == 0) {
                    stats.lb_zone_no_capacity_left.inc();
                }
            }
        }
    }
}

impl List {
    fn pick(&self, query: Query) -> Option<&Arc<Endpoint>> {
        let index = self.picker.pick(query, self)?;
        self.endpoints.get(index)
    }
}

impl Load for List {
    fn active(&self, index: usize) -> u32 {
        let active = |at: &Arc<Endpoint>| {
            at.host.if_used().map_or(0, |used| used.counters.rq_active.load(Ordering::Relaxed))
        };
        self.endpoints.get(index).map_or(u32::MAX, active)
    }

    fn active_in_all(&self) -> u32 {
        let active = |stats: &Arc<ClusterStats>| stats.upstream_rq_active.get();
        self.active.as_ref().map_or(0, |stats| u32::try_from(active(stats)).unwrap_or(0))
    }

    fn cost(&self, index: usize) -> f64 {
        let Some((endpoint, config)) = self.endpoints.get(index).zip(self.ewma.as_ref()) else {
            return f64::MAX;
        };
        match endpoint.host.if_used() {
            Some(used) => used.latency.cost(clock::now(), config.decay, config.default_rtt),
            None => config.default_rtt.as_nanos() as f64,
        }
    }
}

impl Layout<'_> {
    fn overprovisioning(&self) -> u32 {
        match self.assignment.overprovisioning_factor {
            0 => 140,
            factor => factor,
        }
    }

    fn shares(&self, levels: &[Vec<&Locality>], loads: &Loads) -> Box<[Share]> {
        let mut upto = 0;
        let mut shares = Vec::new();
        let columns = [(&loads.healthy, false), (&loads.degraded, true)];
        for (column, degraded) in columns {
            let levels = levels.iter().zip(column).zip(&loads.panic).enumerate();
            for (priority, ((level, load), panic)) in levels {
                if *load == 0 {
                    continue;
                }
                upto += load;
                let choose = match (*panic, degraded) {
                    (true, _) => Choose::Anyone { draining_too: all_drain(level) },
                    (false, true) => Choose::Degraded,
                    (false, false) => Choose::Healthy,
                };
                let source = self.source(level, choose, priority == 0);
                shares.push(Share { upto, panic: *panic, source });
            }
        }
        shares.into()
    }

    fn source(&self, level: &[&Locality], choose: Choose, first: bool) -> Source {
        let panic = matches!(choose, Choose::Anyone { .. });
        if self.cluster.balancer.hashes() {
            return Source::Flat(self.hashed(level, choose));
        }
        if panic && self.cluster.fail_on_panic {
            return Source::Nobody;
        }
        if let LocalityRouting::ZoneAware(config) = &self.cluster.balancing.locality
            && choose == Choose::Healthy
            && first
            && let Some(source) = self.zones(config, level)
        {
            return source;
        }
        let weights: Vec<f64> =
            level
                .iter()
                .map(|at| {
                    if self.locality_weighted && !panic { self.weight_of(at, choose) } else { 0.0 }
                })
                .collect();
        if weights.iter().all(|weight| *weight <= 0.0) {
            return Source::Flat(self.flat(level, choose));
        }
        let lists = level.iter().map(|at| self.flat(&[*at], choose)).collect();
        Source::Localities(RoundRobin::new(&weights, self.seed), lists)
    }

    /// All endpoints of these localities, by their own weights.
    fn flat(&self, level: &[&Locality], choose: Choose) -> List {
        let all = level.iter().flat_map(|at| &at.endpoints);
        self.list(all.map(|at| (at, (self.weight)(at))), choose)
    }

    /// Hashing has to see all endpoints at once: localities become a factor of their weights.
    fn hashed(&self, level: &[&Locality], choose: Choose) -> List {
        let usable = |locality: &Locality| {
            let endpoints = locality.endpoints.iter().filter(|at| chosen(at, choose));
            endpoints.map(|at| (self.weight)(at)).sum::<f64>()
        };
        let sums: Vec<f64> = level.iter().map(|at| usable(at)).collect();
        let weight = |at: &Locality| f64::from(at.weight.unwrap_or(0));
        let there = level.iter().zip(&sums).filter(|(_, sum)| **sum > 0.0);
        let total: f64 = there.map(|(at, _)| weight(at)).sum();
        if !self.locality_weighted || total <= 0.0 {
            return self.flat(level, choose);
        }
        let weighted = level.iter().zip(&sums).flat_map(|(at, sum)| {
            let share = weight(at) / total;
            at.endpoints.iter().map(move |at| (at, (self.weight)(at) * share / sum))
        });
        self.list(weighted.filter(|(_, weight)| *weight > 0.0), choose)
    }

    fn zones(&self, config: &ZoneAware, level: &[&Locality]) -> Option<Source> {
        let proxies = self.proxies?;
        self.stats.lb_recalculate_zone_structures.inc();
        if proxies.panic {
            self.stats.lb_local_cluster_not_ok.inc();
            return self.cluster.fail_on_panic.then_some(Source::Nobody);
        }
        let healthy = |at: &Locality| {
            let mut size = Size::default();
            for endpoint in at.endpoints.iter().filter(|at| chosen(at, Choose::Healthy)) {
                size.count += 1;
                size.weight += u64::from(endpoint.weight);
            }
            size
        };
        let mut places: Vec<_> = level.iter().map(|at| (&*at.place, healthy(at), *at)).collect();
        places.sort_by_key(|(place, _, _)| (**place != proxies.own, *place));
        let sizes: Vec<_> = places.iter().map(|(place, size, _)| (*place, *size)).collect();
        let healthy: u64 = sizes.iter().map(|(_, size)| size.count).sum();
        if healthy < config.min_cluster_size {
            self.stats.lb_zone_cluster_too_small.inc();
        }
        let plan = zone::plan(config, proxies, &sizes);
        if plan == Plan::Flat {
            return None;
        }
        let list = |(_, _, at): &(_, _, &Locality)| self.flat(&[*at], Choose::Healthy);
        Some(Source::Zones(Box::new(Zones {
            plan,
            lists: places.iter().map(list).collect(),
            flat: self.flat(level, Choose::Healthy),
            stats: Arc::clone(self.stats),
            enabled: (config.routing_enabled.clamp(0.0, 100.0) * 100.0) as u64,
        })))
    }

    fn weight_of(&self, locality: &Locality, choose: Choose) -> f64 {
        let usable = locality.endpoints.iter().filter(|at| chosen(at, choose)).count();
        let all = locality.endpoints.len();
        let weight = locality.weight.unwrap_or(0);
        locality_weight(weight, usable as u32, all as u32, self.overprovisioning())
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
        let hashing = &self.cluster.balancing.hashing;
        let key = |index: usize| {
            endpoints.get(index).map_or_else(String::new, |at| key(at, hashing.by_hostname))
        };
        let balancer = &self.cluster.balancer;
        let recipe = Recipe { balancer, hashing, seed: self.seed, lot: self.lot };
        let picker = Picker::new(recipe, &weights, key);
        let ewma = match balancer {
            Balancer::PeakEwma(config) => Some(config.clone()),
            _ => None,
        };
        let active = hashing.bound.is_some().then(|| Arc::clone(self.stats));
        List { endpoints: endpoints.into(), picker, ewma, active }
    }
}

/// What an endpoint is hashed by: `hash_key` of its metadata, its host name or its address.
fn key(endpoint: &Endpoint, by_hostname: bool) -> String {
    let fields = endpoint.metadata.get(metadata::LB);
    let named = fields.and_then(|fields| fields.get("hash_key")).and_then(Value::text);
    match named.filter(|key| !key.is_empty()) {
        Some(key) => key.to_owned(),
        None if by_hostname => endpoint.hostname().to_owned(),
        None => endpoint.address.to_string(),
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

/// How long it takes until somebody notices that an endpoint's weight is another.
pub(crate) fn refresh_period(cluster: &Cluster) -> Option<Duration> {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(1);
    let reported = match &cluster.balancer {
        Balancer::Reported(config) => Some(config.update.max(SHORTEST)),
        _ => None,
    };
    let slow_start = cluster.balancing.slow_start.as_ref();
    let warming = slow_start.map(|config| (config.window / 50).clamp(SHORTEST, LONGEST));
    reported.into_iter().chain(warming).min()
}
