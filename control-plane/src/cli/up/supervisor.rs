//! Instances of processes: started after their sidecar, stopped before it, replaced one by one.

mod apply;
mod attend;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::limits;
use super::tail::{self, Line, Shown};
use crate::admin::{Status, WorkloadStatus};
use crate::cli::demo::fleet::Ports;
use crate::cli::demo::keeper::Keeper;
use crate::cli::demo::process::{Check, Phase, Probe, Process, Recipe, STOP_GRACE};
use crate::cli::demo::{http_get, own_program};
use crate::intent::{self, Restart};
use attend::Attended;

/// How long one instance may take to get ready.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A process that ends this often before it was ever ready will not get ready.
const MAX_EARLY_DEATHS: u32 = 4;
/// How long the mesh may take to learn that an instance goes.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// From the control plane's word to the last sidecar's having heard it.
const SPREAD: Duration = Duration::from_millis(300);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Supervisor {
    data_dir: PathBuf,
    log_dir: PathBuf,
    control_plane: Supervised,
    admin: SocketAddr,
    xds_tls: u16,
    groups: Mutex<Vec<Group>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    lines: mpsc::UnboundedSender<Line>,
    /// Ends the applications, if this process is killed.
    keeper: Option<Keeper>,
    /// Where limits can be set, once somebody has asked for some; or why not.
    cgroups: OnceLock<Result<limits::Groups, String>>,
    /// The access logs of sidecars are shown.
    requests: bool,
}

/// The instances of one `Process`.
#[derive(Debug)]
struct Group {
    spec: Arc<intent::Process>,
    members: Vec<Arc<Member>>,
    /// How many there are to be.
    target: usize,
    /// Number of the next instance: no name is used twice.
    next: u32,
}

/// One instance.
#[derive(Debug)]
struct Member {
    name: String,
    sidecar: Supervised,
    app: Supervised,
    port: Option<u16>,
    admin: SocketAddr,
    outbound: SocketAddr,
    started: Instant,
    /// Tells what becomes of it.
    attended: Attended,
    /// Its limits, as long as it is there.
    _group: Option<limits::Group>,
}

/// What `pillion ps` shows of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// The process.
    pub(super) process: String,
    /// The instance.
    pub(super) name: String,
    /// `starting`, `ready`, `unhealthy`, `down` or `stopped`, of application and sidecar together.
    pub(super) state: String,
    /// How often the application or its sidecar ended by themselves.
    pub(super) restarts: u32,
    /// How the application ended the last time.
    pub(super) last_end: Option<String>,
    /// Process id of the application.
    pub(super) pid: Option<u32>,
    /// Port of the application.
    pub(super) port: Option<u16>,
    /// The sidecar's admin endpoint.
    pub(super) admin: SocketAddr,
    /// Where the application reaches the mesh.
    pub(super) outbound: SocketAddr,
    /// Seconds since it was started.
    pub(super) seconds: u64,
}

/// A process with the switch that stops it.
#[derive(Debug)]
struct Supervised {
    process: Process,
    stop: watch::Sender<bool>,
}

impl Supervised {
    fn start(recipe: Recipe) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { process: Process::start(recipe, stopped), stop }
    }

    /// # Errors
    /// It ends again and again, or takes too long; the message has the end of its log.
    async fn ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let status = self.process.status();
            let ended = status.phase == Phase::Stopped;
            if status.phase == Phase::Ready || (ended && status.deaths == 0) {
                return Ok(());
            }
            let reason = if ended || status.deaths >= MAX_EARLY_DEATHS {
                status.last_end.unwrap_or_default()
            } else if Instant::now() > deadline {
                format!("not ready within {} s", START_LIMIT.as_secs())
            } else {
                sleep(POLL_EVERY).await;
                continue;
            };
            bail!("{}: {reason}\n{}", self.process.name, self.process.last_lines(15));
        }
    }

    async fn end(&self) {
        self.stop.send_replace(true);
        while self.process.status().phase != Phase::Stopped {
            sleep(POLL_EVERY).await;
        }
    }
}

impl Supervisor {
    /// Starts the control plane, and waits for it.
    ///
    /// # Errors
    /// When it does not get ready.
    pub(super) async fn start(
        (files, requests): (&Path, bool),
        data_dir: &Path,
        lines: mpsc::UnboundedSender<Line>,
    ) -> anyhow::Result<Self> {
        let log_dir = data_dir.join("logs");
        std::fs::create_dir_all(&log_dir)
            .with_context(|| format!("cannot make {}", log_dir.display()))?;
        let mut ports = Ports::take(3)?;
        let [xds, xds_tls, admin] = [ports.next(), ports.next(), ports.next()];
        let mut args = own_args("control-plane");
        for (flag, value) in [
            ("--config", files.as_os_str().to_owned()),
            ("--data-dir", data_dir.join("control-plane").into()),
            ("--xds-port", xds.to_string().into()),
            ("--xds-tls-port", xds_tls.to_string().into()),
            ("--admin-port", admin.to_string().into()),
        ] {
            args.extend([flag.into(), value]);
        }
        if requests {
            args.extend(["--access-log".into(), "/dev/stdout".into()]);
        }
        let name = "control-plane";
        let log = log_dir.join(format!("{name}.log"));
        let probe = Probe::Answers(admin, "/ready".into());
        tail::follow(name, &log, &lines, Shown::All);
        let control_plane = Supervised::start(own(name, args, log, probe));
        control_plane.ready().await?;
        Ok(Self {
            data_dir: data_dir.to_owned(),
            log_dir,
            control_plane,
            admin: loopback(admin),
            xds_tls,
            groups: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            lines,
            keeper: Some(Keeper::start(&own_program()).context("cannot start a keeper")?),
            cgroups: OnceLock::new(),
            requests,
        })
    }

    /// Starts the instances of a process, and waits until they are ready.
    ///
    /// # Errors
    /// When one does not get ready.
    pub(super) async fn add(&self, spec: Arc<intent::Process>) -> anyhow::Result<()> {
        let _one = self.changing.lock().await;
        let name = spec.name.name.clone();
        let target = spec.instances as usize;
        self.groups().push(Group { spec, members: Vec::new(), target, next: 1 });
        self.grow(&name, target).await
    }

    /// # Errors
    /// There is no such process, or a new instance does not get ready.
    pub(super) async fn scale(&self, name: &str, instances: usize) -> anyhow::Result<()> {
        let _one = self.changing.lock().await;
        find(&mut self.groups(), name)?.target = instances;
        self.grow(name, instances).await?;
        loop {
            let last = {
                let mut groups = self.groups();
                let group = find(&mut groups, name)?;
                if group.members.len() > instances { group.members.pop() } else { None }
            };
            match last {
                Some(member) => self.retire(&member).await,
                None => return Ok(()),
            }
        }
    }

    /// Replaces every instance, one at a time: the new one takes traffic before the old one leaves.
    ///
    /// # Errors
    /// There is no such process, or a new instance does not get ready: then the old ones stay.
    pub(super) async fn restart(&self, name: &str) -> anyhow::Result<()> {
        let _one = self.changing.lock().await;
        let old = {
            let mut groups = self.groups();
            find(&mut groups, name)?.members.clone()
        };
        for member in old {
            let fresh = self.launch(name).await?;
            {
                let mut groups = self.groups();
                let members = &mut find(&mut groups, name)?.members;
                members.retain(|one| one.name != member.name);
                members.push(fresh);
            }
            self.retire(&member).await;
        }
        Ok(())
    }

    /// Every instance.
    pub(super) fn rows(&self) -> Vec<Row> {
        let groups = self.groups();
        let all = groups
            .iter()
            .flat_map(|group| group.members.iter().map(|member| member.row(&group.spec.name.name)));
        all.collect()
    }

    /// Where the control plane answers people.
    pub(super) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Stops everything: applications before their sidecars, the control plane last.
    pub(super) async fn stop(&self) {
        let members: Vec<_> = self.groups().drain(..).flat_map(|group| group.members).collect();
        let ends = members.iter().map(|member| async move {
            member.attended.stop();
            member.app.end().await;
            member.sidecar.end().await;
        });
        futures_util::future::join_all(ends).await;
        self.control_plane.end().await;
    }

    /// A line of our own among those of the processes.
    pub(super) fn say(&self, text: &str) {
        let _ = self.lines.send(Line::own(text));
    }

    async fn grow(&self, name: &str, instances: usize) -> anyhow::Result<()> {
        loop {
            let missing = {
                let mut groups = self.groups();
                find(&mut groups, name)?.members.len() < instances
            };
            if !missing {
                return Ok(());
            }
            let member = self.launch(name).await?;
            find(&mut self.groups(), name)?.members.push(member);
        }
    }

    /// A new instance that takes traffic.
    async fn launch(&self, name: &str) -> anyhow::Result<Arc<Member>> {
        let (spec, number) = {
            let mut groups = self.groups();
            let group = find(&mut groups, name)?;
            group.next += 1;
            (Arc::clone(&group.spec), group.next - 1)
        };
        let instance = format!("{name}-{number}");
        let mut ports = Ports::take(4)?;
        let [admin, inbound, outbound] = [ports.next(), ports.next(), ports.next()];
        let port = spec.listens.then(|| ports.next());
        let sidecar = self.sidecar(&spec, &instance, [admin, inbound, outbound], port)?;
        let sidecar = Supervised::start(sidecar);
        sidecar.ready().await?;
        let (recipe, group) = self.limited(&spec, self.app(&spec, &instance, outbound, port));
        self.show(&instance);
        if recipe.check.is_some() {
            // A port that accepts is not enough here.
            attend::tell(loopback(admin), false).await;
        }
        let app = Supervised::start(recipe);
        let attended = self.attend(&spec, (&app.process, &sidecar.process), loopback(admin));
        let started = Instant::now();
        let member = Member {
            name: instance,
            sidecar,
            app,
            port,
            admin: loopback(admin),
            outbound: loopback(outbound),
            started,
            attended,
            _group: group,
        };
        if let Err(error) = member.app.ready().await {
            member.app.end().await;
            member.sidecar.end().await;
            return Err(error);
        }
        if port.is_some() {
            self.known(&member.name, true, START_LIMIT).await;
        }
        self.say(&format!("{} is ready", member.name));
        Ok(Arc::new(member))
    }

    /// What the instance writes, and if that was asked for, the requests that its sidecar saw.
    fn show(&self, instance: &str) {
        let log = |name: &str| self.log_dir.join(format!("{name}.log"));
        tail::follow(instance, &log(instance), &self.lines, Shown::All);
        if self.requests {
            let sidecar = format!("{instance}-sidecar");
            tail::follow(&sidecar, &log(&sidecar), &self.lines, Shown::Json);
        }
    }

    /// The recipe, in a control group where limits are asked for and allowed.
    fn limited(
        &self,
        spec: &intent::Process,
        mut recipe: Recipe,
    ) -> (Recipe, Option<limits::Group>) {
        if spec.limits == intent::Limits::default() {
            return (recipe, None);
        }
        let groups = self.cgroups.get_or_init(limits::Groups::open).as_ref();
        let made = groups.map_err(Clone::clone);
        let group = match made.and_then(|groups| groups.make(&recipe.name, spec.limits)) {
            Ok(group) => group,
            Err(why) => {
                self.say(&format!("{} runs without limits: {why}", recipe.name));
                return (recipe, None);
            }
        };
        let program = std::mem::replace(&mut recipe.program, own_program());
        let before = std::iter::once("__in-group".into()).chain(group.arguments());
        recipe.args = before.chain([program.into()]).chain(recipe.args).collect();
        (recipe, Some(group))
    }

    /// Out of the endpoints first, then the application, then its sidecar.
    async fn retire(&self, member: &Member) {
        member.attended.stop();
        if member.port.is_some() && http_get::post(member.admin, "/healthcheck/fail").await.is_ok()
        {
            self.known(&member.name, false, LEAVE_LIMIT).await;
            sleep(SPREAD).await;
        }
        member.app.end().await;
        member.sidecar.end().await;
        self.say(&format!("{} is gone", member.name));
    }

    /// Waits until the control plane gives this instance to others, or does not any more.
    async fn known(&self, instance: &str, wanted: bool, limit: Duration) {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            let reply = http_get::get(self.admin, "/api/v1/status").await;
            let status: Option<Status> =
                reply.ok().and_then(|reply| serde_json::from_slice(&reply.body).ok());
            let known = status.is_some_and(|status| {
                let name =
                    |workload: &WorkloadStatus| workload.name.rsplit('/').next().map(str::to_owned);
                let named =
                    |workload: &&WorkloadStatus| name(workload).as_deref() == Some(instance);
                status.workloads.iter().find(named).is_some_and(|workload| workload.ready)
            });
            if known == wanted {
                return;
            }
            sleep(POLL_EVERY).await;
        }
    }

    fn sidecar(
        &self,
        spec: &intent::Process,
        instance: &str,
        [admin, inbound, outbound]: [u16; 3],
        port: Option<u16>,
    ) -> anyhow::Result<Recipe> {
        let data = self.data_dir.join("sidecars").join(instance);
        std::fs::create_dir_all(&data)
            .with_context(|| format!("cannot make {}", data.display()))?;
        let mut args = own_args("proxy");
        let mut add = |flag: &str, value: OsString| args.extend([flag.into(), value]);
        add("--control-plane", loopback(self.xds_tls).to_string().into());
        add("--token-file", self.data_dir.join("control-plane/join-token").into());
        add("--data-dir", data.into());
        add("--service", spec.service.clone().into());
        add("--namespace", spec.name.namespace.clone().into());
        add("--service-account", spec.service_account.clone().into());
        add("--name", instance.into());
        add("--admin-port", admin.to_string().into());
        add("--inbound-port", inbound.to_string().into());
        add("--outbound-port", outbound.to_string().into());
        for (key, value) in &spec.labels {
            add("--label", format!("{key}={value}").into());
        }
        if let Some(port) = port {
            add("--app", port.to_string().into());
        }
        let name = format!("{instance}-sidecar");
        let log = self.log_dir.join(format!("{name}.log"));
        Ok(own(&name, args, log, Probe::Answers(admin, "/ready".into())))
    }

    fn app(
        &self,
        spec: &intent::Process,
        instance: &str,
        outbound: u16,
        port: Option<u16>,
    ) -> Recipe {
        let proxy = format!("http://{}", loopback(outbound));
        let mut env: Vec<(String, String)> = ["HTTP_PROXY", "http_proxy", "MESH_PROXY"]
            .map(|name| (name.to_owned(), proxy.clone()))
            .into();
        for name in ["NO_PROXY", "no_proxy"] {
            env.push((name.to_owned(), "localhost,127.0.0.1,::1".to_owned()));
        }
        env.push(("PILLION_INSTANCE".to_owned(), instance.to_owned()));
        env.extend(port.map(|port| ("PORT".to_owned(), port.to_string())));
        env.extend(spec.env.clone());
        let probe = match (port, &spec.health) {
            (None, _) => Probe::Runs,
            (Some(port), None) => Probe::Accepts(port),
            (Some(port), Some(health)) => Probe::Answers(port, health.path.clone().into()),
        };
        let check = spec
            .health
            .as_ref()
            .filter(|_| port.is_some())
            .map(|health| Check { every: health.interval, failures: health.unhealthy_threshold });
        Recipe {
            name: instance.to_owned(),
            program: program(&spec.command[0]),
            args: spec.command[1..].iter().map(OsString::from).collect(),
            env,
            dir: spec.working_dir.as_ref().map(PathBuf::from),
            log: Some(self.log_dir.join(format!("{instance}.log"))),
            probe,
            check,
            restart: spec.restart,
            grace: spec.grace,
            leashed: false,
            keeper: self.keeper.clone(),
        }
    }

    fn groups(&self) -> MutexGuard<'_, Vec<Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn row(&self, process: &str) -> Row {
        let (app, sidecar) = (self.app.process.status(), self.sidecar.process.status());
        let worse = |phase: Phase| match phase {
            Phase::Ready => (0, "ready"),
            Phase::Starting => (1, "starting"),
            Phase::Unwell => (2, "unhealthy"),
            Phase::Down => (3, "down"),
            Phase::Stopped => (4, "stopped"),
        };
        let (_, state) = worse(app.phase).max(worse(sidecar.phase));
        Row {
            process: process.to_owned(),
            name: self.name.clone(),
            state: state.to_owned(),
            restarts: app.deaths + sidecar.deaths,
            last_end: app.last_end,
            pid: app.pid,
            port: self.port,
            admin: self.admin,
            outbound: self.outbound,
            seconds: self.started.elapsed().as_secs(),
        }
    }
}

fn find<'a>(groups: &'a mut [Group], name: &str) -> anyhow::Result<&'a mut Group> {
    let names: Vec<String> = groups.iter().map(|group| group.spec.name.name.clone()).collect();
    groups
        .iter_mut()
        .find(|group| group.spec.name.name == name)
        .with_context(|| format!("no process `{name}`: expected one of {}", names.join(", ")))
}

/// One of our own programs: it goes when we go.
fn own(name: &str, args: Vec<OsString>, log: PathBuf, probe: Probe) -> Recipe {
    Recipe {
        name: name.to_owned(),
        program: own_program(),
        args,
        env: Vec::new(),
        dir: None,
        log: Some(log),
        probe,
        check: None,
        restart: Restart::Always,
        grace: STOP_GRACE + Duration::from_secs(3),
        leashed: true,
        keeper: None,
    }
}

fn own_args(command: &str) -> Vec<OsString> {
    vec!["--exit-with-stdin".into(), command.into()]
}

/// A program without a slash may lie beside `pillion`; else `PATH` has it.
fn program(written: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(written));
    match beside {
        Some(path) if !written.contains('/') && path.is_file() => path,
        _ => written.into(),
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
