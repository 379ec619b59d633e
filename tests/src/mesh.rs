//! A mesh of real processes: a control plane, and sidecars that joined it.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{self, Answer, Ask};
use crate::port::Port;
use crate::process::{Process, Signal};
use crate::venv::program;
use crate::wait;

/// A control plane with its folders. Everything ends when this is dropped.
#[derive(Debug)]
pub struct Mesh {
    dir: TempDir,
    process: Option<Process>,
    xds: Port,
    xds_tls: Port,
    admin: Port,
    /// How to reach the Kubernetes API that it reads in place of a folder.
    kubeconfig: Option<PathBuf>,
    /// More arguments of it.
    flags: Vec<String>,
}

/// A sidecar that joined, with its ports.
#[derive(Debug)]
pub struct Sidecar {
    /// The process.
    pub process: Process,
    /// Its admin endpoint.
    pub admin: SocketAddr,
    /// Where its application sends requests.
    pub outbound: SocketAddr,
    /// Where other sidecars reach it.
    pub inbound: SocketAddr,
    arguments: Vec<OsString>,
    log: PathBuf,
    _ports: [Port; 3],
}

/// What a sidecar stands beside.
#[derive(Debug, Clone)]
pub struct Beside {
    /// Name of the instance, and of its folder.
    pub name: String,
    /// Its service.
    pub service: String,
    /// Port of the application. None: a client.
    pub app: Option<u16>,
    /// Labels of the instance.
    pub labels: Vec<(String, String)>,
    /// Further arguments of the sidecar.
    pub more: Vec<String>,
    /// It runs the Gateway of that name, in place of a service.
    pub gateway: bool,
    /// Files with the token and the root that it joins with, in place of the join token.
    pub proof: Option<(PathBuf, PathBuf)>,
}

impl Beside {
    /// An instance of `service` whose application listens on `app`, labelled with both.
    pub fn new(service: &str, version: &str, app: SocketAddr) -> Self {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Self {
            name: format!("{service}-{version}"),
            service: service.to_owned(),
            app: Some(app.port()),
            labels: vec![label("app", service), label("version", version)],
            more: Vec::new(),
            gateway: false,
            proof: None,
        }
    }

    /// A gateway.
    pub fn gateway(name: &str) -> Self {
        Self { gateway: true, ..Self::client(name) }
    }

    /// One that only asks.
    pub fn client(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            service: name.to_owned(),
            app: None,
            labels: Vec::new(),
            more: Vec::new(),
            gateway: false,
            proof: None,
        }
    }
}

impl Mesh {
    /// Starts a control plane with these files, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; the message has its log.
    pub async fn start(files: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_with(files, None, &[]).await
    }

    /// The same, with more arguments.
    ///
    /// # Errors
    /// When it does not get ready; the message has its log.
    pub async fn start_flagged(files: &[(&str, &str)], flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(files, None, flags).await
    }

    /// Starts a control plane that reads the Kubernetes API in place of a folder, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; the message has its log.
    pub async fn in_cluster(kubeconfig: PathBuf) -> anyhow::Result<Self> {
        Self::start_with(&[], Some(kubeconfig), &[]).await
    }

    async fn start_with(
        files: &[(&str, &str)],
        kubeconfig: Option<PathBuf>,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join("mesh"))?;
        let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
        let [xds, xds_tls, admin] = ports;
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut mesh = Self { dir, process: None, xds, xds_tls, admin, kubeconfig, flags };
        for (name, text) in files {
            mesh.write(name, text)?;
        }
        mesh.start_control_plane().await?;
        Ok(mesh)
    }

    /// Writes a file of the mesh folder, in one step.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> std::io::Result<()> {
        let path = self.dir().join("mesh").join(name);
        let new = path.with_extension("new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, path)
    }

    /// Starts the control plane (again), on the same ports and with the same data.
    ///
    /// # Errors
    /// When it does not get ready; the message has its log.
    pub async fn start_control_plane(&mut self) -> anyhow::Result<()> {
        let mut command = self.command("control-plane")?;
        match &self.kubeconfig {
            Some(file) => command.arg("--kubernetes").env("KUBECONFIG", file),
            None => command.arg("--config").arg(self.dir().join("mesh")),
        };
        command.arg("--data-dir").arg(self.data_dir()).args(&self.flags);
        for (flag, port) in [
            ("--xds-port", &self.xds),
            ("--xds-tls-port", &self.xds_tls),
            ("--admin-port", &self.admin),
        ] {
            command.arg(flag).arg(port.number().to_string());
        }
        let log = self.dir().join("control-plane.log");
        let process = Process::start("control-plane", &mut command, &log)?;
        let admin = self.admin.address();
        let ready = || async {
            let answer = client::get(admin, "/ready").await.ok()?;
            (answer.status == 200).then_some(())
        };
        process.ready("the control plane is ready", ready).await?;
        self.process = Some(process);
        Ok(())
    }

    /// Asks the control plane to end, and waits for it.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop_control_plane(&mut self) -> anyhow::Result<()> {
        if let Some(process) = self.process.take() {
            process.signal(Signal::TERM);
            process.ended().await?;
        }
        Ok(())
    }

    /// Kills the control plane, as a crash would.
    pub fn kill_control_plane(&mut self) {
        self.process = None;
    }

    /// What the control plane wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir().join("control-plane.log")).unwrap_or_default()
    }

    /// Starts a sidecar, and waits until it serves.
    ///
    /// # Errors
    /// When it does not get ready; the message has its log.
    pub async fn sidecar(&self, beside: &Beside) -> anyhow::Result<Sidecar> {
        self.sidecar_with(beside, &[]).await
    }

    /// The same, with more arguments.
    ///
    /// # Errors
    /// When it does not get ready; the message has its log.
    pub async fn sidecar_with(&self, beside: &Beside, more: &[&str]) -> anyhow::Result<Sidecar> {
        let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
        let [admin, inbound, outbound] = ports.each_ref().map(Port::address);
        let mut command = Command::new(program("pillion-proxy")?);
        command
            .args(["--control-plane", &self.xds_tls.address().to_string()])
            .arg("--token-file")
            .arg(beside.proof.as_ref().map_or_else(|| self.token(), |(token, _)| token.clone()))
            .arg("--data-dir")
            .arg(self.dir().join(&beside.name))
            .args([if beside.gateway { "--gateway" } else { "--service" }, &beside.service])
            .args(["--name", &beside.name, "--concurrency", "1"])
            .args(["--admin-port", &admin.port().to_string()])
            .args(["--inbound-port", &inbound.port().to_string()])
            .args(["--outbound-port", &outbound.port().to_string()]);
        if let Some((_, root)) = &beside.proof {
            command.arg("--root-ca-file").arg(root);
        }
        command.args(more);
        for (key, value) in &beside.labels {
            command.arg("--label").arg(format!("{key}={value}"));
        }
        if let Some(app) = beside.app {
            command.args(["--app", &app.to_string()]);
        }
        command.args(&beside.more);
        let log = self.dir().join(format!("{}.log", beside.name));
        let process = Process::start(&beside.name, &mut command, &log)?;
        let ready = || async {
            let answer = client::get(admin, "/ready").await.ok()?;
            (answer.status == 200).then_some(())
        };
        process.ready("the sidecar is ready", ready).await?;
        let arguments = command.get_args().map(ToOwned::to_owned).collect();
        Ok(Sidecar { process, admin, outbound, inbound, arguments, log, _ports: ports })
    }

    /// Runs `pillion` with these arguments to its end.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn pillion(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(program("pillion")?);
        command.args(args).output().with_context(|| format!("cannot run {command:?}"))
    }

    /// What `pillion status --output json` prints.
    ///
    /// # Errors
    /// When it prints something else.
    pub fn status(&self) -> anyhow::Result<Value> {
        let admin = self.admin.address().to_string();
        let output = self.pillion(&["status", "--admin", &admin, "--output", "json"])?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "not JSON: {}",
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
            )
        })
    }

    /// A certificate for a workload without a sidecar of ours, by `pillion ca issue`: the folder.
    ///
    /// # Errors
    /// When it is refused.
    pub fn issue(&self, account: &str) -> anyhow::Result<PathBuf> {
        let out = self.dir().join(format!("issued-{account}"));
        let (data, folder) = (self.data_dir(), out.to_string_lossy().into_owned());
        let data = data.to_string_lossy().into_owned();
        let args =
            ["ca", "issue", "--data-dir", &data, "--service-account", account, "--out", &folder];
        let output = self.pillion(&args)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(out)
    }

    /// The port of xDS in plain text, on loopback.
    pub fn xds(&self) -> SocketAddr {
        self.xds.address()
    }

    /// The port of the administration pages.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// The port of xDS over TLS.
    pub fn xds_tls(&self) -> SocketAddr {
        self.xds_tls.address()
    }

    /// The file with the join token.
    pub fn token(&self) -> PathBuf {
        self.data_dir().join("join-token")
    }

    /// The folder of everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn data_dir(&self) -> PathBuf {
        self.dir().join("data")
    }

    fn command(&self, name: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(program("pillion")?);
        command.arg(name).args(["--address", &Ipv4Addr::LOCALHOST.to_string()]);
        Ok(command)
    }
}

impl Sidecar {
    /// Starts another process with the same command line, and does not wait.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn again(&self) -> anyhow::Result<Process> {
        let mut command = Command::new(program("pillion-proxy")?);
        Process::start("successor", command.args(&self.arguments), &self.log)
    }

    /// Asks for `path` of a mesh service, as the application beside this sidecar would.
    ///
    /// # Errors
    /// When there is no answer at all.
    pub async fn ask(&self, host: &str, path: &str) -> anyhow::Result<Answer> {
        ask(self.outbound, host, path).await
    }

    /// Waits until `host` is answered with 200 by the backend of this name.
    ///
    /// # Errors
    /// After [`wait::LIMIT`].
    pub async fn reaches(&self, host: &str, endpoint: &str) -> anyhow::Result<()> {
        reaches(self.outbound, host, endpoint).await
    }
}

/// Asks a proxy for `path` of `host`.
///
/// # Errors
/// When there is no answer at all.
pub async fn ask(proxy: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    let mut ask = Ask::new(http::Method::GET, path);
    host.clone_into(&mut ask.host);
    client::send(proxy, &ask).await
}

/// Waits until `host` is answered with 200 by the backend of this name.
///
/// # Errors
/// After [`wait::LIMIT`].
pub async fn reaches(proxy: SocketAddr, host: &str, endpoint: &str) -> anyhow::Result<()> {
    let last = std::cell::RefCell::new(String::new());
    let probe = || async {
        let answer = ask(proxy, host, "/").await;
        if let Ok(answer) = &answer
            && answer.status == 200
            && answer.header("x-endpoint") == Some(endpoint)
        {
            return Some(());
        }
        *last.borrow_mut() = match answer {
            Ok(answer) => format!("{} {:?} {}", answer.status, answer.headers, answer.text()),
            Err(error) => format!("{error:#}"),
        };
        None
    };
    let found = wait::until(&format!("{host} is answered by {endpoint}"), probe).await;
    found.with_context(|| last.borrow().clone())
}
