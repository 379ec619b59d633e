//! Workloads that sidecars registered, each with a lease.
//!
//! [`Registry`] is a pure state machine: the clock and the lease ids are arguments, and every change
//! says what must be written to the store. Only registrations and changes of readiness are
//! written, not renewals: after a restart a stored workload counts as alive for one full lease, so
//! that a restart of the control plane empties no endpoints.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::intent::{Locality, Name, Workload};
use crate::map::Map;

/// How long a lease lives without being renewed. Sidecars renew at a third of it.
pub const LEASE_TTL: Duration = Duration::from_secs(10);
/// Most workloads that are kept.
pub const MAX_WORKLOADS: usize = 100_000;

/// The registered workloads.
pub struct Registry {
    lease_ttl: Duration,
    workloads: BTreeMap<Name, Registered>,
    /// The same for others, without leases.
    shown: Map<Name, Arc<Workload>>,
    names: HashMap<String, Name>,
}

struct Registered {
    workload: Arc<Workload>,
    lease: String,
    expires: Instant,
}

/// What must be written to the store after a change.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// This record, under this key.
    Put {
        /// `namespace/name`.
        id: String,
        /// The workload and its lease, for [`Registry::restore`].
        record: Vec<u8>,
    },
    /// No record under this key any more.
    Delete {
        /// `namespace/name`.
        id: String,
    },
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A record holds a lease id, which is a secret of its sidecar.
        match self {
            Self::Put { id, .. } => f.debug_struct("Put").field("id", id).finish_non_exhaustive(),
            Self::Delete { id } => f.debug_struct("Delete").field("id", id).finish(),
        }
    }
}

impl Registry {
    /// An empty registry whose leases live for `lease_ttl`.
    #[must_use]
    pub fn new(lease_ttl: Duration) -> Self {
        Self { lease_ttl, workloads: BTreeMap::new(), shown: Map::new(), names: HashMap::new() }
    }

    /// Takes in the records of an earlier run, each alive for one full lease from `now`. Returns the
    /// keys of records that cannot be read.
    pub fn restore(
        &mut self,
        now: Instant,
        records: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Vec<String> {
        let mut unreadable = Vec::new();
        for (id, record) in records {
            match serde_json::from_slice::<Record>(&record) {
                Ok(record) => self.insert(now, Arc::new(record.workload), record.lease),
                Err(_) => unreadable.push(id),
            }
        }
        unreadable
    }

    /// How long a lease lives.
    #[must_use]
    pub fn lease_ttl(&self) -> Duration {
        self.lease_ttl
    }

    /// Registers a workload under `lease`, in place of an earlier registration of the same name.
    /// `None` when there is no room for another one.
    pub fn register(&mut self, now: Instant, workload: Workload, lease: String) -> Option<Change> {
        let known = self.workloads.contains_key(&workload.name);
        if !known && self.workloads.len() >= MAX_WORKLOADS {
            return None;
        }
        let workload = Arc::new(workload);
        let change = put(&workload, &lease);
        self.insert(now, workload, lease);
        Some(change)
    }

    /// Prolongs a lease. `None` when it is unknown; else what changed, if readiness did.
    pub fn renew(&mut self, now: Instant, lease: &str, ready: bool) -> Option<Option<Change>> {
        let registered = self.workloads.get_mut(self.names.get(lease)?)?;
        registered.expires = now + self.lease_ttl;
        if registered.workload.ready == ready {
            return Some(None);
        }
        let mut workload = Workload::clone(&registered.workload);
        workload.ready = ready;
        registered.workload = Arc::new(workload);
        self.shown.insert(registered.workload.name.clone(), Arc::clone(&registered.workload));
        Some(Some(put(&registered.workload, lease)))
    }

    /// Ends a lease; `None` when it is unknown.
    pub fn deregister(&mut self, lease: &str) -> Option<Change> {
        let name = self.names.remove(lease)?;
        self.workloads.remove(&name)?;
        self.shown.remove(&name);
        Some(Change::Delete { id: name.to_string() })
    }

    /// Drops every workload whose lease ran out by `now`.
    pub fn expire(&mut self, now: Instant) -> Vec<Change> {
        let over = |registered: &Registered| registered.expires <= now;
        let dead: Vec<String> =
            self.workloads.values().filter(|r| over(r)).map(|r| r.lease.clone()).collect();
        dead.iter().filter_map(|lease| self.deregister(lease)).collect()
    }

    /// Gives every workload a full lease from `now`: for when this process itself could not listen
    /// to renewals (it was stopped, or the machine slept).
    pub fn grant_all(&mut self, now: Instant) {
        for registered in self.workloads.values_mut() {
            registered.expires = now + self.lease_ttl;
        }
    }

    /// When the next lease runs out, if none is renewed.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.workloads.values().map(|registered| registered.expires).min()
    }

    /// The workload of a lease.
    #[must_use]
    pub fn workload(&self, lease: &str) -> Option<Arc<Workload>> {
        let registered = self.workloads.get(self.names.get(lease)?)?;
        Some(Arc::clone(&registered.workload))
    }

    /// All workloads, ready or not.
    #[must_use]
    pub fn workloads(&self) -> Map<Name, Arc<Workload>> {
        self.shown.clone()
    }

    fn insert(&mut self, now: Instant, workload: Arc<Workload>, lease: String) {
        let name = workload.name.clone();
        if let Some(replaced) = self.workloads.get(&name) {
            self.names.remove(&replaced.lease);
        }
        self.names.insert(lease.clone(), name.clone());
        self.shown.insert(name.clone(), Arc::clone(&workload));
        let expires = now + self.lease_ttl;
        self.workloads.insert(name, Registered { workload, lease, expires });
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("lease_ttl", &self.lease_ttl)
            .field("workloads", &self.workloads.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

fn put(workload: &Arc<Workload>, lease: &str) -> Change {
    let record = Record { lease: lease.to_owned(), workload: Workload::clone(workload) };
    let encoded = serde_json::to_vec(&record).expect("plain data with text keys has a JSON form");
    Change::Put { id: workload.name.to_string(), record: encoded }
}

/// A registration as it is stored.
#[derive(Serialize, Deserialize)]
struct Record {
    lease: String,
    #[serde(with = "StoredWorkload")]
    workload: Workload,
}

/// The stored form of [`Workload`].
#[derive(Serialize, Deserialize)]
#[serde(remote = "Workload")]
struct StoredWorkload {
    #[serde(with = "StoredName")]
    name: Name,
    labels: BTreeMap<String, String>,
    service: Option<String>,
    address: std::net::IpAddr,
    ports: BTreeMap<String, u16>,
    app_port: Option<u16>,
    service_account: String,
    #[serde(with = "StoredLocality")]
    locality: Locality,
    weight: u32,
    ready: bool,
    sidecar_port: Option<u16>,
    #[serde(default)]
    captured: bool,
    #[serde(default)]
    open_ports: Vec<(u16, u16)>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Name")]
struct StoredName {
    namespace: String,
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Locality")]
struct StoredLocality {
    region: String,
    zone: String,
    sub_zone: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn workload(name: &str) -> Workload {
        Workload {
            name: Name::new("default", name),
            labels: [("app".to_owned(), "catalog".to_owned())].into(),
            service: Some("catalog".to_owned()),
            address: [127, 0, 0, 1].into(),
            ports: BTreeMap::new(),
            app_port: Some(8080),
            service_account: "catalog".to_owned(),
            locality: Locality::default(),
            weight: 1,
            ready: true,
            sidecar_port: Some(15006),
            captured: false,
            open_ports: Vec::new(),
        }
    }

    fn names(registry: &Registry) -> Vec<String> {
        registry.workloads().keys().map(|name| name.name.clone()).collect()
    }

    #[test]
    fn a_lease_lives_as_long_as_it_is_renewed() {
        let start = Instant::now();
        let mut registry = Registry::new(LEASE_TTL);
        registry.register(start, workload("a"), "la".to_owned()).unwrap();
        registry.register(start, workload("b"), "lb".to_owned()).unwrap();
        assert_eq!(registry.renew(start + 5 * SECOND, "la", true), Some(None));
        assert_eq!(registry.next_expiry(), Some(start + LEASE_TTL));
        assert_eq!(registry.expire(start + LEASE_TTL - SECOND), []);
        let gone = registry.expire(start + LEASE_TTL);
        assert_eq!(gone, [Change::Delete { id: "default/b".to_owned() }]);
        assert_eq!(names(&registry), ["a"]);
        assert_eq!(registry.renew(start + LEASE_TTL, "lb", true), None, "a dead lease stays dead");
        registry.expire(start + 15 * SECOND);
        assert!(names(&registry).is_empty());
        assert_eq!(registry.next_expiry(), None);
    }

    #[test]
    fn readiness_is_written_when_it_changes() {
        let now = Instant::now();
        let mut registry = Registry::new(LEASE_TTL);
        registry.register(now, workload("a"), "la".to_owned()).unwrap();
        assert!(matches!(registry.renew(now, "la", false), Some(Some(Change::Put { .. }))));
        assert_eq!(registry.renew(now, "la", false), Some(None));
        assert!(!registry.workload("la").unwrap().ready);
        assert!(matches!(registry.renew(now, "la", true), Some(Some(Change::Put { .. }))));
    }

    #[test]
    fn a_new_registration_replaces_the_old_one_and_its_lease() {
        let now = Instant::now();
        let mut registry = Registry::new(LEASE_TTL);
        registry.register(now, workload("a"), "old".to_owned()).unwrap();
        registry.register(now, workload("a"), "new".to_owned()).unwrap();
        assert_eq!(registry.renew(now, "old", true), None);
        assert_eq!(registry.deregister("old"), None, "the old process cannot end the new lease");
        assert_eq!(names(&registry), ["a"]);
        assert!(registry.deregister("new").is_some());
        assert!(names(&registry).is_empty());
    }

    #[test]
    fn after_a_restart_everything_lives_one_full_lease_and_can_be_renewed() {
        let start = Instant::now();
        let mut before = Registry::new(LEASE_TTL);
        let mut stored = Vec::new();
        for name in ["a", "b"] {
            match before.register(start, workload(name), format!("lease-{name}")) {
                Some(Change::Put { id, record }) => stored.push((id, record)),
                other => panic!("{other:?}"),
            }
        }
        stored.push(("default/broken".to_owned(), b"{}".to_vec()));
        let restart = start + Duration::from_secs(3600);
        let mut after = Registry::new(LEASE_TTL);
        assert_eq!(after.restore(restart, stored), ["default/broken"]);
        assert_eq!(after.workloads(), before.workloads());
        assert_eq!(after.expire(restart + LEASE_TTL - SECOND), []);
        assert_eq!(after.renew(restart + 9 * SECOND, "lease-a", true), Some(None));
        after.expire(restart + LEASE_TTL);
        assert_eq!(names(&after), ["a"]);
    }

    #[test]
    fn debug_shows_no_lease() {
        let mut registry = Registry::new(LEASE_TTL);
        let change = registry.register(Instant::now(), workload("a"), "s3cret".to_owned());
        assert!(!format!("{registry:?} {change:?}").contains("s3cret"));
    }
}
