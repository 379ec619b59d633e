//! Streams as a client sees them, without sockets: what it says and what is published may come at the same moment.

use std::convert::Infallible;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::snapshot::{Resource, ResourceType};

/// One cluster, whose body is this.
struct One(Vec<u8>);

impl World for One {
    fn resources(&self, _: &Node) -> Result<ResourceSet, String> {
        Ok([Resource::new(ResourceType::Cluster, "web", self.0.clone())].into_iter().collect())
    }

    fn warnings(&self, _: &Node) -> Vec<String> {
        Vec::new()
    }
}

fn published(number: u8) -> Published {
    Published::now(Arc::new(One(vec![number])))
}

/// A gRPC message with its length in front.
fn framed(message: &discovery::DeltaDiscoveryRequest) -> Frame<Bytes> {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    Frame::data(bytes.freeze())
}

#[tokio::test(start_paused = true)]
async fn a_world_that_comes_with_an_acknowledgement_is_sent() {
    let (worlds, followed) = watch::channel(published(0));
    let server = AdsApi::new(followed, CancellationToken::new()).into_server();
    let (say, said) = mpsc::unbounded_channel();
    let said = tokio_stream::wrappers::UnboundedReceiverStream::new(said);
    let mut request = http::Request::post(
        "http://test/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
    )
    .header("content-type", "application/grpc")
    .body(StreamBody::new(said.map(Ok::<_, Infallible>)))
    .unwrap();
    request.extensions_mut().insert(Caller::Local);
    let mut subscription = discovery::DeltaDiscoveryRequest {
        node: Some(Node { id: "test".to_owned(), ..Node::default() }),
        type_url: ResourceType::Cluster.type_url().to_owned(),
        ..Default::default()
    };
    say.send(framed(&subscription)).unwrap();
    let mut answers = server.oneshot(request).await.unwrap().into_body();
    subscription.node = None;
    for number in 0..40 {
        let frame = tokio::time::timeout(Duration::from_secs(60), answers.frame()).await;
        let frame = frame.unwrap_or_else(|_| panic!("world {number} was never sent"));
        let mut message = frame.unwrap().unwrap().into_data().unwrap().split_off(5);
        let answer = discovery::DeltaDiscoveryResponse::decode(&mut message).unwrap();
        let body = answer.resources[0].resource.as_ref().unwrap();
        assert_eq!(body.value, [number]);
        // Both are there before the stream's task runs again; it looks at either first.
        subscription.response_nonce = answer.nonce;
        say.send(framed(&subscription)).unwrap();
        worlds.send_replace(published(number + 1));
    }
}
