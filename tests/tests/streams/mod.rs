//! Resources that come on streams of their own, from files, and late: the same server, or the same
//! files, for our proxy and for the real Envoy.

mod csds;
mod ecds;
mod files;
mod load;
mod sds;
mod waits;

use std::net::SocketAddr;

use pillion_tests::ads::python;
use pillion_tests::backend::Backend;
use pillion_tests::proxy::{Kind, envoy, socket_address};
use pillion_tests::venv::optional;
use serde_json::{Value, json};

const SECRETS: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";
const LISTENERS: &str = "envoy.config.listener.v3.Listener";
const CLUSTERS: &str = "envoy.config.cluster.v3.Cluster";
const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
const EXTENSIONS: &str = "envoy.config.core.v3.TypedExtensionConfig";
const ENDPOINTS: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";

/// The proxies that can be had here.
fn proxies() -> anyhow::Result<Vec<Kind>> {
    if optional("grpcio and xds-protos", python())?.is_none() {
        return Ok(Vec::new());
    }
    let real = optional("real Envoy", envoy())?.map(|_| Kind::Envoy);
    Ok([Kind::Pillion].into_iter().chain(real).collect())
}

/// A `RouteConfiguration` that leads everything to `cluster`.
fn table(name: &str, cluster: &str) -> Value {
    json!({"name": name, "virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
    }]})
}

/// A listener with these routes: `route_config` or `rds`.
fn listener(address: SocketAddr, field: &str, routes: Value) -> Value {
    let filters = "type.googleapis.com/envoy.extensions.filters";
    let mut manager = json!({
        "@type": format!("{filters}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "front",
        "http_filters": [{
            "name": "router",
            "typed_config": {"@type": format!("{filters}.http.router.v3.Router")},
        }],
    });
    manager[field] = routes;
    json!({
        "name": "front",
        "address": socket_address(address),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    })
}

/// A cluster with these endpoints of its own.
fn cluster(name: &str, backend: &Backend) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": endpoints(name, backend),
    })
}

/// A cluster whose endpoints come from there.
fn eds_cluster(name: &str, source: Value) -> Value {
    json!({
        "name": name,
        "type": "EDS",
        "connect_timeout": "5s",
        "eds_cluster_config": {"eds_config": source},
    })
}

fn endpoints(name: &str, backend: &Backend) -> Value {
    json!({"cluster_name": name, "endpoints": [{
        "lb_endpoints": [{"endpoint": {"address": socket_address(backend.address)}}],
    }]})
}
