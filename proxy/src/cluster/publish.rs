//! Making clusters of configuration, keeping what did not change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::task::AbortHandle;

use super::live::{Cluster, Workshop};
use super::spread::refresh_period;
use super::zone::Zone;
use super::{check, discovery};
use crate::model::cluster::Discovery;
use crate::model::endpoint::{Assignment, Locality};
use crate::model::tls::{CommonTls, SecretRef};
use crate::model::{self, Changes, Map, Name, Snapshot};
use crate::telemetry::stats::{Fresh as _, Registry, metrics};

/// All clusters of the proxy.
#[derive(Debug)]
pub struct Clusters {
    live: ArcSwap<Live>,
    registry: Registry,
    workers: usize,
    zone: Arc<Zone>,
    stats: Arc<ManagerStats>,
    /// Held by whoever publishes.
    publishing: Mutex<()>,
    /// The version of the zone that every cluster follows.
    followed: AtomicU64,
}

/// A snapshot of the configuration with its clusters alive. An exchange holds one for its whole
/// life.
#[derive(Debug, Default)]
pub struct Live {
    /// The configuration.
    pub snapshot: Snapshot,
    pub(super) clusters: Map<Arc<Running>>,
    /// Another one for each configuration.
    pub(super) version: u64,
}

metrics! {
    /// `cluster_manager.`
    struct ManagerStats {
        counters {
            /// Clusters that are new.
            added = "cluster_added",
            /// Clusters that are others now.
            modified = "cluster_modified",
            /// Clusters that are gone.
            removed = "cluster_removed",
            /// Clusters whose endpoints are others now.
            updated = "cluster_updated",
        }
        gauges {
            /// Clusters.
            active = "active_clusters",
        }
        histograms {}
        never {
            counters [
                "cluster_updated_via_merge",
                "update_merge_cancelled",
                "update_out_of_merge_window",
            ]
            gauges []
        }
    }
}

/// A cluster with the task that looks after it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) cluster: Arc<Cluster>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Live {
    /// The cluster of this name.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name).map(|running| &running.cluster)
    }

    /// All clusters, by name in no order.
    pub fn clusters(&self) -> impl Iterator<Item = (&Name, &Arc<Cluster>)> {
        self.clusters.iter().map(|(name, running)| (name, &running.cluster))
    }

    /// Whether every cluster whose endpoints are found by DNS has asked for them once.
    pub fn is_resolved(&self) -> bool {
        self.clusters().all(|(_, cluster)| cluster.is_resolved() || !cluster.config.wait_for_warm)
    }

    /// A cluster whose endpoints were not all checked once. None: there is no such cluster.
    pub fn unchecked(&self) -> Option<&Name> {
        let mut all = self.clusters();
        all.find(|(_, cluster)| !cluster.is_checked() && cluster.config.wait_for_warm)
            .map(|(name, _)| name)
    }
}

impl Clusters {
    /// No clusters yet. `workers`: how many data workers will call
    /// [`set_worker`](super::set_worker).
    pub fn new(registry: &Registry, workers: usize) -> Arc<Self> {
        Self::in_zone(registry, workers, Locality::default(), None)
    }

    /// The same, for a proxy that knows where it is (`node.locality`) and which cluster its own kind
    /// is (`cluster_manager.local_cluster_name`): zone-aware routing goes by these.
    pub fn in_zone(
        registry: &Registry,
        workers: usize,
        own: Locality,
        local_cluster: Option<Name>,
    ) -> Arc<Self> {
        Arc::new(Self {
            live: ArcSwap::default(),
            registry: registry.clone(),
            workers,
            zone: Arc::new(Zone::new(own, local_cluster)),
            stats: registry.scope("cluster_manager", None).group(ManagerStats::fresh),
            publishing: Mutex::default(),
            followed: AtomicU64::new(0),
        })
    }

    /// How many data workers there are.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// What is in force now.
    pub fn load(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Puts a snapshot into force. `changes` must name everything that differs from the one before.
    ///
    /// Called on the control thread, inside its runtime: DNS and outlier detection run there. A
    /// cluster whose configuration is equal stays as it is; one that differs keeps its pools
    /// unless connections are made differently; endpoints that stay keep theirs in any case.
    pub fn publish(&self, snapshot: Snapshot, changes: &Changes) {
        let _publishing = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.live.load_full();
        let mut clusters = before.clusters.clone();
        for name in &changes.clusters {
            match snapshot.clusters.get(name) {
                None => {
                    if clusters.remove_mut(name) {
                        self.stats.removed.inc();
                    }
                }
                Some(config) => {
                    let old = before.clusters.get(name);
                    if old.is_none_or(|old| old.cluster.config != *config) {
                        let old = old.map(|old| &*old.cluster);
                        if old.is_some() { &self.stats.modified } else { &self.stats.added }.inc();
                        let running = self.start(config, &snapshot, old);
                        clusters.insert_mut(Name::clone(name), Arc::new(running));
                    }
                }
            }
        }
        for name in &changes.assignments {
            if let Some(running) = clusters.get(name)
                && !running.cluster.goes_anywhere()
            {
                running.cluster.reassign(assignment(&snapshot, name));
                self.stats.updated.inc();
            }
        }
        for (_, running) in clusters.iter().filter(|_| !changes.secrets.is_empty()) {
            if names_any(&running.cluster.config, &changes.secrets) {
                running.cluster.connector.reload_tls(&snapshot.secrets);
            }
        }
        let zone = self.zone.version();
        // Those that are new have it from the start.
        if self.followed.swap(zone, Ordering::Relaxed) != zone {
            clusters.values().for_each(|running| running.cluster.follow_zone());
        }
        self.stats.active.set(i64::try_from(clusters.size()).unwrap_or(i64::MAX));
        let version = before.version + 1;
        self.live.store(Arc::new(Live { snapshot, clusters, version }));
    }

    /// Certificate files changed: reads them again. Connections that are open stay.
    pub fn reload_tls(&self) {
        let live = self.load();
        for (_, cluster) in live.clusters() {
            cluster.connector.reload_tls(&live.snapshot.secrets);
        }
    }

    /// Waits until every cluster has its first endpoints from DNS, or at least an answer that
    /// there are none.
    pub async fn resolved(&self) {
        while !self.load().is_resolved() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn start(
        &self,
        config: &Arc<model::cluster::Cluster>,
        snapshot: &Snapshot,
        before: Option<&Cluster>,
    ) -> Running {
        let workshop = Workshop {
            registry: &self.registry,
            workers: self.workers,
            secrets: &snapshot.secrets,
            zone: &self.zone,
        };
        let assignment = assignment(snapshot, &config.name);
        let cluster = Cluster::new(Arc::clone(config), assignment, before, &workshop);
        let cluster = Arc::new(cluster);
        let mut tasks = Vec::new();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let mut run = |task: AbortHandle| tasks.push(task);
            if let Some(outliers) = &config.outliers {
                let sweep = every(Arc::downgrade(&cluster), outliers.interval, |cluster| {
                    cluster.sweep(Instant::now());
                });
                run(runtime.spawn(sweep).abort_handle());
            }
            if let Some(check) = &config.health_check {
                let task = check::run(Arc::clone(&cluster), Arc::clone(check));
                run(runtime.spawn(task).abort_handle());
            }
            let period = refresh_period(config);
            if let Some(period) = period.or_else(|| self.zone.matters(config).then_some(ZONES)) {
                let refresh = every(Arc::downgrade(&cluster), period, Cluster::refresh);
                run(runtime.spawn(refresh).abort_handle());
            }
            match &config.discovery {
                Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => {
                    let task = discovery::run(Arc::downgrade(&cluster), dns.clone());
                    run(runtime.spawn(task).abort_handle());
                }
                Discovery::OriginalDst | Discovery::Forward(_) => {
                    let cleanup = every(
                        Arc::downgrade(&cluster),
                        config.cleanup_interval,
                        Cluster::forget_unused,
                    );
                    run(runtime.spawn(cleanup).abort_handle());
                }
                Discovery::Static | Discovery::Eds(_) | Discovery::Aggregate(_) => {}
            }
        }
        Running { cluster, tasks }
    }
}

/// How long it takes until a change of the local cluster's health is seen in other clusters.
const ZONES: Duration = Duration::from_secs(1);

fn assignment(snapshot: &Snapshot, name: &Name) -> Arc<Assignment> {
    snapshot.assignments.get(name).cloned().unwrap_or_default()
}

async fn every(cluster: Weak<Cluster>, interval: Duration, job: fn(&Cluster)) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(cluster) = cluster.upgrade() else { return };
        job(&cluster);
    }
}

/// Whether the TLS context names one of these secrets.
fn names_any(cluster: &model::cluster::Cluster, secrets: &[Name]) -> bool {
    cluster.tls_contexts().any(|tls| {
        let CommonTls { certificates, validation, .. } = &tls.common;
        let named = certificates.iter().filter_map(|certificate| match certificate {
            SecretRef::Sds(name) => Some(name),
            SecretRef::Inline(_) => None,
        });
        let roots = validation.as_ref().and_then(|validation| validation.sds.as_ref());
        named.chain(roots).any(|name| secrets.contains(name.key()))
    })
}
