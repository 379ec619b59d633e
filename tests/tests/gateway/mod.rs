//! Gateways: `pillion gateway` before plain instances, and the gateway of a mesh.

mod connections;
mod egress;
mod hosts;
mod limits;
mod mesh;
mod one_file;
mod sessions;
mod tls;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::client::{self, Answer, Ask};
use pillion_tests::port::Port;
use pillion_tests::process::Process;
use pillion_tests::venv::program;
use tempfile::TempDir;

/// A running `pillion gateway`, with its file.
struct Running {
    process: Process,
    admin: Port,
    dir: TempDir,
}

impl Running {
    /// Starts it, and waits until it is ready.
    async fn start(text: &str) -> anyhow::Result<Self> {
        Self::start_in(tempfile::tempdir()?, text).await
    }

    async fn start_in(dir: TempDir, text: &str) -> anyhow::Result<Self> {
        let admin = Port::reserve()?;
        std::fs::write(dir.path().join("gateway.yaml"), text)?;
        let mut command = Command::new(program("pillion")?);
        command.arg("gateway").arg("-f").arg(dir.path().join("gateway.yaml"));
        command.args(["--admin-port", &admin.number().to_string(), "--concurrency", "1"]);
        let process = Process::start("gateway", &mut command, &dir.path().join("log"))?;
        let address = admin.address();
        let ready = || async {
            let answer = client::get(address, "/ready").await.ok()?;
            (answer.status == 200).then_some(())
        };
        process.ready("the gateway is ready", ready).await?;
        Ok(Self { process, admin, dir })
    }

    /// Replaces its file, in one step.
    fn write(&self, text: &str) -> anyhow::Result<()> {
        let path = self.file();
        std::fs::write(path.with_extension("new"), text)?;
        Ok(std::fs::rename(path.with_extension("new"), path)?)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("gateway.yaml")
    }

    async fn says(&self, text: &str) -> anyhow::Result<()> {
        let said = || async { self.process.log().contains(text).then_some(()) };
        self.process.ready(&format!("it says `{text}`"), said).await
    }
}

/// A Gateway on loopback with these listeners, as YAML.
fn gateway(listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: front}}
spec:
  gatewayClassName: pillion
  addresses: [{{value: 127.0.0.1}}]
  listeners:
{listeners}
---
"
    )
}

/// A Service of these backends.
fn service(name: &str, backends: &[SocketAddr]) -> String {
    let mut text = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}
---
"
    );
    for (index, address) in backends.iter().enumerate() {
        let _ = write!(
            text,
            "apiVersion: pillion.io/v1alpha1
kind: Workload
metadata: {{name: {name}-{index}, labels: {{app: {name}}}}}
spec: {{address: {}, ports: {{http: {}}}}}
---
",
            address.ip(),
            address.port()
        );
    }
    text
}

/// A route to the one service of this name.
fn route(name: &str, fields: &str, to: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: front}}]
{fields}
  rules:
  - backendRefs: [{{name: {to}, port: 80}}]
---
"
    )
}

async fn backend(name: &str) -> anyhow::Result<Backend> {
    Ok(Backend::start(name, Speaks::Http1).await?)
}

async fn ask(gateway: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    let ask = Ask { host: host.to_owned(), ..Ask::new(Method::GET, path) };
    client::send(gateway, &ask).await
}

/// Asks again and again until told to stop; how many answers there were, and which were not 200.
async fn load(gateway: SocketAddr, stop: Arc<AtomicBool>) -> (u32, Vec<String>) {
    let (mut count, mut bad) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        match ask(gateway, "any.test", "/").await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => bad.push(format!("{} {}", answer.status, answer.text())),
            Err(error) => bad.push(format!("{error:#}")),
        }
    }
    (count, bad)
}

/// `pillion gateway --check`
fn check(path: &Path) -> anyhow::Result<Output> {
    let mut command = Command::new(program("pillion")?);
    Ok(command.arg("gateway").arg("-f").arg(path).arg("--check").output()?)
}
