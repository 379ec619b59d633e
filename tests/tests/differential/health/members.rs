//! Endpoints that come and go by EDS while they are checked, on both proxies.

use pillion_tests::ads::{Ads, follow, python};
use pillion_tests::client;
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy, envoy, socket_address};
use pillion_tests::venv::optional;
use pillion_tests::{wait, yaml};
use serde_json::{Value, json};

use super::server::Server;
use super::{CHECK, state};

const CLUSTERS: &str = "envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";

const METRICS: &[(&str, &str)] = &[
    ("healthy", "membership_healthy"),
    ("excluded", "membership_excluded"),
    ("total", "membership_total"),
];

struct World {
    ads: Ads,
    proxy: Proxy,
    servers: Vec<Server>,
}

fn cluster(name: &str, more: &str) -> anyhow::Result<Value> {
    let mut cluster = json!({
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "health_checks": [yaml::parse(CHECK)?],
    });
    if !more.is_empty() {
        yaml::merge(&mut cluster, yaml::parse(more)?);
    }
    Ok(cluster)
}

impl World {
    async fn start(kind: Kind, dir: &std::path::Path) -> anyhow::Result<Self> {
        let mut servers = Vec::new();
        for (index, script) in ["200!", "200!", "hang"].into_iter().enumerate() {
            servers.push(Server::start(index, script).await?);
        }
        let port = Port::reserve()?;
        let resources = Self::resources(&servers, &[0, 1], &[0])?;
        let ads = Ads::start(dir, &port, &resources).await?;
        let mut bootstrap = Bootstrap::new("{}")?;
        follow(&mut bootstrap.config, port.address());
        bootstrap.hold(port);
        let proxy = Proxy::start(kind, bootstrap).await?;
        Ok(Self { ads, proxy, servers })
    }

    /// `kept` and `dropped` have the first list of endpoints, `ignoring` the second.
    fn resources(servers: &[Server], first: &[usize], second: &[usize]) -> anyhow::Result<Value> {
        let endpoints = |name: &str, list: &[usize]| {
            let endpoints = list.iter().map(
                |index| json!({"endpoint": {"address": socket_address(servers[*index].address)}}),
            );
            let endpoints: Vec<Value> = endpoints.collect();
            json!({
                "cluster_name": name,
                "endpoints": [{
                    "locality": {"region": "here"},
                    "load_balancing_weight": 1,
                    "lb_endpoints": endpoints,
                }],
            })
        };
        let new = "common_lb_config: {ignore_new_hosts_until_first_hc: true}";
        Ok(json!({
            CLUSTERS: [
                cluster("kept", "")?,
                cluster("dropped", "ignore_health_on_host_removal: true")?,
                cluster("ignoring", new)?,
            ],
            ENDPOINTS: [
                endpoints("kept", first),
                endpoints("dropped", first),
                endpoints("ignoring", second),
            ],
        }))
    }

    fn serve(&self, first: &[usize], second: &[usize]) -> anyhow::Result<()> {
        self.ads.serve(&Self::resources(&self.servers, first, second)?)
    }

    async fn reaches(&self, name: &str, wanted: &str) -> anyhow::Result<()> {
        let last = std::cell::RefCell::new(String::new());
        let what = format!("{name}: {wanted}");
        let found = wait::until(&what, || async {
            let clusters = client::get(self.proxy.admin, "/clusters?format=json").await.ok()?;
            let stats = client::get(self.proxy.admin, "/stats?format=json").await.ok()?;
            let clusters = serde_json::from_slice(&clusters.body).ok()?;
            let stats = serde_json::from_slice(&stats.body).ok()?;
            let found = state(name, &clusters, &stats, METRICS);
            let there = found == wanted;
            *last.borrow_mut() = found;
            there.then_some(())
        });
        let found = found.await;
        found.map_err(|error| error.context(last.into_inner()))
    }
}

async fn play(kind: Kind) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::start(kind, dir.path()).await?;
    for name in ["kept", "dropped"] {
        world.reaches(name, "well, well | healthy=2 total=2").await?;
    }
    world.reaches("ignoring", "well | healthy=1 total=1").await?;

    // One is removed while it is well: it stays, unless its health is to be ignored.
    world.serve(&[0], &[0, 2])?;
    world.reaches("kept", "well, pending_dynamic_removal | healthy=2 total=2").await?;
    world.reaches("dropped", "well | healthy=1 total=1").await?;
    // One is new and does not answer: it does not count so far.
    let new = "well, failed_active_health_check+pending_active_hc | healthy=1 excluded=1 total=2";
    world.reaches("ignoring", new).await?;

    // It fails, and is gone.
    world.servers[1].set("503!");
    world.reaches("kept", "well | healthy=1 total=1").await
}

#[tokio::test]
async fn endpoints_come_and_go_alike() -> anyhow::Result<()> {
    let tools = (optional("Envoy", envoy())?, optional("grpcio and xds-protos", python())?);
    if tools.0.is_none() || tools.1.is_none() {
        return Ok(());
    }
    for kind in [Kind::Envoy, Kind::Pillion] {
        play(kind).await.map_err(|error| error.context(format!("{kind:?}")))?;
    }
    Ok(())
}
