//! Listeners (LDS) of one sidecar.

use std::net::{IpAddr, Ipv4Addr};

use pillion_xds::any::{Packable, pack};
use pillion_xds::envoy::config::core::v3::{TrafficDirection, TransportSocket};
use pillion_xds::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, filter, listener_filter,
};
use pillion_xds::envoy::config::route::v3::route_action::ClusterSpecifier;
use pillion_xds::envoy::config::route::v3::route_match::PathSpecifier;
use pillion_xds::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route,
};
use pillion_xds::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, RouteSpecifier, SetCurrentClientCertDetails,
};
use pillion_xds::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};

use super::clusters::inbound_name;
use super::http_manager::{access_log, base, over_rds};
use super::node::{Node, Sidecar};
use super::proto::{millis, socket};
use super::retry;
use super::routes::OUTBOUND;
use super::shape::cluster_name;
use super::tls;
use crate::intent::{AppProtocol, Mesh, Mtls, Service, ServicePort};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The listener at which peers reach the workload. `None` if there is no workload, or if the mesh demands mTLS
/// and the sidecar has no certificates.
pub(crate) fn inbound(
    mesh: &Mesh,
    node: &Node,
    sidecar: &Sidecar,
    protocol: AppProtocol,
) -> Option<Listener> {
    let ((address, port), app_port) = (sidecar.inbound?, sidecar.app_port?);
    let alpn = if protocol.is_http() { tls::H2_OR_HTTP1 } else { tls::NO_ALPN };
    let secure = tls::downstream(&sidecar.certificates, &mesh.trust_domain, alpn);
    let workload = |knows_peer| {
        if protocol.is_http() {
            let stat_prefix = format!("inbound_{port}");
            let mut manager = base(mesh, node, sidecar, &stat_prefix);
            to_workload(&mut manager, node, app_port, knows_peer);
            http(&manager)
        } else {
            tcp(mesh, &format!("inbound_{port}"), inbound_name(app_port))
        }
    };
    let filter_chains = match (mesh.mtls, secure) {
        (Mtls::Strict, Some(secure)) => vec![chain(workload(true), Some(secure), None)],
        (Mtls::Strict, None) => return None,
        (Mtls::Permissive, Some(secure)) => vec![
            chain(workload(true), Some(secure), Some("tls")),
            chain(workload(false), None, Some("raw_buffer")),
        ],
        (Mtls::Permissive, None) => vec![chain(workload(false), None, None)],
    };
    let looks_inside = filter_chains.len() > 1;
    Some(Listener {
        name: "inbound".to_owned(),
        address: Some(socket(address, port)),
        filter_chains,
        listener_filters: if looks_inside { vec![tls_inspector()] } else { Vec::new() },
        // A client that waits for the server to speak first must not wait long for the look inside.
        listener_filters_timeout: looks_inside.then(|| millis(200)),
        continue_on_listener_filters_timeout: looks_inside,
        traffic_direction: TrafficDirection::Inbound.into(),
        ..Listener::default()
    })
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
    let mut manager = base(mesh, node, sidecar, OUTBOUND);
    manager.route_specifier = Some(over_rds(OUTBOUND));
    Some(on_loopback(OUTBOUND.to_owned(), sidecar.outbound_port?, http(&manager)))
}

/// A loopback port that stands for one service port.
pub(crate) fn upstream(
    mesh: &Mesh,
    (node, sidecar): (&Node, &Sidecar),
    (service, port): (&Service, &ServicePort),
    local: u16,
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
    on_loopback(name, local, filter)
}

fn on_loopback(name: String, port: u16, filter: Filter) -> Listener {
    Listener {
        name,
        address: Some(socket(LOOPBACK, port)),
        filter_chains: vec![chain(filter, None, None)],
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Listener::default()
    }
}

fn chain(filter: Filter, tls: Option<TransportSocket>, transport: Option<&str>) -> FilterChain {
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

fn http(manager: &HttpConnectionManager) -> Filter {
    network_filter("envoy.filters.network.http_connection_manager", manager)
}

fn tcp(mesh: &Mesh, stat_prefix: &str, cluster: String) -> Filter {
    let proxy = TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster)),
        access_log: access_log(mesh),
        ..TcpProxy::default()
    };
    network_filter("envoy.filters.network.tcp_proxy", &proxy)
}

fn network_filter<M: Packable>(name: &str, config: &M) -> Filter {
    Filter {
        name: name.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(config))),
    }
}

fn tls_inspector() -> ListenerFilter {
    ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(pack(&TlsInspector::default()))),
        ..ListenerFilter::default()
    }
}
