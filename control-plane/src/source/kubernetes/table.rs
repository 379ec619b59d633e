//! What is known of the cluster, and the documents and workloads that it makes. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use kube::api::DynamicObject;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::access::{IN_MESH, NAMESPACE_LABEL};
use super::addresses::{self, Front};
use super::classes::Classes;
use super::kept::{Kept, Written};
use super::objects::{Endpoint, Resource, Slice, Subject, api_version, document, name_of};
use super::pods::Pod;
use super::{Documents, View};
use crate::intent::{Document, Locality, Name, Object, Problem, Severity, Workload, read_object};

/// Node labels (<https://kubernetes.io/docs/reference/labels-annotations-taints/#topologykubernetesiozone>).
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

/// What happened to the objects of a resource.
#[derive(Debug)]
pub(super) enum Update {
    /// These are all there are.
    Reset(Vec<DynamicObject>),
    /// It is new, or changed.
    Put(Box<DynamicObject>),
    /// It is gone.
    Delete(Box<DynamicObject>),
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Namespaces with the label.
    labelled: BTreeSet<String>,
    nodes: BTreeMap<String, Locality>,
    pods: BTreeMap<Name, Pod>,
    slices: BTreeMap<Name, Slice>,
    objects: BTreeMap<(Resource, Name), Held>,
    /// What Services say about where they can be reached.
    fronts: BTreeMap<Name, Front>,
    classes: Classes,
    /// Every Gateway as it is, since whose it is depends on its class.
    gateways: BTreeMap<Name, DynamicObject>,
    /// Gateways cannot be read: nobody knows which there are.
    without_gateways: bool,
    /// Something changed since the documents were last made.
    changed: bool,
    view: View,
    /// The documents of the view as they were written.
    written: Arc<Vec<Written>>,
}

/// An object that intent is made of.
#[derive(Debug)]
struct Held {
    /// Of everything that a document is made of.
    hash: u64,
    /// The last good version, and its JSON.
    good: Option<(Document, Arc<str>)>,
    /// The newest version is not the one in force.
    rejected: bool,
    problems: Vec<Problem>,
    subject: Subject,
    /// A Service that is only another name for something outside.
    external: bool,
    /// A Gateway of somebody else, of which only matters that it is there.
    foreign: bool,
}

impl Table {
    /// Takes in what happened.
    pub(super) fn apply(&mut self, resource: Resource, update: Update) {
        match update {
            Update::Reset(objects) => {
                if resource == Resource::Gateways {
                    self.changed |= std::mem::take(&mut self.without_gateways);
                }
                let present: BTreeSet<Name> = objects.iter().map(name_of).collect();
                self.retain(resource, &present);
                for object in objects {
                    self.put(resource, object);
                }
            }
            Update::Put(object) => self.put(resource, *object),
            Update::Delete(object) => self.remove(resource, &name_of(&object)),
        }
    }

    /// The cluster does not have it, or does not show it.
    pub(super) fn without(&mut self, resource: Resource) {
        self.apply(resource, Update::Reset(Vec::new()));
        if resource == Resource::Gateways {
            self.changed |= !std::mem::replace(&mut self.without_gateways, true);
        }
    }

    /// The documents and subjects; what did not change is the same `Arc` as before.
    pub(super) fn view(&mut self) -> View {
        let namespaces = self.namespaces();
        if self.changed || *self.view.namespaces != namespaces {
            self.changed = false;
            (self.view.documents, self.written) = self.documents(&namespaces);
            self.view.namespaces = Arc::new(namespaces);
        }
        let in_force = self.in_force(&self.view.namespaces).filter(|held| !held.foreign);
        let subjects = in_force.map(|held| &held.subject).filter(|one| one.resource.has_status());
        let subjects = subjects.chain(self.classes.subjects()).cloned();
        let subjects: Vec<Subject> = subjects.map(|one| self.with_addresses(one)).collect();
        if *self.view.subjects != subjects {
            self.view.subjects = Arc::new(subjects);
        }
        self.view.clone()
    }

    /// What another process could go on with. `view` and `workloads` are those of now.
    pub(super) fn kept(
        &self,
        workloads: Arc<BTreeMap<Name, Arc<Workload>>>,
        now: SystemTime,
    ) -> Kept {
        Kept {
            at: now,
            written: Arc::clone(&self.written),
            without_gateways: self.without_gateways,
            workloads,
        }
    }

    /// A Gateway with the addresses of its Services or, if there is none, of its pods.
    fn with_addresses(&self, subject: Subject) -> Subject {
        match subject.resource {
            Resource::Gateways => {
                let addresses = addresses::of(&subject.name, &self.pods, &self.fronts);
                Subject { addresses, ..subject }
            }
            _ => subject,
        }
    }

    /// Pods of the mesh's namespaces, and endpoints that are no pods.
    pub(super) fn workloads(&self) -> BTreeMap<Name, Arc<Workload>> {
        let namespaces = self.namespaces();
        let by_slice = self.named_by_slices();
        let mut found = BTreeMap::new();
        for (name, pod) in self.pods.iter().filter(|(name, _)| namespaces.contains(&name.namespace))
        {
            let named = by_slice.get(name);
            let locality = self.locality(pod, named.and_then(|(_, zone)| *zone));
            let service = named.and_then(|(service, _)| *service);
            if let Some(workload) = pod.workload(name, service, locality) {
                found.insert(name.clone(), Arc::new(workload));
            }
        }
        for (name, slice) in &self.slices {
            if !namespaces.contains(&name.namespace) {
                continue;
            }
            for workload in endpoints(name, slice) {
                found.insert(workload.name.clone(), Arc::new(workload));
            }
        }
        found
    }

    fn put(&mut self, resource: Resource, object: DynamicObject) {
        let name = name_of(&object);
        match resource {
            Resource::Namespaces => {
                let labels = object.metadata.labels.as_ref();
                let label = labels.and_then(|labels| labels.get(NAMESPACE_LABEL));
                if label.is_some_and(|value| value == IN_MESH) {
                    self.labelled.insert(name.name.clone());
                } else {
                    self.labelled.remove(&name.name);
                }
                self.put_object((resource, name), &object);
            }
            Resource::Nodes => {
                let labels = object.metadata.labels.unwrap_or_default();
                let label = |key| labels.get(key).cloned().unwrap_or_default();
                let locality =
                    Locality { region: label(REGION), zone: label(ZONE), ..Locality::default() };
                self.nodes.insert(name.name, locality);
            }
            Resource::Pods => match Pod::read(object) {
                Ok(pod) => drop(self.pods.insert(name, pod)),
                Err(error) => tracing::warn!(pod = %name, %error, "a pod is not understood"),
            },
            Resource::EndpointSlices => match Slice::read(object) {
                Ok(slice) => drop(self.slices.insert(name, slice)),
                Err(error) => {
                    tracing::warn!(slice = %name, %error, "an EndpointSlice is not understood");
                }
            },
            Resource::GatewayClasses => {
                let subject = subject(resource, &name, &object);
                if self.classes.put(subject, &object) {
                    self.put_gateways();
                }
            }
            Resource::Gateways => {
                self.gateways.insert(name.clone(), object);
                self.put_gateway(&name);
            }
            Resource::Services => {
                self.fronts.insert(name.clone(), Front::read(&object));
                self.put_object((resource, name), &object);
            }
            _ => self.put_object((resource, name), &object),
        }
    }

    /// All of them anew: a class came, went, or belongs to somebody else.
    fn put_gateways(&mut self) {
        for name in self.gateways.keys().cloned().collect::<Vec<_>>() {
            self.put_gateway(&name);
        }
    }

    fn put_gateway(&mut self, name: &Name) {
        let Some(mut object) = self.gateways.get(name).cloned() else { return };
        let is_ours = self.classes.adapt(&mut object);
        let key = (Resource::Gateways, name.clone());
        self.put_object(key.clone(), &object);
        if let Some(held) = self.objects.get_mut(&key) {
            held.foreign = !is_ours;
            if !is_ours {
                held.problems.clear();
            }
        }
    }

    fn put_object(&mut self, key: (Resource, Name), object: &DynamicObject) {
        let written = document(object, &key.0.api());
        let hash = xxh3_64(written.to_string().as_bytes());
        let subject = subject(key.0, &key.1, object);
        let before = self.objects.remove(&key);
        let held = match before {
            Some(mut held) if held.hash == hash => {
                held.subject = Subject { rejected: held.rejected, ..subject };
                held
            }
            before => {
                self.changed = true;
                Held::read(hash, &written, subject, before.and_then(|held| held.good))
            }
        };
        self.objects.insert(key, held);
    }

    fn remove(&mut self, resource: Resource, name: &Name) {
        match resource {
            Resource::Nodes => drop(self.nodes.remove(&name.name)),
            Resource::Pods => drop(self.pods.remove(name)),
            Resource::EndpointSlices => drop(self.slices.remove(name)),
            Resource::GatewayClasses => {
                if self.classes.retain(|known| known != name.name) {
                    self.put_gateways();
                }
            }
            _ => {
                match resource {
                    Resource::Namespaces => drop(self.labelled.remove(&name.name)),
                    Resource::Gateways => drop(self.gateways.remove(name)),
                    Resource::Services => drop(self.fronts.remove(name)),
                    _ => {}
                }
                let held = self.objects.remove(&(resource, name.clone()));
                self.changed |= held.is_some();
            }
        }
    }

    fn retain(&mut self, resource: Resource, present: &BTreeSet<Name>) {
        let names: BTreeSet<&str> = present.iter().map(|name| name.name.as_str()).collect();
        match resource {
            Resource::Nodes => self.nodes.retain(|name, _| names.contains(name.as_str())),
            Resource::Pods => self.pods.retain(|name, _| present.contains(name)),
            Resource::EndpointSlices => self.slices.retain(|name, _| present.contains(name)),
            Resource::GatewayClasses => {
                if self.classes.retain(|name| names.contains(name)) {
                    self.put_gateways();
                }
            }
            _ => {
                match resource {
                    Resource::Namespaces => self.labelled.retain(|one| names.contains(&**one)),
                    Resource::Gateways => self.gateways.retain(|name, _| present.contains(name)),
                    Resource::Services => self.fronts.retain(|name, _| present.contains(name)),
                    _ => {}
                }
                let before = self.objects.len();
                self.objects.retain(|(of, name), _| *of != resource || present.contains(name));
                self.changed |= self.objects.len() != before;
            }
        }
    }

    /// Those with the label, and those of pods with a sidecar of their own accord.
    fn namespaces(&self) -> BTreeSet<String> {
        let with_sidecar = self.pods.iter().filter(|(_, pod)| pod.sidecar.is_some());
        let names = with_sidecar.map(|(name, _)| &name.namespace).chain(&self.labelled);
        names.cloned().collect()
    }

    /// Objects that count: gateways, grants and our own kinds wherever they are; the others in the namespaces of the
    /// mesh, and routes that lead in through a gateway of ours.
    fn in_force<'a>(&'a self, namespaces: &'a BTreeSet<String>) -> impl Iterator<Item = &'a Held> {
        let counts = move |held: &&Held| {
            let in_mesh = namespaces.contains(&held.subject.name.namespace);
            match held.subject.resource {
                Resource::Services => in_mesh && !held.external,
                resource if resource.is_route() => {
                    self.has_gateway(&held.subject) || in_mesh && held.is_of_mesh()
                }
                _ => true,
            }
        };
        self.objects.values().filter(counts)
    }

    /// Whether one of a route's parents is a gateway of ours.
    fn has_gateway(&self, route: &Subject) -> bool {
        route.parents.iter().filter_map(|parent| super::status::gateway_of(route, parent)).any(
            |name| {
                let held = self.objects.get(&(Resource::Gateways, name));
                held.is_some_and(|held| !held.foreign)
            },
        )
    }

    fn documents(&self, namespaces: &BTreeSet<String>) -> (Documents, Arc<Vec<Written>>) {
        let (mut good, mut written) = (Vec::new(), Vec::new());
        let mut problems = Vec::new();
        for held in self.in_force(namespaces) {
            if let Some((document, text)) = held.good.clone() {
                written.push((Arc::clone(&document.place.file), text));
                good.push(match self.without_gateways {
                    true => document.without_gateways(),
                    false => document,
                });
            }
            problems.extend(held.problems.iter().cloned());
            if let Some((document, _)) = held.good.as_ref().filter(|_| held.rejected) {
                problems.push(Problem {
                    object: document.id.to_string(),
                    ..Problem::of_file(
                        Severity::Warning,
                        &document.place.file,
                        "its last good version stays in force until it is repaired",
                    )
                });
            }
        }
        (Documents::new(good, problems), Arc::new(written))
    }

    /// Pods that EndpointSlices name: with the service, if that has no selector and so cannot be known otherwise, and
    /// the zone.
    fn named_by_slices(&self) -> BTreeMap<Name, (Option<&String>, Option<&String>)> {
        let mut found = BTreeMap::new();
        for (name, slice) in &self.slices {
            let service = slice.service.as_ref().filter(|service| {
                let key =
                    (Resource::Services, Name::new(name.namespace.as_str(), service.as_str()));
                let document = self.objects.get(&key).and_then(|held| held.good.as_ref());
                document.is_some_and(|(document, _)| match &document.object {
                    Object::Service(service) => service.selector.is_empty(),
                    _ => false,
                })
            });
            for endpoint in slice.endpoints.iter().flatten() {
                if let Some(pod) = endpoint.pod() {
                    let pod = Name::new(name.namespace.as_str(), pod);
                    let entry = found.entry(pod).or_insert((None, None));
                    entry.0 = entry.0.or(service);
                    entry.1 = entry.1.or(endpoint.zone.as_ref());
                }
            }
        }
        found
    }

    fn locality(&self, pod: &Pod, zone: Option<&String>) -> Locality {
        let of_node = pod.node.as_ref().and_then(|node| self.nodes.get(node));
        let mut locality = of_node.cloned().unwrap_or_default();
        if let (true, Some(zone)) = (locality.zone.is_empty(), zone) {
            locality.zone.clone_from(zone);
        }
        locality
    }
}

impl Held {
    /// `before` is the last good version.
    fn read(
        hash: u64,
        written: &Value,
        mut subject: Subject,
        before: Option<(Document, Arc<str>)>,
    ) -> Self {
        let mut found = read_object(&subject.place, written);
        let good = found.documents.pop().map(|one| (one, written.to_string().into()));
        subject.rejected = good.is_none();
        Self {
            hash,
            rejected: subject.rejected,
            good: good.or(before),
            problems: found.problems,
            subject,
            external: written["spec"]["type"] == "ExternalName",
            foreign: false,
        }
    }

    /// Whether a route has something to do with services, or had.
    fn is_of_mesh(&self) -> bool {
        self.subject.parents.iter().any(|parent| parent["kind"] == "Service")
            || is_in_status(&self.subject.status)
    }
}

/// Whether we said something about a route earlier.
fn is_in_status(status: &Value) -> bool {
    let parents = status["parents"].as_array();
    parents.into_iter().flatten().any(super::status::is_own)
}

fn subject(resource: Resource, name: &Name, object: &DynamicObject) -> Subject {
    let (metadata, api) = (&object.metadata, resource.api());
    let list = |field: &str| object.data["spec"][field].as_array().cloned().unwrap_or_default();
    let place = match &metadata.namespace {
        Some(namespace) => format!("{}/{namespace}/{}", api.plural, name.name),
        None => format!("{}/{}", api.plural, name.name),
    };
    let names = list("listeners")
        .iter()
        .filter_map(|one| one["name"].as_str())
        .map(str::to_owned)
        .collect();
    Subject {
        resource,
        api_version: api_version(object, &api),
        name: name.clone(),
        namespaced: metadata.namespace.is_some(),
        place,
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        rejected: false,
        parents: if resource.is_route() { list("parentRefs") } else { Vec::new() },
        listeners: names,
        addresses: Vec::new(),
        status: object.data["status"].clone(),
    }
}

/// The endpoints of a slice that are no pods: each is a workload without a sidecar.
fn endpoints<'a>(name: &'a Name, slice: &'a Slice) -> impl Iterator<Item = Workload> + 'a {
    let service = slice.service.as_ref().filter(|_| slice.address_type != "FQDN");
    let tcp = slice
        .ports
        .iter()
        .flatten()
        .filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    let ports: BTreeMap<String, u16> = tcp
        .clone()
        .filter_map(|port| {
            let name = port.name.clone().filter(|name| !name.is_empty());
            Some((name?, port.port?))
        })
        .collect();
    // A port without a name is the only one.
    let only = tcp.filter_map(|port| port.port).next().filter(|_| ports.is_empty());
    let others = slice.endpoints.iter().flatten().filter(|endpoint| endpoint.pod().is_none());
    others.filter_map(move |endpoint| {
        // The addresses of one endpoint are interchangeable, and clients take the first (EndpointSlice, `addresses`).
        let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        Some(Workload {
            name: Name::new(name.namespace.as_str(), format!("{}-{address}", name.name)),
            labels: BTreeMap::new(),
            service: Some(service?.clone()),
            address,
            ports: ports.clone(),
            app_port: only,
            service_account: "default".to_owned(),
            locality: Locality {
                zone: endpoint.zone.clone().unwrap_or_default(),
                ..Locality::default()
            },
            weight: 1,
            ready: endpoint.is_ready(),
            sidecar_port: None,
            captured: false,
            open_ports: Vec::new(),
        })
    })
}

impl Endpoint {
    fn pod(&self) -> Option<&str> {
        let target = self.target_ref.as_ref().filter(|it| it.kind.as_deref() == Some("Pod"))?;
        target.name.as_deref()
    }

    /// What is not said is to be taken as ready (EndpointSlice, `conditions.ready`).
    fn is_ready(&self) -> bool {
        self.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
