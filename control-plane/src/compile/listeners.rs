//! Listeners (LDS) of one sidecar.

use std::net::{IpAddr, Ipv4Addr};

use pillion_xds::any::{Packable, pack};
use pillion_xds::envoy::config::core::v3::{Address, TrafficDirection, TransportSocket};
use pillion_xds::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, filter, listener_filter,
};
use pillion_xds::envoy::config::route::v3::route_action::ClusterSpecifier;
use pillion_xds::envoy::config::route::v3::route_match::PathSpecifier;
use pillion_xds::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route,
};
use pillion_xds::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use pillion_xds::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use pillion_xds::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, RouteSpecifier, SetCurrentClientCertDetails,
};
use pillion_xds::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};

use super::authorization::Guard;
use super::capture;
use super::clusters::inbound_name;
use super::http_manager::{access_log, base, connect, forward_proxy, over_rds};
use super::node::{Certificates, Interception, Node, Place, Sidecar};
use super::proto::{everywhere, millis, pipe, socket};
use super::retry;
use super::routes::OUTBOUND;
use super::shape::cluster_name;
use super::tls;
use crate::intent::{AppProtocol, Mesh, Mtls, Outbound, Service, ServicePort};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The listener at which peers reach the workload, whose ports are given with what is spoken there, the main one
/// first. `None` if there is no workload, or if the mesh demands mTLS and the sidecar has no certificates.
pub(crate) fn inbound(
    guard: Guard<'_>,
    node: &Node,
    sidecar: &Sidecar,
    ports: &[(u16, AppProtocol)],
) -> Option<Listener> {
    let mesh = guard.mesh;
    let (address, port) = sidecar.inbound?;
    let captures = sidecar.interception.captures();
    let (main, _) = ports.first()?;
    let mut filter_chains = Vec::new();
    for (app_port, protocol) in ports {
        // Who names the sidecar itself means the main port; any other port is nobody's.
        let reached: &[Option<u16>] = match (captures, app_port == main) {
            (false, true) => &[None],
            (false, false) => &[],
            (true, true) => &[Some(port), Some(*app_port)],
            (true, false) => &[Some(*app_port)],
        };
        for destination in reached {
            let to = To { app_port: *app_port, protocol: *protocol, destination: *destination };
            filter_chains.append(&mut chains(guard, (node, sidecar), port, &to));
        }
    }
    if filter_chains.is_empty() {
        return None;
    }
    let by_transport = mesh.mtls == Mtls::Permissive && sidecar.certificates != Certificates::None;
    let mut listener_filters = Vec::new();
    if captures {
        listener_filters.push(original_dst());
    }
    if sidecar.interception == Interception::Tproxy {
        listener_filters.push(original_src());
    }
    if by_transport {
        listener_filters.push(tls_inspector());
    }
    Some(Listener {
        name: "inbound".to_owned(),
        address: Some(if captures { everywhere(port) } else { socket(address, port) }),
        filter_chains,
        listener_filters,
        transparent: (sidecar.interception == Interception::Tproxy).then_some(true),
        // A client that waits for the server to speak first must not wait long for the look inside.
        listener_filters_timeout: by_transport.then(|| millis(200)),
        continue_on_listener_filters_timeout: by_transport,
        traffic_direction: TrafficDirection::Inbound.into(),
        ..Listener::default()
    })
}

/// One port of the workload, and the port that its clients connected to, where that tells it from others.
struct To {
    app_port: u16,
    protocol: AppProtocol,
    destination: Option<u16>,
}

/// The filter chains to one port of the workload.
fn chains(
    guard: Guard<'_>,
    (node, sidecar): (&Node, &Sidecar),
    port: u16,
    to: &To,
) -> Vec<FilterChain> {
    let mesh = guard.mesh;
    let alpn = if to.protocol.is_http() { tls::H2_OR_HTTP1 } else { tls::NO_ALPN };
    let secure = tls::downstream(&sidecar.certificates, &mesh.trust_domain, alpn);
    let workload = |knows_peer| {
        if to.protocol.is_http() {
            let stat_prefix = format!("inbound_{port}");
            let mut manager = base(mesh, node, sidecar, &stat_prefix);
            to_workload(&mut manager, node, to.app_port, knows_peer);
            guard.requests(&mut manager, to.app_port);
            http(&manager)
        } else {
            tcp(mesh, &format!("inbound_{port}"), inbound_name(to.app_port))
        }
    };
    let mut found = match (mesh.mtls, secure) {
        (Mtls::Strict, Some(secure)) => vec![chain(workload(true), Some(secure), None)],
        (Mtls::Strict, None) => Vec::new(),
        (Mtls::Permissive, Some(secure)) => vec![
            chain(workload(true), Some(secure), Some("tls")),
            chain(workload(false), None, Some("raw_buffer")),
        ],
        (Mtls::Permissive, None) => vec![chain(workload(false), None, None)],
    };
    if !to.protocol.is_http() {
        for chain in &mut found {
            chain.filters.splice(0..0, guard.connections(to.app_port));
        }
    }
    if let Some(destination) = to.destination {
        for chain in &mut found {
            let matches = chain.filter_chain_match.get_or_insert_default();
            matches.destination_port = Some(destination.into());
            chain.name = format!("{destination}_{}", chain.name).trim_end_matches('_').to_owned();
        }
    }
    found
}

/// Everything goes to the workload; what a certificate says about the peer goes along in
/// `x-forwarded-client-cert`, and nothing else does.
fn to_workload(manager: &mut HttpConnectionManager, node: &Node, app_port: u16, knows_peer: bool) {
    let forward = if knows_peer {
        ForwardClientCertDetails::SanitizeSet
    } else {
        ForwardClientCertDetails::Sanitize
    };
    manager.forward_client_cert_details = forward.into();
    manager.set_current_client_cert_details = knows_peer.then(|| SetCurrentClientCertDetails {
        subject: Some(true),
        uri: true,
        ..SetCurrentClientCertDetails::default()
    });
    // Time limits are the caller's, whose sidecar keeps them.
    manager.stream_idle_timeout = Some(prost_types::Duration::default());
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(inbound_name(app_port))),
        timeout: Some(prost_types::Duration::default()),
        retry_policy: Some(retry::to_own_workload()),
        ..RouteAction::default()
    };
    let service = node.service.as_deref().unwrap_or("workload");
    let host = VirtualHost {
        name: format!("inbound|{service}"),
        domains: vec!["*".to_owned()],
        routes: vec![Route {
            name: "inbound".to_owned(),
            r#match: Some(RouteMatch {
                path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
                ..RouteMatch::default()
            }),
            action: Some(route::Action::Route(action)),
            ..Route::default()
        }],
        ..VirtualHost::default()
    };
    manager.route_specifier = Some(RouteSpecifier::RouteConfig(RouteConfiguration {
        name: "inbound".to_owned(),
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    }));
}

/// The listener at which the workload reaches the mesh, by host name.
pub(crate) fn outbound(mesh: &Mesh, node: &Node, sidecar: &Sidecar) -> Option<Listener> {
    if sidecar.interception.captures() {
        return capture::outbound(mesh, node, sidecar);
    }
    let mut manager = base(mesh, node, sidecar, OUTBOUND);
    manager.route_specifier = Some(over_rds(OUTBOUND));
    manager.upgrade_configs.push(connect());
    if mesh.outbound == Outbound::Passthrough {
        manager.http_filters.insert(0, forward_proxy());
    }
    let address = socket(LOOPBACK, sidecar.outbound_port?);
    Some(on_loopback(OUTBOUND.to_owned(), address, http(&manager)))
}

/// A place on loopback that stands for one service port.
pub(crate) fn upstream(
    mesh: &Mesh,
    (node, sidecar): (&Node, &Sidecar),
    (service, port): (&Service, &ServicePort),
    local: &Place,
) -> Listener {
    let cluster = cluster_name(&service.name, port.port);
    let name = format!("{OUTBOUND}|{cluster}");
    let filter = if port.protocol.is_http() {
        let mut manager = base(mesh, node, sidecar, OUTBOUND);
        manager.route_specifier = Some(over_rds(&cluster));
        http(&manager)
    } else {
        tcp(mesh, &name, cluster)
    };
    let address = match local {
        Place::Socket(address) => socket(address.ip(), address.port()),
        Place::Pipe(path) => pipe(path),
    };
    on_loopback(name, address, filter)
}

fn on_loopback(name: String, address: Address, filter: Filter) -> Listener {
    Listener {
        name,
        address: Some(address),
        filter_chains: vec![chain(filter, None, None)],
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Listener::default()
    }
}

pub(crate) fn chain(
    filter: Filter,
    tls: Option<TransportSocket>,
    transport: Option<&str>,
) -> FilterChain {
    FilterChain {
        filter_chain_match: transport.map(|transport| FilterChainMatch {
            transport_protocol: transport.to_owned(),
            ..FilterChainMatch::default()
        }),
        filters: vec![filter],
        transport_socket: tls,
        name: transport.unwrap_or_default().to_owned(),
        ..FilterChain::default()
    }
}

pub(crate) fn http(manager: &HttpConnectionManager) -> Filter {
    network_filter("envoy.filters.network.http_connection_manager", manager)
}

pub(crate) fn tcp(mesh: &Mesh, stat_prefix: &str, cluster: String) -> Filter {
    let proxy = TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster)),
        access_log: access_log(mesh),
        ..TcpProxy::default()
    };
    network_filter("envoy.filters.network.tcp_proxy", &proxy)
}

pub(crate) fn network_filter<M: Packable>(name: &str, config: &M) -> Filter {
    Filter {
        name: name.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(config))),
    }
}

pub(crate) fn tls_inspector() -> ListenerFilter {
    listener_filter("envoy.filters.listener.tls_inspector", &TlsInspector::default())
}

pub(crate) fn original_dst() -> ListenerFilter {
    listener_filter("envoy.filters.listener.original_dst", &OriginalDst::default())
}

/// The workload sees its clients' addresses; `pillion-proxy redirect` has the rules that bring its answers back.
fn original_src() -> ListenerFilter {
    const SOURCE_MARK: u32 = 1339;
    let config = OriginalSrc { mark: SOURCE_MARK, ..OriginalSrc::default() };
    listener_filter("envoy.filters.listener.original_src", &config)
}

pub(crate) fn listener_filter<M: Packable>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(pack(config))),
        ..ListenerFilter::default()
    }
}
