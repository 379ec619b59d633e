//! A control plane with ever more services in its folder of YAML, and one sidecar.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use pillion_tests::client;
use pillion_tests::port::Port;
use pillion_tests::process::Process;
use pillion_tests::venv::program;
use serde_json::json;

use super::proxy::{Proxy, pinned};
use super::{ENDPOINTS, HEAVY, Point, TIMED, Watched, probe};
use crate::config;

const MESH: &str = "apiVersion: pillion.io/v1alpha1\nkind: Mesh\nmetadata: {name: mesh}\n\
spec: {trustDomain: bench.local, mtls: Permissive}\n";

/// Processor time and memory of a control plane with so many services of ten workloads, each with an `HTTPRoute`, and of its
/// one sidecar when an endpoint changes.
///
/// # Errors
/// When one of the processes does not start, or does not do what it is told.
pub async fn measure(services: usize) -> anyhow::Result<Point> {
    let servers = [probe::server(b'a').await?, probe::server(b'b').await?];
    let dir = tempfile::tempdir()?;
    let mesh = dir.path().join("mesh");
    std::fs::create_dir(&mesh)?;
    std::fs::write(mesh.join("mesh.yaml"), MESH)?;
    let changed = |turn: usize| probe::places(servers[0], servers[turn % 2]);
    write(&mesh, 0, &changed(0))?;
    for number in 1..services {
        write(&mesh, number, &config::addresses(number, ENDPOINTS))?;
    }
    let outbound = Port::reserve()?;
    let begun = Instant::now();
    let (process, xds) = start(dir.path(), &mesh).await?;
    let mut watched = Watched::new(process.id());
    let node = json!({
        "id": "growth", "cluster": "client",
        "metadata": {"NAMESPACE": "default", "SERVICE": "client", "OUTBOUND_PORT": outbound.number()},
    });
    let _sidecar = Proxy::start(xds.address(), node).await?;
    probe::until(outbound.address(), "s0", b'a').await?;
    let first = begun.elapsed();
    let taken = watched.settled().await?;
    watched.rest().await?;
    let resident_mib = watched.resident_mib()?;
    let change_cpu_ms =
        watched.each(|number| Ok(write(&mesh, 0, &changed(number as usize + 1))?)).await?;
    let mut times = Vec::new();
    for number in 0..TIMED {
        write(&mesh, 0, &changed(number + 1))?;
        let letter = if number % 2 == 0 { b'b' } else { b'a' };
        let took = probe::until(outbound.address(), "s0", letter).await?;
        times.push(took.as_secs_f64() * 1000.0);
        tokio::time::sleep(Duration::from_millis(200)).await;
        watched.settled().await?;
    }
    Ok(Point {
        size: services,
        resident_mib,
        first_cpu_ms: taken.as_secs_f64() * 1000.0,
        first_ms: first.as_secs_f64() * 1000.0,
        change_cpu_ms,
        change_ms: crate::report::median(times.into_iter()),
        idle_cpu_ms: watched.idle * 1000.0,
        route_cpu_ms: None,
    })
}

/// A control plane of this folder, and where it serves xDS in plain text.
async fn start(dir: &Path, mesh: &Path) -> anyhow::Result<(Process, Port)> {
    let [xds, xds_tls, admin] = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let mut command = pinned(&program("pillion")?);
    command.arg("control-plane").arg("--config").arg(mesh);
    command.arg("--data-dir").arg(dir.join("data"));
    for (flag, port) in
        [("--xds-port", &xds), ("--xds-tls-port", &xds_tls), ("--admin-port", &admin)]
    {
        command.arg(flag).arg(port.number().to_string());
    }
    let process = Process::start("control-plane", &mut command, &dir.join("log"))?;
    let ready = || async {
        let answer = client::get(admin.address(), "/ready").await.ok()?;
        (answer.status == 200).then_some(())
    };
    process.ready("the control plane is ready", ready).await?;
    Ok((process, xds))
}

/// A service with its route and its workloads, in a file of its own.
fn write(folder: &Path, number: usize, addresses: &[SocketAddr]) -> std::io::Result<()> {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}}}\n\
         spec:\n  selector: {{app: s{number}}}\n  ports: [{{name: http, port: 80, targetPort: http}}]\n\
         ---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: s{number}}}\n\
         spec:\n  parentRefs: [{{group: \"\", kind: Service, name: s{number}, port: 80}}]\n  \
         rules: [{{backendRefs: [{{name: s{number}, port: 80}}], timeouts: {{request: 15s}}}}]\n"
    );
    for (at, address) in addresses.iter().enumerate() {
        let weight = if at + 1 == addresses.len() { HEAVY } else { 1 };
        let (ip, port) = (address.ip(), address.port());
        let _ = write!(
            text,
            "---\napiVersion: pillion.io/v1alpha1\nkind: Workload\n\
             metadata: {{name: s{number}-{at}, labels: {{app: s{number}}}}}\n\
             spec: {{address: {ip}, ports: {{http: {port}}}, weight: {weight}}}\n"
        );
    }
    let new = folder.join(format!(".s{number}.new"));
    std::fs::write(&new, text)?;
    std::fs::rename(new, folder.join(format!("s{number}.yaml")))
}
