//! Hosts as network namespaces: each with addresses, routes and firewall of its own, joined by a
//! bridge. Needs root, and the programs `ip` and `nft`.

use std::fs;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";
const PREFIX: &str = "pilliontest";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A bridge and the hosts at it. All of it goes when this is dropped.
#[derive(Debug)]
pub struct Lab {
    id: String,
    hosts: u8,
    namespaces: Vec<String>,
}

/// A host: 10.77.0.N and fd77::N, with a default route that leads nowhere.
#[derive(Debug, Clone)]
pub struct Host {
    namespace: String,
    hub: String,
    number: u8,
}

/// Something that runs in a host until this is dropped.
#[derive(Debug)]
pub struct Inside {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Lab {
    /// An empty one.
    ///
    /// # Errors
    /// This is not root, or a program is missing.
    pub fn new() -> anyhow::Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "network namespaces need root");
        run("nft", &["--version"])?;
        sweep();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{PREFIX}-{}-{count}", std::process::id());
        let mut lab = Self { id, hosts: 0, namespaces: Vec::new() };
        let hub = lab.namespace("hub")?;
        ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &hub, "addr", "add", "10.77.0.254/24", "dev", "br0"])?;
        ip(&["-n", &hub, "link", "set", "br0", "up"])?;
        Ok(lab)
    }

    /// One more host.
    ///
    /// # Errors
    /// A command failed; the text has what it said.
    pub fn host(&mut self, name: &str) -> anyhow::Result<Host> {
        self.hosts += 1;
        let (hub, namespace) = (format!("{}-hub", self.id), self.namespace(name)?);
        let host = Host { namespace, hub, number: self.hosts };
        let (own, port) = (&host.namespace, host.port());
        let peer = ["peer", "name", "eth0", "netns", own];
        ip(&[&["-n", &host.hub, "link", "add", &port, "type", "veth"][..], &peer].concat())?;
        ip(&["-n", &host.hub, "link", "set", &port, "master", "br0", "up"])?;
        let (v4, v6) = (format!("{}/24", host.address()), format!("fd77::{}/64", host.number));
        ip(&["-n", own, "addr", "add", &v4, "dev", "eth0"])?;
        // Where the kernel has no IPv6, what is tried over IPv4 has to do.
        let _ = ip(&["-n", own, "addr", "add", &v6, "dev", "eth0", "nodad"]);
        ip(&["-n", own, "link", "set", "eth0", "up"])?;
        ip(&["-n", own, "route", "add", "default", "via", "10.77.0.254"])?;
        Ok(host)
    }

    fn namespace(&mut self, name: &str) -> anyhow::Result<String> {
        let namespace = format!("{}-{name}", self.id);
        ip(&["netns", "add", &namespace])?;
        self.namespaces.push(namespace.clone());
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            forget(namespace);
        }
    }
}

impl Host {
    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.number)
    }

    /// The file that its namespace goes by.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.namespace)
    }

    /// `program`, to be run in this host.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// The same with a group and the capabilities of its own: `+net_admin`, or none.
    pub fn confined(
        &self,
        group: u32,
        capabilities: &str,
        program: impl AsRef<std::ffi::OsStr>,
    ) -> Command {
        let mut command = self.command("setpriv");
        let capabilities = format!("--bounding-set=-all{capabilities}");
        command.args(["--regid", &group.to_string(), "--clear-groups", &capabilities]).arg(program);
        command
    }

    /// Runs a command in this host to its end; what it wrote, and whether it succeeded.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn run(&self, program: &str, args: &[&str]) -> anyhow::Result<(bool, String)> {
        let mut command = self.command(program);
        let output =
            command.args(args).output().with_context(|| format!("cannot run {command:?}"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// What its applications find in `/etc/hosts`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn names(&self, lines: &str) -> anyhow::Result<()> {
        let folder = etc(&self.namespace);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("hosts"), format!("127.0.0.1 localhost\n{lines}\n"))?;
        Ok(())
    }

    /// Cuts its link, or mends it.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn link(&self, up: bool) -> anyhow::Result<()> {
        let state = if up { "up" } else { "down" };
        ip(&["-n", &self.hub, "link", "set", &self.port(), state])
    }

    /// What is sent to it passes at this rate, such as `1mbit`.
    ///
    /// # Errors
    /// When the kernel has no token bucket.
    pub fn slow(&self, rate: &str) -> anyhow::Result<()> {
        let limit = ["tbf", "rate", rate, "burst", "16kb", "latency", "2s"];
        let port = self.port();
        let place = ["netns", "exec", &self.hub, "tc", "qdisc", "replace", "dev", &port, "root"];
        ip(&[&place[..], &limit[..]].concat())
    }

    /// What is sent to it arrives so many milliseconds later.
    ///
    /// # Errors
    /// When the kernel has no network emulator (`netem`).
    pub fn delay(&self, millis: u32) -> anyhow::Result<()> {
        let (port, delay) = (self.port(), format!("{millis}ms"));
        let place = ["netns", "exec", &self.hub, "tc", "qdisc", "replace", "dev", &port, "root"];
        ip(&[&place[..], &["netem", "delay", &delay]].concat())
    }

    /// Drives a future in this host to its end.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn block_on<T: Send, F: Future<Output = T>>(
        &self,
        make: impl FnOnce() -> F + Send,
    ) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let runtime = self.enter()?;
                Ok(runtime.block_on(async { make().await }))
            });
            thread.join().map_err(|_| anyhow!("a thread in {} panicked", self.namespace))?
        })
    }

    /// Makes something in this host that lives on there, such as a backend.
    ///
    /// # Errors
    /// What `make` says.
    pub fn keep<T, F>(
        &self,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> anyhow::Result<(T, Inside)>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>>,
    {
        let (made, wait) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let host = self.clone();
        let thread = std::thread::spawn(move || {
            let runtime = match host.enter() {
                Ok(runtime) => runtime,
                Err(error) => return drop(made.send(Err(error))),
            };
            runtime.block_on(async {
                let _ = made.send(make().await);
                let _ = stopped.await;
            });
        });
        let found = wait.recv().context("the thread ended")??;
        Ok((found, Inside { stop: Some(stop), thread: Some(thread) }))
    }

    /// Moves this thread into the host.
    fn enter(&self) -> anyhow::Result<tokio::runtime::Runtime> {
        let file = fs::File::open(self.path())?;
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&file),
            Some(LinkNameSpaceType::Network),
        )?;
        Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
    }

    /// Its end of the cable at the bridge.
    fn port(&self) -> String {
        format!("port{}", self.number)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Removes what test processes that were killed left behind.
fn sweep() {
    let Ok(entries) = fs::read_dir(NAMESPACES) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.split('-');
        if parts.next() == Some(PREFIX)
            && let Some(pid) = parts.next()
            && !Path::new("/proc").join(pid).exists()
        {
            forget(&name);
        }
    }
}

fn forget(namespace: &str) {
    let _ = ip(&["netns", "del", namespace]);
    let _ = fs::remove_dir_all(etc(namespace));
}

/// What `ip netns exec` puts over `/etc`.
fn etc(namespace: &str) -> PathBuf {
    Path::new("/etc/netns").join(namespace)
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    run("ip", args)
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{program} {}: {said}", args.join(" "));
    Ok(())
}
