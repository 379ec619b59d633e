//! The proxies that are compared, each set up for the same job.

mod haproxy;
mod nginx;
mod xds;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use pillion_tests::ca::{Ca, Files, spiffe};
use pillion_tests::port::Port;
use pillion_tests::process::Process;
use pillion_tests::wait;
use serde::Serialize;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::cpu;

pub use xds::Growth;

/// The core that the proxies have to themselves, as `taskset` has it.
pub const ONE_CORE: &str = "0";
/// That one and the core of the load.
pub const BOTH_CORES: &str = "0,1";

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// Real Envoy, from PyPI.
    Envoy,
    /// nginx of this machine.
    Nginx,
    /// haproxy of this machine.
    Haproxy,
    /// Ours.
    Pillion,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Envoy => "envoy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Pillion => "pillion",
        })
    }
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1
    One,
    /// HTTP/2
    Two,
}

/// What a proxy stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// One proxy in plain text, HTTP of this version in and of that version out.
    Hop(Http, Http),
    /// Two proxies, with mTLS and HTTP of this version between them, HTTP/1.1 on both ends.
    Pair(Http),
}

/// Servers that the proxies lead to.
#[derive(Debug, Clone, Copy)]
pub struct Backends {
    /// HTTP/1.1
    pub http1: SocketAddr,
    /// HTTP/2; takes spans too.
    pub http2: SocketAddr,
}

/// Everything that setting up needs.
#[derive(Debug)]
pub struct Workshop {
    /// Where the proxies lead to.
    pub backends: Backends,
    dir: TempDir,
    client: Files,
    server: Files,
    /// Chain and key in one file, as haproxy wants them.
    client_both: PathBuf,
    server_both: PathBuf,
    callgrind: bool,
    workers: usize,
    cores: &'static str,
}

/// A proxy at work, or a pair of them. Ends when it is dropped.
#[derive(Debug)]
pub struct Running {
    /// Where requests go in.
    pub address: SocketAddr,
    processes: Vec<Process>,
    _ports: Vec<Port>,
}

impl Workshop {
    /// Certificates and a folder.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn new(backends: Backends) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let ca = Ca::new("bench")?;
        let write = |name: &str| ca.write(dir.path(), name, &ca.leaf(&spiffe(name))?);
        let (client, server) = (write("client")?, write("server")?);
        let both = |name: &str, files: &Files| -> anyhow::Result<PathBuf> {
            let path = dir.path().join(format!("{name}-both.pem"));
            let text = [std::fs::read(&files.chain)?, std::fs::read(&files.key)?].concat();
            std::fs::write(&path, text)?;
            Ok(path)
        };
        let (client_both, server_both) = (both("client", &client)?, both("server", &server)?);
        Ok(Self {
            backends,
            dir,
            client,
            server,
            client_both,
            server_both,
            callgrind: false,
            workers: 1,
            cores: ONE_CORE,
        })
    }

    /// Every proxy runs under callgrind, which writes into [`Workshop::folder`].
    #[must_use]
    pub fn under_callgrind(self) -> Self {
        Self { callgrind: true, ..self }
    }

    /// Ours starts with so many workers from now on, on these cores.
    pub fn set_workers(&mut self, workers: usize, cores: &'static str) {
        (self.workers, self.cores) = (workers, cores);
    }

    /// Where everything is written.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Whether this proxy can do this job.
    pub fn can(&self, peer: Peer, job: Job) -> bool {
        match (peer, job) {
            // nginx speaks HTTP/1.1 only towards the upstream.
            (Peer::Nginx, Job::Hop(_, Http::Two) | Job::Pair(Http::Two)) => false,
            _ => self.program(peer).is_ok(),
        }
    }

    /// Starts a proxy, or a pair, and waits until a connection is taken.
    ///
    /// # Errors
    /// When it does not start; the message has its log.
    pub async fn start(&self, peer: Peer, job: Job) -> anyhow::Result<Running> {
        self.start_with(peer, job, Growth::default()).await
    }

    /// The same with more configuration; Envoy and ours only.
    ///
    /// # Errors
    /// As [`Workshop::start`].
    pub async fn start_with(
        &self,
        peer: Peer,
        job: Job,
        growth: Growth,
    ) -> anyhow::Result<Running> {
        let mut running = Running {
            address: ([127, 0, 0, 1], 0).into(),
            processes: Vec::new(),
            _ports: Vec::new(),
        };
        match job {
            Job::Hop(down, up) => {
                let to = self.backend(up);
                let side = Side { tls: None, down, up, to, growth };
                self.add(&mut running, peer, side).await?;
            }
            Job::Pair(link) => {
                let to = self.backend(Http::One);
                let inner = Side { tls: Some(End::In), down: link, up: Http::One, to, growth };
                self.add(&mut running, peer, inner).await?;
                let to = running.address;
                let outer = Side { tls: Some(End::Out), down: Http::One, up: link, to, growth };
                self.add(&mut running, peer, outer).await?;
            }
        }
        Ok(running)
    }

    async fn add(&self, running: &mut Running, peer: Peer, side: Side) -> anyhow::Result<()> {
        let port = Port::reserve()?;
        let address = port.address();
        let number = running.processes.len();
        let name = format!("{peer}-{number}");
        let file = self.dir.path().join(format!("{name}.conf"));
        let admin = Port::reserve()?;
        let text = match peer {
            Peer::Envoy | Peer::Pillion => xds::bootstrap(self, address, &side, admin.address()),
            Peer::Nginx => nginx::config(self, address, &side, self.dir.path()),
            Peer::Haproxy => haproxy::config(self, address, &side),
        };
        std::fs::write(&file, text)?;
        let mut command = self.command();
        command.arg(self.program(peer)?);
        match peer {
            Peer::Envoy => {
                command.args([
                    "--disable-hot-restart",
                    "--concurrency",
                    "1",
                    "--log-level",
                    "error",
                    "-c",
                ]);
            }
            Peer::Pillion => {
                command.args(["--concurrency", &self.workers.to_string(), "-c"]);
            }
            Peer::Nginx => drop(command.arg("-c")),
            Peer::Haproxy => drop(command.args(["-db", "-f"])),
        }
        command.arg(&file);
        running._ports.extend([port, admin]);
        let log = self.dir.path().join(format!("{name}.log"));
        let process = Process::start(&name, &mut command, &log)?;
        let listens = || async { TcpStream::connect(address).await.ok().map(drop) };
        process.ready("the proxy listens", listens).await?;
        running.processes.push(process);
        running.address = address;
        Ok(())
    }

    /// What runs the program: on its core, or under callgrind.
    fn command(&self) -> Command {
        if self.callgrind {
            let out = self.dir.path().join("callgrind.%p");
            let mut command = Command::new("valgrind");
            command.args(["-q", "--tool=callgrind", "--trace-children=yes"]);
            command.arg(format!("--callgrind-out-file={}", out.display()));
            return command;
        }
        let mut command = Command::new("taskset");
        command.args(["-c", self.cores]);
        command
    }

    fn backend(&self, http: Http) -> SocketAddr {
        match http {
            Http::One => self.backends.http1,
            Http::Two => self.backends.http2,
        }
    }

    fn program(&self, peer: Peer) -> anyhow::Result<PathBuf> {
        match peer {
            Peer::Envoy => pillion_tests::proxy::envoy(),
            Peer::Pillion => pillion_tests::venv::program("pillion-proxy"),
            Peer::Nginx => installed("nginx"),
            Peer::Haproxy => installed("haproxy"),
        }
    }
}

fn installed(name: &str) -> anyhow::Result<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found =
        folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    found.with_context(|| format!("{name} is not installed: apt-get install nginx-light haproxy"))
}

impl Running {
    /// Its processes, children included.
    pub fn pids(&self) -> Vec<i32> {
        self.processes.iter().flat_map(|process| cpu::group(process.id())).collect()
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// When it does not; the message has its log.
    pub async fn answers(&self) -> anyhow::Result<()> {
        let once = || async {
            let meter = crate::load::start(crate::load::Style::Kept(1), self.address, "/r25/x");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            meter.stop();
            (meter.answered() > 0).then_some(())
        };
        wait::until("the proxy answers", once).await.with_context(|| {
            self.processes.iter().map(Process::describe).collect::<Vec<_>>().join("\n")
        })
    }
}

/// One proxy of a job.
struct Side {
    /// Where mTLS is.
    tls: Option<End>,
    down: Http,
    up: Http,
    to: SocketAddr,
    growth: Growth,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It takes mTLS.
    In,
    /// It begins mTLS.
    Out,
}
