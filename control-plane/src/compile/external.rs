//! Hosts outside of the mesh: their clusters, their virtual hosts, and the gateways that they are reached through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use pillion_xds::envoy::config::cluster::v3::Cluster;
use pillion_xds::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
};
use pillion_xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use pillion_xds::envoy::config::listener::v3::{FilterChain, FilterChainMatch};
use pillion_xds::envoy::config::route::v3::{Route, VirtualHost};

use super::clusters::{self, PEER_IDLE};
use super::endpoints::{View, assignment};
use super::listeners::{chain, tcp};
use super::members::Members;
use super::node::Certificates;
use super::proto::{host_and_port, millis, over_ads};
use super::routes::{to_cluster, tunnel, whole};
use super::shape::Shape;
use super::tls;
use crate::intent::{
    ExternalPort, ExternalService, GATEWAY_LABEL, Mesh, Name, ServicePort, TargetPort, Workload,
};
use crate::map::Map;

/// `external|name.namespace:port`
pub(crate) fn cluster_name(service: &Name, port: u16) -> String {
    format!("external|{}.{}:{port}", service.name, service.namespace)
}

/// `egress|name.namespace`: the cluster of a gateway's instances.
pub(crate) fn egress_name(gateway: &Name) -> String {
    format!("egress|{}.{}", gateway.name, gateway.namespace)
}

/// All ports of all hosts outside.
pub(crate) fn ports(shape: &Shape) -> impl Iterator<Item = (&ExternalService, &ExternalPort)> {
    let all = shape.intent.externals.values().map(AsRef::as_ref);
    all.flat_map(|service: &ExternalService| service.ports.iter().map(move |port| (service, port)))
}

/// The cluster of one port.
pub(crate) fn cluster(service: &ExternalService, port: &ExternalPort) -> Cluster {
    let name = cluster_name(&service.name, port.port);
    let hosts = if service.addresses.is_empty() { &service.hosts[..1] } else { &service.addresses };
    let by_address = hosts.iter().all(|host| host.parse::<IpAddr>().is_ok());
    let discovery = if by_address { DiscoveryType::Static } else { DiscoveryType::StrictDns };
    let endpoints = hosts.iter().map(|host| LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: Some(host_and_port(host.clone(), port.target)),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    });
    let mut cluster = Cluster {
        name: name.clone(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
        dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
        connect_timeout: Some(millis(5000)),
        circuit_breakers: Some(clusters::circuit_breakers(None)),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name,
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: endpoints.collect(),
                ..LocalityLbEndpoints::default()
            }],
            ..ClusterLoadAssignment::default()
        }),
        ..Cluster::default()
    };
    let http2 = port.protocol.is_http2();
    if port.protocol.is_http() {
        // Below the minute after which many servers hang up.
        clusters::http_options(&mut cluster, http2, std::time::Duration::from_secs(50));
    }
    if let Some(origination) = &port.tls {
        let alpn = match (port.protocol.is_http(), http2) {
            (false, _) => tls::NO_ALPN,
            (true, true) => tls::H2,
            (true, false) => tls::HTTP1,
        };
        cluster.transport_socket = Some(tls::upstream_outside(origination, alpn));
    }
    cluster
}

/// The hosts outside as workloads see them: by name, with or without the port. `taken` are the names that are known
/// already.
pub(crate) fn virtual_hosts(shape: &Shape, taken: &mut BTreeSet<String>) -> Vec<VirtualHost> {
    let host = |(service, port): (&ExternalService, &ExternalPort)| {
        let cluster = match &service.via {
            Some(gateway) => egress_name(gateway),
            None => cluster_name(&service.name, port.port),
        };
        virtual_host(service, port, &cluster, taken)
    };
    ports(shape).filter_map(host).collect()
}

/// The hosts outside that leave through a gateway, as that gateway sees them.
pub(crate) fn virtual_hosts_via(shape: &Shape, gateway: &Name) -> Vec<VirtualHost> {
    let mut taken = BTreeSet::new();
    let through = ports(shape).filter(|(service, _)| service.via.as_ref() == Some(gateway));
    let host = |(service, port): (&ExternalService, &ExternalPort)| {
        virtual_host(service, port, &cluster_name(&service.name, port.port), &mut taken)
    };
    through.filter_map(host).collect()
}

fn virtual_host(
    service: &ExternalService,
    port: &ExternalPort,
    cluster: &str,
    taken: &mut BTreeSet<String>,
) -> Option<VirtualHost> {
    let bare = service.ports.len() == 1 || port.port == 80;
    let names = service.hosts.iter().flat_map(|host| {
        let whole = bare.then(|| host.clone());
        whole.into_iter().chain([format!("{host}:{}", port.port)])
    });
    let domains: Vec<String> = names.filter(|name| taken.insert(name.clone())).collect();
    if domains.is_empty() {
        return None;
    }
    let routes: Vec<Route> = if port.protocol.is_http() {
        whole(cluster, port.protocol)
    } else {
        vec![tunnel(to_cluster(cluster))]
    };
    let name = cluster_name(&service.name, port.port);
    Some(VirtualHost { name, domains, routes, ..VirtualHost::default() })
}

/// Captured TLS connections to hosts outside, by server name: they pass as they are.
pub(crate) fn captured(shape: &Shape) -> Vec<FilterChain> {
    let mut taken = BTreeSet::new();
    let passes = |(service, port): &(&ExternalService, &ExternalPort)| {
        !port.protocol.is_http() && port.tls.is_none() && service.via.is_none()
    };
    let chain = |(service, port): (&ExternalService, &ExternalPort)| {
        let names = service.hosts.iter().filter(|host| taken.insert((*host).clone()));
        let server_names: Vec<String> = names.cloned().collect();
        let name = cluster_name(&service.name, port.port);
        let mut chain = chain(tcp(&shape.intent.mesh, &name, name.clone()), None, None);
        chain.name = name;
        chain.filter_chain_match = Some(FilterChainMatch {
            server_names,
            transport_protocol: "tls".to_owned(),
            ..FilterChainMatch::default()
        });
        chain
    };
    let all = ports(shape).filter(passes).map(chain);
    all.filter(|chain| {
        chain.filter_chain_match.as_ref().is_some_and(|found| !found.server_names.is_empty())
    })
    .collect()
}

/// The gateways that traffic leaves through.
pub(crate) fn gateways(shape: &Shape) -> BTreeSet<&Name> {
    shape.intent.externals.values().filter_map(|service| service.via.as_ref()).collect()
}

/// The cluster of a gateway's instances, and where they are.
pub(crate) fn egress(
    mesh: &Mesh,
    gateway: &Name,
    registered: &Map<Name, Arc<Workload>>,
    (certificates, view): (&Certificates, View),
) -> (Cluster, ClusterLoadAssignment) {
    let is_one = |workload: &&Arc<Workload>| {
        workload.name.namespace == gateway.namespace
            && workload.labels.get(GATEWAY_LABEL) == Some(&gateway.name)
    };
    let workloads: Vec<Arc<Workload>> = registered.values().filter(is_one).cloned().collect();
    let mut accounts: BTreeSet<String> =
        workloads.iter().map(|workload| workload.service_account.clone()).collect();
    if accounts.is_empty() {
        accounts.insert(gateway.name.clone());
    }
    let name = egress_name(gateway);
    let mut cluster = Cluster {
        name: name.clone(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(over_ads()),
            service_name: name.clone(),
        }),
        connect_timeout: Some(millis(2000)),
        circuit_breakers: Some(clusters::circuit_breakers(None)),
        ..Cluster::default()
    };
    clusters::http_options(&mut cluster, *certificates != Certificates::None, PEER_IDLE);
    let ids = tls::spiffe_ids(&mesh.trust_domain, &gateway.namespace, &accounts);
    let sni = format!("{}.{}", gateway.name, gateway.namespace);
    cluster.transport_socket = tls::upstream(certificates, &ids, &sni, tls::H2);
    let port = ServicePort {
        name: None,
        port: 1,
        target: TargetPort::Number(1),
        protocol: crate::intent::AppProtocol::Http,
    };
    let members = Members { workloads, left_out: Vec::new(), accounts, wires: BTreeMap::new() };
    let endpoints = assignment(&name, &port, &members, (view, mesh.mtls));
    (cluster, endpoints)
}
