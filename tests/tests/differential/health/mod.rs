//! Health, side by side with the real Envoy: the same endpoints with the same answers to checks,
//! and what both make of it: the states in `/clusters`, the metrics, and who gets requests.
//!
//! Servers answer check after check by a script and then hang, so that every state is final.

mod cases;
mod members;
mod own;
mod server;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::Context;
use http::Method;
use pillion_tests::client::{self, Ask};
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy, envoy, socket_address};
use pillion_tests::venv::optional;
use pillion_tests::yaml;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep, sleep_until};

use server::Server;

/// One cluster, and what becomes of it.
#[derive(Default)]
struct Case {
    /// Also its name.
    name: &'static str,
    /// The script of each endpoint, and fields of its `LbEndpoint`.
    endpoints: Vec<(&'static str, &'static str)>,
    /// Laid over the health check below; `none`: there are no checks.
    check: &'static str,
    /// Laid over the cluster.
    cluster: &'static str,
    /// Flags of each endpoint, and metrics: see [`state`]. Empty: not looked at.
    state: &'static str,
    /// Requests: path, how often, and statuses with the endpoints that answered.
    asks: Vec<(&'static str, usize, &'static str)>,
    /// The interval of outlier detection where all requests must fall into one. Zero: they need not.
    within: Duration,
    /// The state after them. Empty: not looked at.
    then: &'static str,
}

/// A health check, as YAML.
const CHECK: &str = "timeout: 100s
interval: 0.05s
no_traffic_interval: 0.05s
unhealthy_threshold: 2
healthy_threshold: 2
http_health_check: {path: /hc}";

/// Metrics that are part of a state, where they are not zero.
const METRICS: &[(&str, &str)] = &[
    ("attempt", "health_check.attempt"),
    ("success", "health_check.success"),
    ("failure", "health_check.failure"),
    ("network", "health_check.network_failure"),
    ("passive", "health_check.passive_failure"),
    ("verify", "health_check.verify_cluster"),
    ("well", "health_check.healthy"),
    ("healthy", "membership_healthy"),
    ("degraded", "membership_degraded"),
    ("excluded", "membership_excluded"),
    ("total", "membership_total"),
    ("ejected", "outlier_detection.ejections_active"),
    ("enforced", "outlier_detection.ejections_enforced_total"),
    ("overflow", "outlier_detection.ejections_overflow"),
    ("panics", "lb_healthy_panic"),
];

/// How long a state may take to come about.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    proxy: Proxy,
    listener: SocketAddr,
    /// When the proxy was ready: intervals began a little before.
    ready: Instant,
    _servers: Vec<Server>,
}

impl World {
    async fn start(kind: Kind, cases: &[Case]) -> anyhow::Result<Self> {
        let mut servers = Vec::new();
        let mut clusters = Vec::new();
        for case in cases {
            let mut addresses = Vec::new();
            for (index, (script, _)) in case.endpoints.iter().enumerate() {
                let server = Server::start(index, script).await?;
                addresses.push(server.address);
                servers.push(server);
            }
            clusters.push(cluster(case, &addresses).with_context(|| case.name)?);
        }
        let port = Port::reserve()?;
        let listener = port.address();
        let mut bootstrap = Bootstrap::of(vec![routes(listener, cases)], clusters);
        bootstrap.hold(port);
        let proxy = Proxy::start(kind, bootstrap).await?;
        Ok(Self { proxy, listener, ready: Instant::now(), _servers: servers })
    }

    async fn snapshot(&self) -> anyhow::Result<(Value, Value)> {
        let clusters = client::get(self.proxy.admin, "/clusters?format=json").await?;
        let stats = client::get(self.proxy.admin, "/stats?format=json").await?;
        Ok((serde_json::from_slice(&clusters.body)?, serde_json::from_slice(&stats.body)?))
    }

    /// Waits until every state is as expected, or nearly long enough; then what there is.
    async fn states(&self, wanted: &[(&'static str, &'static str)]) -> anyhow::Result<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (clusters, stats) = self.snapshot().await?;
            let found: Vec<String> =
                wanted.iter().map(|(name, _)| state(name, &clusters, &stats, METRICS)).collect();
            let all = wanted.iter().zip(&found).all(|((_, wanted), found)| wanted == found);
            if all || Instant::now() > deadline {
                return Ok(found);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for the beginning of the next interval of this length.
    async fn interval(&self, length: Duration) {
        let begun = self.ready.elapsed().as_secs_f64() / length.as_secs_f64();
        sleep_until(self.ready + length.mul_f64(begun.ceil())).await;
    }

    /// `200@0+1`: everybody answered with 200, and endpoints 0 and 1 did.
    async fn ask(&self, case: &Case, path: &str, times: usize) -> anyhow::Result<String> {
        let mut statuses = BTreeSet::new();
        let mut who = BTreeSet::new();
        for _ in 0..times {
            let mut ask = Ask::new(Method::GET, path);
            ask.host = format!("{}.test", case.name);
            let Ok(answer) = client::send(self.listener, &ask).await else {
                statuses.insert("none".to_owned());
                break;
            };
            statuses.insert(answer.status.to_string());
            who.extend(answer.header("x-index").map(str::to_owned));
        }
        // Whom an answer ejects is decided by the main thread, which Envoy's workers tell later: an answer of the same
        // thread comes after that.
        client::get(self.proxy.admin, "/ready").await?;
        let join = |all: BTreeSet<String>| all.into_iter().collect::<Vec<_>>().join("+");
        Ok(format!("{}@{}", join(statuses), join(who)))
    }
}

/// `0: failed_active_health_check | attempt=3 failure=2 healthy=0 total=1`
fn state(name: &str, clusters: &Value, stats: &Value, metrics: &[(&str, &str)]) -> String {
    let all = clusters["cluster_statuses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let hosts = all.iter().find(|cluster| cluster["name"] == name);
    let hosts = hosts.and_then(|cluster| cluster["host_statuses"].as_array());
    let flags = |host: &Value| {
        let set = host["health_status"].as_object().into_iter().flatten();
        let mut names: Vec<String> =
            set.filter(|(_, value)| **value == true).map(|(name, _)| name.clone()).collect();
        let said = host["health_status"]["eds_health_status"].as_str().unwrap_or("HEALTHY");
        if said != "HEALTHY" {
            names.push(said.to_owned());
        }
        if names.is_empty() { "well".to_owned() } else { names.join("+") }
    };
    let hosts: Vec<String> = hosts.into_iter().flatten().map(flags).collect();
    let stats = stats["stats"].as_array().map(Vec::as_slice).unwrap_or_default();
    let value = |metric: &str| {
        let full = format!("cluster.{name}.{metric}");
        stats.iter().find(|stat| stat["name"] == full).and_then(|stat| stat["value"].as_u64())
    };
    let metrics: Vec<String> = metrics
        .iter()
        .filter_map(|(short, metric)| Some((short, value(metric).filter(|value| *value > 0)?)))
        .map(|(short, value)| format!("{short}={value}"))
        .collect();
    format!("{} | {}", hosts.join(", "), metrics.join(" "))
}

fn cluster(case: &Case, addresses: &[SocketAddr]) -> anyhow::Result<Value> {
    let mut endpoints = Vec::new();
    for (address, (_, more)) in addresses.iter().zip(&case.endpoints) {
        let mut endpoint = json!({"endpoint": {"address": socket_address(*address)}});
        if !more.is_empty() {
            yaml::merge(&mut endpoint, yaml::parse(&with_addresses(more, addresses))?);
        }
        endpoints.push(endpoint);
    }
    let mut cluster = json!({
        "name": case.name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "load_assignment":
            {"cluster_name": case.name, "endpoints": [{"lb_endpoints": endpoints}]},
    });
    if case.check != "none" {
        let mut check = yaml::parse(CHECK)?;
        if !case.check.is_empty() {
            let own = yaml::parse(case.check)?;
            if own.get("tcp_health_check").or_else(|| own.get("grpc_health_check")).is_some() {
                check.as_object_mut().context("no mapping")?.remove("http_health_check");
            }
            yaml::merge(&mut check, own);
        }
        cluster["health_checks"] = json!([check]);
    }
    if !case.cluster.is_empty() {
        yaml::merge(&mut cluster, yaml::parse(&with_addresses(case.cluster, addresses))?);
    }
    Ok(cluster)
}

/// `@0@` is the address of the first endpoint, `@0.port@` its port.
fn with_addresses(text: &str, addresses: &[SocketAddr]) -> String {
    let mut text = text.to_owned();
    for (index, address) in addresses.iter().enumerate() {
        text = text.replace(&format!("@{index}@"), &socket_address(*address).to_string());
        text = text.replace(&format!("@{index}.port@"), &address.port().to_string());
    }
    text
}

fn routes(address: SocketAddr, cases: &[Case]) -> Value {
    let hosts = cases.iter().map(|case| {
        json!({
            "name": case.name,
            "domains": [format!("{}.test", case.name)],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": case.name}}],
        })
    });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {"name": "all", "virtual_hosts": hosts.collect::<Vec<_>>()},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    let name = "envoy.filters.network.http_connection_manager";
    let filters = json!([{"name": name, "typed_config": manager}]);
    json!({
        "name": "http",
        "address": socket_address(address),
        "filter_chains": [{"filters": filters}],
    })
}

/// Plays all cases, and says what was other than expected.
async fn play(kind: Kind, cases: &[Case]) -> anyhow::Result<Vec<String>> {
    let world = World::start(kind, cases).await?;
    let mut lines = Vec::new();
    let mut compare = |name: &str, what: &str, wanted: &str, found: &str| {
        if wanted != found {
            lines.push(format!("{name}, {what}: {kind:?}: expected `{wanted}`, was `{found}`"));
        }
    };
    let before = cases.iter().filter(|case| !case.state.is_empty());
    let wanted: Vec<_> = before.map(|case| (case.name, case.state)).collect();
    let found = world.states(&wanted).await?;
    for ((name, wanted), found) in wanted.iter().zip(&found) {
        compare(name, "state", wanted, found);
    }
    for case in cases {
        if !case.within.is_zero() {
            world.interval(case.within).await;
        }
        for (path, times, wanted) in &case.asks {
            let found = world.ask(case, path, *times).await?;
            compare(case.name, path, wanted, &found);
        }
    }
    let after = cases.iter().filter(|case| !case.then.is_empty());
    let wanted: Vec<_> = after.map(|case| (case.name, case.then)).collect();
    let found = world.states(&wanted).await?;
    for ((name, wanted), found) in wanted.iter().zip(&found) {
        compare(name, "afterwards", wanted, found);
    }
    Ok(lines)
}

#[tokio::test]
async fn both_find_the_same_endpoints_well() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let filter = std::env::var("PILLION_CASES").unwrap_or_default();
    let mut cases = cases::all();
    cases.retain(|case| case.name.contains(&filter));
    let (theirs, ours) = tokio::join!(play(Kind::Envoy, &cases), play(Kind::Pillion, &cases));
    let lines: Vec<String> = theirs?.into_iter().chain(ours?).collect();
    assert!(lines.is_empty(), "{} cases, {}:\n{}", cases.len(), lines.len(), lines.join("\n"));
    Ok(())
}
