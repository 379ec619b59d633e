//! What is known of the cluster, and the documents and workloads that it makes. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use kube::api::{ApiResource, DynamicObject};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::access::{IN_MESH, NAMESPACE_LABEL};
use super::objects::{Endpoint, Resource, Slice, Subject, document, name_of};
use super::pods::Pod;
use super::{Documents, View};
use crate::intent::{
    Document, Kind, Locality, Name, Object, Problem, Severity, Workload, read_object,
};

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
    objects: BTreeMap<(Kind, Name), Held>,
    /// Something changed since the documents were last made.
    changed: bool,
    view: View,
}

/// An object that intent is made of.
#[derive(Debug)]
struct Held {
    /// Of everything that a document is made of.
    hash: u64,
    /// The last good version.
    document: Option<Document>,
    /// The newest version is not the one in force.
    rejected: bool,
    problems: Vec<Problem>,
    subject: Subject,
    /// A Service that is only another name for something outside.
    external: bool,
}

impl Table {
    /// Takes in what happened.
    pub(super) fn apply(&mut self, resource: Resource, update: Update) {
        match update {
            Update::Reset(objects) => {
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

    /// The documents and subjects; what did not change is the same `Arc` as before.
    pub(super) fn view(&mut self) -> View {
        let namespaces = self.namespaces();
        if self.changed || *self.view.namespaces != namespaces {
            self.changed = false;
            self.view.documents = self.documents(&namespaces);
            self.view.namespaces = Arc::new(namespaces);
        }
        let subjects = self.in_force(&self.view.namespaces).map(|held| held.subject.clone());
        let subjects: Vec<Subject> =
            subjects.filter(|subject| subject.kind != Kind::Service).collect();
        if *self.view.subjects != subjects {
            self.view.subjects = Arc::new(subjects);
        }
        self.view.clone()
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
                let labels = object.metadata.labels.unwrap_or_default();
                if labels.get(NAMESPACE_LABEL).is_some_and(|value| value == IN_MESH) {
                    self.labelled.insert(name.name);
                } else {
                    self.labelled.remove(&name.name);
                }
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
            _ => {
                if let Some(kind) = resource.intent() {
                    self.put_object((kind, name), &object, &resource.api());
                }
            }
        }
    }

    fn put_object(&mut self, key: (Kind, Name), object: &DynamicObject, api: &ApiResource) {
        let written = document(object, api);
        let hash = xxh3_64(written.to_string().as_bytes());
        let subject = subject(key.0, &key.1, object, api);
        let before = self.objects.remove(&key);
        let held = match before {
            Some(mut held) if held.hash == hash => {
                held.subject = Subject { rejected: held.rejected, ..subject };
                held
            }
            before => {
                self.changed = true;
                Held::read(hash, &written, subject, before.and_then(|held| held.document))
            }
        };
        self.objects.insert(key, held);
    }

    fn remove(&mut self, resource: Resource, name: &Name) {
        match resource {
            Resource::Namespaces => drop(self.labelled.remove(&name.name)),
            Resource::Nodes => drop(self.nodes.remove(&name.name)),
            Resource::Pods => drop(self.pods.remove(name)),
            Resource::EndpointSlices => drop(self.slices.remove(name)),
            _ => {
                let held =
                    resource.intent().and_then(|kind| self.objects.remove(&(kind, name.clone())));
                self.changed |= held.is_some();
            }
        }
    }

    fn retain(&mut self, resource: Resource, present: &BTreeSet<Name>) {
        let names: BTreeSet<&str> = present.iter().map(|name| name.name.as_str()).collect();
        match resource {
            Resource::Namespaces => self.labelled.retain(|name| names.contains(name.as_str())),
            Resource::Nodes => self.nodes.retain(|name, _| names.contains(name.as_str())),
            Resource::Pods => self.pods.retain(|name, _| present.contains(name)),
            Resource::EndpointSlices => self.slices.retain(|name, _| present.contains(name)),
            _ => {
                let (before, gone) = (self.objects.len(), resource.intent());
                self.objects.retain(|(of, name), _| Some(*of) != gone || present.contains(name));
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

    /// Objects that count: our own kinds wherever they are, the others in the namespaces of the mesh.
    fn in_force<'a>(&'a self, namespaces: &'a BTreeSet<String>) -> impl Iterator<Item = &'a Held> {
        let counts = |(kind, name): &(Kind, Name)| match kind {
            Kind::Service | Kind::HttpRoute | Kind::GrpcRoute => {
                namespaces.contains(&name.namespace)
            }
            _ => true,
        };
        let objects = self.objects.iter().filter(move |(key, _)| counts(key));
        objects.map(|(_, held)| held).filter(|held| held.is_ours())
    }

    fn documents(&self, namespaces: &BTreeSet<String>) -> Documents {
        let mut good = Vec::new();
        let mut problems = Vec::new();
        for held in self.in_force(namespaces) {
            good.extend(held.document.clone());
            problems.extend(held.problems.iter().cloned());
            if let Some(document) = held.document.as_ref().filter(|_| held.rejected) {
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
        Documents::new(good, problems)
    }

    /// Pods that EndpointSlices name: with the service, if that has no selector and so cannot be known otherwise, and
    /// the zone.
    fn named_by_slices(&self) -> BTreeMap<Name, (Option<&String>, Option<&String>)> {
        let mut found = BTreeMap::new();
        for (name, slice) in &self.slices {
            let service = slice.service.as_ref().filter(|service| {
                let key = (Kind::Service, Name::new(name.namespace.as_str(), service.as_str()));
                let document = self.objects.get(&key).and_then(|held| held.document.as_ref());
                document.is_some_and(|document| match &document.object {
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
    fn read(hash: u64, written: &Value, mut subject: Subject, before: Option<Document>) -> Self {
        let mut found = read_object(&subject.place, written);
        let good = found.documents.pop();
        subject.rejected = good.is_none();
        Self {
            hash,
            rejected: subject.rejected,
            document: good.or(before),
            problems: found.problems,
            subject,
            external: written["spec"]["type"] == "ExternalName",
        }
    }

    /// Whether it is for a mesh at all: a route that only gateways have, and a name for something outside, are not.
    fn is_ours(&self) -> bool {
        match self.subject.kind {
            Kind::HttpRoute | Kind::GrpcRoute => {
                self.subject.parents.iter().any(|parent| parent["kind"] == "Service")
                    || is_in_status(&self.subject.status)
            }
            Kind::Service => !self.external,
            _ => true,
        }
    }
}

/// Whether we said something about a route earlier.
fn is_in_status(status: &Value) -> bool {
    let parents = status["parents"].as_array();
    parents.into_iter().flatten().any(|one| one["controllerName"] == super::status::CONTROLLER)
}

fn subject(kind: Kind, name: &Name, object: &DynamicObject, api: &ApiResource) -> Subject {
    let metadata = &object.metadata;
    let parents = object.data["spec"]["parentRefs"].as_array().cloned().unwrap_or_default();
    let is_route = matches!(kind, Kind::HttpRoute | Kind::GrpcRoute);
    let place = match &metadata.namespace {
        Some(namespace) => format!("{}/{namespace}/{}", api.plural, name.name),
        None => format!("{}/{}", api.plural, name.name),
    };
    Subject {
        kind,
        name: name.clone(),
        namespaced: metadata.namespace.is_some(),
        place,
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        rejected: false,
        parents: if is_route { parents } else { Vec::new() },
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
