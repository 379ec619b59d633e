//! What a proxy goes through: bad resources, lost servers, certificates that end, full disks, and
//! its own end.

mod certificates;
mod drain;
mod dynamic;
mod hot_restart;
mod nothing;
mod secrets;

use std::net::SocketAddr;

use pillion_tests::proxy::socket_address;
use serde_json::{Value, json};

/// A listener that sends everything to `cluster`, with a line of access log for each request.
fn listener(name: &str, address: SocketAddr, cluster: &str) -> Value {
    let table = json!({"name": name, "virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
    }]});
    json!({
        "name": name,
        "address": socket_address(address),
        "filter_chains": [{"filters": [{
            "name": "http",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name,
                "route_config": table,
                "http_filters": [{
                    "name": "router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        }]}],
    })
}

/// A cluster with one endpoint.
fn cluster(name: &str, address: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": socket_address(address)}},
        ]}]},
    })
}

fn server_tls(files: &pillion_tests::ca::Files, mutual: bool) -> Value {
    let mut common = json!({
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificates": [{
            "certificate_chain": {"filename": files.chain},
            "private_key": {"filename": files.key},
        }],
    });
    if mutual {
        common["validation_context"] = json!({"trusted_ca": {"filename": files.roots}});
    }
    json!({
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": mutual,
            "common_tls_context": common,
        },
    })
}

fn client_tls(files: &pillion_tests::ca::Files, expected: &str) -> Value {
    json!({
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {"validation_context": {
                "trusted_ca": {"filename": files.roots},
                "match_typed_subject_alt_names":
                    [{"san_type": "URI", "matcher": {"exact": expected}}],
            }},
        },
    })
}
