//! One ADS stream as a pure state machine: requests and new resource sets go in, responses come
//! out. No clock, no I/O, no tokio; state of the world and delta share it.
//!
//! The caller feeds [`Session::on_sotw`] or [`Session::on_delta`] and [`Session::on_set`], and asks
//! [`Session::next_response`] for one response whenever the client can take one. What is owed is computed at
//! that moment from the newest set, so a slow client gets the newest state and nothing queues up.
//!
//! The order of one push is clusters, endpoints, listeners, routes, secrets, and it is made before
//! it is broken: listeners and routes wait until the client has taken the clusters and endpoints
//! before them, and a cluster that vanished stays, with its endpoints, until the client has
//! accepted the listeners and routes that no longer use it.

mod diff;
mod subscription;

use std::fmt;
use std::sync::Arc;

use crate::snapshot::{Diff, Resource, ResourceSet, ResourceType, Version};
use subscription::Subscription;

/// Most resource names that one stream may subscribe of one type.
pub const MAX_NAMES: usize = 50_000;
/// Most responses of one type that a client may leave unanswered before it gets no more of it.
const MAX_OUTSTANDING: usize = 16;
/// Most removed clusters and endpoints that are kept for a client that does not take new routes.
const MAX_HELD: usize = 4096;

/// Which of the two xDS variants a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `StreamAggregatedResources`: every request lists all names, LDS and CDS answers are whole.
    StateOfTheWorld,
    /// `DeltaAggregatedResources`: only changes travel, both ways.
    Delta,
}

/// A `DiscoveryRequest`, as far as a session cares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SotwRequest {
    /// `type_url`.
    pub type_url: String,
    /// `version_info`: the last version that the client accepted, on this or an earlier stream.
    pub version: String,
    /// `resource_names`: all names that the client wants from now on.
    pub names: Vec<String>,
    /// `response_nonce`; empty for a first or spontaneous request.
    pub nonce: String,
    /// `error_detail.message`; there if and only if the client refuses the response.
    pub error: Option<String>,
}

/// A `DeltaDiscoveryRequest`, as far as a session cares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaRequest {
    /// `type_url`.
    pub type_url: String,
    /// `resource_names_subscribe`.
    pub subscribe: Vec<String>,
    /// `resource_names_unsubscribe`.
    pub unsubscribe: Vec<String>,
    /// `initial_resource_versions`: what the client holds from an earlier stream.
    pub initial_versions: Vec<(String, String)>,
    /// `response_nonce`; empty for a spontaneous request.
    pub nonce: String,
    /// `error_detail.message`; there if and only if the client refuses the response.
    pub error: Option<String>,
}

/// What a request turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A subscription, new or changed, without a word on a response.
    Subscribed(ResourceType),
    /// The client accepted a response.
    Acked(ResourceType),
    /// The client refused a response, or a part of it.
    Nacked(ResourceType, String),
    /// An answer to a response that a newer one has overtaken.
    Stale(ResourceType),
    /// A type that we do not serve: the stream stays and hears nothing of it.
    UnknownType,
}

/// Why a stream must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// ADS cannot tell the type without its URL.
    #[error("type_url is missing: it is required on an aggregated stream")]
    MissingTypeUrl,
    /// The client asks for more than the control plane keeps for a stream.
    #[error("more than {MAX_NAMES} names of {0} are subscribed on one stream")]
    TooManyNames(&'static str),
}

/// A response to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The type of all resources in it.
    pub kind: ResourceType,
    /// `version_info` or `system_version_info`: a hash of all that the client subscribes.
    pub version: Version,
    /// A value that no other response on this stream has.
    pub nonce: String,
    /// The resources.
    pub resources: Vec<Arc<Resource>>,
    /// `removed_resources`; delta only.
    pub removed: Vec<Arc<str>>,
}

/// How a client stands with one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeStatus {
    /// The type.
    pub kind: ResourceType,
    /// Whether the client subscribes all of them.
    pub wildcard: bool,
    /// How many it subscribes by name.
    pub names: usize,
    /// How many resources it was sent and should hold.
    pub resources: usize,
    /// Version of the last response that was sent.
    pub sent: Option<Version>,
    /// Version of the last response that was accepted.
    pub acked: Option<Version>,
    /// What the client said when it refused the last response it answered.
    pub error: Option<String>,
    /// How many responses it refused on this stream.
    pub nacks: u64,
}

/// The state of one stream.
pub struct Session {
    dialect: Dialect,
    stream: u64,
    last_nonce: u64,
    target: Arc<ResourceSet>,
    held: ResourceSet,
    types: [Subscription; ResourceType::ALL.len()],
    /// Nothing is owed until there is news.
    idle: bool,
    /// Listeners or routes are ready but wait for the client to take what they refer to.
    withholding: bool,
    /// The client was waited for long enough.
    waited: bool,
}

impl Session {
    /// A stream on which nothing was said yet. `stream` must differ between streams that a client
    /// may confuse; it is a part of every nonce.
    #[must_use]
    pub fn new(dialect: Dialect, stream: u64) -> Self {
        Self {
            dialect,
            stream,
            last_nonce: 0,
            target: Arc::default(),
            held: ResourceSet::default(),
            types: ResourceType::ALL.map(Subscription::new),
            idle: true,
            withholding: false,
            waited: false,
        }
    }

    /// Takes a state-of-the-world request.
    ///
    /// # Errors
    /// When the stream must end with `INVALID_ARGUMENT` or `RESOURCE_EXHAUSTED`.
    pub fn on_sotw(&mut self, request: &SotwRequest) -> Result<Outcome, SessionError> {
        let Some(kind) = kind_of(&request.type_url)? else { return Ok(Outcome::UnknownType) };
        self.idle = false;
        self.types[kind as usize].on_sotw(request)
    }

    /// Takes a delta request.
    ///
    /// # Errors
    /// When the stream must end with `INVALID_ARGUMENT` or `RESOURCE_EXHAUSTED`.
    pub fn on_delta(&mut self, request: &DeltaRequest) -> Result<Outcome, SessionError> {
        let Some(kind) = kind_of(&request.type_url)? else { return Ok(Outcome::UnknownType) };
        let target = Arc::clone(&self.target);
        self.idle = false;
        self.types[kind as usize]
            .on_delta(request, |name| target.get(kind, name).map(|r| r.version))
    }

    /// Takes the newest resources of the stream's node.
    pub fn on_set(&mut self, set: Arc<ResourceSet>) {
        let news = self.target.diff(&set);
        if news.is_empty() {
            return;
        }
        self.hold_removed(&set, news.get(&ResourceType::Cluster));
        self.target = set;
        self.idle = false;
        self.waited = false;
        for (kind, diff) in &news {
            let changed = diff.changed.iter().map(|resource| &resource.name);
            self.types[*kind as usize].touch(changed.chain(&diff.removed));
        }
    }

    /// The next response, if the client is owed one.
    pub fn next_response(&mut self) -> Option<Response> {
        loop {
            self.withholding = false;
            for kind in ResourceType::ALL {
                if let Some(response) = self.respond(kind) {
                    return Some(response);
                }
            }
            if !self.release() {
                self.idle = true;
                return None;
            }
        }
    }

    /// Whether [`Session::next_response`] may have a response. `false` is certain until the next input.
    #[must_use]
    pub fn may_have_next(&self) -> bool {
        !self.idle
    }

    /// Whether listeners or routes wait for the client to take the clusters and endpoints before
    /// them. A caller with a clock ends a wait that takes too long with [`Session::stop_waiting`].
    #[must_use]
    pub fn is_withholding(&self) -> bool {
        self.withholding
    }

    /// Sends what is withheld although the client did not take what comes before it: it may never
    /// ask for the endpoints of some cluster. Holds until the next set.
    pub fn stop_waiting(&mut self) {
        self.waited = true;
        self.idle = false;
    }

    /// How the client stands with every type that it has asked for.
    #[must_use]
    pub fn status(&self) -> Vec<TypeStatus> {
        self.types.iter().filter(|s| s.requested).map(Subscription::status).collect()
    }

    fn respond(&mut self, kind: ResourceType) -> Option<Response> {
        if ROUTING.contains(&kind) && self.types[kind as usize].may_respond() && !self.may_route() {
            self.withholding = true;
            return None;
        }
        let visible = diff::Visible { kind, target: &self.target, held: &self.held };
        let subscription = &mut self.types[kind as usize];
        if !subscription.may_respond() {
            return None;
        }
        subscription.dirty = false;
        let changes = match self.dialect {
            Dialect::StateOfTheWorld => diff::state_of_the_world(subscription, &visible),
            Dialect::Delta => diff::delta(subscription, &visible),
        };
        let version = diff::version(subscription, &visible, self.dialect);
        let Some(changes) = changes else {
            subscription.is_current(version);
            return None;
        };
        self.last_nonce += 1;
        let nonce = format!("{:x}-{}", self.stream, self.last_nonce);
        subscription.sent(&nonce, version, &changes);
        let (resources, removed) = (changes.resources, changes.removed);
        self.owe_endpoints_of(&changes.changed_clusters);
        Some(Response { kind, version, nonce, resources, removed })
    }

    /// Whether the client has taken the clusters that new listeners and routes may use: they are
    /// acknowledged, and where it has all clusters, it asked for and has their endpoints too.
    /// (A client that names its clusters learns the names from the routes, so these cannot wait.)
    fn may_route(&self) -> bool {
        let clusters = &self.types[ResourceType::Cluster as usize];
        let endpoints = &self.types[ResourceType::Endpoint as usize];
        if self.waited || !clusters.is_active() {
            return true;
        }
        if !clusters.is_answered() || !endpoints.is_answered() {
            return false;
        }
        if !clusters.wildcard || clusters.is_rejected() {
            return true;
        }
        self.target.of_type(ResourceType::Endpoint).all(|assignment| {
            !clusters.holds(&assignment.name) || endpoints.has(&assignment.name, assignment.version)
        })
    }

    /// A client warms a changed cluster until it hears of its endpoints, even if they are the same
    /// as before: Envoy waits out `initial_fetch_timeout` otherwise.
    fn owe_endpoints_of(&mut self, clusters: &[Arc<str>]) {
        let endpoints = &mut self.types[ResourceType::Endpoint as usize];
        for name in clusters {
            if endpoints.wants(name) {
                endpoints.owe(name);
            }
        }
    }

    /// First phase of make before break: what the client uses and the new set lacks is kept.
    fn hold_removed(&mut self, new: &ResourceSet, clusters: Option<&Diff>) {
        for kind in [ResourceType::Cluster, ResourceType::Endpoint] {
            let back: Vec<Arc<str>> = self
                .held
                .of_type(kind)
                .filter(|r| new.get(kind, &r.name).is_some())
                .map(|r| Arc::clone(&r.name))
                .collect();
            for name in back {
                self.held.remove(kind, &name);
            }
        }
        if !ROUTING.iter().any(|kind| self.types[*kind as usize].is_active()) {
            return;
        }
        for name in clusters.into_iter().flat_map(|diff| &diff.removed) {
            let cluster = self.target.get(ResourceType::Cluster, name);
            let used = self.types[ResourceType::Cluster as usize].holds(name);
            let Some(cluster) = cluster.filter(|_| used) else { continue };
            self.held.insert(Arc::clone(cluster));
            let endpoints = self.target.get(ResourceType::Endpoint, name);
            if let Some(endpoints) = endpoints
                && new.get(ResourceType::Endpoint, name).is_none()
            {
                self.held.insert(Arc::clone(endpoints));
            }
        }
        if self.held.len() > MAX_HELD {
            self.let_go();
        }
    }

    /// Second phase: once listeners and routes are sent and accepted, what was held may go.
    fn release(&mut self) -> bool {
        let settled = ROUTING.iter().all(|kind| self.types[*kind as usize].is_settled());
        if self.held.is_empty() || !settled {
            return false;
        }
        self.let_go();
        true
    }

    fn let_go(&mut self) {
        let held = std::mem::take(&mut self.held);
        for kind in [ResourceType::Cluster, ResourceType::Endpoint] {
            self.types[kind as usize].touch(held.of_type(kind).map(|resource| &resource.name));
        }
    }
}

/// The types that refer to clusters.
const ROUTING: [ResourceType; 2] = [ResourceType::Listener, ResourceType::Route];

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("dialect", &self.dialect)
            .field("stream", &self.stream)
            .field("resources", &self.target.len())
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

fn kind_of(type_url: &str) -> Result<Option<ResourceType>, SessionError> {
    if type_url.is_empty() {
        return Err(SessionError::MissingTypeUrl);
    }
    Ok(ResourceType::from_type_url(type_url))
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
