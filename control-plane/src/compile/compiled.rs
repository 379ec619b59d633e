//! What many nodes have in common, compiled at the first question and kept as long as it holds.

use std::collections::HashMap;
use std::sync::Arc;

use super::clusters::{self, Flavor};
use super::endpoints::{View, assignment};
use super::members::{Members, Population};
use super::node::Certificates;
use super::proto::resource;
use super::routes::{self, OUTBOUND, Reader};
use super::shape::{Client, Shape, cluster_name};
use super::world::World;
use super::{external, grpc};
use crate::intent::{Mtls, Name, Service};
use crate::map::Map;
use crate::snapshot::{Resource, ResourceSet, ResourceType};

/// A set that nobody asked for during so many changes of workloads is not kept up any more.
const PATIENCE: u8 = 16;

/// Resources by name.
pub(super) type Resources = Map<Arc<str>, Arc<Resource>>;

/// Resources that do not depend on a single node. Copies share them.
#[derive(Default, Clone)]
pub(crate) struct Compiled {
    endpoints: HashMap<View, Resources>,
    clusters: HashMap<Flavor, Resources>,
    routes: HashMap<ScopeKey, Arc<Resource>>,
    grpc: HashMap<String, Arc<Vec<Arc<Resource>>>>,
    external: Option<Resources>,
    bases: HashMap<BaseKey, Base>,
}

/// What nodes stand on.
#[derive(Clone)]
struct Base {
    set: ResourceSet,
    /// Changes since it was last asked for.
    unasked: u8,
}

/// Whose host names: those of a namespace, or of one service that declares what it depends on.
type ScopeKey = (String, Option<String>);
type BaseKey = (ScopeKey, Flavor);

impl Compiled {
    /// Goes on after a change of nothing but workloads: of services with other members the endpoints are compiled again, of
    /// those that show another face the clusters.
    pub(crate) fn update(
        &mut self,
        shape: &Shape,
        population: &Population,
        (changed, other_face): (&[Name], &[&Name]),
    ) {
        self.bases.retain(|_, base| base.unasked < PATIENCE);
        for base in self.bases.values_mut() {
            base.unasked += 1;
        }
        let services = &shape.intent.services;
        for service in changed.iter().filter_map(|name| services.get(name)) {
            let Some(members) = population.get(&service.name) else { continue };
            for (view, known) in &mut self.endpoints {
                let new = assignments(service, members, (*view, shape.intent.mesh.mtls));
                let bases =
                    self.bases.iter_mut().filter(|((_, flavor), _)| self::view(flavor) == *view);
                replace(new, known, bases.map(|(_, base)| base));
            }
        }
        for service in other_face.iter().filter_map(|name| services.get(*name)) {
            for (flavor, known) in &mut self.clusters {
                let new = clusters_of(shape, service, flavor);
                let bases = self.bases.iter_mut().filter(|((_, other), _)| other == flavor);
                replace(new, known, bases.map(|(_, base)| base));
            }
        }
    }

    /// Goes on after a change of routes: with the clusters and endpoints that are there.
    pub(crate) fn reroute(&mut self, shape: &Shape) {
        self.routes.clear();
        self.grpc.clear();
        let mut bases = std::mem::take(&mut self.bases);
        bases.retain(|((namespace, service), flavor), base| {
            // Where routes lead decides what else is seen, or there are more resources of them than one.
            if service.is_some() || matches!(flavor, Flavor::Grpc(_)) {
                return false;
            }
            base.set.insert(self.outbound(shape, &Client { namespace, service: None }));
            true
        });
        self.bases = bases;
    }

    /// Begins anew after any other change, with the endpoints of the services that are as they were.
    pub(crate) fn take_over(&mut self, shape: &Shape, population: &Population, before: &World) {
        let mtls = shape.intent.mesh.mtls;
        for (view, known) in before.endpoints() {
            let of_service = |service: &Arc<Service>| {
                let members = population.get(&service.name)?;
                let is_same = before.has(service, members, mtls);
                let taken = |port: u16| known.get(cluster_name(&service.name, port).as_str());
                let ports = service.ports.iter().map(|port| port.port);
                let kept: Option<Vec<Arc<Resource>>> =
                    ports.map(|port| taken(port).filter(|_| is_same).cloned()).collect();
                Some(kept.unwrap_or_else(|| assignments(service, members, (view, mtls)).collect()))
            };
            let all = shape.intent.services.values().filter_map(of_service).flatten();
            self.endpoints.insert(view, by_name(all));
        }
    }

    /// What the nodes of a client have in common.
    pub(crate) fn base(
        &mut self,
        shape: &Shape,
        population: &Population,
        (client, flavor): (&Client<'_>, Flavor),
    ) -> ResourceSet {
        let scope: ScopeKey = (client.namespace.to_owned(), client.service.map(str::to_owned));
        let key = (scope, flavor);
        if let Some(base) = self.bases.get_mut(&key) {
            base.unasked = 0;
            return base.set.clone();
        }
        let set = self.compile_base(shape, population, (client, &key.1));
        self.bases.insert(key, Base { set: set.clone(), unasked: 0 });
        set
    }

    fn compile_base(
        &mut self,
        shape: &Shape,
        population: &Population,
        (client, flavor): (&Client<'_>, &Flavor),
    ) -> ResourceSet {
        let clusters = self.clusters(shape, flavor);
        let endpoints = self.endpoints(shape, population, view(flavor));
        let mut found: Vec<Arc<Resource>> = Vec::new();
        for service in shape.visible(client).into_values() {
            for port in &service.ports {
                let name = cluster_name(&service.name, port.port);
                found.extend(clusters.get(name.as_str()).cloned());
                found.extend(endpoints.get(name.as_str()).cloned());
            }
        }
        match flavor {
            Flavor::Proxy(_) | Flavor::Alone => {
                found.extend(self.external(shape).values().cloned());
                found.push(self.outbound(shape, client));
            }
            Flavor::Grpc(_) => found.extend_from_slice(&self.grpc(shape, client.namespace)),
        }
        found.into_iter().collect()
    }

    pub(crate) fn endpoints(
        &mut self,
        shape: &Shape,
        population: &Population,
        view: View,
    ) -> Resources {
        let compile = || {
            let mtls = shape.intent.mesh.mtls;
            let services = shape.intent.services.values();
            let known = services
                .filter_map(|service| Some((&**service, &**population.get(&service.name)?)));
            by_name(
                known.flat_map(|(service, members)| assignments(service, members, (view, mtls))),
            )
        };
        self.endpoints.entry(view).or_insert_with(compile).clone()
    }

    /// The endpoints that were asked for, by view.
    pub(crate) fn known_endpoints(&self) -> HashMap<View, Resources> {
        self.endpoints.clone()
    }

    pub(crate) fn clusters(&mut self, shape: &Shape, flavor: &Flavor) -> Resources {
        if let Some(found) = self.clusters.get(flavor) {
            return found.clone();
        }
        let services = shape.intent.services.values();
        let all = by_name(services.flat_map(|service| clusters_of(shape, service, flavor)));
        self.clusters.insert(flavor.clone(), all.clone());
        all
    }

    pub(crate) fn external(&mut self, shape: &Shape) -> Resources {
        let compile = || {
            by_name(external::ports(shape).map(|(service, port)| {
                let cluster = external::cluster(service, port);
                Arc::new(resource(ResourceType::Cluster, &cluster.name, &cluster))
            }))
        };
        self.external.get_or_insert_with(compile).clone()
    }

    fn outbound(&mut self, shape: &Shape, client: &Client<'_>) -> Arc<Resource> {
        let scope: ScopeKey = (client.namespace.to_owned(), client.service.map(str::to_owned));
        let compile = || {
            let routes = routes::outbound(shape, client);
            Arc::new(resource(ResourceType::Route, OUTBOUND, &routes))
        };
        Arc::clone(self.routes.entry(scope).or_insert_with(compile))
    }

    /// Listeners and routes of gRPC clients of a namespace.
    fn grpc(&mut self, shape: &Shape, namespace: &str) -> Arc<Vec<Arc<Resource>>> {
        let compile = || {
            let mut found = Vec::new();
            for service in shape.intent.services.values() {
                for port in service.ports.iter().filter(|port| port.protocol.is_http()) {
                    let routes = routes::of_port(shape, (service, port), namespace, Reader::Grpc);
                    found.push(Arc::new(resource(ResourceType::Route, &routes.name, &routes)));
                    for listener in grpc::listeners(service, port, namespace) {
                        let kind = ResourceType::Listener;
                        found.push(Arc::new(resource(kind, &listener.name, &listener)));
                    }
                }
            }
            Arc::new(found)
        };
        Arc::clone(self.grpc.entry(namespace.to_owned()).or_insert_with(compile))
    }
}

/// Puts new versions in place of those that are known, and in the sets that have them.
fn replace<'a>(
    new: impl Iterator<Item = Arc<Resource>>,
    known: &mut Resources,
    bases: impl Iterator<Item = &'a mut Base>,
) {
    let new: Vec<Arc<Resource>> = new.collect();
    for base in bases {
        for resource in &new {
            if base.set.get(resource.kind, &resource.name).is_some() {
                base.set.insert(Arc::clone(resource));
            }
        }
    }
    for resource in new {
        known.insert(Arc::clone(&resource.name), resource);
    }
}

/// The endpoints of a service, by port.
fn assignments(
    service: &Service,
    members: &Members,
    (view, mtls): (View, Mtls),
) -> impl Iterator<Item = Arc<Resource>> {
    service.ports.iter().map(move |port| {
        let cluster = cluster_name(&service.name, port.port);
        let assignment = assignment(&cluster, port, members, (view, mtls));
        Arc::new(resource(ResourceType::Endpoint, &cluster, &assignment))
    })
}

/// The clusters of a service, by port.
fn clusters_of(
    shape: &Shape,
    service: &Service,
    flavor: &Flavor,
) -> impl Iterator<Item = Arc<Resource>> {
    service.ports.iter().map(move |port| {
        let cluster = clusters::of_port(shape, service, port, flavor);
        Arc::new(resource(ResourceType::Cluster, &cluster.name, &cluster))
    })
}

fn by_name(resources: impl Iterator<Item = Arc<Resource>>) -> Resources {
    resources.map(|resource| (Arc::clone(&resource.name), resource)).collect()
}

/// The endpoints that go with clusters of this flavor.
pub(crate) fn view(flavor: &Flavor) -> View {
    match flavor {
        Flavor::Proxy(Certificates::Own) => View::Pillion,
        Flavor::Proxy(_) => View::Envoy,
        Flavor::Grpc(Some(_)) => View::GrpcTls,
        Flavor::Grpc(None) | Flavor::Alone => View::Plain,
    }
}
