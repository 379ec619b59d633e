//! What clusters, routes and listeners depend on: everything but the single endpoints. While it stays the
//! same, so do they.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::action::unsupported_target;
use super::external;
use super::members::{Members, Population, Wire};
pub(crate) use crate::intent::targets;
use crate::intent::{
    BackendTarget, HttpRoute, Intent, Name, ParentRef, RouteKind, Service, ServicePort, Target,
    TrafficPolicy,
};
use crate::map::Map;

/// The intent and what the workloads say about whole services.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Nothing here depends on its workloads.
    pub(crate) intent: Arc<Intent>,
    /// Per service: who may serve it, and what it speaks. Nothing but its clusters depends on that.
    pub(crate) faces: Map<Name, Face>,
    /// Routes by the service that they are attached to.
    attached: Arc<BTreeMap<Name, Vec<Arc<HttpRoute>>>>,
}

/// What a service's clients see of its workloads, apart from their addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Face {
    pub(crate) accounts: BTreeSet<String>,
    pub(crate) wires: BTreeMap<u16, Wire>,
}

impl Face {
    fn of(members: &Members) -> Self {
        Self { accounts: members.accounts.clone(), wires: members.wires.clone() }
    }
}

fn attached(intent: &Intent) -> BTreeMap<Name, Vec<Arc<HttpRoute>>> {
    let mut attached: BTreeMap<Name, Vec<Arc<HttpRoute>>> = BTreeMap::new();
    for route in intent.routes.values() {
        let services: BTreeSet<&Name> =
            route.parents.iter().map(|parent| &parent.service).collect();
        for service in services {
            attached.entry(service.clone()).or_default().push(Arc::clone(route));
        }
    }
    attached
}

/// What the name of a cluster for bytes begins with.
pub(crate) const BYTES: &str = "bytes|";

/// `service.namespace:port`, the name of clusters, of their endpoints, and of gRPC's listeners.
pub(crate) fn cluster_name(service: &Name, port: u16) -> String {
    format!("{}.{}:{port}", service.name, service.namespace)
}

impl Shape {
    pub(crate) fn new(intent: Arc<Intent>, population: &Population) -> Self {
        let faces = population.iter().map(|(name, members)| (name.clone(), Face::of(members)));
        Self { faces: faces.collect(), attached: Arc::new(attached(&intent)), intent }
    }

    /// The same with other routes.
    pub(crate) fn reroute(&mut self, intent: &Arc<Intent>) {
        self.attached = Arc::new(attached(intent));
        self.intent = Arc::clone(intent);
    }

    /// The services among `changed` that show another face now.
    pub(crate) fn show<'a>(
        &mut self,
        population: &Population,
        changed: &'a [Name],
    ) -> Vec<&'a Name> {
        let mut other = Vec::new();
        for name in changed {
            let Some(face) = population.get(name).map(|members| Face::of(members)) else {
                continue;
            };
            if self.faces.get(name) != Some(&face) {
                self.faces.insert(name.clone(), face);
                other.push(name);
            }
        }
        other
    }

    /// The services that a client sees: all, or what its own service says that it depends on, and where the
    /// routes of those lead.
    pub(crate) fn visible(&self, client: &Client<'_>) -> BTreeMap<&Name, &Arc<Service>> {
        let own = client.service.map(|name| Name::new(client.namespace, name));
        let declared = own.and_then(|own| self.intent.services.get(&own)?.depends_on.as_ref());
        let Some(declared) = declared else {
            return self.intent.services.iter().collect();
        };
        let mut wanted: BTreeSet<&Name> = declared.iter().collect();
        for name in declared {
            for route in self.attached.get(name).into_iter().flatten() {
                wanted.extend(destinations(route));
            }
        }
        wanted.into_iter().filter_map(|name| self.intent.services.get_key_value(name)).collect()
    }

    /// The routes of one port of a service for clients of a namespace. If routes of that namespace are attached
    /// to a service of another one, only those hold (Gateway API, GEP-1426 "consumer routes").
    pub(crate) fn routes(
        &self,
        service: &Service,
        port: &ServicePort,
        namespace: &str,
    ) -> Vec<&HttpRoute> {
        let attached = self.attached.get(&service.name).into_iter().flatten();
        let here = |parent: &ParentRef| {
            parent.service == service.name
                && parent.port.is_none_or(|number| number == port.port)
                && parent.section.as_ref().is_none_or(|name| port.name.as_ref() == Some(name))
        };
        let found: Vec<&HttpRoute> =
            attached.map(Arc::as_ref).filter(|route| route.parents.iter().any(here)).collect();
        let of_namespace = |wanted: &str| -> Vec<&HttpRoute> {
            found.iter().copied().filter(|route| route.name.namespace == wanted).collect()
        };
        if namespace != service.name.namespace {
            let consumer = of_namespace(namespace);
            if !consumer.is_empty() {
                return consumer;
            }
        }
        of_namespace(&service.name.namespace)
    }

    /// The cluster behind a backend, or why there is none.
    pub(crate) fn resolve(&self, target: &BackendTarget) -> Result<String, String> {
        if let BackendTarget::External { service, port } = target
            && let Some(found) = self.intent.externals.get(service)
            && let Some(port) = found.port(*port)
        {
            return Ok(external::cluster_name(service, port.port));
        }
        let BackendTarget::Service { service: name, port } = target else {
            return Err(unsupported_target(target));
        };
        let service = self.intent.services.get(name).ok_or_else(|| unsupported_target(target))?;
        let found = match port {
            Some(number) => service.port(*number),
            None => service.default_port(),
        };
        match (found, port) {
            (Some(found), _) => Ok(cluster_name(name, found.port)),
            (None, Some(number)) => Err(format!("Service {name} has no port {number}")),
            (None, None) => Err(format!("Service {name} has several ports")),
        }
    }

    /// The same for connections that are passed on as they are: a service of requests has a cluster for them beside its
    /// own, whose TLS does not say that HTTP/2 follows where it need not.
    pub(crate) fn resolve_bytes(&self, target: &BackendTarget) -> Result<String, String> {
        let name = self.resolve(target)?;
        Ok(match self.service_port(&name) {
            Some((_, port)) if port.protocol.is_http() => format!("{BYTES}{name}"),
            _ => name,
        })
    }

    /// Finds `service.namespace:port`.
    pub(crate) fn service_port(&self, name: &str) -> Option<(&Service, &ServicePort)> {
        let (host, number) = name.rsplit_once(':')?;
        let (service, namespace) = host.split_once('.')?;
        let service = self.intent.services.get(&Name::new(namespace, service))?;
        Some((service, service.port(number.parse().ok()?)?))
    }

    pub(crate) fn service_policy(&self, service: &Name) -> Option<&TrafficPolicy> {
        self.intent.policies.get(&Target::Service(service.clone())).map(Arc::as_ref)
    }

    pub(crate) fn route_policy(&self, kind: RouteKind, route: &Name) -> Option<&TrafficPolicy> {
        self.intent.policies.get(&Target::Route(kind, route.clone())).map(Arc::as_ref)
    }
}

/// Whose view it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) service: Option<&'a str>,
}

/// Every service that a route names as backend or mirror.
fn destinations(route: &HttpRoute) -> impl Iterator<Item = &Name> {
    targets(route).filter_map(|target| match target {
        BackendTarget::Service { service, .. } => Some(service),
        _ => None,
    })
}
