//! The aggregated discovery service: a task per stream around a [`Session`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pillion_xds::envoy::config::core::v3::{ControlPlane, Node};
use pillion_xds::envoy::service::discovery::v3 as discovery;
use prost_types::Any;
use prost_types::value::Kind;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};

use super::metrics::Metrics;
use super::session::{
    DeltaRequest, Dialect, Outcome, Response as Push, Session, SessionError, SotwRequest,
};
use super::streams::{Entry, Streams};
use super::vetting::Vetting;
use crate::identity::{Caller, Peer};
use crate::snapshot::ResourceSet;

/// Responses between a session and the socket. More would only make them older.
const QUEUE: usize = 1;
/// Routes wait this long for a client to take the clusters and endpoints before them.
const PATIENCE: Duration = Duration::from_secs(5);

/// The sending half of a stream.
type Responses<R> = ReceiverStream<Result<R, Status>>;

/// The mesh at one moment, as the streams see it.
pub trait World: Send + Sync {
    /// What `node` shall have.
    ///
    /// # Errors
    /// When the node does not say what is needed to know that; the text says what is missing.
    fn resources(&self, node: &Node) -> Result<ResourceSet, String>;

    /// What `node` does not get, and why, for people.
    fn warnings(&self, node: &Node) -> Vec<String>;
}

/// A world and the moment when it was published.
#[derive(Clone)]
pub struct Published {
    /// The world.
    pub world: Arc<dyn World>,
    /// When it was published.
    pub at: Instant,
}

impl Published {
    /// Publishes `world` as of now.
    #[must_use]
    pub fn now(world: Arc<dyn World>) -> Self {
        Self { world, at: Instant::now() }
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").field("at", &self.at).finish_non_exhaustive()
    }
}

/// What all streams share.
#[derive(Clone, Debug)]
pub struct AdsApi {
    worlds: watch::Receiver<Published>,
    streams: Arc<Streams>,
    metrics: Arc<Metrics>,
    vetting: Option<Arc<Vetting>>,
    stop: CancellationToken,
}

impl AdsApi {
    /// A service that follows `worlds` until `stop` is cancelled.
    #[must_use]
    pub fn new(worlds: watch::Receiver<Published>, stop: CancellationToken) -> Self {
        Self { worlds, streams: Arc::default(), metrics: Arc::default(), vetting: None, stop }
    }

    /// Vets what is sent to our own proxies.
    #[must_use]
    pub fn with_vetting(mut self, vetting: Arc<Vetting>) -> Self {
        self.vetting = Some(vetting);
        self
    }

    /// The service as a server takes it.
    #[must_use]
    pub fn into_server(self) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(self)
    }

    /// The open streams.
    #[must_use]
    pub fn streams(&self) -> &Arc<Streams> {
        &self.streams
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What `node` shall have now.
    pub(super) fn resources(&self, node: &Node) -> Result<ResourceSet, String> {
        let published = self.worlds.borrow().clone();
        published.world.resources(node)
    }

    fn start<P: Protocol>(
        &self,
        request: Request<Streaming<P::Request>>,
    ) -> Result<Response<Responses<P::Response>>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.unwrap_or(Caller::Nobody("the caller is not known"));
        if let Caller::Nobody(why) = caller {
            return Err(Status::unauthenticated(why));
        }
        let identity = match &caller {
            Caller::Workload(id) => Some(id.clone()),
            _ => None,
        };
        let address = request.extensions().get::<Peer>().and_then(|peer| peer.address);
        let entry = self.streams.open(P::DIALECT, address, identity);
        self.metrics.stream();
        let stream = Stream {
            session: Session::new(P::DIALECT, entry.id),
            entry,
            caller,
            node: None,
            resources: Arc::default(),
            changed_at: None,
            api: self.clone(),
        };
        let (out, responses) = mpsc::channel(QUEUE);
        tokio::spawn(stream.run::<P>(request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for AdsApi {
    type StreamAggregatedResourcesStream = Responses<discovery::DiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<discovery::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.start::<StateOfTheWorld>(request)
    }

    type DeltaAggregatedResourcesStream = Responses<discovery::DeltaDiscoveryResponse>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<discovery::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.start::<Delta>(request)
    }
}

/// One stream.
struct Stream {
    session: Session,
    entry: Entry,
    caller: Caller,
    node: Option<Arc<Node>>,
    resources: Arc<ResourceSet>,
    /// When the change was published that is not sent yet.
    changed_at: Option<Instant>,
    api: AdsApi,
}

impl Stream {
    async fn run<P: Protocol>(
        mut self,
        mut requests: Streaming<P::Request>,
        out: mpsc::Sender<Result<P::Response, Status>>,
    ) {
        let mut worlds = self.api.worlds.clone();
        let stop = self.api.stop.clone();
        let mut patience: Option<Instant> = None;
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => {
                    break Some(Status::unavailable("the control plane is shutting down"));
                }
                request = requests.message() => match request {
                    Ok(Some(request)) => {
                        if let Err(status) = self.on_request::<P>(request, &mut worlds) {
                            break Some(status);
                        }
                    }
                    Ok(None) | Err(_) => break None,
                },
                changed = worlds.changed(), if self.node.is_some() => {
                    if changed.is_err() {
                        break Some(Status::unavailable("the control plane is shutting down"));
                    }
                    let published = worlds.borrow_and_update().clone();
                    self.on_world(&published);
                }
                permit = out.reserve(), if self.session.may_have_next() => {
                    let Ok(permit) = permit else { break None };
                    if let Some(push) = self.session.next_response() {
                        permit.send(Ok(self.respond::<P>(push)));
                    }
                }
                () = sleep_until(patience), if patience.is_some() => {
                    tracing::info!(
                        node = self.node_id(),
                        "sends routes although the client has not taken every cluster before them"
                    );
                    self.session.stop_waiting();
                }
            }
            patience = self
                .session
                .is_withholding()
                .then(|| patience.unwrap_or_else(|| Instant::now() + PATIENCE));
        };
        if let Some(status) = ended {
            tracing::info!(node = self.node_id(), reason = status.message(), "closes a stream");
            // A client that takes nothing more does not hear why; that is its loss.
            let _ = out.try_send(Err(status));
        }
    }

    fn on_request<P: Protocol>(
        &mut self,
        mut request: P::Request,
        worlds: &mut watch::Receiver<Published>,
    ) -> Result<(), Status> {
        let node = P::take_node(&mut request);
        if self.node.is_none() {
            // Only here is a world taken in by a request. One that comes later stays unseen for `changed` to find, or
            // a stream would miss the world that was published while an acknowledgement was under way.
            let published = worlds.borrow_and_update().clone();
            self.introduce(node, &published)?;
        }
        let outcome = P::apply(&mut self.session, request).map_err(|error| match error {
            SessionError::MissingTypeUrl => Status::invalid_argument(error.to_string()),
            SessionError::TooManyNames(_) => Status::resource_exhausted(error.to_string()),
        })?;
        match outcome {
            Outcome::Acked(kind) => self.api.metrics.ack(kind),
            Outcome::Nacked(kind, detail) => {
                self.api.metrics.nack(kind);
                tracing::warn!(
                    node = self.node_id(),
                    r#type = kind.short(),
                    detail,
                    "a client refused a response"
                );
            }
            Outcome::Subscribed(_) | Outcome::Stale(_) | Outcome::UnknownType => {}
        }
        self.show();
        Ok(())
    }

    /// The first message says who the stream is for.
    fn introduce(&mut self, node: Option<Node>, published: &Published) -> Result<(), Status> {
        let node = node.filter(|node| !node.id.is_empty()).ok_or_else(|| {
            Status::invalid_argument("node.id is missing in the first request of the stream")
        })?;
        check_identity(&self.caller, &node)?;
        let node = Arc::new(node);
        self.node = Some(Arc::clone(&node));
        self.update(published).map_err(Status::invalid_argument)?;
        for warning in published.world.warnings(&node) {
            tracing::warn!(node = node.id, "{warning}");
        }
        tracing::info!(node = node.id, stream = self.entry.id, "opened a stream");
        self.entry.update(|view| view.node = Some(node));
        Ok(())
    }

    fn on_world(&mut self, published: &Published) {
        if let Err(error) = self.update(published) {
            tracing::warn!(node = self.node_id(), error, "keeps the resources as they are");
        }
        self.show();
    }

    fn update(&mut self, published: &Published) -> Result<(), String> {
        let Some(node) = self.node.as_deref() else { return Ok(()) };
        let mut resources = published.world.resources(node)?;
        if let Some(vetting) = self.api.vetting.as_deref().filter(|_| is_our_proxy(node)) {
            let (vetted, refusals) = vetting.vet(&self.resources, resources);
            resources = vetted;
            self.api.metrics.refused(refusals.len());
            for refusal in &refusals {
                let (name, reason) = (&refusal.name, &refusal.reason);
                tracing::warn!(%name, %reason, "holds back a resource that would be refused");
            }
            self.entry.update(|view| view.refusals = refusals);
        }
        if resources != *self.resources {
            self.resources = Arc::new(resources);
            self.changed_at.get_or_insert(published.at);
            self.session.on_set(Arc::clone(&self.resources));
        }
        Ok(())
    }

    fn respond<P: Protocol>(&mut self, push: Push) -> P::Response {
        self.api.metrics.response(push.kind, push.resources.len());
        if let Some(at) = self.changed_at.take() {
            self.api.metrics.push(at.elapsed());
        }
        tracing::debug!(
            node = self.node_id(),
            r#type = push.kind.short(),
            resources = push.resources.len(),
            removed = push.removed.len(),
            nonce = push.nonce,
            "pushes"
        );
        self.show();
        P::response(push)
    }

    fn show(&self) {
        let types = self.session.status();
        self.entry.update(|view| view.types = types);
    }

    fn node_id(&self) -> &str {
        self.node.as_ref().map_or("", |node| node.id.as_str())
    }
}

/// One of the two xDS variants, as far as messages differ.
trait Protocol: Send + 'static {
    const DIALECT: Dialect;
    type Request: Send + 'static;
    type Response: Send + 'static;

    fn take_node(request: &mut Self::Request) -> Option<Node>;
    fn apply(session: &mut Session, request: Self::Request) -> Result<Outcome, SessionError>;
    fn response(push: Push) -> Self::Response;
}

struct StateOfTheWorld;

impl Protocol for StateOfTheWorld {
    const DIALECT: Dialect = Dialect::StateOfTheWorld;
    type Request = discovery::DiscoveryRequest;
    type Response = discovery::DiscoveryResponse;

    fn take_node(request: &mut Self::Request) -> Option<Node> {
        request.node.take()
    }

    fn apply(session: &mut Session, request: Self::Request) -> Result<Outcome, SessionError> {
        session.on_sotw(&SotwRequest {
            type_url: request.type_url,
            version: request.version_info,
            names: request.resource_names,
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
        })
    }

    fn response(push: Push) -> Self::Response {
        let type_url = push.kind.type_url();
        discovery::DiscoveryResponse {
            version_info: push.version.to_string(),
            resources: push
                .resources
                .iter()
                .map(|r| Any { type_url: type_url.to_owned(), value: r.body.to_vec() })
                .collect(),
            type_url: type_url.to_owned(),
            nonce: push.nonce,
            control_plane: Some(control_plane()),
            ..Self::Response::default()
        }
    }
}

struct Delta;

impl Protocol for Delta {
    const DIALECT: Dialect = Dialect::Delta;
    type Request = discovery::DeltaDiscoveryRequest;
    type Response = discovery::DeltaDiscoveryResponse;

    fn take_node(request: &mut Self::Request) -> Option<Node> {
        request.node.take()
    }

    fn apply(session: &mut Session, request: Self::Request) -> Result<Outcome, SessionError> {
        session.on_delta(&DeltaRequest {
            type_url: request.type_url,
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            initial_versions: request.initial_resource_versions.into_iter().collect(),
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
        })
    }

    fn response(push: Push) -> Self::Response {
        let type_url = push.kind.type_url();
        let resources = push.resources.iter().map(|resource| discovery::Resource {
            name: resource.name.to_string(),
            version: resource.version.to_string(),
            resource: Some(Any { type_url: type_url.to_owned(), value: resource.body.to_vec() }),
            ..discovery::Resource::default()
        });
        discovery::DeltaDiscoveryResponse {
            system_version_info: push.version.to_string(),
            resources: resources.collect(),
            type_url: type_url.to_owned(),
            nonce: push.nonce,
            removed_resources: push.removed.iter().map(ToString::to_string).collect(),
            control_plane: Some(control_plane()),
            ..Self::Response::default()
        }
    }
}

fn control_plane() -> ControlPlane {
    ControlPlane { identifier: concat!("pillion/", env!("CARGO_PKG_VERSION")).to_owned() }
}

/// A workload's certificate must be that of the node it speaks for. On the loopback listener, and
/// for holders of the join token, what the node says of itself is taken.
fn check_identity(caller: &Caller, node: &Node) -> Result<(), Status> {
    let Caller::Workload(id) = caller else { return Ok(()) };
    let (namespace, account) = (metadata(node, "NAMESPACE"), metadata(node, "SERVICE_ACCOUNT"));
    if namespace == Some(id.namespace()) && account == Some(id.service_account()) {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "{id} may not speak for namespace {:?}, service account {:?} (node.metadata NAMESPACE and \
         SERVICE_ACCOUNT)",
        namespace.unwrap_or_default(),
        account.unwrap_or_default(),
    )))
}

fn is_our_proxy(node: &Node) -> bool {
    metadata(node, "PROXY") == Some("pillion")
}

fn metadata<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    match node.metadata.as_ref()?.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
