//! What discovery counts and shows: one management server of gRPC's own library, both proxies, and the
//! same resources, good and bad, one after the other.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use pillion_tests::ads::python;
use pillion_tests::client;
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy, envoy, socket_address};
use pillion_tests::venv::optional;
use pillion_tests::wait;
use pillion_tests::xds_server::{self, XdsServer};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Case, Compare, differences, facts};

const CLUSTERS: &str = "envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
const LISTENERS: &str = "envoy.config.listener.v3.Listener";
const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
const SECRETS: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";
const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";

/// Starts of metrics that are compared.
const METRICS: &[&str] = &[
    "cluster_manager.cds.",
    "listener_manager.lds.",
    "http.front.rds.",
    "cluster.alt_a.",
    "cluster.late.",
    "sds.",
    "control_plane.",
];

/// Counters whose values are the same; of the others it counts that they are there.
const COUNTED: &[&str] = &[
    ".update_success",
    ".update_rejected",
    ".update_empty",
    ".config_reload",
    ".init_fetch_timeout",
    ".connected_state",
    ".identifier",
    ".rate_limit_enforced",
    ".membership_total",
];

/// Metrics of a cluster that have nothing to do with discovery.
const OF_DISCOVERY: &[&str] =
    &["update_", "version", "init_fetch_timeout", "config_reload", "membership_total", "warming"];

struct World {
    server: XdsServer,
    proxy: Proxy,
    front: Port,
    dir: TempDir,
}

/// What is served.
#[derive(Clone)]
struct Served {
    clusters: Vec<Value>,
    endpoints: Vec<Value>,
    listeners: Vec<Value>,
    routes: Value,
}

fn ads() -> Value {
    json!({"ads": {}, "resource_api_version": "V3"})
}

fn cluster(name: &str, timeout: &str) -> Value {
    json!({
        "name": name,
        "type": "EDS",
        "connect_timeout": timeout,
        "alt_stat_name": if name == "a" { "alt_a" } else { "" },
        "eds_cluster_config": {"eds_config": ads(), "service_name": format!("{name}-service")},
    })
}

fn endpoints(name: &str, ports: &[u16]) -> Value {
    let one = |port: &u16| {
        let address = socket_address(([127, 0, 0, 1], *port).into());
        json!({"endpoint": {"address": address}})
    };
    let all: Vec<Value> = ports.iter().map(one).collect();
    json!({"cluster_name": format!("{name}-service"), "endpoints": [{"lb_endpoints": all}]})
}

fn table(cluster: &str) -> Value {
    json!({"name": "table", "virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
    }]})
}

fn listener(port: &Port) -> Value {
    json!({
        "name": "front",
        "address": socket_address(port.address()),
        "filter_chains": [{
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context":
                    {"tls_certificate_sds_secret_configs": [{"name": "own", "sds_config": ads()}]},
            }},
            "filters": [{"name": "http", "typed_config": {
                "@type": format!("{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "front",
                "rds": {"config_source": ads(), "route_config_name": "table"},
                "http_filters": [{
                    "name": "router",
                    "typed_config": {"@type": format!("{FILTERS}.http.router.v3.Router")},
                }],
            }}],
        }],
    })
}

impl World {
    async fn start(kind: Kind, api: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let [front, port] = [Port::reserve()?, Port::reserve()?];
        let served = Served::first(&front).resources(&dir)?;
        let at = [port.address().to_string()];
        let server = XdsServer::start(dir.path(), &at, &served).await?;
        let mut bootstrap = Bootstrap::new("{}")?;
        bootstrap.config["static_resources"] =
            json!({"clusters": [xds_server::cluster("xds", port.address())]});
        bootstrap.config["dynamic_resources"] = json!({
            "ads_config": {
                "api_type": api,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "lds_config": ads(),
            "cds_config": ads(),
        });
        let proxy = Proxy::start(kind, bootstrap).await?;
        Ok(Self { server, proxy, front, dir })
    }

    /// Metrics of discovery by name, those of them that are the same with their values.
    async fn metrics(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let text = client::get(self.proxy.admin, "/stats").await?.text();
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        let wanted = lines.filter(|(name, _)| {
            let of_cluster = name.starts_with("cluster.");
            METRICS.iter().any(|start| name.starts_with(start))
                && (!of_cluster || OF_DISCOVERY.iter().any(|part| name.contains(part)))
        });
        let value = |name: &str, value: &str| {
            let said = COUNTED.iter().any(|end| name.ends_with(end));
            // Versions count answers on a stream, which need not come in the same order.
            let version = name.ends_with(".version") || name.ends_with(".version_text");
            match value {
                "0" | "\"\"" if version => "none".to_owned(),
                _ if said => value.to_owned(),
                _ => "some".to_owned(),
            }
        };
        Ok(wanted.map(|(name, of)| (name.to_owned(), value(name, of))).collect())
    }

    /// Serves this, and waits until a metric has come to a value.
    async fn serve(&self, served: &Served, until: (&str, &str)) -> anyhow::Result<()> {
        self.server.serve(&served.resources(&self.dir)?)?;
        let (name, wanted) = until;
        let has_come = || async {
            let now = self.metrics().await.ok()?;
            (now.get(name).map(String::as_str) == Some(wanted)).then_some(())
        };
        wait::until(&format!("{name} comes to {wanted}"), has_come).await
    }
}

impl Served {
    fn first(front: &Port) -> Self {
        Self {
            clusters: vec![cluster("a", "1s"), cluster("late", "1s")],
            endpoints: vec![endpoints("a", &[9]), endpoints("late", &[9])],
            listeners: vec![listener(front)],
            routes: table("a"),
        }
    }

    fn resources(&self, dir: &TempDir) -> anyhow::Result<Value> {
        let file = |name: &str| dir.path().join(name);
        if !file("own.pem").exists() {
            let ca = pillion_tests::ca::Ca::new("discovery")?;
            let made = ca.write(dir.path(), "own", &ca.leaf_for(&["a.test"])?)?;
            std::fs::copy(made.chain, file("own.pem"))?;
            std::fs::copy(made.key, file("own.secret"))?;
        }
        Ok(json!({
            CLUSTERS: self.clusters,
            ENDPOINTS: self.endpoints,
            LISTENERS: self.listeners,
            ROUTES: [self.routes],
            SECRETS: [{"name": "own", "tls_certificate": {
                "certificate_chain": {"inline_string": std::fs::read_to_string(file("own.pem"))?},
                "private_key": {"inline_string": std::fs::read_to_string(file("own.secret"))?},
            }}],
        }))
    }
}

/// What one side counted after each step, and what it shows.
async fn story(kind: Kind, api: &str) -> anyhow::Result<Vec<(&'static str, BTreeSet<String>)>> {
    let world = World::start(kind, api).await?;
    let mut served = Served::first(&world.front);
    let mut told = Vec::new();
    let mut tell = |step: &'static str, now: BTreeMap<String, String>| {
        told.push((
            step,
            now.into_iter().map(|(name, value)| format!("{name}: {value}")).collect(),
        ));
    };
    world.serve(&served, ("sds.own.update_success", "1")).await?;
    world.serve(&served, ("http.front.rds.table.update_success", "1")).await?;
    tell("start", world.metrics().await?);
    served.endpoints[0] = endpoints("a", &[9, 10]);
    world.serve(&served, ("cluster.alt_a.membership_total", "2")).await?;
    tell("more endpoints", world.metrics().await?);
    served.routes = table("late");
    world.serve(&served, ("http.front.rds.table.update_success", "2")).await?;
    tell("other routes", world.metrics().await?);
    served.clusters.push(cluster("bad", "-1s"));
    world.serve(&served, ("cluster_manager.cds.update_rejected", "1")).await?;
    tell("a bad cluster", world.metrics().await?);
    served.clusters.pop();
    served.clusters.push(json!({"name": "good", "type": "STATIC"}));
    world.serve(&served, ("cluster_manager.cds.update_success", "2")).await?;
    tell("a good one", world.metrics().await?);
    served.routes["virtual_hosts"][0]["domains"] = json!(["*", "*"]);
    world.serve(&served, ("http.front.rds.table.update_rejected", "1")).await?;
    tell("bad routes", world.metrics().await?);
    served.listeners.push(json!({"name": "bad", "address": socket_address(world.front.address())}));
    world.serve(&served, ("listener_manager.lds.update_rejected", "1")).await?;
    tell("a bad listener", world.metrics().await?);
    for case in shown() {
        let mut ask = client::Ask::new(Method::GET, case.path);
        ask.host = world.proxy.admin.to_string();
        let answer = client::send(world.proxy.admin, &ask).await?;
        told.push((case.path, facts(&answer, case.compare, &[world.front.address()])));
    }
    Ok(told)
}

/// What is asked for at the end.
fn shown() -> Vec<Case> {
    let values = Compare::Json(&["@type", "name", "cluster_name", "added_via_api"]);
    let get = |path, compare| Case { method: Method::GET, path, compare, on_purpose: &[] };
    let refused: &[(&str, &str)] = &[(
        ".configs[].error_state.",
        "our reasons say which field; what was refused is not repeated",
    )];
    vec![
        get("/clusters?filter=^(a|late|good)$", Compare::LinesUpTo("::rq_")),
        get("/clusters?format=json&filter=^(a|late|good)$", values),
        Case {
            on_purpose: &[
                (".configs[].last_updated", "ours says when they came"),
                (".configs[].version_info", "and which version they are"),
            ],
            ..get("/config_dump?include_eds&resource=dynamic_endpoint_configs", values)
        },
        get("/config_dump?include_eds&resource=static_endpoint_configs", values),
        Case { on_purpose: refused, ..get("/config_dump?resource=dynamic_listeners", values) },
        get(
            "/config_dump?resource=dynamic_route_configs&mask=route_config.name,version_info",
            values,
        ),
        get("/config_dump?resource=dynamic_active_clusters&name_regex=^(a|late|good)$", values),
        get("/config_dump?resource=dynamic_active_secrets", values),
        get("/certs", Compare::Json(&["dns"])),
        get("/listeners", Compare::Lines),
    ]
}

async fn same(api: &str) -> anyhow::Result<()> {
    if optional("real Envoy", envoy())?.is_none()
        || optional("grpcio and xds-protos", python())?.is_none()
    {
        return Ok(());
    }
    let (theirs, ours) = tokio::try_join!(story(Kind::Envoy, api), story(Kind::Pillion, api))?;
    let mut lines = Vec::new();
    for ((step, envoy), (_, own)) in theirs.iter().zip(&ours) {
        let case = shown().into_iter().find(|case| case.path == *step).unwrap_or(Case {
            method: Method::GET,
            path: step,
            compare: Compare::Head,
            on_purpose: &[(
                "sds.own.key_rotation_failed",
                "such a failure is in the log and in `listener_errors` of /config_dump",
            )],
        });
        lines.extend(differences(&case, envoy, own));
    }
    assert!(lines.is_empty(), "{api}: {}:\n{}", lines.len(), lines.join("\n"));
    Ok(())
}

#[tokio::test]
async fn discovery_is_counted_as_envoys() -> anyhow::Result<()> {
    same("DELTA_GRPC").await
}

#[tokio::test]
async fn discovery_of_the_whole_state_is_counted_as_envoys() -> anyhow::Result<()> {
    same("GRPC").await
}
