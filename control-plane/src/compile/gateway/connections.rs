//! Listeners that pass connections on: TLS by server name, whether it ends here or not, and TCP.

use std::collections::BTreeSet;

use pillion_xds::envoy::config::core::v3::TransportSocket;
use pillion_xds::envoy::config::listener::v3::{Filter, FilterChain};
use pillion_xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use pillion_xds::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::weighted_cluster::ClusterWeight;
use pillion_xds::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster,
};

use super::super::http_manager::access_log;
use super::super::listeners::{chain, network_filter};
use super::super::tls;
use super::certificates::Certificates;
use super::{Compiled, Port, by_server_name};
use crate::intent::{self, L4Route, ListenerProtocol, attach};

/// The chains of a listener: one for each server name that a route is for.
pub(super) fn chains(
    port: &Port<'_>,
    listener: &intent::Listener,
    certificates: &mut Certificates<'_>,
    made: &mut Compiled,
) -> Vec<FilterChain> {
    let secure: Option<TransportSocket> = match listener.protocol {
        ListenerProtocol::TlsTerminate => {
            let Some(names) = certificates.of(port.gateway, listener) else { return Vec::new() };
            Some(tls::downstream_edge(&names, tls::NO_ALPN))
        }
        _ => None,
    };
    let mut routes: Vec<&L4Route> =
        port.shape.intent.l4_routes.values().map(AsRef::as_ref).collect();
    routes.sort_by_key(|route| {
        (route.created.is_none(), route.created.clone(), route.kind, &route.name)
    });
    let mut taken = BTreeSet::new();
    let mut found = Vec::new();
    for route in routes {
        for host in attach::hosts(port.gateway, listener, route.claim()) {
            if !taken.insert(host.clone()) {
                made.warnings.push(format!(
                    "{} {}: another route has the same place at Gateway {}, listener `{}`",
                    route.claim().kind,
                    route.name,
                    port.gateway.name,
                    listener.name
                ));
                continue;
            }
            let Some(filter) = forward(port, route, made) else { continue };
            found.push(if listener.protocol == ListenerProtocol::Tcp {
                chain(filter, None, None)
            } else {
                by_server_name(&listener.name, host, filter, secure.clone())
            });
        }
    }
    found
}

/// `None`: it leads nowhere.
fn forward(port: &Port<'_>, route: &L4Route, made: &mut Compiled) -> Option<Filter> {
    let mut clusters = Vec::new();
    for backend in route.backends.iter().filter(|backend| backend.weight > 0) {
        match port.shape.resolve_bytes(&backend.target) {
            Ok(name) => clusters.push(ClusterWeight {
                name,
                weight: backend.weight,
                ..ClusterWeight::default()
            }),
            Err(why) => {
                made.warnings.push(format!("{} {}: {why}", route.claim().kind, route.name));
            }
        }
    }
    made.backends.extend(clusters.iter().map(|cluster| cluster.name.clone()));
    let to = match clusters.as_slice() {
        [] => return None,
        [only] => ClusterSpecifier::Cluster(only.name.clone()),
        _ => ClusterSpecifier::WeightedClusters(WeightedCluster { clusters }),
    };
    let proxy = TcpProxy {
        stat_prefix: format!("gateway_{}", port.number),
        cluster_specifier: Some(to),
        access_log: access_log(&port.shape.intent.mesh),
        ..TcpProxy::default()
    };
    Some(network_filter("envoy.filters.network.tcp_proxy", &proxy))
}
