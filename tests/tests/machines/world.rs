//! Three machines and somebody outside; a control plane on the first one, sidecars that joined it by token.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use pillion_tests::client;
use pillion_tests::netns::{Host, Lab};
use pillion_tests::process::{Process, Signal};
use pillion_tests::venv::program;
use pillion_tests::wait;
use serde_json::Value;
use tempfile::TempDir;

/// The machines. Everything ends when this is dropped.
pub(super) struct World {
    pub(super) machines: [Host; 3],
    pub(super) outside: Host,
    pub(super) dir: TempDir,
    slots: u16,
    _control: Process,
    _lab: Lab,
}

/// One instance: an application with its sidecar, or a sidecar alone.
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) sidecar: Process,
    pub(super) app: Option<Process>,
    machine: Host,
    admin: u16,
}

/// What an instance is.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Its service, which is what `pillion-shop` is told as well.
    pub(super) service: &'static str,
    /// Its version.
    pub(super) version: &'static str,
}

impl World {
    /// Starts the control plane on the first machine, with the shop's mesh, and copies the token to the others.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let mut lab = Lab::new()?;
        let machines = [lab.host("one")?, lab.host("two")?, lab.host("three")?];
        let outside = lab.host("outside")?;
        let dir = tempfile::tempdir()?;
        let mesh = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop/mesh");
        let mut command = machines[0].command(program("pillion")?);
        command.args(["control-plane", "--address", &machines[0].address().to_string()]);
        command.arg("--config").arg(mesh).arg("--data-dir").arg(dir.path().join("control-plane"));
        let log = dir.path().join("control-plane.log");
        let control = Process::start("control-plane", &mut command, &log)?;
        let world = Self { machines, outside, dir, slots: 0, _control: control, _lab: lab };
        let answers = || async { world.status().ok().map(drop) };
        world._control.ready("the control plane is ready", answers).await?;
        let token = fs::read(world.dir.path().join("control-plane/join-token"))?;
        for number in 0..world.machines.len() {
            fs::create_dir(world.folder(number))?;
            world.put(&world.token(number), &token)?;
        }
        Ok(world)
    }

    /// Where control plane and sidecars meet.
    pub(super) fn xds(&self) -> SocketAddr {
        (self.machines[0].address(), 15012).into()
    }

    /// The disk of a machine.
    pub(super) fn folder(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("machine-{}", number + 1))
    }

    /// The copy of the join token on a machine.
    pub(super) fn token(&self, number: usize) -> PathBuf {
        self.folder(number).join("join-token")
    }

    /// Writes a secret, as `install -m 600` would.
    pub(super) fn put(&self, path: &Path, content: &[u8]) -> anyhow::Result<()> {
        fs::write(path, content)?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
    }

    /// What `pillion status` prints on the first machine.
    pub(super) fn status(&self) -> anyhow::Result<Value> {
        let mut command = self.machines[0].command(program("pillion")?);
        let output = command.args(["status", "--output", "json"]).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_slice(&output.stdout).with_context(|| format!("not JSON: {said}"))
    }

    /// Where the control plane sends others for this instance. None: it does not.
    pub(super) fn advertised(&self, name: &str) -> anyhow::Result<Option<IpAddr>> {
        let status = self.status()?;
        let workloads = status["workloads"].as_array().context("workloads")?.clone();
        let named = |one: &&Value| {
            let full = one["name"].as_str().unwrap_or_default();
            full.rsplit('/').next() == Some(name) && one["ready"] == true
        };
        let address = workloads.iter().find(named).and_then(|one| one["address"].as_str());
        Ok(address.map(str::parse).transpose()?)
    }

    /// A sidecar with ports of its own, not yet ready.
    pub(super) fn sidecar(
        &mut self,
        number: usize,
        (service, name): (&str, &str),
        more: &[&str],
    ) -> anyhow::Result<(Process, Ports)> {
        let ports = self.ports();
        let folder = self.folder(number);
        let mut command = self.machines[number].command(program("pillion-proxy")?);
        command
            .args(["--control-plane", &self.xds().to_string(), "--concurrency", "1"])
            .args(["--service", service, "--name", name])
            .args(["--admin-port", &ports.admin.to_string()])
            .args(["--inbound-port", &ports.inbound.to_string()])
            .arg("--data-dir")
            .arg(folder.join(name));
        if !more.contains(&"--outbound-port") {
            command.args(["--outbound-port", &ports.outbound.to_string()]);
        }
        if !more.contains(&"--token-file") {
            command.arg("--token-file").arg(self.token(number));
        }
        command.args(more);
        let log = folder.join(format!("{name}-sidecar.log"));
        let sidecar = Process::start(&format!("{name}-sidecar"), &mut command, &log)?;
        Ok((sidecar, ports))
    }

    /// An instance of the shop on a machine: its sidecar, and the program.
    pub(super) fn instance(
        &mut self,
        number: usize,
        part: Part,
        name: &str,
    ) -> anyhow::Result<Instance> {
        let Part { service, version } = part;
        let app_port = self.ports().app;
        let labels = format!("app={service},version={version}");
        let port = app_port.to_string();
        let more = ["--label", &labels, "--app", &port];
        let (sidecar, ports) = self.sidecar(number, (service, name), &more)?;
        let machine = self.machines[number].clone();
        let mut command = machine.command(program("pillion-shop")?);
        command
            .args([service, "--port", &port, "--app-version", version, "--instance", name])
            .env("MESH_PROXY", format!("http://127.0.0.1:{}", ports.outbound));
        let log = self.folder(number).join(format!("{name}.log"));
        let app = Process::start(name, &mut command, &log)?;
        Ok(Instance { name: name.to_owned(), sidecar, app: Some(app), machine, admin: ports.admin })
    }

    /// Waits until an instance is among the endpoints, or is not.
    pub(super) async fn known(&self, name: &str, wanted: bool) -> anyhow::Result<()> {
        let what =
            format!("{name} is {} the endpoints", if wanted { "among" } else { "not among" });
        let known = || async { (self.advertised(name).ok()?.is_some() == wanted).then_some(()) };
        wait::until(&what, known).await
    }

    fn ports(&mut self) -> Ports {
        self.slots += 1;
        let base = 20_000 + 10 * self.slots;
        Ports { app: base, admin: base + 1, inbound: base + 2, outbound: base + 3 }
    }
}

/// The ports of one sidecar; no two instances of a world have the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    app: u16,
    pub(super) admin: u16,
    pub(super) inbound: u16,
    pub(super) outbound: u16,
}

impl Instance {
    /// Waits until the sidecar is ready.
    pub(super) async fn warm(&self) -> anyhow::Result<()> {
        warm(&self.machine, &self.sidecar, self.admin).await
    }

    /// As an operator takes it away: the sidecar leaves and lets requests finish, then the program goes.
    pub(super) async fn retire(self) -> anyhow::Result<()> {
        self.sidecar.signal(Signal::TERM);
        ensure!(self.sidecar.ended().await?.success(), "{}", self.sidecar.describe());
        if let Some(app) = &self.app {
            app.signal(Signal::TERM);
            ensure!(app.ended().await?.success(), "{}", app.describe());
        }
        Ok(())
    }
}

/// Waits until a sidecar of `machine` is ready.
pub(super) async fn warm(machine: &Host, sidecar: &Process, admin: u16) -> anyhow::Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], admin));
    let probe = || async {
        let answer = machine.block_on(|| client::get(address, "/ready")).ok()?.ok()?;
        (answer.status == 200).then_some(())
    };
    sidecar.ready("the sidecar is ready", probe).await
}

/// `pillion-proxy -c` on a machine.
pub(super) fn front(machine: &Host, config: &Path, folder: &Path) -> anyhow::Result<Process> {
    let mut command: Command = machine.command(program("pillion-proxy")?);
    command.arg("-c").arg(config).args(["--concurrency", "1"]);
    Process::start("front", &mut command, &folder.join("front.log"))
}
