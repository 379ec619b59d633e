//! Everything at one moment, and each node's part of it.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;

use super::authorization::Guard;
use super::clusters::{self, Flavor};
use super::compiled::{Compiled, Resources, view};
use super::endpoints::View;
use super::members::{Members, Population, Workloads};
use super::node::{Certificates, GatewayProxy, Node, NodeKind, Sidecar};
use super::proto::resource;
use super::routes::{self, Reader};
use super::shape::{BYTES, Client, Shape};
use super::{capture, external, gateway, http_manager, listeners};
use crate::intent::{
    AppProtocol, AuthorizationPolicy, Intent, Mtls, Name, Outbound, Problem, Service, ServicePort,
    TargetPort, Workload,
};
use crate::map::Map;
use crate::snapshot::{ResourceSet, ResourceType};

/// The intent and the workloads at one moment. Cheap to ask for many nodes: what they have in common is
/// compiled at the first question and shared from then on.
pub struct World {
    intent: Arc<Intent>,
    registered: Map<Name, Arc<Workload>>,
    population: Population,
    shape: Shape,
    compiled: Mutex<Compiled>,
}

impl World {
    /// A world from scratch. `registered` are the workloads that sidecars announced.
    #[must_use]
    pub fn new(intent: Arc<Intent>, registered: Map<Name, Arc<Workload>>) -> Self {
        Self::build(intent, registered, None)
    }

    /// The world after a change, with everything taken over that the change does not touch: if only a workload
    /// came, went or changed, only its services are looked at, and only their endpoints are compiled again; if routes did, no
    /// clusters and no endpoints.
    #[must_use]
    pub fn update(&self, intent: Arc<Intent>, registered: Map<Name, Arc<Workload>>) -> Self {
        if !self.intent.is_same_without_routes(&intent) {
            return Self::build(intent, registered, Some(self));
        }
        let before = Workloads { written: &self.intent.workloads, registered: &self.registered };
        let now = Workloads { written: &intent.workloads, registered: &registered };
        let (population, changed) = self.population.update(&intent, before, now);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut shape = self.shape.clone();
        if self.intent.routes != intent.routes {
            shape.reroute(&intent);
            compiled.reroute(&shape);
        }
        shape.intent = Arc::clone(&intent);
        let other_face = shape.show(&population, &changed);
        compiled.update(&shape, &population, (&changed, &other_face));
        Self { intent, registered, population, shape, compiled: Mutex::new(compiled) }
    }

    fn build(
        intent: Arc<Intent>,
        registered: Map<Name, Arc<Workload>>,
        before: Option<&Self>,
    ) -> Self {
        let workloads = Workloads { written: &intent.workloads, registered: &registered };
        let population = Population::new(&intent, workloads);
        let shape = Shape::new(Arc::clone(&intent), &population);
        let mut compiled = Compiled::default();
        if let Some(before) = before {
            compiled.take_over(&shape, &population, before);
        }
        Self { intent, registered, population, shape, compiled: Mutex::new(compiled) }
    }

    /// What people want.
    #[must_use]
    pub fn intent(&self) -> &Arc<Intent> {
        &self.intent
    }

    /// Workloads that sidecars announced.
    #[must_use]
    pub fn registered(&self) -> &Map<Name, Arc<Workload>> {
        &self.registered
    }

    /// The workloads of a service, ready or not, by name.
    #[must_use]
    pub fn members(&self, service: &Name) -> &[Arc<Workload>] {
        self.population.get(service).map_or(&[], |members| &members.workloads)
    }

    /// What is odd about the workloads: such as one that registered for a service that nobody defined.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        self.population.problems()
    }

    /// The endpoints that were asked for, by view.
    pub(super) fn endpoints(&self) -> HashMap<View, Resources> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).known_endpoints()
    }

    /// Whether a service has the same endpoints here.
    pub(super) fn has(&self, service: &Arc<Service>, members: &Members, mtls: Mtls) -> bool {
        self.intent.mesh.mtls == mtls
            && self.intent.services.get(&service.name) == Some(service)
            && self.population.get(&service.name).is_some_and(|known| **known == *members)
    }

    /// Everything that `node` shall have.
    #[must_use]
    pub fn for_node(&self, node: &Node) -> ResourceSet {
        let client = self.client(node);
        match &node.kind {
            NodeKind::Sidecar(sidecar) => {
                let flavor = Flavor::Proxy(sidecar.certificates.clone());
                let mut set = self.base(&client, flavor);
                self.add_own(&mut set, node, sidecar);
                set
            }
            NodeKind::Gateway(gateway) => self.of_gateway(node, gateway),
            NodeKind::Grpc { certificate_provider } => {
                self.base(&client, Flavor::Grpc(certificate_provider.clone()))
            }
        }
    }

    /// What `node` does not get, and why; for the log and for status pages.
    #[must_use]
    pub fn warnings_for(&self, node: &Node) -> Vec<String> {
        let mtls = self.intent().mesh.mtls;
        let mut found = Vec::new();
        match &node.kind {
            NodeKind::Sidecar(sidecar) => {
                if sidecar.certificates == Certificates::None && mtls == Mtls::Strict {
                    let message = "it has no certificates (TLS_CERTIFICATE_CHAIN, TLS_PRIVATE_KEY, TLS_TRUST_BUNDLE), and the mesh takes mTLS only: it gets no inbound listener, and its requests will be refused";
                    found.push(message.to_owned());
                }
                for name in sidecar.upstream_ports.keys() {
                    if self.shape.service_port(name).is_none() {
                        found.push(format!(
                            "UPSTREAM_PORTS names `{name}`, which is no port of a Service"
                        ));
                    }
                }
            }
            NodeKind::Gateway(proxy) => found.append(&mut gateway::warnings(&self.shape, proxy)),
            NodeKind::Grpc { certificate_provider: None } if mtls == Mtls::Strict => {
                let message = "it has no certificate provider (CERT_PROVIDER), and the mesh takes mTLS only: it gets no endpoints";
                found.push(message.to_owned());
            }
            NodeKind::Grpc { .. } => {}
        }
        found
    }

    /// Only a service that declares its dependencies has a view of its own; the rest of a namespace shares one.
    fn client<'a>(&self, node: &'a Node) -> Client<'a> {
        let declares = |service: &&str| {
            let name = Name::new(node.namespace.as_str(), *service);
            self.intent().services.get(&name).is_some_and(|service| service.depends_on.is_some())
        };
        Client { namespace: &node.namespace, service: node.service.as_deref().filter(declares) }
    }

    /// What all nodes of a client have in common.
    fn base(&self, client: &Client<'_>, flavor: Flavor) -> ResourceSet {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.base(&self.shape, &self.population, (client, flavor))
    }

    /// Everything of a gateway: what its listeners need, and no more.
    fn of_gateway(&self, node: &Node, proxy: &GatewayProxy) -> ResourceSet {
        let mesh = &self.intent().mesh;
        let mut set = ResourceSet::default();
        let made = gateway::compile(&self.shape, node, proxy);
        for listener in &made.listeners {
            set.insert(resource(ResourceType::Listener, &listener.name, listener));
        }
        for routes in &made.routes {
            set.insert(resource(ResourceType::Route, &routes.name, routes));
        }
        for secret in &made.secrets {
            set.insert(resource(ResourceType::Secret, &secret.name, secret));
        }
        let flavor = gateway::flavor(proxy);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = compiled.endpoints(&self.shape, &self.population, view(&flavor));
        let clusters = compiled.clusters(&self.shape, &flavor);
        let external = compiled.external(&self.shape);
        for name in &made.backends {
            let of = name.strip_prefix(BYTES).unwrap_or(name);
            if let Some((service, port)) = self.shape.service_port(of).filter(|_| of != name) {
                let cluster = clusters::of_port_for_bytes(&self.shape, service, port, &flavor);
                set.insert(resource(ResourceType::Cluster, &cluster.name, &cluster));
            }
            let endpoints = endpoints.get(of);
            let outside = external.get(name.as_str());
            for resource in clusters.get(name.as_str()).into_iter().chain(endpoints).chain(outside)
            {
                set.insert(Arc::clone(resource));
            }
        }
        if let Some((host, port)) = http_manager::otlp(mesh, &proxy.proxy) {
            let cluster = clusters::otel(host, port);
            set.insert(resource(ResourceType::Cluster, &cluster.name, &cluster));
        }
        set
    }

    /// The gateways that a sidecar's requests leave the mesh through.
    fn add_egress(&self, set: &mut ResourceSet, sidecar: &Sidecar) {
        let view = view(&Flavor::Proxy(sidecar.certificates.clone()));
        for name in external::gateways(&self.shape) {
            let with = (&sidecar.certificates, view);
            let mesh = &self.intent().mesh;
            let (cluster, endpoints) = external::egress(mesh, name, &self.registered, with);
            set.insert(resource(ResourceType::Cluster, &cluster.name, &cluster));
            set.insert(resource(ResourceType::Endpoint, &endpoints.cluster_name, &endpoints));
        }
    }

    /// What is a sidecar's alone: its listeners, its workload, its loopback ports, its trace receiver.
    fn add_own(&self, set: &mut ResourceSet, node: &Node, sidecar: &Sidecar) {
        let mesh = &self.intent().mesh;
        let ports = sidecar.all_app_ports();
        let ports: Vec<(u16, AppProtocol)> =
            ports.into_iter().map(|port| (port, self.app_protocol(node, sidecar, port))).collect();
        let policies = self.authorizations(node);
        let guard = Guard { mesh, policies: &policies };
        if let Some(listener) = listeners::inbound(guard, node, sidecar, &ports) {
            set.insert(resource(ResourceType::Listener, &listener.name, &listener));
            for (port, protocol) in ports {
                let socket = sidecar.app_socket.as_deref();
                let cluster = clusters::inbound(port, socket, protocol);
                set.insert(resource(ResourceType::Cluster, &cluster.name, &cluster));
            }
        }
        if mesh.outbound == Outbound::Passthrough {
            let cluster = clusters::passthrough(sidecar.interception.captures());
            set.insert(resource(ResourceType::Cluster, &cluster.name, &cluster));
        }
        self.add_egress(set, sidecar);
        if sidecar.interception.captures() {
            self.add_captured(set, node, sidecar);
        }
        if let Some(mut listener) = listeners::outbound(mesh, node, sidecar) {
            if sidecar.interception.captures() {
                listener.filter_chains.append(&mut external::captured(&self.shape));
            }
            set.insert(resource(ResourceType::Listener, &listener.name, &listener));
        }
        for (name, local) in &sidecar.upstream_ports {
            let Some(of) = self.shape.service_port(name) else { continue };
            let listener = listeners::upstream(mesh, (node, sidecar), of, local);
            set.insert(resource(ResourceType::Listener, &listener.name, &listener));
            if of.1.protocol.is_http() {
                let routes = routes::of_port(&self.shape, of, &node.namespace, Reader::Proxy);
                set.insert(resource(ResourceType::Route, &routes.name, &routes));
            }
        }
        if let Some((host, port)) = http_manager::otlp(mesh, sidecar) {
            let cluster = clusters::otel(host, port);
            set.insert(resource(ResourceType::Cluster, &cluster.name, &cluster));
        }
    }

    /// The policies that hold for the workload of a node: for all of its namespace, or for a service that it belongs to by
    /// name, by its labels, or as the control plane knows it.
    fn authorizations(&self, node: &Node) -> Vec<&AuthorizationPolicy> {
        let instance = node.instance.as_ref();
        let instance = instance.map(|name| Name::new(node.namespace.as_str(), name.as_str()));
        let label = |label: &str| {
            let own = node.labels.get(label).map(String::as_str);
            own.or_else(|| node.service.as_deref().filter(|_| label == "app"))
        };
        let belongs = |name: &Name| {
            let by_labels = self.intent().services.get(name).is_some_and(|service| {
                let mut selector = service.selector.iter();
                !service.selector.is_empty()
                    && selector.all(|(key, value)| label(key) == Some(value.as_str()))
            });
            let known =
                || self.members(name).iter().any(|one| Some(&one.name) == instance.as_ref());
            node.service.as_ref() == Some(&name.name) || by_labels || known()
        };
        let all = self.intent().authorizations.values().map(AsRef::as_ref);
        let of_namespace =
            all.filter(|policy: &&AuthorizationPolicy| policy.name.namespace == node.namespace);
        of_namespace
            .filter(|policy| policy.services.is_empty() || policy.services.iter().any(belongs))
            .collect()
    }

    /// What a sidecar needs to whom connections come that name somebody else.
    fn add_captured(&self, set: &mut ResourceSet, node: &Node, sidecar: &Sidecar) {
        let (mesh, flavor) = (&self.intent().mesh, Flavor::Proxy(sidecar.certificates.clone()));
        let mut taken = BTreeSet::new();
        for (name, service) in self.shape.visible(&self.client(node)) {
            for port in &service.ports {
                let of = (&**service, port);
                let workloads = self.members(name);
                let found = capture::of_port(mesh, (node, sidecar), of, workloads);
                if found.is_empty() {
                    continue;
                }
                // Services may share workloads: their addresses mean the first of them.
                for listener in found {
                    if taken.insert(listener.address.as_ref().map(Message::encode_to_vec)) {
                        set.insert(resource(ResourceType::Listener, &listener.name, &listener));
                    }
                }
                if port.protocol.is_http() {
                    let routes = routes::of_port(&self.shape, of, &node.namespace, Reader::Proxy);
                    set.insert(resource(ResourceType::Route, &routes.name, &routes));
                } else {
                    let balanced = clusters::of_port(&self.shape, service, port, &flavor);
                    let cluster = capture::direct(service, port, balanced);
                    set.insert(resource(ResourceType::Cluster, &cluster.name, &cluster));
                }
            }
        }
    }

    /// What the workload of a sidecar speaks: what its service says about the port that leads to it.
    fn app_protocol(&self, node: &Node, sidecar: &Sidecar, app_port: u16) -> AppProtocol {
        let name = node.service.as_ref().map(|service| Name::new(node.namespace.as_str(), service));
        let service = name.and_then(|name| self.intent().services.get(&name));
        let Some(service) = service else { return AppProtocol::Http };
        let leads_there = |port: &&ServicePort| match &port.target {
            TargetPort::Number(number) => *number == app_port,
            TargetPort::Name(name) => sidecar.app_ports.get(name) == Some(&app_port),
        };
        let port = service.ports.iter().find(leads_there).or_else(|| service.ports.first());
        port.map_or(AppProtocol::Http, |port| port.protocol)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("services", &self.population.len())
            .field("registered", &self.registered.len())
            .field("problems", &self.problems())
            .finish_non_exhaustive()
    }
}
