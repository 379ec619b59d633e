//! Everything that was accepted, and the snapshot that is made of it.
//!
//! A cluster is put into service when its endpoints and secrets are there, a listener when its
//! routes and secrets are; until then the version before it stays in force (Envoy: warming). What
//! does not arrive within its `initial_fetch_timeout` is not waited for any longer.
//!
//! A change costs what changed, whatever else there is: the store notes which clusters and listeners it touches, by who names
//! what, and looks at no others. Only another cluster or listener makes it look at all that is named.

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

mod users;

use users::{Touched, Users};

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
    users: Users,
    /// Since the last snapshot.
    touched: Touched,
    /// What is named may be something else than when it was last asked for.
    renamed: bool,
    /// Accepted, but not in service by the last snapshot.
    warming: BTreeSet<(Kind, Name)>,
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
        self.renamed = true;
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
            Kind::Cluster => {
                if let Some((cluster, _)) = self.clusters.remove(name) {
                    self.users.forget((kind, name), &references::of_cluster(&cluster));
                }
                if let Some(served) = self.published.clusters.get(name) {
                    self.users.forget((kind, name), &references::of_cluster(served));
                }
            }
            Kind::Listener => {
                if let Some(listener) = self.listeners.remove(name) {
                    self.users.forget((kind, name), &references::of_listener(&listener));
                }
            }
            Kind::Endpoints => drop(self.endpoints.remove(name)),
            Kind::Routes => drop(self.routes.remove(name)),
            Kind::Secret => drop(self.secrets.remove(name)),
            Kind::Extension => drop(self.extensions.remove(name)),
        }
        self.touch(kind, name);
        self.touch_users(kind, name);
    }

    /// Stop waiting for a resource that did not arrive in time, or does not exist.
    pub fn give_up(&mut self, kind: Kind, name: Name) {
        self.touch_users(kind, &name);
        self.given_up.insert((kind, name));
    }

    /// Whether something else may be [wanted](Self::wanted) than when this was last taken.
    pub fn is_renamed(&self) -> bool {
        self.renamed
    }

    /// The same, taken.
    pub fn take_renamed(&mut self) -> bool {
        std::mem::take(&mut self.renamed)
    }

    /// Which endpoints, routes, secrets and settings the clusters and listeners refer to and somebody has to
    /// be asked for, by key.
    pub fn wanted(&self, kind: Kind) -> BTreeMap<Name, Reference> {
        let clusters = self.clusters.values().map(|(one, _)| one);
        let clusters = clusters.chain(self.replaced()).flat_map(|one| references::of_cluster(one));
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

    /// Clusters that serve while their successors warm: they go on being told of their endpoints, as in Envoy.
    fn replaced(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.iter().filter_map(|(name, (accepted, _))| {
            let served = self.published.clusters.get(name)?;
            (!Arc::ptr_eq(served, accepted)).then_some(served)
        })
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
        let (fixed, own, touched) = (&self.fixed, &self.own, &mut self.touched);
        let mut stays = |kind, name: &Name, wanted: bool| {
            let stays = wanted || fixed.contains(&(kind, Arc::clone(name)));
            if !stays {
                touched.add(kind, name);
            }
            stays
        };
        self.endpoints.retain(|name, _| stays(Kind::Endpoints, name, endpoints.contains_key(name)));
        self.routes.retain(|name, _| stays(Kind::Routes, name, routes.contains_key(name)));
        self.extensions
            .retain(|name, _| stays(Kind::Extension, name, extensions.contains_key(name)));
        self.secrets.retain(|name, _| {
            stays(Kind::Secret, name, secrets.contains_key(name) || own.contains(name))
        });
    }

    /// The snapshot of what is ready, and what differs from the one before. None: nothing does.
    pub fn assemble(&mut self) -> Option<(Snapshot, Changes)> {
        let touched = std::mem::take(&mut self.touched);
        let mut next = self.published.clone();
        let mut changes = Changes::default();
        sync(&mut next.secrets, &self.secrets, touched.of(Kind::Secret), &mut changes.secrets);
        sync(&mut next.routes, &self.routes, touched.of(Kind::Routes), &mut changes.routes);
        let extensions = touched.of(Kind::Extension);
        sync(&mut next.extensions, &self.extensions, extensions, &mut changes.extensions);
        for name in touched.of(Kind::Cluster) {
            self.ready_cluster(name, &mut next, &mut changes);
        }
        // Those that go first: others may take their places.
        let (stay, go): (Vec<&Name>, Vec<&Name>) =
            touched.of(Kind::Listener).partition(|name| self.listeners.contains_key(*name));
        for name in go.into_iter().chain(stay) {
            self.ready_listener(name, &mut next, &mut changes);
        }
        if changes.is_empty() {
            return None;
        }
        self.published = next.clone();
        Some((next, changes))
    }

    /// Names of what is accepted but was not in service by the last snapshot, for people who wonder.
    pub fn warming(&self) -> Vec<(Kind, Name)> {
        self.warming.iter().cloned().collect()
    }

    fn ready_cluster(&mut self, name: &Name, next: &mut Snapshot, changes: &mut Changes) {
        let Some((cluster, own)) = self.clusters.get(name) else {
            self.warming.remove(&(Kind::Cluster, Arc::clone(name)));
            put(&mut next.clusters, name, None, &mut changes.clusters);
            put(&mut next.assignments, name, None, &mut changes.assignments);
            return;
        };
        let ready = self.cluster_ready(cluster);
        let served = if ready { Some(cluster) } else { self.published.clusters.get(name) };
        if let Some(cluster) = served {
            let assignment = match &cluster.discovery {
                Discovery::Eds(eds) => self.endpoints.get(eds.key()).cloned(),
                _ => own.clone(),
            };
            // Nothing arrived in time: an empty cluster, as in Envoy.
            let assignment = assignment
                .or_else(|| self.published.assignments.get(name).cloned())
                .unwrap_or_default();
            if let Some(before) = next.clusters.get(name).filter(|one| !Arc::ptr_eq(one, cluster)) {
                let place = (Kind::Cluster, name);
                self.users.forget(place, &references::of_cluster(before));
                self.users.note(place, &references::of_cluster(cluster));
                self.renamed = true;
            }
            put(&mut next.clusters, name, Some(cluster), &mut changes.clusters);
            put(&mut next.assignments, name, Some(&assignment), &mut changes.assignments);
        }
        self.note(Kind::Cluster, name, ready);
    }

    fn ready_listener(&mut self, name: &Name, next: &mut Snapshot, changes: &mut Changes) {
        let Some(listener) = self.listeners.get(name) else {
            self.warming.remove(&(Kind::Listener, Arc::clone(name)));
            put(&mut next.listeners, name, None, &mut changes.listeners);
            return;
        };
        let ready = self.listener_ready(listener);
        if ready {
            put(&mut next.listeners, name, Some(listener), &mut changes.listeners);
        }
        self.note(Kind::Listener, name, ready);
    }

    fn note(&mut self, kind: Kind, name: &Name, ready: bool) {
        let place = (kind, Arc::clone(name));
        if ready {
            self.warming.remove(&place);
        } else {
            self.warming.insert(place);
        }
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
        self.holds(kind, name) || self.given_up.contains(&(kind, Arc::clone(name)))
    }

    fn holds(&self, kind: Kind, name: &Name) -> bool {
        match kind {
            Kind::Endpoints => self.endpoints.contains_key(name),
            Kind::Routes => self.routes.contains_key(name),
            Kind::Secret => self.secrets.contains_key(name),
            Kind::Extension => self.extensions.contains_key(name),
            Kind::Cluster | Kind::Listener => true,
        }
    }

    fn put(&mut self, key: Name, resource: Resource) {
        let (kind, _) = self::key(&resource);
        // Endpoints are part of the cluster; of anything else it only counts that it is there.
        if kind == Kind::Endpoints || !self.holds(kind, &key) {
            self.touch_users(kind, &key);
        }
        self.touch(kind, &key);
        match resource {
            Resource::Listener(one) => {
                if let Some(before) = self.listeners.insert(Arc::clone(&key), Arc::clone(&one)) {
                    self.users.forget((kind, &key), &references::of_listener(&before));
                }
                self.users.note((kind, &key), &references::of_listener(&one));
            }
            Resource::Routes(one) => drop(self.routes.insert(key, one)),
            Resource::Cluster(one, endpoints) => {
                let before = self.clusters.insert(Arc::clone(&key), (Arc::clone(&one), endpoints));
                if let Some((before, _)) = before {
                    self.users.forget((kind, &key), &references::of_cluster(&before));
                }
                // What serves while this one warms goes on being told of its endpoints.
                if let Some(served) = self.published.clusters.get(&key) {
                    self.users.note((kind, &key), &references::of_cluster(served));
                }
                self.users.note((kind, &key), &references::of_cluster(&one));
            }
            Resource::Endpoints(_, one) => drop(self.endpoints.insert(key, one)),
            Resource::Secret(one) => drop(self.secrets.insert(key, one)),
            Resource::Extension(one) => drop(self.extensions.insert(key, one)),
        }
    }

    /// It has to be looked at for the next snapshot.
    fn touch(&mut self, kind: Kind, name: &Name) {
        // What nobody names has to be forgotten again.
        let named = matches!(kind, Kind::Cluster | Kind::Listener);
        self.renamed |= named || self.users.of(kind, name).next().is_none();
        self.touched.add(kind, name);
    }

    /// Those that name it have to be looked at.
    fn touch_users(&mut self, kind: Kind, name: &Name) {
        for (kind, name) in self.users.of(kind, name) {
            self.touched.add(*kind, name);
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

/// Make `map` equal to `wanted` where it was touched, noting every name that differs: those that are gone first.
fn sync<'a, T>(
    map: &mut Map<Arc<T>>,
    wanted: &BTreeMap<Name, Arc<T>>,
    touched: impl Iterator<Item = &'a Name>,
    changed: &mut Vec<Name>,
) {
    let (stay, go): (Vec<&Name>, Vec<&Name>) = touched.partition(|name| wanted.contains_key(*name));
    for name in go.into_iter().chain(stay) {
        put(map, name, wanted.get(name), changed);
    }
}

/// Put one value into a map, noting its name if it differs. The same `Arc` is the same thing.
fn put<T>(map: &mut Map<Arc<T>>, name: &Name, value: Option<&Arc<T>>, changed: &mut Vec<Name>) {
    let before = map.get(name);
    match value {
        None if before.is_some() => drop(map.remove_mut(name)),
        Some(value) if !before.is_some_and(|before| Arc::ptr_eq(before, value)) => {
            map.insert_mut(Arc::clone(name), Arc::clone(value));
        }
        _ => return,
    }
    changed.push(Arc::clone(name));
}

#[cfg(test)]
mod tests;
