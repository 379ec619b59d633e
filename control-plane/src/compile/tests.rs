//! Compiled resources, decoded again and looked at.

mod capture;
mod clusters;
mod fleet;
mod nodes;
mod routes;
mod steps;
mod vetted;

use std::collections::BTreeMap;
use std::sync::Arc;

use pillion_xds::envoy::config::cluster::v3::Cluster;
use pillion_xds::envoy::config::endpoint::v3::{ClusterLoadAssignment, lb_endpoint};
use pillion_xds::envoy::config::listener::v3::Listener;
use pillion_xds::envoy::config::route::v3::{Route, RouteConfiguration};
use prost::Message;

use super::{Certificates, Interception, Node, NodeKind, Place, Sidecar, World};
use crate::intent::{Intent, Locality, Name, Severity, Workload, assemble, read};
use crate::map::Map;
use crate::snapshot::{ResourceSet, ResourceType};

/// Services `catalog` (http), `catalog-v2` (http), `cart` (grpc), `db` (tcp), and `pay` in `bank`.
const SERVICES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: catalog}
spec: {selector: {app: catalog}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: catalog-v2}
spec: {selector: {app: catalog, version: v2}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart}
spec: {ports: [{name: grpc, port: 9000}, {name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{name: tcp, port: 5432, targetPort: pg}]}
---
apiVersion: v1
kind: Service
metadata: {name: pay, namespace: bank}
spec: {ports: [{port: 8443, appProtocol: http}]}
"#;

/// The services and what else is written; nothing of it may be wrong.
fn intent(more: &str) -> Arc<Intent> {
    let found = read("test.yaml", &format!("{SERVICES}---\n{more}"));
    let parsed = assemble(found.documents, found.problems);
    let errors: Vec<_> =
        parsed.problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    Arc::new(parsed.intent)
}

fn mesh(mtls: &str) -> String {
    format!(
        "apiVersion: pillion.io/v1alpha1\nkind: Mesh\nmetadata: {{name: m}}\nspec: {{trustDomain: shop.local, mtls: {mtls}}}\n---\n"
    )
}

/// A workload that a sidecar registered for `service`, at 10.0.0.`last`.
fn registered(service: &str, last: u8, labels: &[(&str, &str)]) -> Workload {
    Workload {
        name: Name::new("default", format!("{service}-{last}")),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        service: Some(service.to_owned()),
        address: [10, 0, 0, last].into(),
        ports: BTreeMap::new(),
        app_port: Some(3000 + u16::from(last)),
        service_account: service.to_owned(),
        locality: Locality::default(),
        weight: 1,
        ready: true,
        sidecar_port: Some(15006),
        captured: false,
        open_ports: Vec::new(),
    }
}

fn workloads(of: impl IntoIterator<Item = Workload>) -> Map<Name, Arc<Workload>> {
    of.into_iter().map(|workload| (workload.name.clone(), Arc::new(workload))).collect()
}

fn world(more: &str) -> World {
    World::new(intent(more), Map::new())
}

/// A sidecar of ours beside `service`.
fn sidecar(service: &str) -> Node {
    Node {
        id: format!("sidecar~10.0.0.9~{service}-9.default~default.svc.cluster.local"),
        namespace: "default".to_owned(),
        service: Some(service.to_owned()),
        service_account: Some(service.to_owned()),
        instance: None,
        labels: BTreeMap::new(),
        kind: NodeKind::Sidecar(Box::new(Sidecar {
            inbound: Some(([10, 0, 0, 9].into(), 15006)),
            app_port: Some(8080),
            app_ports: BTreeMap::new(),
            interception: Interception::None,
            outbound_port: Some(15001),
            upstream_ports: BTreeMap::new(),
            app_socket: None,
            certificates: Certificates::Own,
            otlp: None,
        })),
    }
}

/// A port on loopback for one service.
fn loopback(port: u16) -> Place {
    Place::Socket(([127, 0, 0, 1], port).into())
}

fn grpc_client(provider: Option<&str>) -> Node {
    Node {
        id: "grpc".to_owned(),
        namespace: "default".to_owned(),
        service: None,
        service_account: None,
        instance: None,
        labels: BTreeMap::new(),
        kind: NodeKind::Grpc { certificate_provider: provider.map(str::to_owned) },
    }
}

/// The same node, seen through its sidecar part.
fn with_sidecar(mut node: Node, change: impl FnOnce(&mut Sidecar)) -> Node {
    if let NodeKind::Sidecar(sidecar) = &mut node.kind {
        change(sidecar);
    }
    node
}

fn decode<M: Message + Default>(set: &ResourceSet, kind: ResourceType, name: &str) -> M {
    let resource =
        set.get(kind, name).unwrap_or_else(|| panic!("no {name} in {:?}", names(set, kind)));
    M::decode(resource.body.as_ref()).unwrap()
}

fn names(set: &ResourceSet, kind: ResourceType) -> Vec<String> {
    set.of_type(kind).map(|resource| resource.name.to_string()).collect()
}

fn cluster(set: &ResourceSet, name: &str) -> Cluster {
    decode(set, ResourceType::Cluster, name)
}

fn listener(set: &ResourceSet, name: &str) -> Listener {
    decode(set, ResourceType::Listener, name)
}

/// The routes of one host of a route configuration, but for that of tunnels.
fn host_routes(set: &ResourceSet, configuration: &str, host: &str) -> Vec<Route> {
    let found: RouteConfiguration = decode(set, ResourceType::Route, configuration);
    let host = found.virtual_hosts.into_iter().find(|known| known.name == host);
    let routes = host.expect("a host of this name").routes.into_iter();
    routes.filter(|route| route.name != "tunnel").collect()
}

/// `address:port` of all endpoints.
fn endpoints(set: &ResourceSet, cluster: &str) -> Vec<String> {
    let found: ClusterLoadAssignment = decode(set, ResourceType::Endpoint, cluster);
    let all = found.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    let address = |endpoint: &pillion_xds::envoy::config::endpoint::v3::LbEndpoint| {
        let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier
        else {
            panic!("an endpoint")
        };
        socket(endpoint.address.as_ref().unwrap())
    };
    all.map(address).collect()
}

fn socket(address: &pillion_xds::envoy::config::core::v3::Address) -> String {
    use pillion_xds::envoy::config::core::v3::{address::Address, socket_address::PortSpecifier};
    let Some(Address::SocketAddress(socket)) = &address.address else { panic!("a socket address") };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!("a port") };
    format!("{}:{port}", socket.address)
}
