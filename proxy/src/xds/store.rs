//! Everything that was accepted, and the snapshot that is made of it.
//!
//! A cluster is put into service when its endpoints and secrets are there, a listener when its
//! routes and secrets are; until then the version before it stays in force (Envoy: warming). What
//! does not arrive within its `initial_fetch_timeout` is not waited for any longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::kind::Kind;
use super::references;
use super::translate::Resource;
use crate::model::cluster::{Cluster, Discovery};
use crate::model::endpoint::Assignment;
use crate::model::extension::Extension;
use crate::model::listener::Listener;
use crate::model::route::RouteTable;
use crate::model::source::Reference;
use crate::model::tls::Secret;
use crate::model::{Changes, Map, Name, Snapshot};

/// Accepted resources, static and dynamic.
#[derive(Debug, Default)]
pub struct Store {
    clusters: BTreeMap<Name, (Arc<Cluster>, Option<Arc<Assignment>>)>,
    endpoints: BTreeMap<Name, Arc<Assignment>>,
    listeners: BTreeMap<Name, Arc<Listener>>,
    routes: BTreeMap<Name, Arc<RouteTable>>,
    secrets: BTreeMap<Name, Arc<Secret>>,
    extensions: BTreeMap<Name, Arc<Extension>>,
    /// Not waited for any longer.
    given_up: BTreeSet<(Kind, Name)>,
    /// From the bootstrap: the server can neither replace nor remove them.
    fixed: BTreeSet<(Kind, Name)>,
    /// Secrets that this proxy makes itself: never asked for.
    own: BTreeSet<Name>,
    published: Snapshot,
}

impl Store {
    /// Take a static resource of the bootstrap.
    pub fn fix(&mut self, resource: Resource) {
        let (kind, name) = key(&resource);
        self.fixed.insert((kind, Arc::clone(&name)));
        self.put(name, resource);
    }

    /// Names of secrets that this proxy makes itself.
    pub fn own_secrets(&mut self, names: impl IntoIterator<Item = Name>) {
        self.own.extend(names);
    }

    /// Take an accepted resource, from ADS or this process. A static one of the same name stays.
    pub fn accept(&mut self, resource: Resource) {
        let (_, name) = key(&resource);
        self.accept_as(name, resource);
    }

    /// Take an accepted resource under its [key](Reference::key).
    pub fn accept_as(&mut self, name: Name, resource: Resource) {
        let (kind, _) = key(&resource);
        if self.fixed.contains(&(kind, Arc::clone(&name))) {
            tracing::warn!(%kind, %name, "a static resource of this name exists; ignored");
            return;
        }
        self.given_up.remove(&(kind, Arc::clone(&name)));
        self.put(name, resource);
    }

    /// A resource is gone.
    pub fn remove(&mut self, kind: Kind, name: &Name) {
        if self.fixed.contains(&(kind, Arc::clone(name))) {
            return;
        }
        match kind {
            Kind::Cluster => drop(self.clusters.remove(name)),
            Kind::Endpoints => drop(self.endpoints.remove(name)),
            Kind::Listener => drop(self.listeners.remove(name)),
            Kind::Routes => drop(self.routes.remove(name)),
            Kind::Secret => drop(self.secrets.remove(name)),
            Kind::Extension => drop(self.extensions.remove(name)),
        }
    }

    /// Stop waiting for a resource that did not arrive in time, or does not exist.
    pub fn give_up(&mut self, kind: Kind, name: Name) {
        self.given_up.insert((kind, name));
    }

    /// Which endpoints, routes, secrets and settings the clusters and listeners refer to and somebody has to
    /// be asked for, by key.
    pub fn wanted(&self, kind: Kind) -> BTreeMap<Name, Reference> {
        let clusters = self.clusters.values().flat_map(|(one, _)| references::of_cluster(one));
        let listeners = self.listeners.values().flat_map(|one| references::of_listener(one));
        let mut wanted: BTreeMap<Name, Reference> = BTreeMap::new();
        for (_, reference) in clusters.chain(listeners).filter(|(of, _)| *of == kind) {
            let key = reference.key();
            let given = kind == Kind::Secret && self.own.contains(key);
            if given || self.fixed.contains(&(kind, Arc::clone(key))) {
                continue;
            }
            let patient = match wanted.remove(key) {
                Some(known) => known.patient(reference),
                None => reference.clone(),
            };
            wanted.insert(Arc::clone(key), patient);
        }
        wanted
    }

    /// For whom things of a kind are asked for, by key: endpoints for clusters (their names in metrics), routes for
    /// connection managers (their prefixes).
    pub(super) fn users(&self, kind: Kind) -> BTreeMap<Name, BTreeSet<Name>> {
        let mut users: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        let mut add = |reference: &Reference, user: &Name| {
            users.entry(Arc::clone(reference.key())).or_default().insert(Arc::clone(user));
        };
        match kind {
            Kind::Endpoints => {
                for (cluster, _) in self.clusters.values() {
                    if let Discovery::Eds(reference) = &cluster.discovery {
                        add(reference, &cluster.stat_name);
                    }
                }
            }
            Kind::Routes => {
                let all = self.listeners.values().flat_map(|one| references::routes_of(one));
                all.for_each(|(prefix, reference)| add(reference, prefix));
            }
            _ => {}
        }
        users
    }

    /// Forget dynamic resources that nothing refers to any more.
    pub fn forget_unwanted(&mut self) {
        let [endpoints, routes, secrets, extensions] = Kind::NAMED.map(|kind| self.wanted(kind));
        let (fixed, own) = (&self.fixed, &self.own);
        let stays = |kind, name: &Name| fixed.contains(&(kind, Arc::clone(name)));
        self.endpoints
            .retain(|name, _| endpoints.contains_key(name) || stays(Kind::Endpoints, name));
        self.routes.retain(|name, _| routes.contains_key(name) || stays(Kind::Routes, name));
        self.extensions.retain(|name, _| extensions.contains_key(name));
        self.secrets.retain(|name, _| {
            secrets.contains_key(name) || own.contains(name) || stays(Kind::Secret, name)
        });
    }

    /// The snapshot of what is ready, and what differs from the one before. None: nothing does.
    pub fn assemble(&mut self) -> Option<(Snapshot, Changes)> {
        let mut next = self.published.clone();
        let mut changes = Changes::default();
        sync(&mut next.secrets, &self.secrets, &mut changes.secrets);
        sync(&mut next.routes, &self.routes, &mut changes.routes);
        sync(&mut next.extensions, &self.extensions, &mut changes.extensions);
        self.ready_clusters(&mut next, &mut changes);
        let mut listeners = BTreeMap::new();
        for (name, listener) in &self.listeners {
            if self.listener_ready(listener) {
                listeners.insert(Arc::clone(name), Arc::clone(listener));
            } else if let Some(before) = self.published.listeners.get(name) {
                listeners.insert(Arc::clone(name), Arc::clone(before));
            }
        }
        sync(&mut next.listeners, &listeners, &mut changes.listeners);
        if changes.is_empty() {
            return None;
        }
        self.published = next.clone();
        Some((next, changes))
    }

    /// Names of what is accepted but not in service yet, for people who wonder.
    pub fn warming(&self) -> Vec<(Kind, Name)> {
        let clusters =
            self.clusters.iter().filter(|(_, (cluster, _))| !self.cluster_ready(cluster));
        let clusters = clusters.map(|(name, _)| (Kind::Cluster, Arc::clone(name)));
        let listeners = self.listeners.iter().filter(|(_, one)| !self.listener_ready(one));
        clusters.chain(listeners.map(|(name, _)| (Kind::Listener, Arc::clone(name)))).collect()
    }

    fn ready_clusters(&self, next: &mut Snapshot, changes: &mut Changes) {
        let mut clusters = BTreeMap::new();
        let mut assignments = BTreeMap::new();
        for (name, (cluster, own)) in &self.clusters {
            let cluster = if self.cluster_ready(cluster) {
                cluster
            } else {
                match self.published.clusters.get(name) {
                    Some(before) => before,
                    None => continue,
                }
            };
            clusters.insert(Arc::clone(name), Arc::clone(cluster));
            let assignment = match &cluster.discovery {
                Discovery::Eds(eds) => self.endpoints.get(eds.key()).cloned(),
                _ => own.clone(),
            };
            // Nothing arrived in time: an empty cluster, as in Envoy.
            let assignment = assignment
                .or_else(|| self.published.assignments.get(name).cloned())
                .unwrap_or_default();
            assignments.insert(Arc::clone(name), assignment);
        }
        sync(&mut next.clusters, &clusters, &mut changes.clusters);
        sync(&mut next.assignments, &assignments, &mut changes.assignments);
    }

    /// Endpoints that are held already are used at once, whatever the server sends next.
    fn cluster_ready(&self, cluster: &Cluster) -> bool {
        references::of_cluster(cluster).iter().all(|(kind, name)| self.here(*kind, name))
    }

    fn listener_ready(&self, listener: &Listener) -> bool {
        let mut awaited =
            references::of_listener(listener).into_iter().filter(|(_, one)| one.waits());
        awaited.all(|(kind, name)| self.here(kind, name))
    }

    fn here(&self, kind: Kind, name: &Name) -> bool {
        let held = match kind {
            Kind::Endpoints => self.endpoints.contains_key(name),
            Kind::Routes => self.routes.contains_key(name),
            Kind::Secret => self.secrets.contains_key(name),
            Kind::Extension => self.extensions.contains_key(name),
            Kind::Cluster | Kind::Listener => true,
        };
        held || self.given_up.contains(&(kind, Arc::clone(name)))
    }

    fn put(&mut self, key: Name, resource: Resource) {
        match resource {
            Resource::Listener(one) => drop(self.listeners.insert(key, one)),
            Resource::Routes(one) => drop(self.routes.insert(key, one)),
            Resource::Cluster(one, endpoints) => drop(self.clusters.insert(key, (one, endpoints))),
            Resource::Endpoints(_, one) => drop(self.endpoints.insert(key, one)),
            Resource::Secret(one) => drop(self.secrets.insert(key, one)),
            Resource::Extension(one) => drop(self.extensions.insert(key, one)),
        }
    }
}

fn key(resource: &Resource) -> (Kind, Name) {
    match resource {
        Resource::Listener(one) => (Kind::Listener, Arc::clone(&one.name)),
        Resource::Routes(one) => (Kind::Routes, Arc::clone(&one.name)),
        Resource::Cluster(one, _) => (Kind::Cluster, Arc::clone(&one.name)),
        Resource::Endpoints(name, _) => (Kind::Endpoints, Arc::clone(name)),
        Resource::Secret(one) => (Kind::Secret, Arc::clone(&one.name)),
        Resource::Extension(one) => (Kind::Extension, Arc::clone(&one.name)),
    }
}

/// Make `map` equal to `wanted`, noting every name that differs. The same `Arc` is the same thing.
fn sync<T>(map: &mut Map<Arc<T>>, wanted: &BTreeMap<Name, Arc<T>>, changed: &mut Vec<Name>) {
    let gone: Vec<Name> = map.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
    for name in gone {
        map.remove_mut(&name);
        changed.push(name);
    }
    for (name, value) in wanted {
        if !map.get(name).is_some_and(|have| Arc::ptr_eq(have, value)) {
            map.insert_mut(Arc::clone(name), Arc::clone(value));
            changed.push(Arc::clone(name));
        }
    }
}
