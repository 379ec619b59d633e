//! `sd_notify`: when they say that they are ready, that they live, and that they go.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use pillion_tests::mesh::{Beside, Mesh};
use pillion_tests::port::Port;
use pillion_tests::process::{Process, Signal};
use pillion_tests::venv::program;
use pillion_tests::wait;

const MESH: &str = "apiVersion: pillion.io/v1alpha1
kind: Mesh
metadata: {name: test}
spec: {trustDomain: test.local}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
";

/// Where systemd would listen.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn at(path: &Path) -> anyhow::Result<Self> {
        Self::new(UnixDatagram::bind(path)?, path.to_string_lossy().into_owned())
    }

    fn abstract_name(name: &str) -> anyhow::Result<Self> {
        let address = SocketAddr::from_abstract_name(name)?;
        Self::new(UnixDatagram::bind_addr(&address)?, format!("@{name}"))
    }

    fn new(socket: UnixDatagram, name: String) -> anyhow::Result<Self> {
        socket.set_read_timeout(Some(wait::LIMIT))?;
        Ok(Self { socket, name })
    }

    /// The next notice.
    fn hears(&self) -> anyhow::Result<String> {
        let mut bytes = [0; 4096];
        let count = self.socket.recv(&mut bytes).context("nothing came")?;
        Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    /// The first notice that has this line, and those before it.
    fn until(&self, line: &str) -> anyhow::Result<(String, Vec<String>)> {
        let mut before = Vec::new();
        loop {
            let notice = self.hears().with_context(|| format!("{line}; before: {before:?}"))?;
            if notice.lines().any(|one| one.starts_with(line)) {
                return Ok((notice, before));
            }
            before.push(notice);
        }
    }

    fn tell(&self, command: &mut Command, watchdog: Duration) {
        command.env("NOTIFY_SOCKET", &self.name);
        command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
    }
}

#[test]
fn a_control_plane_says_that_it_serves_lives_and_goes() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("mesh.yaml"), MESH)?;
    let manager = Manager::at(&dir.path().join("notify"))?;
    let mut command = Command::new(program("pillion")?);
    command.args(["control-plane", "--xds-port", "0", "--xds-tls-port", "0", "--admin-port", "0"]);
    command.arg("--config").arg(dir.path().join("mesh.yaml"));
    command.arg("--data-dir").arg(dir.path().join("data"));
    manager.tell(&mut command, Duration::from_millis(200));
    let process = Process::start("control-plane", &mut command, &dir.path().join("log"))?;
    let (ready, before) = manager.until("READY=1")?;
    ensure!(before.is_empty() && ready.contains("STATUS=0 connected"), "{before:?} {ready}");
    for _ in 0..3 {
        manager.until("WATCHDOG=1")?;
    }
    process.signal(Signal::TERM);
    manager.until("STOPPING=1")?;
    Ok(())
}

#[test]
fn the_first_sign_of_life_comes_at_once() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let manager = Manager::at(&dir.path().join("notify"))?;
    let mut command = Command::new(program("pillion-proxy")?);
    command.args(["--config-yaml", "{node: {id: test, cluster: test}}"]);
    // The next one would come in half an hour.
    manager.tell(&mut command, Duration::from_secs(3600));
    let _process = Process::start("proxy", &mut command, &dir.path().join("log"))?;
    manager.until("WATCHDOG=1").map(drop)
}

#[tokio::test]
async fn a_sidecar_is_ready_when_it_has_what_it_needs() -> anyhow::Result<()> {
    let mut mesh = Mesh::start(&[("mesh.yaml", MESH)]).await?;
    mesh.kill_control_plane();
    let manager = Manager::abstract_name(&format!("pillion-test-{}", std::process::id()))?;
    let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let beside = Beside::client("shopper");
    let mut command = Command::new(program("pillion-proxy")?);
    command.args(["--control-plane", &mesh.xds_tls().to_string(), "--service", &beside.service]);
    command.arg("--token-file").arg(mesh.token());
    for (flag, port) in ["--admin-port", "--inbound-port", "--outbound-port"].iter().zip(&ports) {
        command.args([flag, port.number().to_string().as_str()]);
    }
    manager.tell(&mut command, Duration::from_millis(200));
    let process = Process::start("sidecar", &mut command, &mesh.dir().join("sidecar.log"))?;
    let (waiting, _) = manager.until("STATUS=waiting")?;
    // It lives, and waits.
    let (_, before) = manager.until("WATCHDOG=1")?;
    ensure!(!waiting.contains("READY") && !before.iter().any(|one| one.contains("READY")));
    mesh.start_control_plane().await?;
    let (ready, _) = manager.until("READY=1")?;
    ensure!(ready.contains("STATUS=serving: "), "{ready}");
    manager.until("WATCHDOG=1")?;
    process.signal(Signal::TERM);
    manager.until("STOPPING=1")?;
    ensure!(process.ended().await?.success(), "{}", process.describe());
    Ok(())
}
