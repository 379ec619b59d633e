//! The running proxy: what is started in which order, and how it leaves.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Logs;
use super::attend;
use super::flags::Flags;
use super::hot_restart::{self, Heritage};
use super::loggers::Loggers;
use super::own_ports;
use super::publish;
use super::scarce;
use super::server_stats;
use super::sidecar;
use super::signals::{Asked, Signals};
use super::spans;
use super::state::State;
use super::systemd::Notifier;
use crate::cluster::Clusters;
use crate::cluster::grpc::Channel;
use crate::model::Name;
use crate::net::drain::{Drain, Watch};
use crate::serve::{Context, Overload, Server};
use crate::telemetry::access_log::Sinks;
use crate::telemetry::access_log::remote::{self, Waiting};
use crate::telemetry::environment;
use crate::telemetry::export;
use crate::telemetry::stats::{Counter, Registry};
use crate::telemetry::trace::{FinishedSpan, SpanQueue};
use crate::tls::identity::{CERTIFICATE_SECRET, TRUST_SECRET};
use crate::xds::access_log::Entries;
use crate::xds::client::{Around, Client, Command};
use crate::xds::kind::Kind;
use crate::xds::last_good::LastGood;
use crate::xds::load_report::Reporter;
use crate::xds::local::Everything;
use crate::xds::status::Status;
use crate::xds::store::Store;
use crate::xds::translate::Resource;
use crate::xds::translate::bootstrap::Bootstrap;
use crate::xds::{dump, identity, keep, register};

/// How long giving the lease back may take.
const DEREGISTER: Duration = Duration::from_millis(2500);

/// Everything of a running proxy.
pub(super) struct Proxy {
    state: Arc<State>,
    spans: Option<(mpsc::Receiver<FinishedSpan>, (Counter, Counter))>,
    entries: Option<(Waiting, Arc<Entries>)>,
    /// Told to those that leave first: registration.
    leaving: Drain,
    /// Facts about the process among the metrics.
    _facts: Arc<dyn std::fmt::Debug + Send + Sync>,
    /// Hears whether we are ready, and alive.
    manager: Notifier,
    /// Resources from this very process.
    given: Option<watch::Receiver<Arc<Everything>>>,
    /// Told what is scarce.
    overload: Arc<Overload>,
}

/// What `/server_info` says of the command line, under Envoy's names. The text of `--config-yaml` may have keys in
/// it, and stays out.
fn options(flags: &Flags, concurrency: usize, epoch: u32) -> serde_json::Value {
    serde_json::json!({
        "concurrency": concurrency,
        "config_path": flags.config.as_deref().unwrap_or_else(|| Path::new("")),
        "allow_unknown_static_fields": flags.allow_unknown_static_fields,
        "log_level": flags.log_level,
        "drain_time": format!("{}s", flags.drain_time_s),
        "drain_strategy": "Immediate",
        "parent_shutdown_time": format!("{}s", flags.parent_shutdown_time_s),
        "mode": "Serve",
        "disable_hot_restart": flags.hot_restart_socket.is_none(),
        "restart_epoch": epoch,
    })
}

impl Proxy {
    pub(super) fn new(
        bootstrap: &Bootstrap,
        workers: Vec<Handle>,
        (flags, logs): (&Flags, Option<Logs>),
        heritage: &Heritage,
    ) -> Self {
        let registry = Registry::with(bootstrap.stats.clone());
        registry.scope("server", None).gauge("hot_restart_epoch").set(heritage.epoch.into());
        let clusters = Clusters::in_zone(
            &registry,
            workers.len(),
            bootstrap.locality.clone(),
            bootstrap.local_cluster.clone(),
        );
        remember(bootstrap);
        let encode = Arc::new(Entries::new(bootstrap.node.clone()));
        let (sinks, entries) = Sinks::new(&registry, encode.clone());
        let (queue, spans) = SpanQueue::new(&registry);
        let outcomes = queue.outcomes();
        let context = Context::new(
            clusters.clone(),
            registry.clone(),
            (sinks.clone(), queue),
            bootstrap.node.cluster.as_str().into(),
            Overload::new(bootstrap.overload.as_ref()),
        );
        let (own, overload) = (Arc::clone(&context.own), Arc::clone(&context.overload));
        let concurrency = workers.len();
        let state = State {
            options: options(flags, concurrency, heritage.epoch),
            loggers: Loggers::new(logs),
            server: Arc::new(Server::new(context, workers, Arc::clone(&heritage.inherited))),
            registry,
            clusters,
            sinks,
            status: Arc::new(Status::default()),
            node: dump::node(&bootstrap.node),
            bootstrap: bootstrap.source.clone(),
            started: Instant::now(),
            published: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            own,
            quit: Notify::new(),
            drain_time: Duration::from_secs(flags.drain_time_s),
            deregister: Notify::new(),
            in_charge: CancellationToken::new(),
            succeeded: CancellationToken::new(),
            own_sockets: Mutex::default(),
            trouble: Mutex::default(),
            unknown_fields: bootstrap.unknown_fields,
            fixed: publish::static_listeners(bootstrap),
            fatal: Mutex::default(),
        };
        // Whatever comes from now on is bytes.
        dump::forget();
        let (state, leaving) = (Arc::new(state), Drain::new());
        let facts = server_stats::show(&state, concurrency);
        Self {
            state,
            spans: Some((spans, outcomes)),
            entries: Some((entries, encode)),
            leaving,
            _facts: facts,
            manager: Notifier::from_env(),
            given: None,
            overload,
        }
    }

    /// Tell the service manager how things are, as long as all of these threads are alive.
    pub(super) fn attend(&self, workers: Vec<Handle>, epoch: u32) {
        let (manager, state) = (self.manager.clone(), Arc::clone(&self.state));
        tokio::spawn(async move {
            state.in_charge.cancelled().await;
            if epoch > 0 {
                manager.main_process();
            }
            let attending = attend::attend(manager, Arc::clone(&state), workers);
            state.succeeded.run_until_cancelled(attending).await;
        });
    }

    /// Resources come from this very process; the listeners among the first of them must be there from the start.
    pub(super) fn given(mut self, given: Option<watch::Receiver<Arc<Everything>>>) -> Self {
        if let (Some(given), Some(state)) = (&given, Arc::get_mut(&mut self.state)) {
            let first = given.borrow();
            let listeners = first.0.iter().filter(|one| one.kind == Kind::Listener);
            state.fixed.extend(listeners.map(|one| Name::from(one.name.as_str())));
        }
        self.given = given;
        self
    }

    /// Serve until a signal, `/quitquitquit` or a successor says otherwise.
    pub(super) async fn run(
        mut self,
        flags: &Flags,
        bootstrap: Bootstrap,
        plan: Option<sidecar::Plan>,
        heritage: Heritage,
    ) -> Result<(), String> {
        own_ports::start_admin(&self.state, &bootstrap, &heritage)?;
        own_ports::start_health(&self.state, flags, plan.as_ref(), &heritage)?;
        if let Some((spans, outcomes)) = self.spans.take() {
            let sender = spans::Sender(self.state.clusters.clone());
            tokio::spawn(export::run(spans, sender, outcomes));
        }
        if let Some((entries, encode)) = self.entries.take() {
            let sender = spans::Sender(self.state.clusters.clone());
            tokio::spawn(remote::run(entries, encode, sender));
        }
        tokio::spawn(publish::watch_files(Arc::clone(&self.state)));
        if let Some(manager) = bootstrap.overload.clone() {
            let (overload, registry) = (Arc::clone(&self.overload), self.state.registry.clone());
            tokio::spawn(scarce::watch(manager, overload, registry));
        }
        if let Some(path) = flags.hot_restart_socket.clone() {
            let instance = plan.as_ref().map(|plan| plan.instance.clone());
            let own = hot_restart::Own { instance, whose: hot_restart::whose(flags) };
            tokio::spawn(hot_restart::attend(path, heritage, Arc::clone(&self.state), own));
        } else {
            self.state.in_charge.cancel();
        }
        let mut signals = Signals::new()?;
        let state = Arc::clone(&self.state);
        let mut working = Box::pin(self.work(flags, bootstrap, plan));
        tokio::select! {
            () = &mut working => {}
            () = self.until_told(&mut signals, flags) => {}
        }
        if let Some(why) = state.fatal.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(why);
        }
        // The control plane's stream stays until the lease has been given back.
        tokio::select! {
            () = &mut working => {}
            () = self.leave(&mut signals, flags) => {}
        }
        Ok(())
    }

    /// Does what signals and the admin endpoint ask for, until that is to leave.
    async fn until_told(&self, signals: &mut Signals, flags: &Flags) {
        let (state, program) = (&self.state, hot_restart::program());
        loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::End => return,
                    Asked::Reopen => state.sinks.reopen(),
                    Asked::Upgrade => upgrade(flags, &program, state),
                },
                () = state.quit.notified() => return,
                () = state.succeeded.cancelled() => return,
                () = state.deregister.notified() => self.leaving.start(),
            }
        }
    }

    /// Bring up static and dynamic resources, and follow the control plane for ever.
    async fn work(&self, flags: &Flags, bootstrap: Bootstrap, plan: Option<sidecar::Plan>) {
        let (news, commands) = mpsc::channel(16);
        let mut store = Store::default();
        if let Some(folder) = &flags.data_dir
            && let Err(error) = std::fs::create_dir_all(folder)
        {
            tracing::warn!(path = %folder.display(), %error, "cannot make the data folder");
        }
        for resource in bootstrap.resources {
            store.fix(resource);
        }
        if let Some(plan) = &plan {
            store.own_secrets([Name::from(CERTIFICATE_SECRET), Name::from(TRUST_SECRET)]);
            self.identify(flags, plan, &mut store, news.clone()).await;
        }
        let publish = publish::publisher(Arc::clone(&self.state));
        if let Some(stream) = bootstrap.load_stats {
            let (clusters, registry) = (self.state.clusters.clone(), &self.state.registry);
            let reporter = Reporter::new(stream, clusters, &bootstrap.node, registry);
            tokio::spawn(reporter.run());
        }
        let around = Around {
            registry: self.state.registry.clone(),
            status: Arc::clone(&self.state.status),
            clusters: self.state.clusters.clone(),
            node: Arc::new(bootstrap.node),
        };
        let mut client = Client::new(store, publish, commands, around);
        client.follow(&bootstrap.dynamic, flags.data_dir.as_deref().map(LastGood::new));
        if let Some(workload) = plan.and_then(|plan| plan.workload) {
            let channel = self.channel(sidecar::CLUSTER, None);
            let (state, watch) = (Arc::clone(&self.state), self.leaving.watch());
            let succeeded = state.succeeded.clone();
            let registering = register_when_ready(workload, channel, state, watch);
            // A successor has the same name: the lease is its own to renew and to give back.
            tokio::spawn(succeeded.run_until_cancelled_owned(registering));
        }
        if let Some(mut given) = self.given.clone() {
            client.begin_with(&given.borrow_and_update().clone());
            tokio::spawn(pass_on(given, news.clone()));
        }
        client.run().await;
        // Nobody sends commands any more only when the proxy is going.
        drop(news);
        std::future::pending::<()>().await;
    }

    fn channel(&self, cluster: &str, authority: Option<&str>) -> Channel {
        Channel::new(self.state.clusters.clone(), Name::from(cluster), authority)
    }

    /// Get an identity: from the control plane, else the one on disk; wait until there is one.
    async fn identify(
        &self,
        flags: &Flags,
        plan: &sidecar::Plan,
        store: &mut Store,
        news: mpsc::Sender<Command>,
    ) {
        let folder = flags.data_dir.clone();
        let identity = first_identity(&plan.joining, folder.as_ref()).await;
        tracing::info!(spiffe_id = identity.spiffe_id, "identity is ready");
        store.accept(Resource::Secret(Arc::clone(&identity.certificate)));
        store.accept(Resource::Secret(Arc::clone(&identity.trust)));
        let channel = self.channel(sidecar::CLUSTER, None);
        tokio::spawn(identity::keep_fresh(identity, plan.joining.clone(), channel, folder, news));
    }

    /// Deregister, stop accepting, let requests finish, write what is left to write.
    async fn leave(&self, signals: &mut Signals, flags: &Flags) {
        self.state.draining.store(true, Ordering::Relaxed);
        let cut = if self.state.succeeded.is_cancelled() {
            let limit = Duration::from_secs(flags.parent_shutdown_time_s);
            tracing::info!(?limit, "another process took over; connections here may finish");
            tokio::select! {
                cut = self.state.server.drain(limit) => cut,
                () = signals.end() => 0,
            }
        } else {
            let limit = Duration::from_secs(flags.drain_time_s);
            self.manager.stopping();
            tracing::info!(?limit, "draining");
            self.leaving.run(DEREGISTER).await;
            self.state.server.drain_in_order(limit).await
        };
        if cut > 0 {
            tracing::warn!(connections = cut, "the drain time is over; closed what was left");
        }
        self.state.sinks.flush();
        self.state.sinks.flush_services().await;
    }
}

/// What formats may name.
fn remember(bootstrap: &Bootstrap) {
    let node = &bootstrap.node;
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let zone = node.locality.as_ref().map_or_else(String::new, |locality| locality.zone.clone());
    let (id, cluster) = (node.id.clone(), node.cluster.clone());
    environment::remember(variables, environment::Node { id, cluster, zone });
}

async fn pass_on(mut given: watch::Receiver<Arc<Everything>>, news: mpsc::Sender<Command>) {
    while given.changed().await.is_ok() {
        let all = Arc::clone(&given.borrow_and_update());
        if news.send(Command::Everything(all)).await.is_err() {
            return;
        }
    }
}

/// What SIGUSR2 asks for.
fn upgrade(flags: &Flags, program: &Path, state: &Arc<State>) {
    if flags.hot_restart_socket.is_none() {
        tracing::warn!("SIGUSR2 asks for a hot restart: it needs --hot-restart-socket");
    } else if let Err(error) = hot_restart::start_successor(program, Arc::clone(state)) {
        tracing::error!(error, "cannot start a successor; going on");
    }
}

async fn first_identity(
    joining: &identity::Joining,
    folder: Option<&PathBuf>,
) -> crate::tls::identity::Identity {
    let mut wait = Duration::from_millis(200);
    loop {
        match identity::join(joining).await {
            Ok(identity) => {
                if let Some(folder) = folder {
                    keep::save(folder, &identity);
                }
                return identity;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot get an identity from the control plane");
            }
        }
        if let Some(kept) = folder.and_then(|folder| keep::load(folder, &joining.path())) {
            tracing::info!(spiffe_id = kept.spiffe_id, "going on with the identity on disk");
            return kept;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(10));
    }
}

async fn register_when_ready(
    workload: register::Workload,
    channel: Channel,
    state: Arc<State>,
    drain: Watch,
) {
    // Held until the lease is given back, so that a drain waits for that.
    let _guard = drain.guard();
    while state.waiting_for().is_some() && !drain.is_draining() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let well = || !state.own.is_failing();
    register::run(workload, channel, drain, well).await;
}
