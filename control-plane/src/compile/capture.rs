//! Captured traffic: connections that the workload made to somebody else, and that were redirected to its sidecar.
//!
//! A connection to an address that the mesh knows (a service's own, or that of a workload that speaks TCP) belongs
//! to the listener of that very address, which looks at no byte of it: a server that speaks first is not held up.
//! Everything else is looked into; HTTP is routed by host name, the rest goes where it was going or is refused.

use std::net::IpAddr;
use std::sync::Arc;

use pillion_xds::envoy::config::cluster::v3::Cluster;
use pillion_xds::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, LbPolicy,
};
use pillion_xds::envoy::config::core::v3::TrafficDirection;
use pillion_xds::envoy::config::listener::v3::{Filter, FilterChainMatch, Listener};
use pillion_xds::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;

use super::http_manager::{base, connect, over_rds};
use super::listeners::{chain, http, listener_filter, original_dst, tcp, tls_inspector};
use super::members::captured_port;
use super::node::{Certificates, Node, Sidecar};
use super::proto::{everywhere, millis, socket};
use super::routes::OUTBOUND;
use super::shape::cluster_name;
use crate::intent::{Mesh, Outbound, Service, ServicePort, Workload};

/// The cluster that goes where a request or connection was going anyway.
pub(crate) const PASSTHROUGH: &str = "passthrough";

/// What the HTTP inspector says.
const HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// The listener at which redirected connections arrive, and requests that name it as their proxy.
pub(crate) fn outbound(mesh: &Mesh, node: &Node, sidecar: &Sidecar) -> Option<Listener> {
    let port = sidecar.outbound_port?;
    let mut manager = base(mesh, node, sidecar, OUTBOUND);
    manager.route_specifier = Some(over_rds(OUTBOUND));
    manager.upgrade_configs.push(connect());
    let mut of_http = chain(http(&manager), None, None);
    "http".clone_into(&mut of_http.name);
    of_http.filter_chain_match = Some(FilterChainMatch {
        transport_protocol: "raw_buffer".to_owned(),
        application_protocols: HTTP.map(str::to_owned).into(),
        ..FilterChainMatch::default()
    });
    let anything = || {
        let mut rest = chain(tcp(mesh, PASSTHROUGH, PASSTHROUGH.to_owned()), None, None);
        PASSTHROUGH.clone_into(&mut rest.name);
        rest
    };
    // Our proxy hears a server that speaks first while it waits; an Envoy only waits.
    let patience = if sidecar.certificates == Certificates::Own { 5000 } else { 1000 };
    Some(Listener {
        name: OUTBOUND.to_owned(),
        address: Some(everywhere(port)),
        use_original_dst: Some(true),
        filter_chains: vec![of_http],
        default_filter_chain: (mesh.outbound == Outbound::Passthrough).then(anything),
        listener_filters: vec![
            original_dst(),
            tls_inspector(),
            listener_filter("envoy.filters.listener.http_inspector", &HttpInspector::default()),
        ],
        listener_filters_timeout: Some(millis(patience)),
        continue_on_listener_filters_timeout: true,
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Listener::default()
    })
}

/// The listeners of the addresses that mean one port of a service. They are bound nowhere: `outbound` hands
/// connections over to them.
pub(crate) fn of_port(
    mesh: &Mesh,
    (node, sidecar): (&Node, &Sidecar),
    (service, port): (&Service, &ServicePort),
    workloads: &[Arc<Workload>],
) -> Vec<Listener> {
    let cluster = cluster_name(&service.name, port.port);
    let name = format!("{OUTBOUND}|{cluster}");
    let own = service.addresses.iter().map(|address| {
        let filter = if port.protocol.is_http() {
            let mut manager = base(mesh, node, sidecar, OUTBOUND);
            manager.route_specifier = Some(over_rds(&cluster));
            http(&manager)
        } else {
            tcp(mesh, &name, cluster.clone())
        };
        at(&name, (*address, port.port), filter)
    });
    let mut found: Vec<Listener> = own.collect();
    // Who connects to one workload means that one. HTTP has host names to tell services apart by.
    for workload in workloads.iter().filter(|_| !port.protocol.is_http()) {
        if let Some(number) = captured_port(workload, port) {
            let filter = tcp(mesh, &name, direct_name(service, port));
            found.push(at(&name, (workload.address, number), filter));
        }
    }
    found
}

fn at(name: &str, (address, port): (IpAddr, u16), filter: Filter) -> Listener {
    Listener {
        name: format!("{name}|{address}_{port}"),
        address: Some(socket(address, port)),
        // One set of metrics for all of them.
        stat_prefix: "captured".to_owned(),
        bind_to_port: Some(false),
        filter_chains: vec![chain(filter, None, None)],
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Listener::default()
    }
}

fn direct_name(service: &Service, port: &ServicePort) -> String {
    format!("direct|{}", cluster_name(&service.name, port.port))
}

/// The cluster that reaches the very workload that a connection names, with the identity of its service.
pub(crate) fn direct(service: &Service, port: &ServicePort, balanced: Cluster) -> Cluster {
    Cluster {
        name: direct_name(service, port),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into())),
        eds_cluster_config: None,
        lb_policy: LbPolicy::ClusterProvided.into(),
        load_balancing_policy: None,
        outlier_detection: None,
        ..balanced
    }
}
