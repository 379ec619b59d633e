//! A proxy that is told ever more.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::bail;
use pillion_tests::client;
use pillion_tests::port::Port;
use pillion_tests::process::Process;
use pillion_tests::proxy::socket_address;
use pillion_tests::venv::program;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::management::Management;
use super::{ENDPOINTS, HEAVY, Point, TIMED, Watched, probe};
use crate::config::{self, Domain, Kind, Resource};
use crate::cpu;

/// Processor time and memory of a proxy with so many clusters, and so many virtual hosts in one table.
///
/// # Errors
/// When the proxy does not start, or does not do what it is told.
pub async fn measure(clusters: usize, hosts: usize) -> anyhow::Result<Point> {
    let servers = [probe::server(b'a').await?, probe::server(b'b').await?];
    let management = Management::start().await?;
    let front = Port::reserve()?;
    let node = json!({"id": "growth", "cluster": "growth"});
    let proxy = Proxy::start(management.address, node).await?;
    let mut watched = Watched::new(proxy.process.id());
    let mut all = everything(clusters, hosts, front.address())?;
    let before = watched.settled().await?;
    let turn = |turn: usize| changed([servers[0], servers[turn % 2]]);
    all.push(turn(0)?);
    management.publish(all);
    let first = probe::until(front.address(), "s0.test", b'a').await?;
    let taken = watched.settled().await? - before;
    watched.rest().await?;
    let resident_mib = watched.resident_mib()?;
    let change_cpu_ms = watched
        .each(|number| {
            management.publish(vec![turn(number as usize + 1)?]);
            Ok(())
        })
        .await?;
    let mut times = Vec::new();
    for number in 0..TIMED {
        management.publish(vec![turn(number + 1)?]);
        let letter = if number % 2 == 0 { b'b' } else { b'a' };
        times.push(probe::until(front.address(), "s0.test", letter).await?.as_secs_f64() * 1e3);
        watched.settled().await?;
    }
    let route_cpu_ms = watched
        .each(|number| {
            let mut table = config::hosts(hosts, clusters, Domain::Exact);
            table["virtual_hosts"][0]["routes"][0]["route"]["timeout"] =
                json!(format!("{}s", number + 1));
            management.publish(vec![Resource::new(Kind::Routes, &table)?]);
            Ok(())
        })
        .await?;
    if let Some(why) = management.refused() {
        bail!("the proxy refused: {why}");
    }
    Ok(Point {
        size: 0,
        resident_mib,
        first_cpu_ms: taken.as_secs_f64() * 1000.0,
        first_ms: first.as_secs_f64() * 1000.0,
        change_cpu_ms,
        change_ms: crate::report::median(times.into_iter()),
        idle_cpu_ms: watched.idle * 1000.0,
        route_cpu_ms: Some(route_cpu_ms),
    })
}

fn everything(clusters: usize, hosts: usize, front: SocketAddr) -> anyhow::Result<Vec<Resource>> {
    let mut all = Vec::new();
    for number in 0..clusters {
        all.push(Resource::new(Kind::Cluster, &config::cluster(number))?);
    }
    for number in 1..clusters {
        let endpoints = config::endpoints(number, &config::addresses(number, ENDPOINTS));
        all.push(Resource::new(Kind::Endpoints, &endpoints)?);
    }
    let hosts = config::hosts(hosts, clusters, Domain::Exact);
    all.push(Resource::new(Kind::Routes, &hosts)?);
    all.push(Resource::new(Kind::Listener, &config::listener(front))?);
    Ok(all)
}

/// Endpoints of the first cluster.
fn changed([first, last]: [u16; 2]) -> anyhow::Result<Resource> {
    let mut endpoints = config::endpoints(0, &probe::places(first, last));
    endpoints["endpoints"][0]["lb_endpoints"][ENDPOINTS - 1]["load_balancing_weight"] =
        json!(HEAVY);
    Resource::new(Kind::Endpoints, &endpoints)
}

/// A proxy that follows a management server.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) process: Process,
    _admin: Port,
    _dir: TempDir,
}

impl Proxy {
    pub(super) async fn start(management: SocketAddr, node: Value) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let admin = Port::reserve()?;
        let mut bootstrap = json!({});
        pillion_tests::ads::follow(&mut bootstrap, management);
        bootstrap["dynamic_resources"]["ads_config"]["api_type"] = json!("DELTA_GRPC");
        bootstrap["node"] = node;
        bootstrap["admin"] = json!({"address": socket_address(admin.address())});
        let file = dir.path().join("bootstrap.json");
        std::fs::write(&file, bootstrap.to_string())?;
        let mut command = pinned(&program("pillion-proxy")?);
        command.args(["--concurrency", "1", "-c"]).arg(&file);
        let process = Process::start("proxy", &mut command, &dir.path().join("log"))?;
        let ready = || async {
            let answer = client::get(admin.address(), "/ready").await.ok()?;
            (answer.status == 200).then_some(())
        };
        process.ready("the proxy is ready", ready).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(Self { process, _admin: admin, _dir: dir })
    }
}

/// A program on the core for what is measured.
pub(super) fn pinned(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &cpu::PROXY_CORE.to_string()]).arg(program);
    command
}
