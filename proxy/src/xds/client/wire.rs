//! The stream itself: session messages to and from protobuf, over tonic.

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

/// A stream that stands.
pub(super) enum Wire {
    Delta(mpsc::UnboundedSender<pb::DeltaDiscoveryRequest>, Streaming<pb::DeltaDiscoveryResponse>),
    World(mpsc::UnboundedSender<pb::DiscoveryRequest>, Streaming<pb::DiscoveryResponse>),
}

/// Open a stream.
pub(super) async fn open(ads: &Ads, channel: Channel) -> Result<Wire, String> {
    let client = AggregatedDiscoveryServiceClient::new(channel);
    let mut client = client.max_decoding_message_size(MAX_MESSAGE);
    let failed = |status: Status| format!("{:?}: {}", status.code(), status.message());
    match ads.variant {
        Variant::Delta => {
            let (sender, receiver) = mpsc::unbounded_channel();
            let request = with_metadata(UnboundedReceiverStream::new(receiver), ads);
            let answer = client.delta_aggregated_resources(request).await.map_err(failed)?;
            Ok(Wire::Delta(sender, answer.into_inner()))
        }
        Variant::World => {
            let (sender, receiver) = mpsc::unbounded_channel();
            let request = with_metadata(UnboundedReceiverStream::new(receiver), ads);
            let answer = client.stream_aggregated_resources(request).await.map_err(failed)?;
            Ok(Wire::World(sender, answer.into_inner()))
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

    /// The next response; an error says why the stream ended.
    pub(super) async fn receive(&mut self) -> Result<Response, String> {
        let ended = |status: Status| format!("{:?}: {}", status.code(), status.message());
        let closed = || "the control plane closed the stream".to_owned();
        match self {
            Self::Delta(_, stream) => {
                stream.message().await.map_err(ended)?.map(delta).ok_or_else(closed)
            }
            Self::World(_, stream) => {
                stream.message().await.map_err(ended)?.map(world).ok_or_else(closed)
            }
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
