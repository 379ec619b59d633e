//! A container engine of its own: `dockerd` with its data in a folder that goes with it.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use pillion_tests::process::{Process, Signal};
use pillion_tests::venv::target_dir;
use serde_json::Value;
use tempfile::TempDir;

/// Networks of this engine, which must be none of this machine's.
const ADDRESSES: &str = "base=10.78.0.0/16,size=24";
const COMPOSE_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/compose/compose.yaml");
/// In front of the names of its containers and networks.
const PROJECT: &str = "shop";

/// Debian's `docker-compose` does as well.
const SHELL: &str = "docker() {
  if [ \"$1\" != compose ]; then command docker \"$@\"; return; fi
  shift
  if command docker compose version > /dev/null 2>&1; then command docker compose -p \"$PROJECT\" \"$@\"
  else docker-compose -p \"$PROJECT\" \"$@\"; fi
}";

/// The engine. Dropping it ends its containers, and removes what it has stored.
#[derive(Debug)]
pub(super) struct Engine {
    process: Process,
    /// Short, as paths of sockets have to be.
    sockets: TempDir,
    _data: TempDir,
}

impl Engine {
    /// Starts one.
    pub(super) async fn start() -> anyhow::Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "a container engine needs root");
        let data = tempfile::Builder::new().prefix("engine-").tempdir_in(target_dir()?)?;
        let sockets = tempfile::tempdir()?;
        let mut command = Command::new("dockerd");
        command
            .arg("--data-root")
            .arg(data.path().join("data"))
            .arg("--exec-root")
            .arg(sockets.path().join("exec"))
            .arg("--pidfile")
            .arg(sockets.path().join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", sockets.path().join("docker").display()))
            // The firewall, the bridges and the forwarding of this machine stay as they are.
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"])
            .args(["--ip-masq=false", "--default-address-pool", ADDRESSES]);
        let process = Process::start("dockerd", &mut command, &data.path().join("log"))?;
        let engine = Self { process, sockets, _data: data };
        let answers = || async { engine.docker(&["version"]).await.is_ok().then_some(()) };
        engine.process.ready("the engine answers", answers).await?;
        engine.compose(&["version"], &[]).await.context("docker compose, or docker-compose")?;
        Ok(engine)
    }

    /// Runs `docker` to its end; what it wrote.
    pub(super) async fn docker<S: AsRef<OsStr>>(&self, args: &[S]) -> anyhow::Result<String> {
        output(self.command("docker").args(args)).await
    }

    /// Runs `docker compose` for the shop to its end, with these variables.
    pub(super) async fn compose(
        &self,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<String> {
        let plugin = output(self.command("docker").args(["compose", "version"])).await.is_ok();
        let mut command = self.command(if plugin { "docker" } else { "docker-compose" });
        command.args(plugin.then_some("compose")).args(["-p", PROJECT, "-f", COMPOSE_FILE]);
        output(command.args(args).envs(variables.iter().copied())).await
    }

    /// Runs lines of a page to their good end, in the root of this repository; what they wrote.
    pub(super) async fn script(
        &self,
        lines: &str,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<String> {
        let mut command = self.command("bash");
        command.args(["-e", "-o", "pipefail", "-c", &format!("{SHELL}\n{lines}")]);
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        output(command.env("PROJECT", PROJECT).envs(variables.iter().copied())).await
    }

    /// What the engine knows of the container of a service.
    pub(super) async fn inspect(&self, service: &str) -> anyhow::Result<Value> {
        let text = self.docker(&["inspect", &self.container(service).await?]).await?;
        let all: Value = serde_json::from_str(&text)?;
        Ok(all[0].clone())
    }

    /// The container of a service, running or not.
    pub(super) async fn container(&self, service: &str) -> anyhow::Result<String> {
        let label = format!("label=com.docker.compose.service={service}");
        let id = self.docker(&["ps", "-aq", "--filter", &label]).await?;
        ensure!(id.lines().count() == 1, "containers of {service}: {id:?}");
        Ok(id.trim().to_owned())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let socket = self.sockets.path().join("docker");
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        command.env("DOCKER_CONFIG", self.sockets.path());
        command
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let ids = self.command("docker").args(["ps", "-aq"]).output();
        if let Ok(ids) = ids {
            let ids = String::from_utf8_lossy(&ids.stdout).into_owned();
            let _ = self.command("docker").args(["rm", "-f"]).args(ids.split_whitespace()).output();
        }
        let _ = self.command("docker").args(["network", "prune", "-f"]).output();
        self.process.signal(Signal::TERM);
        // It unmounts what it has mounted; the folders cannot be removed before.
        for _ in 0..200 {
            if self.process.status().is_some() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// Whether the engine and the tool for compose files are here.
pub(super) fn is_installed() -> anyhow::Result<()> {
    for program in ["dockerd", "docker"] {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        found.with_context(|| format!("cannot run {program} (Debian package docker.io)"))?;
    }
    Ok(())
}

async fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let mut command = std::mem::replace(command, Command::new("true"));
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await?;
    let output = output.with_context(|| format!("cannot run {shown}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown}: {}\n{said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
