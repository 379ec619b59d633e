//! The ADS client: one task that owns the session and the store, keeps a stream to the control
//! plane, and publishes what is ready.

mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pillion_xds::envoy::config::core::v3::Node;
use tokio::sync::mpsc;

use super::kind::Kind;
use super::last_good::{Kept, LastGood};
use super::local::{Everything, Local};
use super::session::{Judged, Request, Response, Session};
use super::store::Store;
use super::translate::bootstrap::Ads;
use super::translate::{self, Resource};
use crate::cluster::grpc::Channel;
use crate::model::tls::Secret;
use crate::model::{Changes, Name, Snapshot};
use crate::telemetry::stats::{Counter, Gauge, Registry};

/// Envoy's default for `initial_fetch_timeout`.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// First wait before a stream is tried again; it doubles, with full jitter, up to the longest.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The file with the last good configuration is written at most so often.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// What is done with a new snapshot.
pub type Publish = Box<dyn FnMut(Snapshot, &Changes) + Send>;

/// News from other parts of the proxy.
#[derive(Debug)]
pub enum Command {
    /// Our own certificate or trust bundle was renewed.
    Secret(Arc<Secret>),
    /// What there shall be, from this very process.
    Everything(Arc<Everything>),
}

/// What the control plane says about a kind of resource, for admin and metrics.
#[derive(Clone, Debug)]
pub struct KindStats {
    update_attempt: Counter,
    update_success: Counter,
    update_rejected: Counter,
}

/// The task's state.
pub struct Client {
    store: Store,
    publish: Publish,
    commands: mpsc::Receiver<Command>,
    ads: Option<Stream>,
    local: Local,
    stats: [KindStats; 5],
    connected: Gauge,
    status: Arc<super::status::Status>,
}

/// Everything about dynamic resources.
struct Stream {
    ads: Ads,
    node: Node,
    channel: Channel,
    session: Session,
    last_good: Option<LastGood>,
    kept: BTreeMap<(Kind, Name), Kept>,
    dirty: Option<Instant>,
    backoff: Duration,
    /// What is held came from disk, and the control plane was not reached yet.
    restored: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Client {
    /// A client over what the bootstrap holds. Nothing happens until it runs.
    pub fn new(
        store: Store,
        publish: Publish,
        commands: mpsc::Receiver<Command>,
        registry: &Registry,
        status: Arc<super::status::Status>,
    ) -> Self {
        let stats = Kind::ALL.map(|kind| {
            let scope = registry.scope(&kind.short().to_ascii_lowercase(), None);
            KindStats {
                update_attempt: scope.counter("update_attempt"),
                update_success: scope.counter("update_success"),
                update_rejected: scope.counter("update_rejected"),
            }
        });
        let connected = registry.scope("control_plane", None).gauge("connected_state");
        Self {
            store,
            publish,
            commands,
            ads: None,
            local: Local::default(),
            stats,
            connected,
            status,
        }
    }

    /// Ask a control plane for dynamic resources. The last good ones are taken from disk first.
    pub fn follow(&mut self, ads: Ads, node: Node, channel: Channel, last_good: Option<LastGood>) {
        let now = Instant::now();
        let mut session = Session::new(ads.variant);
        if ads.clusters {
            session.want_everything(Kind::Cluster, FETCH_TIMEOUT, now);
        }
        if ads.listeners {
            session.want_everything(Kind::Listener, FETCH_TIMEOUT, now);
        }
        self.ads = Some(Stream {
            ads,
            node,
            channel,
            session,
            last_good,
            kept: BTreeMap::new(),
            dirty: None,
            backoff: RETRY_MIN,
            restored: false,
        });
        self.restore();
    }

    /// Take resources from this very process, before anything is published.
    pub fn begin_with(&mut self, all: &Everything) {
        self.local.take(all, &mut self.store, &self.status);
    }

    /// Publish what is there and follow the control plane, for ever.
    pub async fn run(mut self) {
        self.apply();
        loop {
            let Some(stream) = &mut self.ads else {
                match self.commands.recv().await {
                    Some(command) => self.take(command),
                    None => return,
                }
                continue;
            };
            let wire = wire::open(&stream.ads, stream.channel.clone());
            let why = self.converse(wire).await;
            if self.connected.get() == 1 {
                tracing::info!(%why, "the control plane's stream ended; serving by what is held");
            } else {
                tracing::debug!(%why, "the control plane cannot be reached");
            }
            self.make_do();
            self.connected.set(0);
            self.status.connected(false, Some(why));
            if !self.pause().await {
                return;
            }
        }
    }

    /// Whoever has the last good configuration is ready with it once the control plane was asked in
    /// vain.
    fn make_do(&mut self) {
        let Some(stream) = &mut self.ads else { return };
        if !std::mem::take(&mut stream.restored) {
            return;
        }
        tracing::info!("serving by the last good configuration, without the control plane");
        for kind in [Kind::Cluster, Kind::Listener] {
            self.status.silent(kind);
        }
    }

    /// Talk until the stream ends; why it did.
    async fn converse(&mut self, mut wire: wire::Wire) -> String {
        let Some(stream) = &mut self.ads else { return "there is no control plane".to_owned() };
        for request in stream.session.connected(Instant::now()) {
            wire.send(request, &stream.node);
        }
        loop {
            let deadline = self.next_deadline();
            tokio::select! {
                received = wire.receive() => match received {
                    Ok(wire::Event::Opened) => {
                        self.connected.set(1);
                        self.status.connected(true, None);
                    }
                    Ok(wire::Event::Response(response)) => self.receive(response, &wire),
                    Err(why) => {
                        if let Some(stream) = &mut self.ads {
                            stream.session.disconnected();
                        }
                        return why;
                    }
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.take(command),
                    None => return "shutting down".to_owned(),
                },
                () = sleep_until(deadline) => self.due(Some(&mut wire)),
            }
        }
    }

    /// Wait before the next attempt, minding what is due. False: the proxy is going.
    async fn pause(&mut self) -> bool {
        let Some(stream) = &mut self.ads else { return false };
        let longest = stream.backoff;
        stream.backoff = (longest * 2).min(RETRY_MAX);
        let until = Instant::now() + longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        while Instant::now() < until {
            let deadline = self.next_deadline().map_or(until, |due| due.min(until));
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.take(command),
                    None => return false,
                },
                () = sleep_until(Some(deadline)) => self.due(None),
            }
        }
        true
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Secret(secret) => self.store.accept(Resource::Secret(secret)),
            Command::Everything(all) => self.local.take(&all, &mut self.store, &self.status),
        }
        self.apply();
    }

    fn receive(&mut self, response: Response, wire: &wire::Wire) {
        let Some(stream) = &mut self.ads else { return };
        stream.backoff = RETRY_MIN;
        stream.restored = false;
        let received = stream.session.receive(response, Instant::now(), judge);
        let Some(kind) = received.kind else { return };
        let stats = &self.stats[kind.index()];
        stats.update_attempt.inc();
        if received.refused.is_empty() {
            stats.update_success.inc();
        } else {
            stats.update_rejected.inc();
        }
        for (name, reasons) in &received.refused {
            tracing::warn!(%kind, %name, reasons = reasons.join("; "), "a resource was refused");
        }
        self.status.received(kind, &received);
        for accepted in received.accepted {
            let key = (kind, Arc::clone(&accepted.name));
            if let Some(same) = stream.kept.get_mut(&key)
                && same.body == accepted.body
            {
                // Sent again, as state of the world does: nothing may be drained for that.
                same.version = accepted.version;
                self.status.hold(same, SystemTime::now());
                continue;
            }
            warn_unknown(kind, &accepted.name, &accepted.body);
            let kept = Kept {
                kind,
                name: accepted.name.to_string(),
                version: accepted.version,
                body: accepted.body,
            };
            self.status.hold(&kept, SystemTime::now());
            stream.kept.insert(key, kept);
            self.store.accept(accepted.resource);
        }
        for name in &received.removed {
            self.status.forget(kind, name);
            stream.kept.remove(&(kind, Arc::clone(name)));
            self.store.remove(kind, name);
        }
        for name in received.absent {
            self.store.give_up(kind, name);
        }
        stream.dirty.get_or_insert_with(|| Instant::now() + SAVE_INTERVAL);
        // The answer first, then what the new resources refer to: in one go for each kind.
        if let Some(reply) = received.reply {
            wire.send(reply, &stream.node);
        }
        for request in self.resubscribe() {
            if let Some(stream) = &self.ads {
                wire.send(request, &stream.node);
            }
        }
        self.apply();
    }

    /// Bring subscriptions in step with what clusters and listeners refer to.
    fn resubscribe(&mut self) -> Vec<Request> {
        self.store.forget_unwanted();
        let Some(stream) = &mut self.ads else { return Vec::new() };
        let now = Instant::now();
        let mut requests = Vec::new();
        for kind in [Kind::Endpoints, Kind::Routes, Kind::Secret] {
            let wanted = self.store.wanted(kind);
            let have = self.status.subscribed(kind);
            let gone: Vec<Name> = have.difference(&wanted).cloned().collect();
            let fresh = wanted.difference(&have).map(|name| (Arc::clone(name), FETCH_TIMEOUT));
            requests.extend(stream.session.subscribe(kind, fresh.collect(), &gone, now));
            for name in gone {
                self.status.forget(kind, &name);
                stream.kept.remove(&(kind, name));
            }
            self.status.subscribe(kind, wanted);
        }
        requests
    }

    /// What time brought about: expired resources, answers that did not come, a file to write.
    fn due(&mut self, wire: Option<&mut wire::Wire>) {
        let now = Instant::now();
        let Some(stream) = &mut self.ads else { return };
        let due = stream.session.due(now);
        for (kind, name) in due.expired {
            tracing::info!(%kind, %name, "the resource's time to live ended");
            self.status.forget(kind, &name);
            stream.kept.remove(&(kind, Arc::clone(&name)));
            self.store.remove(kind, &name);
        }
        for (kind, name) in due.missing {
            tracing::warn!(%kind, %name, "did not arrive within its initial_fetch_timeout");
            self.store.give_up(kind, name);
        }
        for kind in due.silent {
            tracing::warn!(%kind, "the control plane sent nothing within initial_fetch_timeout");
            self.status.silent(kind);
        }
        if stream.dirty.is_some_and(|at| at <= now) {
            stream.dirty = None;
            save(stream);
        }
        if let Some(wire) = wire {
            for request in self.resubscribe() {
                if let Some(stream) = &self.ads {
                    wire.send(request, &stream.node);
                }
            }
        }
        self.apply();
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stream = self.ads.as_ref()?;
        stream.session.next_deadline().into_iter().chain(stream.dirty).min()
    }

    /// Serve by what was good before, until the control plane says more.
    fn restore(&mut self) {
        let Some(stream) = &mut self.ads else { return };
        let Some(file) = &stream.last_good else { return };
        let kept = match file.load() {
            Ok(kept) => kept,
            Err(error) => {
                let path = file.path().display();
                tracing::warn!(%path, %error, "the last good configuration cannot be read");
                return;
            }
        };
        for one in kept {
            if let (Some(_), Ok(resource)) = translate::resource(one.kind, &one.body) {
                let name = Name::from(one.name.as_str());
                stream.session.restore(one.kind, Arc::clone(&name), one.version.clone());
                self.status.hold(&one, SystemTime::now());
                stream.kept.insert((one.kind, name), one);
                self.store.accept(resource);
            }
        }
        stream.restored = !stream.kept.is_empty();
        // Nothing can be sent yet; the session remembers what it wants.
        let _ = self.resubscribe();
    }

    fn apply(&mut self) {
        if let Some((snapshot, changes)) = self.store.assemble() {
            (self.publish)(snapshot, &changes);
        }
        self.status.warming(self.store.warming());
    }
}

fn save(stream: &Stream) {
    let Some(file) = &stream.last_good else { return };
    let all: Vec<Kept> = stream.kept.values().cloned().collect();
    if let Err(error) = file.save(&all) {
        let path = file.path().display();
        tracing::warn!(%path, %error, "the last good configuration cannot be saved; going on without");
    }
}

fn judge(kind: Kind, body: &bytes::Bytes) -> Judged<Resource> {
    let (name, result) = translate::resource(kind, body);
    Judged { name, result: result.map_err(|all| all.iter().map(ToString::to_string).collect()) }
}

fn warn_unknown(kind: Kind, name: &str, body: &[u8]) {
    let unknown = translate::unknown_fields(kind, body);
    if !unknown.is_empty() {
        tracing::warn!(%kind, name, fields = unknown.join(", "), "unknown fields were ignored");
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
