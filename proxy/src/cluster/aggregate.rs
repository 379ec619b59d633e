//! Aggregate clusters: the priorities of several clusters, one after the other. A request goes to one
//! of these clusters, by how many healthy endpoints their priorities have, and that one picks.

use std::sync::Arc;

use super::balance::priority::{Counts, Rules, loads};
use super::live::Cluster;
use super::publish::Live;
use super::set::EndpointSet;
use crate::model::cluster::Discovery;

/// Aggregates within aggregates end somewhere, even if they name each other.
const DEEPEST: usize = 8;

/// Envoy's overprovisioning factor, in percent.
const OVERPROVISIONING: u32 = 140;

/// How an aggregate shares its traffic, as long as nothing changes.
#[derive(Debug)]
pub(super) struct Shares {
    /// The configuration that this was made of.
    version: u64,
    leaves: Box<[Leaf]>,
}

#[derive(Debug)]
struct Leaf {
    cluster: Arc<Cluster>,
    set: Arc<EndpointSet>,
    /// Percent, up to and including.
    upto: u32,
}

impl Live {
    /// The cluster that really takes a request to `cluster`: itself, or one of those that it is made
    /// of. `roll` is the request's hash, or chance. An aggregate without anybody is itself.
    pub fn leaf(&self, cluster: &Arc<Cluster>, roll: u64) -> Arc<Cluster> {
        let Discovery::Aggregate(_) = &cluster.config.discovery else { return Arc::clone(cluster) };
        let known = cluster.shares.load();
        match known.as_ref().filter(|known| known.hold(self.version)) {
            Some(known) => known.pick(roll),
            None => {
                let made = Arc::new(Shares::new(self, cluster));
                cluster.shares.store(Some(Arc::clone(&made)));
                made.pick(roll)
            }
        }
        .unwrap_or_else(|| Arc::clone(cluster))
    }

    fn leaves(&self, cluster: &Arc<Cluster>, depth: usize, found: &mut Vec<Arc<Cluster>>) {
        match &cluster.config.discovery {
            Discovery::Aggregate(names) if depth < DEEPEST => {
                for name in names {
                    if let Some(cluster) = self.cluster(name) {
                        self.leaves(cluster, depth + 1, found);
                    }
                }
            }
            Discovery::Aggregate(_) => {}
            _ => found.push(Arc::clone(cluster)),
        }
    }
}

impl Shares {
    fn new(live: &Live, cluster: &Arc<Cluster>) -> Self {
        let mut clusters = Vec::new();
        live.leaves(cluster, 0, &mut clusters);
        let sets: Vec<Arc<EndpointSet>> = clusters.iter().map(|one| one.set.load_full()).collect();
        let levels: Vec<Counts> = sets.iter().flat_map(|set| set.levels.iter().copied()).collect();
        let rules = Rules {
            overprovisioning: OVERPROVISIONING,
            panic_threshold: cluster.config.panic_threshold,
            by_weight: false,
        };
        let loads = loads(&levels, &rules);
        let mut each = loads.healthy.iter().zip(&loads.degraded).map(|(a, b)| a + b);
        let mut upto = 0;
        let leaves = clusters.into_iter().zip(sets).map(|(cluster, set)| {
            upto += each.by_ref().take(set.levels.len()).sum::<u32>();
            Leaf { cluster, set, upto }
        });
        Self { version: live.version, leaves: leaves.collect() }
    }

    fn hold(&self, version: u64) -> bool {
        let same = |leaf: &Leaf| Arc::ptr_eq(&leaf.cluster.set.load(), &leaf.set);
        self.version == version && self.leaves.iter().all(same)
    }

    fn pick(&self, roll: u64) -> Option<Arc<Cluster>> {
        let roll = (roll % 100) as u32 + 1;
        let leaf = self.leaves.get(self.leaves.partition_point(|leaf| leaf.upto < roll))?;
        Some(Arc::clone(&leaf.cluster))
    }
}
