//! The registered workloads, shared: the pure registry, the store behind it, and who watches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::{Mutex, watch};

use crate::intent::{Name, Workload};
use crate::map::Map;
use crate::source::registry::{Change, Registry};
use crate::store::{Store, StoreError, WorkloadChange};
use crate::xds::{Lease, Registrar};

/// Leases are looked at least this often.
const TICK: Duration = Duration::from_secs(1);
/// A look at the leases that comes so late means that this process did not run.
const MISSED: Duration = Duration::from_secs(2);

/// The workloads at one moment.
pub(crate) type Workloads = Map<Name, Arc<Workload>>;

/// A registry that several tasks use.
pub(crate) struct SharedRegistry {
    registry: Mutex<Registry>,
    store: Arc<dyn Store>,
    changed: watch::Sender<Workloads>,
}

impl SharedRegistry {
    /// Takes in what the store has, each with a full lease.
    pub(crate) fn restore(store: Arc<dyn Store>, lease_ttl: Duration) -> Result<Self, StoreError> {
        let mut registry = Registry::new(lease_ttl);
        for id in registry.restore(Instant::now(), store.workloads()?) {
            tracing::warn!(id, "forgets a stored workload that cannot be read");
            store.change_workloads(&[WorkloadChange::Delete { id }])?;
        }
        let (changed, _) = watch::channel(registry.workloads());
        Ok(Self { registry: Mutex::new(registry), store, changed })
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Workloads> {
        self.changed.subscribe()
    }

    /// Drops workloads whose lease ran out, for ever.
    pub(crate) async fn run_expiry(&self) {
        loop {
            let now = Instant::now();
            let next = self.registry.lock().await.next_expiry().unwrap_or(now + TICK);
            let pause = next.saturating_duration_since(now).clamp(Duration::from_millis(10), TICK);
            tokio::time::sleep(pause).await;
            let mut registry = self.registry.lock().await;
            let woken = Instant::now();
            if woken.duration_since(now) > pause + MISSED {
                tracing::warn!("was not running for a while: every workload gets a full lease");
                registry.grant_all(woken);
                continue;
            }
            let dead = registry.expire(woken);
            for change in &dead {
                if let Change::Delete { id } = change {
                    tracing::warn!(workload = id, "its lease ran out");
                }
            }
            self.apply(&registry, dead).await;
        }
    }

    /// Tells the watchers first (a workload that is gone must leave the endpoints at once), then
    /// writes. The lock is held meanwhile, so that writes keep their order.
    async fn apply(&self, registry: &Registry, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        self.changed.send_replace(registry.workloads());
        let changes: Vec<WorkloadChange> = changes.into_iter().map(stored).collect();
        let store = Arc::clone(&self.store);
        let written = tokio::task::spawn_blocking(move || store.change_workloads(&changes)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "cannot store the registered workloads; goes on without");
        }
    }
}

#[tonic::async_trait]
impl Registrar for SharedRegistry {
    async fn register(&self, workload: Workload) -> Option<Lease> {
        let id = new_lease()?;
        let mut registry = self.registry.lock().await;
        let change = registry.register(Instant::now(), workload, id.clone())?;
        self.apply(&registry, vec![change]).await;
        Some(Lease { id, ttl: registry.lease_ttl() })
    }

    async fn renew(&self, lease: &str, ready: bool) -> Option<Duration> {
        let mut registry = self.registry.lock().await;
        let change = registry.renew(Instant::now(), lease, ready)?;
        self.apply(&registry, change.into_iter().collect()).await;
        Some(registry.lease_ttl())
    }

    async fn deregister(&self, lease: &str) {
        let mut registry = self.registry.lock().await;
        let change = registry.deregister(lease);
        self.apply(&registry, change.into_iter().collect()).await;
    }

    async fn workload(&self, lease: &str) -> Option<Arc<Workload>> {
        self.registry.lock().await.workload(lease)
    }
}

fn stored(change: Change) -> WorkloadChange {
    match change {
        Change::Put { id, record } => WorkloadChange::Put { id, record },
        Change::Delete { id } => WorkloadChange::Delete { id },
    }
}

/// A handle that nobody can guess. `None` when the system gives no random bytes.
fn new_lease() -> Option<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}
