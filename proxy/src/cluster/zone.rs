//! Where the proxies of this kind are, for zone-aware routing: the local cluster tells it, the
//! others follow.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use super::balance::zone::{Proxies, Size};
use super::endpoint::Standing;
use super::live::Cluster;
use super::set::{EndpointSet, Locality as Group};
use crate::model;
use crate::model::Name;
use crate::model::balancing::LocalityRouting;
use crate::model::endpoint::Locality;

/// What is known about it.
#[derive(Debug, Default)]
pub(super) struct Zone {
    own: Locality,
    /// Name of the local cluster.
    local: Option<Name>,
    /// None: it is not known yet, or there is no local cluster.
    proxies: ArcSwapOption<Proxies>,
    /// Goes up with every change.
    version: AtomicU64,
}

impl Zone {
    pub(super) fn new(own: Locality, local: Option<Name>) -> Self {
        Self { own, local, ..Self::default() }
    }

    /// Goes up with every change.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// What the cluster of this name goes by: the local cluster itself knows no zones.
    pub(super) fn proxies_for(&self, name: &Name) -> Option<Arc<Proxies>> {
        if self.local.as_ref() == Some(name) { None } else { self.proxies.load_full() }
    }

    /// Whether a cluster has to follow changes.
    pub(super) fn matters(&self, config: &model::cluster::Cluster) -> bool {
        let aware = matches!(config.balancing.locality, LocalityRouting::ZoneAware(_));
        aware && self.local.as_ref().is_some_and(|local| *local != config.name)
    }

    /// The endpoints of a cluster are these now.
    pub(super) fn tell(
        &self,
        config: &model::cluster::Cluster,
        set: &EndpointSet,
        localities: &[Group],
    ) {
        if self.local.as_ref() != Some(&config.name) {
            return;
        }
        let mut proxies = Proxies { own: self.own.clone(), ..Proxies::default() };
        let mut places = HashSet::new();
        for endpoint in localities.iter().filter(|at| at.priority == 0).flat_map(|at| &at.endpoints)
        {
            places.insert(&endpoint.locality);
            if endpoint.standing() == Standing::Healthy {
                let size = proxies.healthy.entry((*endpoint.locality).clone());
                let size: &mut Size = size.or_default();
                size.count += 1;
                size.weight += u64::from(endpoint.weight);
            }
        }
        proxies.localities = places.len();
        let counts = set.counts;
        proxies.panic = counts.all == 0
            || u64::from(counts.healthy) * 100
                < u64::from(config.panic_threshold) * u64::from(counts.all);
        let known = self.proxies.load();
        if known.as_deref() != Some(&proxies) {
            self.proxies.store(Some(Arc::new(proxies)));
            self.version.fetch_add(1, Ordering::Release);
        }
    }
}

impl Cluster {
    /// Lays the endpoints out anew if the proxies of this kind are elsewhere now.
    pub(super) fn follow_zone(&self) {
        if !self.zone.matters(&self.config) {
            return;
        }
        let version = self.zone.version();
        if self.zone_version.swap(version, Ordering::AcqRel) != version {
            let state = self.lock();
            self.lay_out(&state);
        }
    }
}
