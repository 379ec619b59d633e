//! One gRPC call whose messages are bytes: those who call know nothing of protobuf, and those who
//! know protobuf make no calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::Clusters;
use super::grpc::Channel;
use crate::model::service::GrpcService;

/// Calls `path` of a service, within `limit`.
///
/// # Errors
/// What the service said, or why it was not reached.
pub async fn unary(
    clusters: Arc<Clusters>,
    service: &GrpcService,
    path: &'static str,
    message: Bytes,
    limit: Duration,
) -> Result<Bytes, Status> {
    let (channel, request) = Channel::to(clusters, service, message);
    let mut client = Grpc::new(channel);
    let call = client.unary(request, PathAndQuery::from_static(path), Plain);
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {limit:?}"))),
    }
}

/// Bytes as they are.
#[derive(Clone, Copy, Debug)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
