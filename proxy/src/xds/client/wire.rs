//! A stream itself: session messages to and from protobuf, over tonic.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use pillion_xds::envoy::config::core::v3::Node;
use pillion_xds::envoy::service::discovery::v3 as pb;
use pillion_xds::google::rpc::Status as RpcStatus;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::cluster::Clusters;
use crate::cluster::grpc::Channel;
use crate::model::source::Stream;
use crate::xds::kind::Kind;
use crate::xds::session::{Ask, Offer, Request as Wanted, Response};

/// INVALID_ARGUMENT, what Envoy says in a NACK.
const INVALID_ARGUMENT: i32 = 3;
/// Largest message that is taken: a full push to a large mesh.
const MAX_MESSAGE: usize = 256 << 20;

/// A stream. Requests may be sent at once: many servers say nothing, not even headers, before they
/// have read one.
pub(super) struct Wire {
    sides: Sides,
    node: Arc<Node>,
    /// Say who we are in every message.
    always: bool,
}

enum Sides {
    Delta(mpsc::UnboundedSender<pb::DeltaDiscoveryRequest>, Answers<pb::DeltaDiscoveryResponse>),
    World(mpsc::UnboundedSender<pb::DiscoveryRequest>, Answers<pb::DiscoveryResponse>),
}

/// The server's side of a stream.
#[expect(clippy::large_enum_variant, reason = "there are few in a process")]
pub(super) enum Answers<T> {
    /// Its headers have not come.
    Opening(Opening<T>),
    /// They have.
    Open(Streaming<T>),
}

type Opening<T> =
    Pin<Box<dyn Future<Output = Result<tonic::Response<Streaming<T>>, Status>> + Send>>;

/// What came from the server.
pub(super) enum Event {
    /// It has taken the stream.
    Opened,
    /// A response.
    Response(Response),
}

/// Open a stream: of one kind, or of all (ADS).
pub(super) fn open(
    clusters: &Arc<Clusters>,
    node: &Arc<Node>,
    stream: &Stream,
    kind: Option<Kind>,
) -> Wire {
    let path = PathAndQuery::from_static(method(kind, stream.delta));
    let sides = if stream.delta {
        let (sender, answers) = start(clusters, stream, path);
        Sides::Delta(sender, answers)
    } else {
        let (sender, answers) = start(clusters, stream, path);
        Sides::World(sender, answers)
    };
    Wire { sides, node: Arc::clone(node), always: !stream.node_on_first_message_only }
}

fn start<Q, A>(
    clusters: &Arc<Clusters>,
    stream: &Stream,
    path: PathAndQuery,
) -> (mpsc::UnboundedSender<Q>, Answers<A>)
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let (sender, receiver) = mpsc::unbounded_channel();
    let requests = UnboundedReceiverStream::new(receiver);
    let (channel, mut request) = Channel::to(Arc::clone(clusters), &stream.service, requests);
    // A stream has no end; what stands there is for single calls.
    request.metadata_mut().remove("grpc-timeout");
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let answer = async move {
        client.ready().await?;
        client.streaming(request, path, ProstCodec::<Q, A>::default()).await
    };
    (sender, Answers::Opening(Box::pin(answer)))
}

/// Envoy's services.
fn method(kind: Option<Kind>, delta: bool) -> &'static str {
    match (kind, delta) {
        (None, true) => {
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
        }
        (None, false) => {
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
        }
        (Some(Kind::Cluster), true) => {
            "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters"
        }
        (Some(Kind::Cluster), false) => {
            "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"
        }
        (Some(Kind::Endpoints), true) => {
            "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints"
        }
        (Some(Kind::Endpoints), false) => {
            "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
        }
        (Some(Kind::Listener), true) => {
            "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners"
        }
        (Some(Kind::Listener), false) => {
            "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"
        }
        (Some(Kind::Routes), true) => "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes",
        (Some(Kind::Routes), false) => "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes",
        (Some(Kind::Secret), true) => {
            "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
        }
        (Some(Kind::Extension), true) => {
            "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/DeltaExtensionConfigs"
        }
        (Some(Kind::Extension), false) => {
            "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs"
        }
        (Some(Kind::Secret), false) => {
            "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
        }
    }
}

impl<T> Answers<T> {
    /// First the headers, then messages. Nothing is lost when the wait is broken off.
    async fn next(&mut self) -> Result<Next<T>, String> {
        let told = |status: Status| format!("{:?}: {}", status.code(), status.message());
        match self {
            Self::Opening(opening) => {
                let opened = opening.await.map_err(told)?;
                *self = Self::Open(opened.into_inner());
                Ok(Next::Opened)
            }
            Self::Open(stream) => match stream.message().await.map_err(told)? {
                Some(message) => Ok(Next::Message(message)),
                None => Err("the server closed the stream".to_owned()),
            },
        }
    }
}

enum Next<T> {
    Opened,
    Message(T),
}

impl<T> Next<T> {
    fn map(self, response: impl FnOnce(T) -> Response) -> Event {
        match self {
            Self::Opened => Event::Opened,
            Self::Message(message) => Event::Response(response(message)),
        }
    }
}

impl Wire {
    /// Queue a message; a stream that has ended says so when it is next read.
    pub(super) fn send(&self, request: Wanted) {
        let type_url = request.kind.type_url().to_owned();
        let node = (request.first || self.always).then(|| Node::clone(&self.node));
        let error_detail = request.error.map(|message| RpcStatus {
            code: INVALID_ARGUMENT,
            message,
            ..RpcStatus::default()
        });
        let text = |names: Vec<crate::model::Name>| names.iter().map(|n| n.to_string()).collect();
        match (&self.sides, request.ask) {
            (Sides::Delta(sender, _), Ask::Delta { subscribe, unsubscribe, initial }) => {
                let _ = sender.send(pb::DeltaDiscoveryRequest {
                    node,
                    type_url,
                    resource_names_subscribe: text(subscribe),
                    resource_names_unsubscribe: text(unsubscribe),
                    initial_resource_versions: initial
                        .into_iter()
                        .map(|(name, version)| (name.to_string(), version))
                        .collect(),
                    response_nonce: request.nonce,
                    error_detail,
                    ..pb::DeltaDiscoveryRequest::default()
                });
            }
            (Sides::World(sender, _), Ask::World { version, names }) => {
                let _ = sender.send(pb::DiscoveryRequest {
                    node,
                    type_url,
                    version_info: version,
                    resource_names: text(names),
                    response_nonce: request.nonce,
                    error_detail,
                    ..pb::DiscoveryRequest::default()
                });
            }
            // The session speaks the variant that the stream was opened with.
            _ => {}
        }
    }

    /// What comes next; an error says why the stream ended.
    pub(super) async fn receive(&mut self) -> Result<Event, String> {
        match &mut self.sides {
            Sides::Delta(_, answers) => Ok(answers.next().await?.map(delta)),
            Sides::World(_, answers) => Ok(answers.next().await?.map(world)),
        }
    }
}

fn delta(response: pb::DeltaDiscoveryResponse) -> Response {
    Response {
        type_url: response.type_url,
        nonce: response.nonce,
        version: response.system_version_info,
        resources: response.resources.into_iter().map(offer).collect(),
        removed: response.removed_resources,
        identifier: response.control_plane.map_or_else(String::new, |one| one.identifier),
    }
}

fn offer(resource: pb::Resource) -> Offer {
    let (type_url, body) = match resource.resource {
        Some(any) => (any.type_url, Some(Bytes::from(any.value))),
        None => (String::new(), None),
    };
    Offer {
        name: resource.name,
        version: resource.version,
        type_url,
        body,
        ttl: resource.ttl.and_then(|ttl| Duration::try_from(ttl).ok()),
    }
}

/// A whole answer, from a stream or a file.
pub(super) fn world(response: pb::DiscoveryResponse) -> Response {
    let wrapper = "type.googleapis.com/envoy.service.discovery.v3.Resource";
    let resources = response.resources.into_iter().map(|any| {
        if any.type_url == wrapper
            && let Ok(resource) = <pb::Resource as prost::Message>::decode(any.value.as_slice())
        {
            return offer(resource);
        }
        Offer { type_url: any.type_url, body: Some(Bytes::from(any.value)), ..Offer::default() }
    });
    Response {
        resources: resources.collect(),
        type_url: response.type_url,
        nonce: response.nonce,
        version: response.version_info,
        removed: Vec::new(),
        identifier: response.control_plane.map_or_else(String::new, |one| one.identifier),
    }
}
