//! Configuration of any size, as a management server sends it.

use std::net::SocketAddr;

use anyhow::Context;
use pillion_tests::proxy::socket_address;
use pillion_xds::envoy::config as pb;
use pillion_xds::{json, type_url};
use prost::{Message, Name};
use serde_json::{Value, json};

/// Name of the table of routes that [`listener`] asks for.
pub const TABLE: &str = "table";
const TYPE: &str = "type.googleapis.com/envoy";

/// What virtual hosts are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// `s7.test`
    Exact,
    /// `*.s7.test`
    Suffix,
}

/// A kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// CDS
    Cluster,
    /// EDS
    Endpoints,
    /// LDS
    Listener,
    /// RDS
    Routes,
}

impl Kind {
    /// As it stands in messages.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_url::CLUSTER,
            Self::Endpoints => type_url::ENDPOINT,
            Self::Listener => type_url::LISTENER,
            Self::Routes => type_url::ROUTE,
        }
    }
}

/// A resource, encoded.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Of which kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The message.
    pub body: Vec<u8>,
}

impl Resource {
    /// Of its JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(kind: Kind, value: &Value) -> anyhow::Result<Self> {
        let body = match kind {
            Kind::Cluster => encode::<pb::cluster::v3::Cluster>(value),
            Kind::Endpoints => encode::<pb::endpoint::v3::ClusterLoadAssignment>(value),
            Kind::Listener => encode::<pb::listener::v3::Listener>(value),
            Kind::Routes => encode::<pb::route::v3::RouteConfiguration>(value),
        }?;
        let name = ["name", "cluster_name"].iter().find_map(|field| value[*field].as_str());
        Ok(Self { kind, name: name.context("it has no name")?.to_owned(), body })
    }
}

fn encode<M: Message + Name + Default>(value: &Value) -> anyhow::Result<Vec<u8>> {
    Ok(json::from_value::<M>(value)?.encode_to_vec())
}

/// A cluster whose endpoints come over the stream that it came by itself.
pub fn cluster(number: usize) -> Value {
    json!({
        "name": format!("c{number}"),
        "type": "EDS",
        "connect_timeout": "5s",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
    })
}

/// Its endpoints.
pub fn endpoints(cluster: usize, addresses: &[SocketAddr]) -> Value {
    let endpoint =
        |address: &SocketAddr| json!({"endpoint": {"address": socket_address(*address)}});
    let all: Vec<Value> = addresses.iter().map(endpoint).collect();
    json!({"cluster_name": format!("c{cluster}"), "endpoints": [{"lb_endpoints": all}]})
}

/// So many addresses that nobody has.
pub fn addresses(cluster: usize, count: usize) -> Vec<SocketAddr> {
    let [.., high, low] = cluster.to_be_bytes();
    let address = |at: usize| {
        let [.., above, below] = at.to_be_bytes();
        ([10, high, low, below], 8000 + u16::from(above)).into()
    };
    (0..count).map(address).collect()
}

/// Virtual hosts `s0.test`, `s1.test`, … of one route each, which lead to the clusters in turn.
pub fn hosts(count: usize, clusters: usize, domain: Domain) -> Value {
    let star = if domain == Domain::Suffix { "*." } else { "" };
    let host = |number: usize| {
        json!({
            "name": format!("s{number}"),
            "domains": [format!("{star}s{number}.test")],
            "routes": [{"match": {"prefix": "/"}, "route": route_to(number % clusters)}],
        })
    };
    json!({"name": TABLE, "virtual_hosts": (0..count).map(host).collect::<Vec<_>>()})
}

/// One virtual host with these routes in its table.
pub fn routes(matches: impl Iterator<Item = Value>) -> Value {
    let route = |matched: Value| json!({"match": matched, "route": route_to(0)});
    let routes: Vec<Value> = matches.map(route).collect();
    json!({"name": TABLE, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]})
}

fn route_to(cluster: usize) -> Value {
    json!({
        "cluster": format!("c{cluster}"),
        "timeout": "15s",
        "retry_policy": {"retry_on": "connect-failure,refused-stream,reset", "num_retries": 2},
    })
}

/// A listener with RBAC of three rules, whose routes come over the stream that it came by itself.
pub fn listener(address: SocketAddr) -> Value {
    let http = format!("{TYPE}.extensions.filters.network.http_connection_manager.v3");
    let manager = json!({
        "@type": format!("{http}.HttpConnectionManager"),
        "stat_prefix": "front",
        "use_remote_address": true,
        "normalize_path": true,
        "merge_slashes": true,
        "rds": {
            "route_config_name": TABLE,
            "config_source": {"ads": {}, "resource_api_version": "V3"},
        },
        "http_filters": [
            {"name": "rbac", "typed_config": {
                "@type": format!("{TYPE}.extensions.filters.http.rbac.v3.RBAC"), "rules": rules(),
            }},
            {"name": "router", "typed_config": {
                "@type": format!("{TYPE}.extensions.filters.http.router.v3.Router"),
            }},
        ],
    });
    let chain = json!({"filters": [{"name": "http", "typed_config": manager}]});
    json!({"name": "front", "address": socket_address(address), "filter_chains": [chain]})
}

fn rules() -> Value {
    let policy =
        |permission: Value| json!({"permissions": [permission], "principals": [{"any": true}]});
    let trace = json!({"name": ":method", "string_match": {"exact": "TRACE"}});
    json!({"action": "DENY", "policies": {
        "header": policy(json!({"header": {"name": "x-forbidden", "present_match": true}})),
        "method": policy(json!({"header": trace})),
        "path": policy(json!({"url_path": {"path": {"prefix": "/admin/"}}})),
    }})
}
