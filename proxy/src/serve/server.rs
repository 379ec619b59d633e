//! All listeners, kept in step with the snapshot.

mod stopping;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::runtime::Handle;

use self::stopping::Stopped;
use super::handover::Unbound;
use super::identify::{self, Arrival};
use super::listener::{Listener, ListenerError};
use super::overload::{Overload, Welcome};
use crate::cluster::{Clusters, Live};
use crate::model::listener::{self as model, Address};
use crate::model::{Changes, Name, Snapshot};
use crate::net::{self, Acceptor, Inherited, Io, ListenOptions, drain::Drain};
use crate::telemetry::access_log::Sinks;
use crate::telemetry::stats::{Fresh as _, Registry, metrics};
use crate::telemetry::trace::SpanQueue;

/// How long connections of a listener that goes may take to finish, where nothing else is said.
const LISTENER_DRAIN: Duration = Duration::from_secs(600);

/// What every connection needs of the process.
#[derive(Debug)]
pub struct Context {
    /// Where requests go.
    pub clusters: Arc<Clusters>,
    /// Where things are counted.
    pub registry: Registry,
    /// Where access logs are written.
    pub sinks: Sinks,
    /// Where finished spans go.
    pub spans: SpanQueue,
    /// `node.cluster` of this proxy, for rate limits.
    pub node_cluster: Name,
    /// How this proxy presents itself to health checks.
    pub own: Arc<Own>,
    /// What is done when things become scarce.
    pub overload: Arc<Overload>,
    /// The same for listeners that it leaves alone: nothing.
    unbothered: Arc<Overload>,
    connections: AtomicU64,
}

/// How this proxy presents itself to health checks.
#[derive(Debug)]
pub struct Own {
    /// `node.cluster`, as a header's value.
    pub service: HeaderValue,
    failing: AtomicBool,
}

impl Own {
    /// Well, under the name of this service (`node.cluster`).
    pub fn new(service: &str) -> Arc<Self> {
        let service = HeaderValue::from_str(service).unwrap_or(HeaderValue::from_static(""));
        Arc::new(Self { service, failing: AtomicBool::new(false) })
    }

    /// Fail health checks from now on, or no more (the admin's `/healthcheck/fail` and `ok`).
    pub fn fail(&self, fail: bool) {
        self.failing.store(fail, Ordering::Relaxed);
    }

    /// Whether it was told to fail.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }
}

impl Context {
    /// Everything that serving needs.
    pub fn new(
        clusters: Arc<Clusters>,
        registry: Registry,
        (sinks, spans): (Sinks, SpanQueue),
        node_cluster: Name,
        overload: Arc<Overload>,
    ) -> Arc<Self> {
        Arc::new(Self {
            own: Own::new(&node_cluster),
            clusters,
            registry,
            sinks,
            spans,
            node_cluster,
            overload,
            unbothered: Overload::new(None),
            connections: AtomicU64::new(0),
        })
    }

    /// What is done about a listener when things become scarce.
    pub(super) fn overload_of(&self, listener: &model::Listener) -> &Arc<Overload> {
        if listener.bypass_overload { &self.unbothered } else { &self.overload }
    }

    pub(super) fn next_connection_id(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }
}

/// The listeners of a proxy. Bound sockets are accepted from by every worker.
#[derive(Debug)]
pub struct Server {
    context: Arc<Context>,
    workers: Vec<Handle>,
    running: Mutex<HashMap<Name, Running>>,
    /// Listeners that others hand connections over to.
    unbound: Arc<Unbound>,
    /// Sockets that wait for their listener.
    inherited: Arc<Inherited>,
    /// Which listeners do not listen any more.
    stopped: Stopped,
    stats: Arc<ManagerStats>,
}

#[derive(Debug)]
struct Running {
    live: Arc<ArcSwap<Listener>>,
    /// Each with the address that was asked for; the listener's main one is the first.
    sockets: Vec<(Address, Arc<net::Listener>)>,
    /// Of the accepting, and of connections that have no filter chain yet.
    drain: Arc<Drain>,
}

impl Running {
    /// Everything that has to end before the listener is gone.
    fn drains(&self) -> Vec<Arc<Drain>> {
        let live = self.live.load();
        live.drains().chain([&self.drain]).map(Arc::clone).collect()
    }
}

metrics! {
    /// `listener_manager.`
    struct ManagerStats {
        counters {
            /// Listeners that are new.
            added = "listener_added",
            /// Listeners that are others now.
            modified = "listener_modified",
            /// Listeners that are gone.
            removed = "listener_removed",
            /// Of those that are others: whose filter chains alone are.
            in_place = "listener_in_place_updated",
            /// Listeners, or filter chains of them, that cannot be served.
            create_failure = "listener_create_failure",
            /// Listeners that began to listen, on each worker.
            create_success = "listener_create_success",
            /// Listeners that were told to stop.
            stopped = "listener_stopped",
        }
        gauges {
            /// Listeners that listen.
            active = "total_listeners_active",
            /// Listeners whose connections finish.
            draining = "total_listeners_draining",
            /// 1 from the first listener on.
            workers_started = "workers_started",
        }
        histograms {}
        never {
            counters []
            gauges ["total_filter_chains_draining", "workers_pinned"]
        }
    }

}

/// What the admin endpoint says about a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerView {
    /// Its name.
    pub name: Name,
    /// Where it is bound; the real port where 0 was asked for.
    pub address: Address,
}

impl Server {
    /// A server without listeners. Each worker is a runtime that serves connections; listeners take
    /// an inherited socket where there is one for them.
    pub fn new(context: Arc<Context>, workers: Vec<Handle>, inherited: Arc<Inherited>) -> Self {
        let stats = context.registry.scope("listener_manager", None).group(ManagerStats::fresh);
        let (running, unbound) = (Mutex::default(), Arc::default());
        let stopped = Stopped::default();
        Self { context, workers, running, unbound, inherited, stopped, stats }
    }

    /// Bring the listeners in step with a published snapshot. A listener that fails leaves the
    /// others, and its own last version, alone.
    pub fn apply(&self, live: &Live, changes: &Changes) -> Vec<ListenerError> {
        let snapshot = &live.snapshot;
        let mut errors = Vec::new();
        for name in self.affected(snapshot, changes) {
            match snapshot.listeners.get(&name) {
                None => {
                    self.remove(&name);
                    self.retire(self.unbound.remove(&name));
                }
                Some(config) => {
                    let before = errors.len();
                    let made = self.make(config, snapshot);
                    match made {
                        Ok(mut listener) => {
                            errors.append(&mut listener.broken);
                            errors.extend(self.place(listener).err());
                        }
                        Err(error) => errors.push(error),
                    }
                    self.stats.create_failure.add((errors.len() - before) as u64);
                }
            }
        }
        if !changes.secrets.is_empty() {
            errors.extend(self.renew(snapshot));
        }
        errors
    }

    /// Try again to start what could not be started, such as for a certificate that was not there yet: listeners, and
    /// filter chains of those that run.
    pub fn start_missing(&self, live: &Live) -> Vec<ListenerError> {
        let snapshot = &live.snapshot;
        let whole: Vec<Name> = {
            let running = self.lock();
            let whole = running.iter().filter(|(_, one)| one.live.load().is_whole());
            whole.map(|(name, _)| Arc::clone(name)).collect()
        };
        let mut errors = Vec::new();
        for (name, config) in &snapshot.listeners {
            if whole.contains(name) || self.unbound.contains(name) {
                continue;
            }
            match self.make(config, snapshot) {
                Ok(mut listener) => {
                    errors.append(&mut listener.broken);
                    let served = |now: &Running| now.live.load().served();
                    let more =
                        self.lock().get(name).is_none_or(|now| served(now) < listener.served());
                    if more {
                        errors.extend(self.place(listener).err());
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// A new version of a listener, with what it has in common with the one that serves.
    fn make(
        &self,
        config: &Arc<model::Listener>,
        snapshot: &Snapshot,
    ) -> Result<Listener, ListenerError> {
        let running = self.lock().get(&config.name).map(|one| one.live.load_full());
        let before = running.or_else(|| self.unbound.get(&config.name));
        Listener::new(Arc::clone(config), before.as_deref(), &snapshot.secrets, &self.context)
    }

    /// Where everything is bound.
    pub fn listeners(&self) -> Vec<ListenerView> {
        let running = self.lock();
        let mut views: Vec<_> = running
            .iter()
            .flat_map(|(name, one)| {
                one.sockets.iter().map(|(_, socket)| ListenerView {
                    name: Arc::clone(name),
                    address: socket.address().clone(),
                })
            })
            .collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// Connections that are open.
    pub fn connections(&self) -> i64 {
        self.lock().values().map(|one| one.live.load().stats.active()).sum()
    }

    /// The bound sockets, each with the name of its listener and the address that it was given.
    pub fn sockets(&self) -> Vec<(Name, Address, Arc<net::Listener>)> {
        let running = self.lock();
        let all = running.iter().flat_map(|(name, one)| {
            let socket = |(asked, socket): &(Address, Arc<net::Listener>)| {
                (Arc::clone(name), asked.clone(), Arc::clone(socket))
            };
            one.sockets.iter().map(socket)
        });
        all.collect()
    }

    /// Changed listeners, and those that were waiting for a secret that is here now.
    fn affected(&self, snapshot: &Snapshot, changes: &Changes) -> Vec<Name> {
        let mut names = changes.listeners.clone();
        if !changes.secrets.is_empty() {
            let running = self.lock();
            let is_here = |name: &Name| running.contains_key(name) || self.unbound.contains(name);
            let waiting = snapshot.listeners.keys().filter(|name| !is_here(name));
            names.extend(waiting.cloned());
        }
        names.sort();
        names.dedup();
        names
    }

    /// Bind a listener, or keep it for those that hand over to it.
    fn place(&self, listener: Listener) -> Result<(), ListenerError> {
        let name = Arc::clone(&listener.config.name);
        if listener.config.bind_to_port {
            self.retire(self.unbound.remove(&name));
            return self.put(listener);
        }
        self.remove(&name);
        self.retire(self.unbound.put(listener));
        Ok(())
    }

    fn put(&self, listener: Listener) -> Result<(), ListenerError> {
        let name = Arc::clone(&listener.config.name);
        let mut running = self.lock();
        if let Some(current) = running.get_mut(&name)
            && is_same_socket(&current.live.load().config, &listener.config)
        {
            self.stats.modified.inc();
            let before = current.live.load_full();
            let only_chains = before.config.frame == listener.config.frame;
            let gone = gone(&before, &listener);
            if only_chains {
                self.stats.in_place.inc();
                current.live.store(Arc::new(listener));
            } else {
                // The sockets stay; connections of the old version finish in their own time.
                let old = std::mem::replace(&mut current.drain, Arc::new(Drain::new()));
                current.live = Arc::new(ArcSwap::from_pointee(listener));
                self.accept(current).map_err(|error| bind_error(&current.live.load(), error))?;
                self.retire(vec![old]);
            }
            self.retire(gone);
            return Ok(());
        }
        let sockets = self.bind(&listener.config)?;
        let live = Arc::new(ArcSwap::from_pointee(listener));
        let new = Running { live, sockets, drain: Arc::new(Drain::new()) };
        self.accept(&new).map_err(|error| bind_error(&new.live.load(), error))?;
        self.stats.added.inc();
        self.stats.create_success.add(self.workers.len() as u64);
        self.stats.workers_started.set(1);
        for (_, socket) in &new.sockets {
            tracing::info!(listener = %name, address = %socket.address(), "listening");
        }
        if let Some(old) = running.insert(name, new) {
            self.retire(old.drains());
        }
        self.stats.active.set(i64::try_from(running.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Listen at all of a listener's addresses.
    fn bind(
        &self,
        config: &model::Listener,
    ) -> Result<Vec<(Address, Arc<net::Listener>)>, ListenerError> {
        let main = (&config.address, config.dual_stack);
        let more = config.additional.iter().map(|(address, dual_stack)| (address, *dual_stack));
        let mut sockets = Vec::new();
        if self.stopped.holds_for(config) {
            return Ok(sockets);
        }
        for (address, dual_stack) in [main].into_iter().chain(more) {
            let options = ListenOptions {
                backlog: config.backlog,
                dual_stack,
                transparent: config.transparent,
            };
            let socket = self.inherited.listen(&config.name, address, &options);
            let socket = socket.map_err(|error| ListenerError::Bind {
                name: Arc::clone(&config.name),
                address: address.clone(),
                error,
            })?;
            sockets.push((address.clone(), Arc::new(socket)));
        }
        Ok(sockets)
    }

    fn remove(&self, name: &Name) {
        let mut running = self.lock();
        if let Some(old) = running.remove(name) {
            self.stats.removed.inc();
            self.stats.active.set(i64::try_from(running.len()).unwrap_or(i64::MAX));
            self.retire(old.drains());
        }
    }

    /// Let the connections of a listener, or of filter chains, that went finish.
    fn retire(&self, drains: Vec<Arc<Drain>>) {
        if drains.is_empty() {
            return;
        }
        for drain in &drains {
            drain.start();
        }
        let stats = Arc::clone(&self.stats);
        if let Some(worker) = self.workers.first() {
            worker.spawn(async move {
                let _draining = stats.draining.guard();
                let ends = drains.iter().map(|drain| drain.run(LISTENER_DRAIN));
                futures_util::future::join_all(ends).await;
            });
        }
    }

    /// Take renewed certificates into use, on every listener.
    pub fn renew(&self, snapshot: &Snapshot) -> Vec<ListenerError> {
        let running = self.lock();
        let renewed = running.values().map(|one| one.live.load().renew(&snapshot.secrets));
        let mut errors: Vec<_> = renewed.filter_map(Result::err).collect();
        errors.extend(self.unbound.renew(snapshot));
        errors
    }

    /// Accept on every worker.
    fn accept(&self, running: &Running) -> std::io::Result<()> {
        for worker in &self.workers {
            // Registers the socket with that worker's poll.
            let _inside = worker.enter();
            for (_, socket) in &running.sockets {
                let acceptor = socket.acceptor()?;
                let owners =
                    Owners { bound: Arc::clone(&running.live), unbound: Arc::clone(&self.unbound) };
                worker.spawn(accept_loop(acceptor, owners, Arc::clone(&running.drain)));
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose connections a socket accepts.
struct Owners {
    bound: Arc<ArcSwap<Listener>>,
    unbound: Arc<Unbound>,
}

impl Owners {
    /// The listener that serves a connection, and where the connection was going, if it was
    /// redirected.
    fn of(&self, io: &Io) -> (Arc<Listener>, Option<SocketAddr>) {
        let bound = self.bound.load_full();
        if !bound.config.inspect.original_dst {
            return (bound, None);
        }
        let restored = io.tcp().and_then(|stream| net::original_dst(stream).ok().flatten());
        let wanted = restored.filter(|_| bound.config.use_original_dst);
        (wanted.and_then(|address| self.unbound.at(address)).unwrap_or(bound), restored)
    }
}

fn is_same_socket(one: &model::Listener, other: &model::Listener) -> bool {
    (&one.address, one.dual_stack, one.transparent, &one.additional)
        == (&other.address, other.dual_stack, other.transparent, &other.additional)
}

/// Chains of the older version that the newer does not have any more.
pub(super) fn gone(older: &Listener, newer: &Listener) -> Vec<Arc<Drain>> {
    let kept: Vec<_> = newer.drains().map(Arc::as_ptr).collect();
    older.drains().filter(|drain| !kept.contains(&Arc::as_ptr(drain))).map(Arc::clone).collect()
}

async fn accept_loop(mut acceptor: Acceptor, owners: Owners, drain: Arc<Drain>) {
    let watch = drain.watch();
    // Held, so that the word about accepting keeps coming.
    let overload = Arc::clone(&owners.bound.load().overload);
    let mut accepting = overload.accepting();
    loop {
        let accepts = *accepting.borrow_and_update();
        let accepted = tokio::select! {
            () = watch.draining() => return,
            accepted = acceptor.accept(), if accepts => accepted,
            Ok(()) = accepting.changed() => continue,
        };
        match accepted {
            Ok((io, remote)) => {
                let (listener, original_dst) = owners.of(&io);
                let counted =
                    match listener.overload.connection(!listener.config.ignore_connection_limit) {
                        Welcome::Yes(counted) => counted,
                        Welcome::Overflow => {
                            listener.stats.downstream_global_cx_overflow.inc();
                            continue;
                        }
                        Welcome::Rejected => {
                            listener.stats.downstream_cx_overload_reject.inc();
                            continue;
                        }
                    };
                let arrival = Arrival { io, remote, original_dst, counted };
                let serving = identify::serve(listener, arrival, watch.clone());
                tokio::spawn(serving);
            }
            Err(error) => {
                let name = &owners.bound.load().config.name;
                tracing::error!(listener = %name, %error, "the listening socket is broken");
                return;
            }
        }
    }
}

fn bind_error(listener: &Listener, error: std::io::Error) -> ListenerError {
    ListenerError::Bind {
        name: Arc::clone(&listener.config.name),
        address: listener.config.address.clone(),
        error,
    }
}
