//! Hosts with sidecars whose traffic is captured.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use pillion_tests::client;
use pillion_tests::netns::{Host, Lab};
use pillion_tests::process::Process;
use pillion_tests::venv::program;
use tempfile::TempDir;

/// The group that sidecars run as, by which the rules know them.
const GROUP: u32 = 1337;

/// A control plane in a host of its own, and the hosts that joined it.
pub(super) struct World {
    pub(super) lab: Lab,
    pub(super) dir: TempDir,
    control: Host,
    _process: Process,
}

/// A sidecar of a host.
pub(super) struct Sidecar {
    pub(super) process: Process,
    host: Host,
}

impl World {
    /// A control plane with these files at 10.77.0.1.
    pub(super) async fn start(mesh: &str) -> anyhow::Result<Self> {
        let mut lab = Lab::new()?;
        let control = lab.host("control")?;
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join("mesh"))?;
        std::fs::write(dir.path().join("mesh/mesh.yaml"), mesh)?;
        let mut command = control.command(program("pillion")?);
        command
            .args(["control-plane", "--address", &control.address().to_string()])
            .arg("--config")
            .arg(dir.path().join("mesh"))
            .arg("--data-dir")
            .arg(dir.path().join("data"));
        let log = dir.path().join("control-plane.log");
        let process = Process::start("control-plane", &mut command, &log)?;
        ready(&process, &control, 15080).await?;
        Ok(Self { lab, dir, control, _process: process })
    }

    /// Other files.
    pub(super) fn write(&self, mesh: &str) -> anyhow::Result<()> {
        let new = self.dir.path().join("mesh.new");
        std::fs::write(&new, mesh)?;
        Ok(std::fs::rename(new, self.dir.path().join("mesh/mesh.yaml"))?)
    }

    /// A sidecar on `host`, with rules that bring everything to it. It has no capability, unless
    /// `tproxy` asks for one.
    pub(super) async fn sidecar(
        &self,
        host: &Host,
        (service, apps): (&str, &[String]),
        mode: &str,
    ) -> anyhow::Result<Sidecar> {
        let capabilities = if mode == "tproxy" { ",+net_admin" } else { "" };
        let mut command = host.confined(GROUP, capabilities, program("pillion-proxy")?);
        command
            .args(["--control-plane", &format!("{}:15012", self.control.address())])
            .arg("--token-file")
            .arg(self.dir.path().join("data/join-token"))
            .args(["--service", service, "--name", &format!("{service}-1")])
            .args(["--address", &host.address().to_string(), "--interception", mode])
            .args(["--concurrency", "1", "--log-level", "info,pillion_proxy=debug"]);
        for app in apps {
            command.args(["--app", app]);
        }
        let log = self.dir.path().join(format!("{service}.log"));
        let process = Process::start(service, &mut command, &log)?;
        ready(&process, host, 15000).await?;
        let sidecar = Sidecar { process, host: host.clone() };
        redirect(host, &["--mode", mode])?;
        Ok(sidecar)
    }
}

impl Sidecar {
    /// One of its metrics; 0 where there is none.
    pub(super) async fn counter(&self, name: &str) -> anyhow::Result<u64> {
        let path = format!("/stats?filter={name}");
        let answer = get(&self.host, 15000, &path).await?;
        let line = answer.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        Ok(line.map_or(Ok(0), str::parse)?)
    }
}

/// `pillion-proxy redirect` on a host.
pub(super) fn redirect(host: &Host, more: &[&str]) -> anyhow::Result<String> {
    let mut command = host.command(program("pillion-proxy")?);
    command.args(["redirect", "--proxy-gid", &GROUP.to_string()]).args(more);
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{text}");
    Ok(text)
}

/// A Python program on a host, that knows nothing of any mesh.
pub(super) fn python(
    host: &Host,
    name: &str,
    (args, dir): (&[&str], &Path),
) -> anyhow::Result<Process> {
    let mut command: Command = host.command("python3");
    command.args(args).current_dir(dir).env("PYTHONUNBUFFERED", "1");
    Process::start(name, &mut command, &dir.join(format!("{name}.log")))
}

async fn ready(process: &Process, host: &Host, port: u16) -> anyhow::Result<()> {
    let probe = || async { get(host, port, "/ready").await.ok().map(drop) };
    process.ready("it is ready", probe).await
}

async fn get(host: &Host, port: u16, path: &str) -> anyhow::Result<String> {
    let address = ([127, 0, 0, 1], port).into();
    let answer = host.block_on(|| client::get(address, path))??;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    Ok(answer.text())
}
