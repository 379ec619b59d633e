//! The xDS client: one task that owns the store, keeps the ADS stream to the control plane, takes
//! what streams and files of their own bring, and publishes what is ready.

mod counts;
mod file;
mod own;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pillion_xds::envoy::config::core::v3::Node;
use tokio::sync::mpsc;

use self::counts::{Answer, Counts, Outcome};
use self::own::{News, Own};
use super::kind::Kind;
use super::last_good::{Kept, LastGood};
use super::local::{Everything, Local};
use super::session::{Due, Judged, Received, Request, Response, Session, Variant};
use super::status::Status;
use super::store::Store;
use super::translate::bootstrap::Dynamic;
use super::translate::{self, Resource};
use crate::cluster::Clusters;
use crate::model::source::{Reference, Source, Stream, plain};
use crate::model::tls::Secret;
use crate::model::{Changes, Name, Snapshot};
use crate::telemetry::stats::Registry;

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

/// The task's state.
pub struct Client {
    store: Store,
    publish: Publish,
    commands: mpsc::Receiver<Command>,
    ads: Option<Ads>,
    own: Own,
    local: Local,
    /// What is in force, by key.
    kept: BTreeMap<(Kind, Name), Arc<Kept>>,
    counts: Counts,
    around: Around,
}

/// The rest of the proxy, as far as the client needs it.
#[derive(Clone, Debug)]
pub struct Around {
    /// Where it counts.
    pub registry: Registry,
    /// Where it says how things are.
    pub status: Arc<Status>,
    /// Where management servers are found.
    pub clusters: Arc<Clusters>,
    /// Who we are.
    pub node: Arc<Node>,
}

/// The ADS stream.
struct Ads {
    stream: Arc<Stream>,
    session: Session,
    last_good: Option<LastGood>,
    dirty: Option<Instant>,
    backoff: Duration,
    /// What is held came from disk, and the control plane was not reached yet.
    restored: bool,
}

/// What a wait brought.
enum Event {
    Command(Command),
    News(Kind, Box<News>),
    Due,
    Over,
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
        around: Around,
    ) -> Self {
        Self {
            store,
            publish,
            commands,
            ads: None,
            own: Own::new(Arc::clone(&around.clusters), Arc::clone(&around.node)),
            local: Local::default(),
            kept: BTreeMap::new(),
            counts: Counts::new(around.registry.clone()),
            around,
        }
    }

    /// Ask management servers, or files, for dynamic resources. The last good ones that came over ADS
    /// are taken from disk first. To be called in a runtime.
    pub fn follow(&mut self, dynamic: &Dynamic, last_good: Option<LastGood>) {
        let now = Instant::now();
        let mut session = dynamic
            .ads
            .as_ref()
            .map(|stream| Session::new(if stream.delta { Variant::Delta } else { Variant::World }));
        let kinds = [(Kind::Cluster, &dynamic.clusters), (Kind::Listener, &dynamic.listeners)];
        for (kind, from) in kinds {
            match (from, &mut session) {
                (Some((Source::Ads, timeout)), Some(session)) => {
                    session.want_everything(kind, *timeout, now);
                }
                (Some((source, timeout)), _) => self.own.want_everything(kind, source, *timeout),
                (None, _) => continue,
            }
            let over_ads = matches!(from, Some((Source::Ads, _)));
            self.counts.begin(kind, over_ads);
            self.status().expect([kind]);
        }
        let (Some(stream), Some(session)) = (dynamic.ads.clone(), session) else { return };
        self.counts.begin_control_plane();
        self.ads = Some(Ads {
            stream,
            session,
            last_good,
            dirty: None,
            backoff: RETRY_MIN,
            restored: false,
        });
        self.restore();
    }

    /// Take resources from this very process, before anything is published.
    pub fn begin_with(&mut self, all: &Everything) {
        self.local.take(all, &mut self.store, &self.around.status);
    }

    /// Publish what is there and follow the control plane, for ever.
    pub async fn run(mut self) {
        if !self.apply() && self.store.warming().is_empty() {
            // Nothing to serve is served at once.
            (self.publish)(Snapshot::default(), &Changes::default());
        }
        // Nothing can be sent yet; streams of their own begin.
        let _ = self.resubscribe();
        loop {
            let Some(ads) = &self.ads else {
                match self.next(None).await {
                    Event::Over => return,
                    event => self.take(event, None),
                }
                continue;
            };
            let around = &self.around;
            let wire = wire::open(&around.clusters, &around.node, &ads.stream, None);
            let why = self.converse(wire).await;
            if self.counts.is_connected() {
                tracing::info!(%why, "the control plane's stream ended; serving by what is held");
            } else {
                tracing::debug!(%why, "the control plane cannot be reached");
            }
            self.make_do();
            self.counts.connected(false);
            self.counts.lost();
            self.status().connected(false, Some(why));
            if !self.pause().await {
                return;
            }
        }
    }

    fn status(&self) -> &Status {
        &self.around.status
    }

    /// Whoever has the last good configuration is ready with it once the control plane was asked in
    /// vain.
    fn make_do(&mut self) {
        let Some(ads) = &mut self.ads else { return };
        if !std::mem::take(&mut ads.restored) {
            return;
        }
        tracing::info!("serving by the last good configuration, without the control plane");
        for kind in [Kind::Cluster, Kind::Listener] {
            self.status().silent(kind);
        }
    }

    /// Talk until the stream ends; why it did.
    async fn converse(&mut self, mut wire: wire::Wire) -> String {
        let Some(ads) = &mut self.ads else { return "there is no control plane".to_owned() };
        for request in ads.session.connected(Instant::now()) {
            wire.send(request);
        }
        loop {
            tokio::select! {
                received = wire.receive() => match received {
                    Ok(wire::Event::Opened) => {
                        self.counts.connected(true);
                        self.status().connected(true, None);
                    }
                    Ok(wire::Event::Response(response)) => self.receive(response, &wire),
                    Err(why) => {
                        if let Some(ads) = &mut self.ads {
                            ads.session.disconnected();
                        }
                        return why;
                    }
                },
                event = self.next(None) => match event {
                    Event::Over => return "shutting down".to_owned(),
                    event => self.take(event, Some(&wire)),
                },
            }
        }
    }

    /// Wait before the next attempt, minding what happens. False: the proxy is going.
    async fn pause(&mut self) -> bool {
        let Some(ads) = &mut self.ads else { return false };
        let longest = ads.backoff;
        ads.backoff = (longest * 2).min(RETRY_MAX);
        let until = Instant::now() + longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        while Instant::now() < until {
            match self.next(Some(until)).await {
                Event::Over => return false,
                event => self.take(event, None),
            }
        }
        true
    }

    /// What happens next, other than on the ADS stream: until then, or until something is due.
    /// Nothing is lost when the wait is broken off.
    async fn next(&mut self, until: Option<Instant>) -> Event {
        let deadline = self.next_deadline().into_iter().chain(until).min();
        tokio::select! {
            command = self.commands.recv() => command.map_or(Event::Over, Event::Command),
            (kind, news) = self.own.next() => Event::News(kind, Box::new(news)),
            () = sleep_until(deadline) => Event::Due,
        }
    }

    fn take(&mut self, event: Event, wire: Option<&wire::Wire>) {
        match event {
            Event::Command(Command::Secret(secret)) => {
                self.store.accept(Resource::Secret(secret));
            }
            Event::Command(Command::Everything(all)) => {
                self.local.take(&all, &mut self.store, &self.around.status);
            }
            Event::News(kind, news) => match *news {
                News::Received(received) => self.take_in(kind, received),
                News::Due(due) => self.pass(due),
                News::Failed(key) => self.counts.count(kind, &key, Outcome::Failed),
            },
            Event::Due => self.due(),
            Event::Over => return,
        }
        self.settle(wire);
    }

    fn receive(&mut self, response: Response, wire: &wire::Wire) {
        let Some(ads) = &mut self.ads else { return };
        ads.backoff = RETRY_MIN;
        ads.restored = false;
        self.counts.identified(&response.identifier);
        let expected = match Kind::of(&response.type_url) {
            Some(Kind::Extension) => self.store.wanted(Kind::Extension),
            _ => BTreeMap::new(),
        };
        let types = |name: &str| expected.get(name).map(Reference::types);
        let judge = |kind, body: &bytes::Bytes| judge(kind, body, types);
        let mut received = ads.session.receive(response, Instant::now(), judge);
        let Some(kind) = received.kind else { return };
        ads.dirty.get_or_insert_with(|| Instant::now() + SAVE_INTERVAL);
        let reply = received.reply.take();
        self.take_in(kind, received);
        // The answer first, then what the new resources refer to: in one go for each kind.
        if let Some(reply) = reply {
            wire.send(reply);
        }
        self.settle(Some(wire));
    }

    /// Put what a server or a file says into the store.
    fn take_in(&mut self, kind: Kind, received: Received<Resource>) {
        let begun = Instant::now();
        for (name, reasons) in &received.refused {
            tracing::warn!(%kind, %name, reasons = reasons.join("; "), "a resource was refused");
            // Nobody waits for a better one, as in Envoy; what was good before stays.
            self.store.give_up(kind, Name::from(name.as_str()));
        }
        self.status().received(kind, &received);
        let answer = Answer::of(&received);
        let mut changed = BTreeSet::new();
        for accepted in received.accepted {
            let key = (kind, Arc::clone(&accepted.name));
            if let Some(same) = self.kept.get_mut(&key)
                && same.body == accepted.body
            {
                // Sent again, as state of the world does: nothing may be drained for that.
                if *same.version != *accepted.version {
                    let version = accepted.version.into();
                    *same = Arc::new(Kept { version, ..Kept::clone(same) });
                }
                self.around.status.hold(same, SystemTime::now());
                continue;
            }
            self.warn_unknown(kind, &accepted.name, &accepted.body);
            let kept = Arc::new(Kept {
                kind,
                name: Arc::clone(&accepted.name),
                version: accepted.version.into(),
                body: accepted.body,
            });
            self.status().hold(&kept, SystemTime::now());
            changed.insert(Arc::clone(&accepted.name));
            self.kept.insert(key, kept);
            self.store.accept_as(accepted.name, accepted.resource);
        }
        for name in &received.removed {
            self.forget(kind, name);
            self.store.remove(kind, name);
        }
        for name in received.absent {
            self.store.give_up(kind, name);
        }
        answer.count(&self.counts, kind, &changed, begun.elapsed());
    }

    fn forget(&mut self, kind: Kind, key: &Name) {
        self.status().forget(kind, key);
        self.kept.remove(&(kind, Arc::clone(key)));
    }

    /// Ask for what is referred to, on the stream if there is one.
    fn ask(&mut self, wire: Option<&wire::Wire>) {
        // Without a stream the session remembers what it wants.
        for request in self.resubscribe() {
            if let Some(wire) = wire {
                wire.send(request);
            }
        }
    }

    /// Ask for what is referred to, and publish what is ready: what that replaces is asked for no more.
    fn settle(&mut self, wire: Option<&wire::Wire>) {
        self.ask(wire);
        self.apply();
        if self.store.is_renamed() {
            self.ask(wire);
            self.apply();
        }
    }

    /// Bring subscriptions in step with what clusters and listeners refer to.
    fn resubscribe(&mut self) -> Vec<Request> {
        if !self.store.take_renamed() {
            return Vec::new();
        }
        self.store.forget_unwanted();
        let now = Instant::now();
        let mut requests = Vec::new();
        for kind in Kind::NAMED {
            let all = self.store.wanted(kind);
            self.counts.follow(kind, &all, &self.store);
            let (ads, own) = all.into_iter().partition(|(_, one)| *one.source() == Source::Ads);
            let ads: BTreeMap<Name, Reference> = ads;
            let mut gone = self.own.follow(kind, &own);
            let have = self.status().subscribed(kind);
            let past: Vec<Name> =
                have.iter().filter(|name| !ads.contains_key(*name)).cloned().collect();
            let fresh = ads.iter().filter(|(name, _)| !have.contains(*name));
            let fresh = fresh.map(|(name, one)| (Arc::clone(name), one.timeout())).collect();
            if let Some(stream) = &mut self.ads {
                requests.extend(stream.session.subscribe(kind, fresh, &past, now));
                self.status().subscribe(kind, ads.into_keys().collect());
            }
            gone.extend(past);
            for name in gone {
                self.forget(kind, &name);
            }
        }
        requests
    }

    /// What time brought about: expired resources, answers that did not come, a file to write.
    fn due(&mut self) {
        let now = Instant::now();
        let Some(ads) = &mut self.ads else { return };
        let due = ads.session.due(now);
        let save = ads.dirty.is_some_and(|at| at <= now);
        if save {
            ads.dirty = None;
        }
        self.pass(due);
        if save {
            self.save();
        }
    }

    fn pass(&mut self, due: Due) {
        for (kind, name) in due.expired {
            tracing::info!(%kind, %name, "the resource's time to live ended");
            self.forget(kind, &name);
            self.store.remove(kind, &name);
        }
        for (kind, name) in due.missing {
            tracing::warn!(%kind, %name, "did not arrive within its initial_fetch_timeout");
            self.counts.count(kind, &name, Outcome::Late);
            self.store.give_up(kind, name);
        }
        for kind in due.silent {
            tracing::warn!(%kind, "the control plane sent nothing within initial_fetch_timeout");
            self.counts.count(kind, "", Outcome::Late);
            self.status().silent(kind);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let ads = self.ads.as_ref()?;
        ads.session.next_deadline().into_iter().chain(ads.dirty).min()
    }

    /// Serve by what was good before, until the control plane says more.
    fn restore(&mut self) {
        let Some(ads) = &mut self.ads else { return };
        let Some(file) = &ads.last_good else { return };
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
                let name = Arc::clone(&one.name);
                let one = Arc::new(one);
                ads.session.restore(one.kind, Arc::clone(&name), one.version.to_string());
                self.around.status.hold(&one, SystemTime::now());
                self.kept.insert((one.kind, name), one);
                self.store.accept(resource);
            }
        }
        ads.restored = !self.kept.is_empty();
        // Nothing can be sent yet; the session remembers what it wants.
        let _ = self.resubscribe();
    }

    /// Only what came over ADS: what has a server or file of its own is asked for there.
    fn save(&self) {
        let Some(file) = self.ads.as_ref().and_then(|ads| ads.last_good.as_ref()) else { return };
        let of_ads = |kind: Kind, key: &str| plain(key) == key && !self.own.serves(kind);
        let all = self.kept.iter().filter(|((kind, key), _)| of_ads(*kind, key));
        let all: Vec<Arc<Kept>> = all.map(|(_, kept)| Arc::clone(kept)).collect();
        if let Err(error) = file.save(&all) {
            let path = file.path().display();
            tracing::warn!(
                %path, %error,
                "the last good configuration cannot be saved; going on without"
            );
        }
    }

    /// Whether something was published.
    fn apply(&mut self) -> bool {
        let assembled = self.store.assemble();
        let published = assembled.is_some();
        if let Some((snapshot, changes)) = assembled {
            (self.publish)(snapshot, &changes);
        }
        let warming = self.store.warming();
        self.counts.warming(&warming);
        self.around.status.warming(warming);
        published
    }

    fn warn_unknown(&self, kind: Kind, name: &str, body: &[u8]) {
        let unknown = translate::unknown_fields(kind, body);
        if !unknown.is_empty() {
            self.counts.unknown(unknown.len());
            let fields = unknown.join(", ");
            tracing::warn!(%kind, name, fields, "unknown fields were ignored");
        }
    }
}

/// `types` has what the resource of a name has to be, if that matters.
fn judge<'a>(
    kind: Kind,
    body: &bytes::Bytes,
    types: impl FnOnce(&str) -> Option<&'a Arc<[Name]>>,
) -> Judged<Resource> {
    let (name, result) = translate::resource(kind, body);
    let result = result.map_err(|all| all.iter().map(ToString::to_string).collect());
    let result = result.and_then(|resource| match &resource {
        Resource::Extension(made) => match types(&made.name) {
            Some(types) if !types.is_empty() && !types.contains(&made.type_name) => {
                let (found, types) = (&made.type_name, types.join(", "));
                Err(vec![format!("typed_config: `{found}` is not expected here: {types} is")])
            }
            _ => Ok(resource),
        },
        _ => Ok(resource),
    });
    Judged { name, result }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
