//! Listeners of proxyless gRPC clients: one for every name that `xds:///NAME` may ask for.

use pillion_xds::any::pack;
use pillion_xds::envoy::config::listener::v3::{ApiListener, Listener};
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;

use super::http_manager::{over_rds, router};
use super::routes::domains;
use super::shape::cluster_name;
use crate::intent::{Service, ServicePort};

/// The listeners of one service port, as seen from a namespace. All lead to one route configuration.
pub(crate) fn listeners(service: &Service, port: &ServicePort, namespace: &str) -> Vec<Listener> {
    let manager = HttpConnectionManager {
        stat_prefix: "grpc".to_owned(),
        route_specifier: Some(over_rds(&cluster_name(&service.name, port.port))),
        http_filters: vec![router()],
        ..HttpConnectionManager::default()
    };
    let listener = |name| Listener {
        name,
        api_listener: Some(ApiListener { api_listener: Some(pack(&manager)) }),
        ..Listener::default()
    };
    domains(service, port, namespace).into_iter().map(listener).collect()
}
