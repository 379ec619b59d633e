//! The bootstrap for Envoy and for ours: the same file.
//!
//! On are what a sidecar has by default: metrics, tracing at 1 %, outlier detection, breakers, a retry
//! policy, RBAC with three rules, a table of 50 routes. The access log is off.

use std::net::SocketAddr;

use pillion_tests::ca::{Files, spiffe};
use pillion_tests::proxy::socket_address;
use serde_json::{Value, json};

use super::{End, Http, Side, Workshop};

const TYPE: &str = "type.googleapis.com/envoy";
const ROUTES: usize = 50;

/// Configuration beside what the job needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Growth {
    /// Clusters that nothing leads to.
    pub clusters: usize,
    /// Endpoints of each.
    pub endpoints: usize,
}

pub(super) fn bootstrap(
    workshop: &Workshop,
    address: SocketAddr,
    side: &Side,
    admin: SocketAddr,
) -> String {
    let mut upstream = cluster("app", side.to, side.up);
    upstream["circuit_breakers"] = json!({"thresholds": [
        {"max_connections": 10_000, "max_pending_requests": 10_000, "max_requests": 10_000, "max_retries": 10},
    ]});
    upstream["outlier_detection"] = json!({"consecutive_5xx": 5, "interval": "10s"});
    if side.tls == Some(End::Out) {
        upstream["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
            "common_tls_context": common(&workshop.client, side.up, "server"),
        }});
    }
    let mut chain = json!({"filters": [{"name": "http", "typed_config": manager(side)}]});
    if side.tls == Some(End::In) {
        chain["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
            "require_client_certificate": true,
            "common_tls_context": common(&workshop.server, side.down, "client"),
        }});
    }
    let mut clusters = vec![upstream, cluster("otel", workshop.backends.http2, Http::Two)];
    clusters.extend((0..side.growth.clusters).map(|number| more(number, side.growth.endpoints)));
    let all = json!({
        "node": {"id": "bench", "cluster": "bench"},
        "admin": {"address": socket_address(admin)},
        "static_resources": {
            "listeners": [{
                "name": "front", "address": socket_address(address), "filter_chains": [chain],
            }],
            "clusters": clusters,
        },
    });
    all.to_string()
}

fn manager(side: &Side) -> Value {
    let route = |number: usize| {
        json!({
            "name": format!("r{number}"),
            "match": {"prefix": format!("/r{number}/")},
            "route": {
                "cluster": "app",
                "timeout": "15s",
                "retry_policy": {"retry_on": "connect-failure,refused-stream,reset", "num_retries": 2},
            },
        })
    };
    let mut routes: Vec<Value> = (0..ROUTES - 1).map(route).collect();
    routes.push(json!({"name": "rest", "match": {"prefix": "/"}, "route": {"cluster": "app"}}));
    let policy =
        |permission: Value| json!({"permissions": [permission], "principals": [{"any": true}]});
    let secret = json!({"header": {"name": "x-forbidden", "present_match": true}});
    json!({
        "@type": format!("{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "bench",
        "codec_type": if side.down == Http::Two && side.tls.is_none() { "HTTP2" } else { "AUTO" },
        "tracing": {
            "random_sampling": {"value": 1},
            "provider": {"name": "otel", "typed_config": {
                "@type": format!("{TYPE}.config.trace.v3.OpenTelemetryConfig"),
                "service_name": "bench",
                "grpc_service": {"envoy_grpc": {"cluster_name": "otel"}, "timeout": "1s"},
            }},
        },
        "route_config": {"name": "table", "virtual_hosts": [
            {"name": "all", "domains": ["*"], "routes": routes},
        ]},
        "http_filters": [
            {"name": "rbac", "typed_config": {
                "@type": format!("{TYPE}.extensions.filters.http.rbac.v3.RBAC"),
                "rules": {"action": "DENY", "policies": {
                    "header": policy(secret),
                    "method": policy(json!({"header": {"name": ":method", "string_match": {"exact": "TRACE"}}})),
                    "path": policy(json!({"url_path": {"path": {"prefix": "/admin/"}}})),
                }},
            }},
            {"name": "router", "typed_config": {
                "@type": format!("{TYPE}.extensions.filters.http.router.v3.Router"),
            }},
        ],
    })
}

fn cluster(name: &str, to: SocketAddr, http: Http) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": socket_address(to)}}]},
        ]},
    });
    if http == Http::Two {
        let options = format!("{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions");
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options, "explicit_http_config": {"http2_protocol_options": {}},
            },
        });
    }
    cluster
}

fn more(number: usize, endpoints: usize) -> Value {
    let name = format!("more-{number}");
    let endpoint = |at: usize| {
        let address = [10, (number >> 8) as u8, (number & 255) as u8, at as u8];
        json!({"endpoint": {"address": socket_address((address, 8080).into())}})
    };
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"lb_endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>()},
        ]},
    })
}

fn common(files: &Files, http: Http, expected: &str) -> Value {
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": [if http == Http::Two { "h2" } else { "http/1.1" }],
        "tls_certificates": [
            {"certificate_chain": {"filename": files.chain}, "private_key": {"filename": files.key}},
        ],
        "validation_context": {
            "trusted_ca": {"filename": files.roots},
            "match_typed_subject_alt_names":
                [{"san_type": "URI", "matcher": {"exact": spiffe(expected)}}],
        },
    })
}
