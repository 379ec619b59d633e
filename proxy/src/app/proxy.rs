//! The running proxy: what is started in which order, and how it leaves.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};

use super::Logs;
use super::attend;
use super::flags::Flags;
use super::health;
use super::sidecar;
use super::spans;
use super::state::State;
use super::systemd::Notifier;
use crate::admin::{self, Source};
use crate::cluster::Clusters;
use crate::cluster::grpc::Channel;
use crate::model::{Changes, Name, Snapshot};
use crate::net::drain::{Drain, Watch};
use crate::serve::{Context, ListenerError, Server};
use crate::telemetry::access_log::Sinks;
use crate::telemetry::export;
use crate::telemetry::stats::{Counter, Registry};
use crate::telemetry::trace::{FinishedSpan, SpanQueue};
use crate::tls::files;
use crate::tls::identity::{CERTIFICATE_SECRET, TRUST_SECRET};
use crate::xds::client::{Client, Command, Publish};
use crate::xds::kind::Kind;
use crate::xds::last_good::LastGood;
use crate::xds::local::Everything;
use crate::xds::status::Status;
use crate::xds::store::Store;
use crate::xds::translate::Resource;
use crate::xds::translate::bootstrap::Bootstrap;
use crate::xds::{identity, keep, register};

/// How long giving the lease back may take.
const DEREGISTER: Duration = Duration::from_millis(2500);

/// Everything of a running proxy.
pub(super) struct Proxy {
    state: Arc<State>,
    spans: Option<(mpsc::Receiver<FinishedSpan>, (Counter, Counter))>,
    /// Told to those that leave first: registration.
    leaving: Drain,
    /// Hears whether we are ready, and alive.
    manager: Notifier,
    /// Resources from this very process.
    given: Option<watch::Receiver<Arc<Everything>>>,
}

impl Proxy {
    pub(super) fn new(
        bootstrap: &Bootstrap,
        workers: Vec<Handle>,
        flags: &Flags,
        logs: Option<Logs>,
    ) -> Self {
        let registry = Registry::new();
        let clusters = Clusters::new(&registry, workers.len());
        let sinks = Sinks::new(&registry);
        let (queue, spans) = SpanQueue::new(&registry);
        let outcomes = queue.outcomes();
        let context = Context::new(clusters.clone(), registry.clone(), sinks.clone(), queue);
        let state = State {
            options: serde_json::json!({
                "concurrency": workers.len(),
                "config_path": flags.config,
                "drain_time": format!("{}s", flags.drain_time_s),
            }),
            logs,
            server: Arc::new(Server::new(context, workers)),
            registry,
            clusters,
            sinks,
            status: Arc::new(Status::default()),
            node: bootstrap.node.clone(),
            bootstrap: bootstrap.source.clone(),
            started: Instant::now(),
            published: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            quit: Notify::new(),
            drain: Notify::new(),
            deregister: Notify::new(),
            trouble: Mutex::default(),
            fixed: static_listeners(bootstrap),
            fatal: Mutex::default(),
        };
        let (state, leaving) = (Arc::new(state), Drain::new());
        let manager = Notifier::from_env();
        Self { state, spans: Some((spans, outcomes)), leaving, manager, given: None }
    }

    /// Tell the service manager how things are, as long as all of these threads are alive.
    pub(super) fn attend(&self, workers: Vec<Handle>) {
        tokio::spawn(attend::attend(self.manager.clone(), Arc::clone(&self.state), workers));
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

    /// Serve until a signal, or `/quitquitquit`, says otherwise.
    pub(super) async fn run(
        mut self,
        flags: &Flags,
        bootstrap: Bootstrap,
        plan: Option<sidecar::Plan>,
    ) -> Result<(), String> {
        self.start_admin(&bootstrap)?;
        self.start_health(flags, plan.as_ref()).await?;
        if let Some((spans, outcomes)) = self.spans.take() {
            let sender = spans::Sender(self.state.clusters.clone());
            tokio::spawn(export::run(spans, sender, outcomes));
        }
        tokio::spawn(watch_files(Arc::clone(&self.state)));
        let mut terminate = on(SignalKind::terminate())?;
        let mut interrupt = on(SignalKind::interrupt())?;
        let mut reopen = on(SignalKind::user_defined1())?;
        let state = Arc::clone(&self.state);
        let limit = Duration::from_secs(flags.drain_time_s);
        let mut working = Box::pin(self.work(flags, bootstrap, plan));
        loop {
            tokio::select! {
                () = &mut working => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = state.quit.notified() => break,
                () = state.drain.notified() => {
                    state.server.drain(limit).await;
                }
                () = state.deregister.notified() => self.leaving.start(),
                _ = reopen.recv() => state.sinks.reopen(),
            }
        }
        if let Some(why) = state.fatal.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(why);
        }
        // The control plane's stream stays until the lease has been given back.
        tokio::select! {
            () = &mut working => {}
            () = self.leave(limit) => {}
        }
        Ok(())
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
        let publish = publisher(Arc::clone(&self.state));
        let status = Arc::clone(&self.state.status);
        let mut client = Client::new(store, publish, commands, &self.state.registry, status);
        if let Some(ads) = bootstrap.ads {
            let kinds = [(ads.clusters, Kind::Cluster), (ads.listeners, Kind::Listener)];
            self.state.status.expect(kinds.into_iter().filter(|(on, _)| *on).map(|(_, k)| k));
            let authority = (!ads.authority.is_empty()).then_some(&*ads.authority);
            let channel = self.channel(&ads.cluster, authority);
            let last_good = flags.data_dir.as_deref().map(LastGood::new);
            client.follow(ads, bootstrap.node, channel, last_good);
        }
        if let Some(workload) = plan.and_then(|plan| plan.workload) {
            let channel = self.channel(sidecar::CLUSTER, None);
            let (state, watch) = (Arc::clone(&self.state), self.leaving.watch());
            tokio::spawn(register_when_ready(workload, channel, state, watch));
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

    fn start_admin(&self, bootstrap: &Bootstrap) -> Result<(), String> {
        let Some(address) = bootstrap.admin else { return Ok(()) };
        let listener = std::net::TcpListener::bind(address)
            .map_err(|error| format!("admin: cannot bind {address}: {error}"))?;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "admin endpoint");
        }
        let source: Arc<dyn Source> = self.state.clone();
        tokio::spawn(async move {
            if let Err(error) = admin::serve(listener, source, std::future::pending()).await {
                tracing::error!(%error, "the admin endpoint ended");
            }
        });
        Ok(())
    }

    async fn start_health(
        &self,
        flags: &Flags,
        plan: Option<&sidecar::Plan>,
    ) -> Result<(), String> {
        let probes = health::probes(&flags.app_probes)?;
        let Some(port) = flags.health_port else { return Ok(()) };
        let own = plan.map(|plan| plan.address).or(flags.sidecar.address);
        let address = own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let listener = tokio::net::TcpListener::bind((address, port))
            .await
            .map_err(|error| format!("--health-port {port}: cannot bind: {error}"))?;
        let source: Arc<dyn Source> = self.state.clone();
        tokio::spawn(health::serve(listener, source, probes));
        Ok(())
    }

    /// Deregister, stop accepting, let requests finish, write what is left to write.
    async fn leave(&self, limit: Duration) {
        self.state.draining.store(true, Ordering::Relaxed);
        self.manager.stopping();
        tracing::info!(?limit, "draining");
        self.leaving.run(DEREGISTER).await;
        let cut = self.state.server.drain(limit).await;
        if cut > 0 {
            tracing::warn!(connections = cut, "the drain time is over; closed what was left");
        }
        self.state.sinks.flush();
    }
}

async fn pass_on(mut given: watch::Receiver<Arc<Everything>>, news: mpsc::Sender<Command>) {
    while given.changed().await.is_ok() {
        let all = Arc::clone(&given.borrow_and_update());
        if news.send(Command::Everything(all)).await.is_err() {
            return;
        }
    }
}

fn on(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|error| format!("cannot listen for signals: {error}"))
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

/// What is done with every new snapshot: clusters first, then the listeners that use them.
fn publisher(state: Arc<State>) -> Publish {
    Box::new(move |snapshot: Snapshot, changes: &Changes| {
        state.clusters.publish(snapshot, changes);
        let errors = state.server.apply(&state.clusters.load(), changes);
        let first = !state.published.swap(true, Ordering::AcqRel);
        if first && let Some(error) = errors.iter().find(|error| is_fatal(&state, error)) {
            *state.fatal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            state.quit.notify_one();
            return;
        }
        report(&state, &errors);
    })
}

/// As in Envoy, what the bootstrap itself asks for must be there from the start.
fn is_fatal(state: &State, error: &ListenerError) -> bool {
    !error.is_waiting() && state.fixed.contains(error.listener())
}

fn static_listeners(bootstrap: &Bootstrap) -> Vec<Name> {
    let name = |resource: &Resource| match resource {
        Resource::Listener(listener) => Some(Arc::clone(&listener.name)),
        _ => None,
    };
    bootstrap.resources.iter().filter_map(name).collect()
}

fn report(state: &State, errors: &[ListenerError]) {
    for error in errors {
        if error.is_waiting() {
            tracing::info!(%error, "the listener waits");
        } else {
            tracing::error!(%error, "the listener cannot be served; the others go on");
        }
    }
    let mut trouble = state.trouble.lock().unwrap_or_else(PoisonError::into_inner);
    *trouble = errors.iter().map(ToString::to_string).collect();
}

/// Certificates in files are read again when they change, and when they are new: between loading and the first look
/// they may have changed as well.
async fn watch_files(state: Arc<State>) {
    let mut watch = files::FileWatch::new([]);
    loop {
        let known: Vec<PathBuf> = watch.paths().map(Path::to_owned).collect();
        watch.set(certificate_files(&state.clusters.load().snapshot));
        let is_new = watch.paths().any(|path| !known.iter().any(|one| one == path));
        let changed = watch.poll();
        for path in &changed {
            tracing::info!(path = %path.display(), "a certificate file changed");
        }
        if is_new || !changed.is_empty() {
            state.clusters.reload_tls();
            let live = state.clusters.load();
            let mut errors = state.server.renew(&live.snapshot);
            errors.extend(state.server.start_missing(&live));
            report(&state, &errors);
        }
        tokio::time::sleep(files::DEFAULT_INTERVAL).await;
    }
}

fn certificate_files(snapshot: &Snapshot) -> Vec<PathBuf> {
    let clusters = snapshot.clusters.values().filter_map(|one| one.tls.as_ref());
    let upstream = clusters.flat_map(|tls| files::of_context(&tls.common, &snapshot.secrets));
    let listeners = snapshot.listeners.values();
    let chains =
        listeners.flat_map(|one| one.filter_chains.iter().chain(&one.default_filter_chain));
    let downstream = chains
        .filter_map(|chain| chain.tls.as_ref())
        .flat_map(|tls| files::of_context(&tls.common, &snapshot.secrets));
    upstream.chain(downstream).collect()
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
    let well = || !state.failing.load(Ordering::Relaxed);
    register::run(workload, channel, drain, well).await;
}
