//! A mesh of plain processes on this machine: a control plane, and instances of services with a sidecar each.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::process::{Phase, Probe, Process, Recipe, STOP_GRACE};
use crate::intent::Restart;

/// How long a fleet may take from its first process to its last ready one.
const START_LIMIT: Duration = Duration::from_secs(120);
/// A process that ends this often before it was ever ready will not get ready.
const MAX_EARLY_DEATHS: u32 = 4;
const POLL_EVERY: Duration = Duration::from_millis(50);

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub(crate) struct FleetPlan {
    /// The `pillion` binary: control plane, sidecars, and the shop's services.
    pub(crate) program: PathBuf,
    /// The mesh's YAML files.
    pub(crate) mesh_dir: PathBuf,
    /// Where control plane and sidecars keep what they have to keep.
    pub(crate) data_dir: PathBuf,
    /// One file for each process.
    pub(crate) log_dir: PathBuf,
    pub(crate) instances: Vec<InstancePlan>,
}

/// One instance of a service, in namespace `default`.
#[derive(Debug, Clone)]
pub(crate) struct InstancePlan {
    /// Its own name, such as `catalog-v1-2`.
    pub(crate) name: String,
    /// The instances that are shown as one, such as `catalog-v1`.
    pub(crate) group: String,
    /// The service, and the service account.
    pub(crate) service: String,
    pub(crate) labels: Vec<(String, String)>,
    /// The arguments that make the `pillion` binary the app; it finds its port in `PORT` and its sidecar's outbound
    /// port in `MESH_PROXY`. `None` for a client that only has a sidecar.
    pub(crate) app: Option<Vec<String>>,
}

/// A running mesh. [`Self::stop`] ends it in order; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) control_plane: ControlPlane,
    pub(crate) instances: Vec<Instance>,
    stop: watch::Sender<bool>,
    log_dir: PathBuf,
}

/// The control plane of a fleet.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    pub(crate) process: Process,
    /// Where people look: API and dashboard.
    pub(crate) admin: SocketAddr,
}

/// One running instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) plan: InstancePlan,
    pub(crate) sidecar: Process,
    pub(crate) app: Option<Process>,
    /// The sidecar's admin listener.
    pub(crate) admin: SocketAddr,
    /// Where the app sends what is meant for others.
    pub(crate) outbound: SocketAddr,
}

impl Fleet {
    /// Starts the control plane, waits for it, and starts everything else. [`Self::wait_until_ready`] is next.
    ///
    /// # Errors
    /// When folders or ports are not to be had, or the control plane does not get ready; the message has the end
    /// of its log.
    pub(crate) async fn start(plan: FleetPlan) -> anyhow::Result<Self> {
        for dir in [&plan.data_dir, &plan.log_dir] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let mut ports = Ports::take(3 + 4 * plan.instances.len())?;
        let (stop, stopped) = watch::channel(false);
        let [xds, xds_tls, admin] = [ports.next(), ports.next(), ports.next()];
        let recipe = plan.control_plane(xds, xds_tls, admin);
        let process = Process::start(recipe, stopped.clone());
        let control_plane = ControlPlane { process, admin: loopback(admin) };
        let token = plan.data_dir.join("control-plane").join("join-token");
        let deadline = Instant::now() + START_LIMIT;
        while control_plane.process.status().phase != Phase::Ready || !token.exists() {
            check(&control_plane.process, deadline)?;
            sleep(POLL_EVERY).await;
        }
        let instances = plan.instances.iter().map(|instance| {
            let sidecar = SidecarPorts {
                control_plane: xds_tls,
                app: instance.app.as_ref().map(|_| ports.next()),
                admin: ports.next(),
                inbound: ports.next(),
                outbound: ports.next(),
            };
            plan.start_instance(instance, &sidecar, &token, &stopped)
        });
        let instances = instances.collect::<anyhow::Result<_>>()?;
        Ok(Self { control_plane, instances, stop, log_dir: plan.log_dir })
    }

    /// Waits until every process is ready, telling `progress` about it every 50 ms.
    ///
    /// # Errors
    /// When one ends again and again, or two minutes have passed; the message has the end of its log.
    pub(crate) async fn wait_until_ready(
        &self,
        mut progress: impl FnMut(&Self),
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            progress(self);
            let mut waiting = self
                .processes()
                .filter(|process| process.status().phase != Phase::Ready)
                .peekable();
            if waiting.peek().is_none() {
                return Ok(());
            }
            waiting.try_for_each(|process| check(process, deadline))?;
            sleep(POLL_EVERY).await;
        }
    }

    /// Every process, the control plane first.
    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        let instances = self.instances.iter();
        std::iter::once(&self.control_plane.process)
            .chain(instances.flat_map(|instance| instance.app.iter().chain([&instance.sidecar])))
    }

    /// How many processes ended without having been asked to, since the start.
    pub(crate) fn deaths(&self) -> u32 {
        self.processes().map(|process| process.status().deaths).sum()
    }

    /// The instances that are shown as one, in the order of the plan.
    pub(crate) fn groups(&self) -> Vec<(&str, Vec<&Instance>)> {
        let mut groups: Vec<(&str, Vec<&Instance>)> = Vec::new();
        for instance in &self.instances {
            let group = instance.plan.group.as_str();
            match groups.iter_mut().find(|(name, _)| *name == group) {
                Some((_, members)) => members.push(instance),
                None => groups.push((group, vec![instance])),
            }
        }
        groups
    }

    /// Names, process ids and ports as JSON, for scripts that want to look closer (or to break something).
    pub(crate) fn describe(&self) -> serde_json::Value {
        let pid = |process: &Process| process.status().pid;
        let instances = self.instances.iter().map(|instance| {
            json!({
                "name": instance.plan.name,
                "service": instance.plan.service,
                "group": instance.plan.group,
                "app_pid": instance.app.as_ref().and_then(pid),
                "sidecar_pid": pid(&instance.sidecar),
                "admin": instance.admin,
                "outbound": instance.outbound,
            })
        });
        json!({
            "control_plane": {
                "pid": pid(&self.control_plane.process),
                "admin": self.control_plane.admin,
            },
            "instances": instances.collect::<Vec<_>>(),
        })
    }

    /// Where the logs are.
    pub(crate) fn log_dir(&self) -> &Path {
        &self.log_dir
    }

    /// Asks every process to stop, and waits until all are gone (five seconds, then they are killed).
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        for instance in &mut self.instances {
            if let Some(app) = &mut instance.app {
                app.gone().await;
            }
            instance.sidecar.gone().await;
        }
        self.control_plane.process.gone().await;
    }
}

impl Instance {
    /// Kills app and sidecar, as the crash of a machine would.
    pub(crate) fn kill(&self) {
        for process in self.app.iter().chain([&self.sidecar]) {
            process.kill();
        }
    }

    /// Whether app and sidecar both run and answer.
    pub(crate) fn is_ready(&self) -> bool {
        self.app.iter().chain([&self.sidecar]).all(|p| p.status().phase == Phase::Ready)
    }
}

struct SidecarPorts {
    control_plane: u16,
    app: Option<u16>,
    admin: u16,
    inbound: u16,
    outbound: u16,
}

impl FleetPlan {
    fn control_plane(&self, xds: u16, xds_tls: u16, admin: u16) -> Recipe {
        let mut args = Arguments::of("control-plane");
        args.add("--config", &self.mesh_dir);
        args.add("--data-dir", self.data_dir.join("control-plane"));
        args.add("--xds-port", xds.to_string());
        args.add("--xds-tls-port", xds_tls.to_string());
        args.add("--admin-port", admin.to_string());
        self.recipe("control-plane", args, vec![], Probe::Accepts(xds_tls))
    }

    fn start_instance(
        &self,
        plan: &InstancePlan,
        ports: &SidecarPorts,
        token: &Path,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<Instance> {
        let data = self.data_dir.join(&plan.name);
        fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let sidecar = self.sidecar(plan, ports, token, &data);
        let app = plan.app.as_ref().zip(ports.app).map(|(args, port)| {
            let mut arguments = Arguments(vec!["--exit-with-stdin".into()]);
            arguments.0.extend(args.iter().map(OsString::from));
            let env = vec![
                ("PORT".to_owned(), port.to_string()),
                ("MESH_PROXY".to_owned(), format!("http://{}", loopback(ports.outbound))),
            ];
            let probe = Probe::Answers(port, "/healthz".into());
            Process::start(self.recipe(&plan.name, arguments, env, probe), stop.clone())
        });
        Ok(Instance {
            plan: plan.clone(),
            app,
            sidecar: Process::start(sidecar, stop.clone()),
            admin: loopback(ports.admin),
            outbound: loopback(ports.outbound),
        })
    }

    fn sidecar(
        &self,
        plan: &InstancePlan,
        ports: &SidecarPorts,
        token: &Path,
        data: &Path,
    ) -> Recipe {
        let mut args = Arguments::of("proxy");
        args.add("--control-plane", loopback(ports.control_plane).to_string());
        args.add("--service", &plan.service);
        args.add("--namespace", "default");
        args.add("--service-account", &plan.service);
        args.add("--name", &plan.name);
        args.add("--token-file", token);
        args.add("--data-dir", data);
        args.add("--address", Ipv4Addr::LOCALHOST.to_string());
        args.add("--admin-port", ports.admin.to_string());
        args.add("--inbound-port", ports.inbound.to_string());
        args.add("--outbound-port", ports.outbound.to_string());
        for (name, value) in &plan.labels {
            args.add("--label", format!("{name}={value}"));
        }
        if let Some(app) = ports.app {
            args.add("--app", app.to_string());
        }
        let name = format!("{}-sidecar", plan.name);
        self.recipe(&name, args, vec![], Probe::Answers(ports.admin, "/ready".into()))
    }

    fn recipe(
        &self,
        name: &str,
        args: Arguments,
        env: Vec<(String, String)>,
        probe: Probe,
    ) -> Recipe {
        Recipe {
            name: name.to_owned(),
            program: self.program.clone(),
            args: args.0,
            env,
            dir: None,
            restart: Restart::Always,
            grace: STOP_GRACE,
            leashed: true,
            keeper: None,
            log: Some(self.log_dir.join(format!("{name}.log"))),
            probe,
            check: None,
        }
    }
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn of(command: &str) -> Self {
        Self(vec!["--exit-with-stdin".into(), command.into()])
    }

    fn add(&mut self, flag: &str, value: impl Into<OsString>) {
        self.0.extend([flag.into(), value.into()]);
    }
}

/// Free ports, all different: each is held until it is handed out, right before its process starts. The processes
/// keep them when they are started again, so nobody has to learn new ones.
pub(crate) struct Ports(Vec<TcpListener>);

impl Ports {
    /// So many.
    ///
    /// # Errors
    /// When the kernel has not so many.
    pub(crate) fn take(count: usize) -> anyhow::Result<Self> {
        let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let held: io::Result<_> = (0..count).map(bind).collect();
        held.map(Self).with_context(|| format!("cannot get {count} free ports on 127.0.0.1"))
    }

    /// The next one; a panic after the last.
    pub(crate) fn next(&mut self) -> u16 {
        let listener = self.0.pop().expect("as many as were counted before");
        listener.local_addr().expect("a bound socket has an address").port()
    }
}

/// An error when `process` will not get ready any more.
fn check(process: &Process, deadline: Instant) -> anyhow::Result<()> {
    let status = process.status();
    let reason = if status.deaths >= MAX_EARLY_DEATHS {
        status.last_end.unwrap_or_default()
    } else if Instant::now() >= deadline {
        format!("not ready within {} s", START_LIMIT.as_secs())
    } else {
        return Ok(());
    };
    let tail = process.last_lines(15);
    let log = process.log.as_deref().unwrap_or_else(|| Path::new("its log")).display();
    bail!("{}: {reason}\n--- the end of {log}:\n{tail}", process.name)
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
