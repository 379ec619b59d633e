//! Streams and files of their own: one for each resource that is asked for there, and one for all
//! clusters and all listeners, as Envoy has it. So a server that ends the stream over one name that
//! it does not like (SPIRE does) takes no other with it.
//!
//! Each is a task that talks, judges and answers; what it brings goes to the client, which puts it
//! into the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pillion_xds::envoy::config::core::v3::Node;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::{RETRY_MAX, RETRY_MIN, file, judge, sleep_until, wire};
use crate::cluster::Clusters;
use crate::model::Name;
use crate::model::source::{File, Reference, Source, Stream};
use crate::xds::kind::Kind;
use crate::xds::session::{Due, Received, Response, Session, Variant};
use crate::xds::translate::Resource;

/// Everything, in place of a key.
const ALL: &str = "";

/// What a task brings.
pub(super) enum News {
    /// An answer, with keys in place of names.
    Received(Received<Resource>),
    /// What time brought about, with keys in place of names.
    Due(Due),
    /// The stream ended, or never was.
    Failed(Name),
}

/// All of them.
pub(super) struct Own {
    clusters: Arc<Clusters>,
    node: Arc<Node>,
    running: BTreeMap<(Kind, Name), Running>,
    sender: mpsc::Sender<(Kind, Name, News)>,
    receiver: mpsc::Receiver<(Kind, Name, News)>,
}

struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Own {
    pub(super) fn new(clusters: Arc<Clusters>, node: Arc<Node>) -> Self {
        let (sender, receiver) = mpsc::channel(64);
        Self { clusters, node, running: BTreeMap::new(), sender, receiver }
    }

    /// Ask for everything of a kind.
    pub(super) fn want_everything(&mut self, kind: Kind, source: &Source, timeout: Duration) {
        self.start((kind, ALL.into()), None, source, timeout);
    }

    /// Whether everything of this kind comes from here.
    pub(super) fn serves(&self, kind: Kind) -> bool {
        self.running.contains_key(&(kind, ALL.into()))
    }

    /// Ask for these resources of a kind, and for no others; the keys of those that are not asked
    /// for any more.
    pub(super) fn follow(&mut self, kind: Kind, wanted: &BTreeMap<Name, Reference>) -> Vec<Name> {
        let stays = |of: Kind, key: &Name| of != kind || &**key == ALL || wanted.contains_key(key);
        let mut gone = Vec::new();
        self.running.retain(|(of, key), _| {
            let stays = stays(*of, key);
            if !stays {
                gone.push(Arc::clone(key));
            }
            stays
        });
        for (key, reference) in wanted {
            let place = (kind, Arc::clone(key));
            if !self.running.contains_key(&place) {
                self.start(place, Some(reference.clone()), reference.source(), reference.timeout());
            }
        }
        gone
    }

    /// What comes next. News of what is not asked for any more are passed over.
    pub(super) async fn next(&mut self) -> (Kind, News) {
        loop {
            // There is always a sender: ours.
            let Some((kind, key, news)) = self.receiver.recv().await else {
                return std::future::pending().await;
            };
            if self.running.contains_key(&(kind, key)) {
                return (kind, news);
            }
        }
    }

    fn start(
        &mut self,
        place: (Kind, Name),
        reference: Option<Reference>,
        source: &Source,
        timeout: Duration,
    ) {
        let (kind, key) = place.clone();
        let mut task = Task {
            session: Session::new(Variant::World),
            kind,
            key,
            reference,
            timeout,
            held: BTreeMap::new(),
            news: self.sender.clone(),
        };
        let handle = match source {
            Source::Ads => return,
            Source::Stream(stream) => {
                task.begin(if stream.delta { Variant::Delta } else { Variant::World });
                let (clusters, node) = (Arc::clone(&self.clusters), Arc::clone(&self.node));
                tokio::spawn(task.talk(Arc::clone(stream), clusters, node))
            }
            Source::File(file) => {
                task.begin(Variant::World);
                tokio::spawn(task.read(Arc::clone(file)))
            }
        };
        self.running.insert(place, Running(handle.abort_handle()));
    }
}

/// One stream, or one file.
struct Task {
    session: Session,
    kind: Kind,
    key: Name,
    /// None: everything.
    reference: Option<Reference>,
    timeout: Duration,
    /// What came before, by name: what is sent again unchanged is not news.
    held: BTreeMap<Name, Bytes>,
    news: mpsc::Sender<(Kind, Name, News)>,
}

impl Task {
    fn begin(&mut self, variant: Variant) {
        let now = Instant::now();
        self.session = Session::new(variant);
        match &self.reference {
            None => self.session.want_everything(self.kind, self.timeout, now),
            Some(one) => {
                let name = (Arc::clone(one.name()), self.timeout);
                // Nothing is to be sent before there is a stream.
                let _ = self.session.subscribe(self.kind, vec![name], &[], now);
            }
        }
    }

    /// Follow a server, for ever.
    async fn talk(mut self, stream: Arc<Stream>, clusters: Arc<Clusters>, node: Arc<Node>) {
        let mut backoff = RETRY_MIN;
        loop {
            let wire = wire::open(&clusters, &node, &stream, Some(self.kind));
            let (kind, what) = (self.kind, self.what());
            let why = self.converse(wire, &mut backoff).await;
            self.session.disconnected();
            let cluster = &stream.service.cluster;
            tracing::info!(%kind, what, %cluster, %why, "the stream ended; what is held stays");
            self.tell(News::Failed(Arc::clone(&self.key))).await;
            let pause = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
            backoff = (backoff * 2).min(RETRY_MAX);
            self.wait(Instant::now() + pause).await;
        }
    }

    /// Talk until the stream ends; why it did.
    async fn converse(&mut self, mut wire: wire::Wire, backoff: &mut Duration) -> String {
        for request in self.session.connected(Instant::now()) {
            wire.send(request);
        }
        loop {
            let deadline = self.session.next_deadline();
            tokio::select! {
                received = wire.receive() => match received {
                    Ok(wire::Event::Opened) => {}
                    Ok(wire::Event::Response(response)) => {
                        *backoff = RETRY_MIN;
                        if let Some(reply) = self.receive(response).await {
                            wire.send(reply);
                        }
                    }
                    Err(why) => return why,
                },
                () = sleep_until(deadline) => self.due().await,
            }
        }
    }

    /// Follow a file, for ever.
    async fn read(mut self, file: Arc<File>) {
        // A file has no stream; the session answers all the same, and nobody hears it.
        let _ = self.session.connected(Instant::now());
        let mut watch = file::Watch::new(&file);
        loop {
            if watch.changed() {
                match file::read(&file.path, self.kind) {
                    Ok(response) => drop(self.receive(response).await),
                    Err(why) => self.complain(&file, why).await,
                }
            }
            self.wait(Instant::now() + file::INTERVAL).await;
        }
    }

    /// The file as a whole cannot be taken.
    async fn complain(&self, file: &File, why: String) {
        let name = file.path.display().to_string();
        let received = Received {
            kind: Some(self.kind),
            accepted: Vec::new(),
            removed: Vec::new(),
            absent: Vec::new(),
            refused: vec![(name, vec![why])],
            version: String::new(),
            reply: None,
        };
        self.tell(News::Received(received)).await;
    }

    async fn receive(&mut self, response: Response) -> Option<super::Request> {
        let reference = self.reference.as_ref();
        let types = |_: &str| reference.map(Reference::types);
        let judge = |kind, body: &Bytes| judge(kind, body, types);
        let mut received = self.session.receive(response, Instant::now(), judge);
        let reply = received.reply.take();
        received.kind?;
        for name in &received.removed {
            self.held.remove(name);
        }
        received.accepted.retain(|one| {
            let before = self.held.insert(Arc::clone(&one.name), one.body.clone());
            before.as_ref() != Some(&one.body)
        });
        for one in &mut received.accepted {
            one.name = self.key_of(&one.name);
        }
        for name in received.removed.iter_mut().chain(&mut received.absent) {
            *name = self.key_of(name);
        }
        for (name, _) in &mut received.refused {
            *name = self.key_of(&Name::from(name.as_str())).to_string();
        }
        self.tell(News::Received(received)).await;
        reply
    }

    async fn due(&mut self) {
        let mut due = self.session.due(Instant::now());
        for (_, name) in &due.expired {
            self.held.remove(name);
        }
        for (_, name) in due.expired.iter_mut().chain(&mut due.missing) {
            *name = self.key_of(name);
        }
        if !due.is_empty() {
            self.tell(News::Due(due)).await;
        }
    }

    /// Until then, minding what is due before.
    async fn wait(&mut self, until: Instant) {
        while Instant::now() < until {
            let deadline = self.session.next_deadline().map_or(until, |due| due.min(until));
            sleep_until(Some(deadline)).await;
            self.due().await;
        }
    }

    fn key_of(&self, name: &Name) -> Name {
        match &self.reference {
            Some(reference) if reference.name() == name => Arc::clone(reference.key()),
            _ => Arc::clone(name),
        }
    }

    fn what(&self) -> String {
        self.reference
            .as_ref()
            .map_or_else(|| "everything".to_owned(), |one| one.name().to_string())
    }

    async fn tell(&self, news: News) {
        // Nobody listens only when the proxy is going.
        let _ = self.news.send((self.kind, Arc::clone(&self.key), news)).await;
    }
}
