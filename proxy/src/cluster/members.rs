//! Which endpoints a cluster has: from its assignment, from names that were resolved, or from where
//! connections were going. Endpoints that stay keep their connections, ejections and counters.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Cluster;
use super::clock;
use super::endpoint::{Endpoint, Flags, Host};
use super::live::State;
use super::pool::Pool;
use super::set::{EndpointSet, Locality};
use super::spread::Layout;
use crate::model::Name;
use crate::model::balancing::LocalityRouting;
use crate::model::cluster::Discovery;
use crate::model::endpoint::{self, Assignment, Health, LocalityEndpoints, Target, Traits};
use crate::model::listener::Address;
use crate::telemetry::reason::Refusal;

impl Cluster {
    /// New endpoints. Those that stay keep their connections, ejections and counters.
    pub(super) fn assign(&self, assignment: Arc<Assignment>) {
        let mut state = self.lock();
        state.assignment = assignment;
        self.lay_out(&state);
    }

    /// New endpoints, if they are new; those to be resolved are looked up at once.
    pub(super) fn reassign(&self, assignment: Arc<Assignment>) {
        let differs = *self.lock().assignment != *assignment;
        if differs {
            self.assign(assignment);
            self.renamed.notify_one();
        }
    }

    /// Names stand for other addresses now. False: nothing changed.
    pub(super) fn resolved(&self, names: HashMap<(Name, u16), Vec<SocketAddr>>) -> bool {
        let mut state = self.lock();
        if state.resolved == names {
            return false;
        }
        state.resolved = names;
        self.lay_out(&state);
        true
    }

    /// The names that have to be resolved, and what they stand for now.
    pub(super) fn names(&self) -> HashMap<(Name, u16), Vec<SocketAddr>> {
        let state = self.lock();
        let targets = state.assignment.localities.iter().flat_map(|at| &at.endpoints);
        targets
            .filter_map(|endpoint| match &endpoint.address {
                Target::Dns(name, port) => Some((Name::clone(name), *port)),
                Target::Address(_) => None,
            })
            .map(|name| {
                let addresses = state.resolved.get(&name).cloned().unwrap_or_default();
                (name, addresses)
            })
            .collect()
    }

    /// Makes the set anew from the assignment, with the hosts that live.
    pub(super) fn lay_out(&self, state: &State) {
        let before = self.set.load();
        let mut builder =
            Builder { cluster: self, known: HashMap::new(), seen: HashSet::new(), changed: false };
        for endpoint in &before.endpoints {
            builder.known.entry(&endpoint.address).or_default().push(endpoint);
        }
        let locality = |at| builder.locality(at, state);
        let mut localities: Vec<Locality> =
            state.assignment.localities.iter().map(locality).collect();
        let removed = std::mem::take(&mut builder.known);
        let mut changed = builder.changed;
        // In the order that they had.
        let is_removed = |at: &&Arc<Endpoint>| {
            removed.get(&at.address).is_some_and(|left| left.iter().any(|one| one.is_same(at)))
        };
        for endpoint in before.endpoints.iter().filter(is_removed) {
            changed |= !self.keep_while_healthy(endpoint, &mut localities);
        }
        self.publish(&state.assignment, &localities, changed);
        if changed && self.config.close_on_set_change {
            let pools = before.endpoints.iter().flat_map(|endpoint| endpoint.host.pools());
            pools.for_each(Pool::let_go);
        }
        self.inbox.changed();
    }

    /// An endpoint that the control plane removed, and that active checks find well, may still be
    /// needed: it stays until one fails, as in Envoy. False: it goes.
    fn keep_while_healthy(&self, endpoint: &Arc<Endpoint>, localities: &mut Vec<Locality>) -> bool {
        let dynamic = matches!(self.config.discovery, Discovery::Eds(_) | Discovery::StrictDns(_));
        let checked = self.config.health_check.is_some() && !endpoint.check.disabled;
        let well =
            !endpoint.host.flags.has(Flags::FAILED_ACTIVE) && endpoint.health != Health::Unhealthy;
        if !(dynamic && checked && well) || self.config.remove_healthy {
            return false;
        }
        endpoint.host.flags.set(Flags::PENDING_REMOVAL);
        let same =
            |at: &&mut Locality| at.priority == endpoint.priority && at.place == endpoint.locality;
        match localities.iter_mut().find(same) {
            Some(locality) => locality.endpoints.push(Arc::clone(endpoint)),
            None => localities.push(Locality {
                place: Arc::clone(&endpoint.locality),
                priority: endpoint.priority,
                weight: None,
                endpoints: vec![Arc::clone(endpoint)],
            }),
        }
        true
    }

    fn publish(&self, assignment: &Assignment, localities: &[Locality], changed: bool) {
        let now = clock::now();
        let median = self.median_weight(localities, now);
        let proxies = self.zone.proxies_for(&self.config.name);
        let layout = Layout {
            cluster: &self.config,
            assignment,
            seed: fastrand::u64(..),
            lot: self.lot,
            proxies: proxies.as_deref(),
            weight: &|endpoint| self.weight(endpoint, median, now),
            locality_weighted: self.config.balancing.locality == LocalityRouting::Weighted,
            stats: &self.stats,
        };
        let set = EndpointSet::new(&layout, localities);
        self.count_subsets(set.subsets.as_ref().map_or(0, |index| index.len()));
        let duplicates = set.subsets.as_ref().map_or(0, |index| index.duplicates());
        if let Some(level) = self.stats.lb_subsets_duplicates.get() {
            level.set(i64::try_from(duplicates).unwrap_or(i64::MAX));
        }
        if !matches!(self.config.discovery, Discovery::Static) {
            let heaviest = set.endpoints.iter().map(|at| at.weight).max();
            self.stats.max_host_weight.set(heaviest.unwrap_or(0).into());
        }
        let stats = &self.stats;
        if changed {
            stats.membership_change.inc();
        }
        stats.membership_total.set(set.counts.all.into());
        stats.membership_healthy.set(set.counts.healthy.into());
        stats.membership_degraded.set(set.counts.degraded.into());
        stats.membership_excluded.set(set.counts.excluded.into());
        let ejected = set.endpoints.iter().filter(|endpoint| endpoint.is_ejected()).count();
        if let Some(stats) = &self.outlier_stats {
            stats.active.set(i64::try_from(ejected).unwrap_or(i64::MAX));
        }
        self.zone.tell(&self.config, &set, localities);
        self.set.store(Arc::new(set));
    }

    /// The endpoint at the address that a redirected connection was going to.
    pub(super) fn original_dst(
        &self,
        address: Option<SocketAddr>,
    ) -> Result<Arc<Endpoint>, Refusal> {
        let Some(address) = address else {
            let name = self.name();
            let detail = format!(
                "cluster {name} goes where a connection was going before it was redirected, and this one was not"
            );
            return Err(self.no_healthy(detail));
        };
        let address = Address::Socket(address);
        let find = |set: &EndpointSet| {
            set.endpoints.iter().find(|endpoint| endpoint.address == address).cloned()
        };
        if let Some(endpoint) = find(&self.set.load()) {
            return Ok(endpoint);
        }
        let mut state = self.lock();
        // Somebody else may have been faster.
        if let Some(endpoint) = find(&self.set.load()) {
            return Ok(endpoint);
        }
        let mut assignment = Assignment::clone(&state.assignment);
        if assignment.localities.is_empty() {
            assignment.localities.push(LocalityEndpoints::default());
        }
        if let Some(locality) = assignment.localities.first_mut() {
            let address = Target::Address(address.clone());
            locality.endpoints.push(endpoint::Endpoint { address, traits: Traits::plain() });
        }
        state.assignment = Arc::new(assignment);
        self.lay_out(&state);
        let set = self.set.load();
        find(&set).ok_or_else(|| self.nobody(&set))
    }

    /// Forgets redirected destinations that nobody goes to any more (`ORIGINAL_DST`).
    pub(super) fn forget_unused(&self) {
        let mut state = self.lock();
        let set = self.set.load();
        let used = |target: &Target| {
            let same = |endpoint: &&Arc<Endpoint>| matches!(target, Target::Address(address) if *address == endpoint.address);
            set.endpoints.iter().find(same).is_some_and(|endpoint| {
                let Some(used) = endpoint.host.if_used() else { return false };
                used.counters.cx_active.load(Ordering::Relaxed) > 0
                    || used.counters.rq_active.load(Ordering::Relaxed) > 0
            })
        };
        let mut assignment = Assignment::clone(&state.assignment);
        for locality in &mut assignment.localities {
            locality.endpoints.retain(|endpoint| used(&endpoint.address));
        }
        if assignment != *state.assignment {
            state.assignment = Arc::new(assignment);
            self.lay_out(&state);
        }
    }
}

/// A name that is resolved is also the host name, where no other is given.
fn traits(config: &endpoint::Endpoint) -> Arc<Traits> {
    match &config.address {
        Target::Dns(name, _) if config.traits.hostname.is_empty() => {
            Arc::new(Traits { hostname: Name::clone(name), ..Traits::clone(&config.traits) })
        }
        _ => Arc::clone(&config.traits),
    }
}

/// Turns configured endpoints into live ones.
struct Builder<'a> {
    cluster: &'a Cluster,
    /// Endpoints of the version before that were not met again yet. An address may stand for several.
    known: HashMap<&'a Address, Vec<&'a Arc<Endpoint>>>,
    seen: HashSet<Address>,
    /// There is an address that was not there before.
    changed: bool,
}

impl<'a> Builder<'a> {
    /// Whether an address counts once, wherever it stands again. As in Envoy: over EDS, and where one goes where
    /// connections were going. Otherwise each place is an endpoint of its own.
    fn is_once(&self) -> bool {
        matches!(self.cluster.config.discovery, Discovery::Eds(_)) || self.cluster.goes_anywhere()
    }

    /// The endpoint that was at this address before: at best the one in the same place.
    fn take_known(
        &mut self,
        address: &Address,
        place: &endpoint::Locality,
        priority: u32,
    ) -> Option<&'a Arc<Endpoint>> {
        let all = self.known.get_mut(address)?;
        let same = all.iter().position(|one| one.priority == priority && *one.locality == *place);
        (!all.is_empty()).then(|| all.remove(same.unwrap_or(0)))
    }

    fn locality(&mut self, configured: &LocalityEndpoints, state: &State) -> Locality {
        let place = Arc::clone(&configured.locality);
        let mut endpoints = Vec::with_capacity(configured.endpoints.len());
        for config in &configured.endpoints {
            let traits = traits(config);
            if !self.is_once() {
                // A name that stands for an address twice stands for it once.
                self.seen.clear();
            }
            for address in self.addresses(config, state) {
                if self.seen.insert(address.clone()) {
                    let old = self.take_known(&address, &place, configured.priority);
                    self.changed |= old.is_none();
                    let cluster = &self.cluster.config;
                    let socket = cluster.socket_for(&traits.metadata, &configured.metadata);
                    // Its pooled connections were made by another transport socket.
                    let alike = old.filter(|old| old.socket() == socket);
                    let host = self.host(alike, config);
                    let endpoint = Endpoint {
                        address,
                        traits: Arc::clone(&traits),
                        locality: Arc::clone(&place),
                        priority: configured.priority,
                        socket: u32::try_from(socket).unwrap_or(u32::MAX),
                        host,
                    };
                    endpoints.push(match old {
                        Some(old) if old.same_configuration(&endpoint) => Arc::clone(old),
                        _ => Arc::new(endpoint),
                    });
                }
            }
        }
        Locality { place, priority: configured.priority, weight: configured.weight, endpoints }
    }

    fn host(&self, old: Option<&Arc<Endpoint>>, config: &endpoint::Endpoint) -> Arc<Host> {
        // Two for each worker, and two for everybody else.
        let new = || Arc::new(Host::new((self.cluster.workers + 1) * 2));
        let host = old.map_or_else(new, |old| Arc::clone(&old.host));
        let settings = &self.cluster.config;
        if settings.health_check.is_none() || config.traits.check.disabled {
            host.flags.clear(Flags::BY_CHECKS);
        } else if old.is_none() {
            host.flags.set(Flags::FAILED_ACTIVE);
            if settings.ignore_unchecked {
                host.flags.set(Flags::PENDING_ACTIVE);
            }
        }
        host.flags.clear(Flags::PENDING_REMOVAL);
        host
    }

    fn addresses(&self, config: &endpoint::Endpoint, state: &State) -> Vec<Address> {
        match &config.address {
            Target::Address(address) => vec![address.clone()],
            Target::Dns(name, port) => {
                let all = state.resolved.get(&(Name::clone(name), *port));
                let one = matches!(self.cluster.config.discovery, Discovery::LogicalDns(_));
                let limit = if one { 1 } else { usize::MAX };
                let addresses = all.into_iter().flatten().take(limit);
                addresses.map(|address| Address::Socket(*address)).collect()
            }
        }
    }
}
