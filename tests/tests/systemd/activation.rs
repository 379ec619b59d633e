//! Sockets that somebody else has bound, handed over by `systemd-socket-activate`.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use pillion_tests::client;
use pillion_tests::port::Port;
use pillion_tests::process::Process;
use pillion_tests::proxy::socket_address;
use pillion_tests::venv::{optional, program};

const MESH: &str = "apiVersion: pillion.io/v1alpha1
kind: Mesh
metadata: {name: test}
spec: {trustDomain: test.local}
";

/// `systemd-socket-activate` with these ports and names; it starts what comes behind with the first connection.
fn activate(ports: &[&Port], names: &str) -> anyhow::Result<Option<Command>> {
    let version = Command::new("systemd-socket-activate").arg("--version").output();
    if optional("systemd-socket-activate", version.map_err(Into::into))?.is_none() {
        return Ok(None);
    }
    let mut command = Command::new("systemd-socket-activate");
    for port in ports {
        command.arg("--listen").arg(port.address().to_string());
    }
    command.arg(format!("--fdname={names}"));
    Ok(Some(command))
}

async fn answers(process: &Process, port: &Port, path: &str, status: u16) -> anyhow::Result<()> {
    let address = port.address();
    let probe = || async {
        let answer = client::get(address, path).await.ok()?;
        (answer.status == status).then_some(())
    };
    process.ready(&format!("{path} is answered at {address}"), probe).await
}

#[tokio::test]
async fn a_control_plane_serves_on_the_sockets_that_it_is_given() -> anyhow::Result<()> {
    let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let [xds, tls, admin] = &ports;
    // By name, by name, and by address alone.
    let Some(mut command) = activate(&[xds, tls, admin], "xds:xds-tls:other")? else {
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("mesh.yaml"), MESH)?;
    command.arg(program("pillion")?).arg("control-plane");
    command.args(["--xds-port", "0", "--xds-tls-port", "0"]);
    command.args(["--admin-port", &admin.number().to_string()]);
    command.arg("--config").arg(dir.path().join("mesh.yaml"));
    command.arg("--data-dir").arg(dir.path().join("data"));
    let process = Process::start("control-plane", &mut command, &dir.path().join("log"))?;
    answers(&process, admin, "/ready", 200).await?;
    let found = std::fs::read_to_string(dir.path().join("data/control-plane.json"))?;
    let found: serde_json::Value = serde_json::from_str(&found)?;
    let expected = serde_json::json!({
        "xds": xds.number(), "xds_tls": tls.number(), "admin": admin.number(),
    });
    ensure!(found == expected, "{found} {}", process.describe());
    ensure!(Path::new(&format!("/proc/{}/exe", process.id())).exists());
    Ok(())
}

#[tokio::test]
async fn a_proxy_serves_on_the_sockets_that_it_is_given() -> anyhow::Result<()> {
    let (front, admin) = (Port::reserve()?, Port::reserve()?);
    let Some(mut command) = activate(&[&front, &admin], "front:admin")? else { return Ok(()) };
    let text = serde_json::json!({
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": socket_address(admin.address())},
        "static_resources": {"listeners": [{
            "name": "front",
            "address": socket_address(front.address()),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "front",
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                    {"match": {"prefix": "/"}, "direct_response": {"status": 204}},
                ]}]},
                "http_filters": [{"name": "router", "typed_config":
                    {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
            }}]}],
        }]},
    });
    let dir = tempfile::tempdir()?;
    command.arg(program("pillion-proxy")?).arg("--config-yaml").arg(text.to_string());
    let process = Process::start("proxy", &mut command, &dir.path().join("log"))?;
    answers(&process, &front, "/", 204).await?;
    answers(&process, &admin, "/ready", 200).await?;
    Ok(())
}
