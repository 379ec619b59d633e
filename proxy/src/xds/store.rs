//! Everything that was accepted, and the snapshot that is made of it.
//!
//! A cluster is put into service when its endpoints and secrets are there, a listener when its
//! routes and secrets are; until then the version before it stays in force (Envoy: warming). What
//! does not arrive within its `initial_fetch_timeout` is not waited for any longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::kind::Kind;
use super::translate::Resource;
use crate::model::cluster::{Cluster, Discovery};
use crate::model::endpoint::Assignment;
use crate::model::http::RouteSource;
use crate::model::listener::{Listener, Terminal};
use crate::model::route::RouteTable;
use crate::model::tls::{CommonTls, Secret, SecretRef};
use crate::model::{Changes, Map, Name, Snapshot};

/// Accepted resources, static and dynamic.
#[derive(Debug, Default)]
pub struct Store {
    clusters: BTreeMap<Name, (Arc<Cluster>, Option<Arc<Assignment>>)>,
    endpoints: BTreeMap<Name, Arc<Assignment>>,
    listeners: BTreeMap<Name, Arc<Listener>>,
    routes: BTreeMap<Name, Arc<RouteTable>>,
    secrets: BTreeMap<Name, Arc<Secret>>,
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
        self.fixed.insert(key(&resource));
        self.put(resource);
    }

    /// Names of secrets that this proxy makes itself.
    pub fn own_secrets(&mut self, names: impl IntoIterator<Item = Name>) {
        self.own.extend(names);
    }

    /// Take an accepted resource. A static one of the same name stays.
    pub fn accept(&mut self, resource: Resource) {
        let (kind, name) = key(&resource);
        if self.fixed.contains(&(kind, Arc::clone(&name))) {
            tracing::warn!(%kind, %name, "a static resource of this name exists; ignored");
            return;
        }
        self.given_up.remove(&(kind, name));
        self.put(resource);
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
        }
    }

    /// Stop waiting for a resource that did not arrive in time, or does not exist.
    pub fn give_up(&mut self, kind: Kind, name: Name) {
        self.given_up.insert((kind, name));
    }

    /// Which endpoints, routes and secrets the clusters and listeners refer to and the server has
    /// to be asked for.
    pub fn wanted(&self, kind: Kind) -> BTreeSet<Name> {
        let mut names = BTreeSet::new();
        match kind {
            Kind::Endpoints => {
                for (cluster, _) in self.clusters.values() {
                    if let Discovery::Eds(name) = &cluster.discovery {
                        names.insert(Arc::clone(name));
                    }
                }
            }
            Kind::Routes => {
                for listener in self.listeners.values() {
                    names.extend(route_names(listener));
                }
            }
            Kind::Secret => {
                for (cluster, _) in self.clusters.values() {
                    names.extend(cluster_secrets(cluster));
                }
                for listener in self.listeners.values() {
                    names.extend(listener_secrets(listener));
                }
                names.retain(|name| !self.own.contains(name));
            }
            Kind::Cluster | Kind::Listener => {}
        }
        names.retain(|name| !self.fixed.contains(&(kind, Arc::clone(name))));
        names
    }

    /// Forget dynamic resources that nothing refers to any more.
    pub fn forget_unwanted(&mut self) {
        let keep = [Kind::Endpoints, Kind::Routes, Kind::Secret].map(|kind| self.wanted(kind));
        let [endpoints, routes, secrets] = keep;
        let (fixed, own) = (&self.fixed, &self.own);
        let stays = |kind, name: &Name| fixed.contains(&(kind, Arc::clone(name)));
        self.endpoints.retain(|name, _| endpoints.contains(name) || stays(Kind::Endpoints, name));
        self.routes.retain(|name, _| routes.contains(name) || stays(Kind::Routes, name));
        self.secrets.retain(|name, _| {
            secrets.contains(name) || own.contains(name) || stays(Kind::Secret, name)
        });
    }

    /// The snapshot of what is ready, and what differs from the one before. None: nothing does.
    pub fn assemble(&mut self) -> Option<(Snapshot, Changes)> {
        let mut next = self.published.clone();
        let mut changes = Changes::default();
        sync(&mut next.secrets, &self.secrets, &mut changes.secrets);
        sync(&mut next.routes, &self.routes, &mut changes.routes);
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
                Discovery::Eds(eds) => self.endpoints.get(eds).cloned(),
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

    fn cluster_ready(&self, cluster: &Cluster) -> bool {
        let endpoints = match &cluster.discovery {
            // Endpoints that are held already are used at once, whatever the server sends next.
            Discovery::Eds(name) => self.here(Kind::Endpoints, name),
            _ => true,
        };
        endpoints && cluster_secrets(cluster).iter().all(|name| self.here(Kind::Secret, name))
    }

    fn listener_ready(&self, listener: &Listener) -> bool {
        route_names(listener).iter().all(|name| self.here(Kind::Routes, name))
            && listener_secrets(listener).iter().all(|name| self.here(Kind::Secret, name))
    }

    fn here(&self, kind: Kind, name: &Name) -> bool {
        let held = match kind {
            Kind::Endpoints => self.endpoints.contains_key(name),
            Kind::Routes => self.routes.contains_key(name),
            Kind::Secret => self.secrets.contains_key(name),
            Kind::Cluster | Kind::Listener => true,
        };
        held || self.given_up.contains(&(kind, Arc::clone(name)))
    }

    fn put(&mut self, resource: Resource) {
        match resource {
            Resource::Listener(one) => {
                self.listeners.insert(Arc::clone(&one.name), one);
            }
            Resource::Routes(one) => {
                self.routes.insert(Arc::clone(&one.name), one);
            }
            Resource::Cluster(one, assignment) => {
                self.clusters.insert(Arc::clone(&one.name), (one, assignment));
            }
            Resource::Endpoints(name, one) => {
                self.endpoints.insert(name, one);
            }
            Resource::Secret(one) => {
                self.secrets.insert(Arc::clone(&one.name), one);
            }
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

fn route_names(listener: &Listener) -> Vec<Name> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains
        .filter_map(|chain| match &chain.terminal {
            Terminal::Http(manager) => match &manager.routes {
                RouteSource::Rds(name) => Some(Arc::clone(name)),
                RouteSource::Inline(_) => None,
            },
            Terminal::Tcp(_) => None,
        })
        .collect()
}

fn listener_secrets(listener: &Listener) -> Vec<Name> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains.filter_map(|chain| chain.tls.as_ref()).flat_map(|tls| secrets(&tls.common)).collect()
}

fn cluster_secrets(cluster: &Cluster) -> Vec<Name> {
    cluster.tls_contexts().flat_map(|tls| secrets(&tls.common)).collect()
}

fn secrets(tls: &CommonTls) -> Vec<Name> {
    let own = tls.certificates.iter().filter_map(|reference| match reference {
        SecretRef::Sds(name) => Some(Arc::clone(name)),
        SecretRef::Inline(_) => None,
    });
    let trust = tls.validation.as_ref().and_then(|validation| validation.sds.clone());
    own.chain(trust).collect()
}
