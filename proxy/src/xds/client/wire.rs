//! The stream itself: session messages to and from protobuf, over tonic.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use pillion_xds::envoy::config::core::v3::Node;
use pillion_xds::envoy::service::discovery::v3 as pb;
use pillion_xds::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use pillion_xds::google::rpc::Status as RpcStatus;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::{Request, Status, Streaming};

use crate::cluster::grpc::Channel;
use crate::xds::session::{Ask, Offer, Request as Wanted, Response, Variant};
use crate::xds::translate::bootstrap::Ads;

/// INVALID_ARGUMENT, what Envoy says in a NACK.
const INVALID_ARGUMENT: i32 = 3;
/// Largest message that is taken: a full push to a large mesh.
const MAX_MESSAGE: usize = 256 << 20;

/// A stream. Requests may be sent at once: many servers say nothing, not even headers, before they
/// have read one.
pub(super) enum Wire {
    Delta(mpsc::UnboundedSender<pb::DeltaDiscoveryRequest>, Answers<pb::DeltaDiscoveryResponse>),
    World(mpsc::UnboundedSender<pb::DiscoveryRequest>, Answers<pb::DiscoveryResponse>),
}

/// The server's side of a stream.
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
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

/// Open a stream.
pub(super) fn open(ads: &Ads, channel: Channel) -> Wire {
    let client = AggregatedDiscoveryServiceClient::new(channel);
    let mut client = client.max_decoding_message_size(MAX_MESSAGE);
    match ads.variant {
        Variant::Delta => {
            let (sender, receiver) = mpsc::unbounded_channel();
            let request = with_metadata(UnboundedReceiverStream::new(receiver), ads);
            let answer = async move { client.delta_aggregated_resources(request).await };
            Wire::Delta(sender, Answers::Opening(Box::pin(answer)))
        }
        Variant::World => {
            let (sender, receiver) = mpsc::unbounded_channel();
            let request = with_metadata(UnboundedReceiverStream::new(receiver), ads);
            let answer = async move { client.stream_aggregated_resources(request).await };
            Wire::World(sender, Answers::Opening(Box::pin(answer)))
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
                None => Err("the control plane closed the stream".to_owned()),
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

fn with_metadata<T>(stream: T, ads: &Ads) -> Request<T> {
    let mut request = Request::new(stream);
    for (key, value) in &ads.metadata {
        if let (Ok(key), Ok(value)) =
            (MetadataKey::from_bytes(key.as_bytes()), MetadataValue::try_from(value.as_str()))
        {
            request.metadata_mut().insert(key, value);
        }
    }
    request
}

impl Wire {
    /// Queue a message; a stream that has ended says so when it is next read.
    pub(super) fn send(&self, request: Wanted, node: &Node) {
        let type_url = request.kind.type_url().to_owned();
        let node = request.first.then(|| node.clone());
        let error_detail = request.error.map(|message| RpcStatus {
            code: INVALID_ARGUMENT,
            message,
            ..RpcStatus::default()
        });
        let text = |names: Vec<crate::model::Name>| names.iter().map(|n| n.to_string()).collect();
        match (self, request.ask) {
            (Self::Delta(sender, _), Ask::Delta { subscribe, unsubscribe, initial }) => {
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
            (Self::World(sender, _), Ask::World { version, names }) => {
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
        match self {
            Self::Delta(_, answers) => Ok(answers.next().await?.map(delta)),
            Self::World(_, answers) => Ok(answers.next().await?.map(world)),
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

fn world(response: pb::DiscoveryResponse) -> Response {
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
    }
}
