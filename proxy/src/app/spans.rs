//! Spans, log entries and metrics over our own clusters.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request};
use http_body_util::BodyExt;

use crate::cluster::{Clusters, PickContext, SendOptions};
use crate::http::body::RequestBody;
use crate::model::collector::{Collector, CollectorProtocol};
use crate::telemetry::export::{Call, Deliver};

/// A collector that takes longer than this is given up.
const LIMIT: Duration = Duration::from_secs(5);

/// Sends batches to the cluster that a collector names.
#[derive(Clone)]
pub(super) struct Sender(pub(super) Arc<Clusters>);

impl Deliver for Sender {
    async fn deliver(&self, to: &Collector, call: Call, payload: Bytes) -> Result<(), String> {
        match tokio::time::timeout(LIMIT, self.send(to, call, payload)).await {
            Ok(sent) => sent,
            Err(_) => Err(format!("the collector did not answer within {LIMIT:?}")),
        }
    }
}

impl Sender {
    async fn send(&self, to: &Collector, call: Call, payload: Bytes) -> Result<(), String> {
        let name = &to.cluster;
        let request = match &to.protocol {
            CollectorProtocol::Grpc => grpc(&to.authority, call, &payload),
            CollectorProtocol::Http(path) => http(&to.authority, path, payload),
        };
        let mut request = request.map_err(|error| error.to_string())?;
        for (name, value) in &to.headers {
            request.headers_mut().append(name, value.clone());
        }
        let live = self.0.load();
        let cluster = live.cluster(name).ok_or_else(|| format!("there is no cluster `{name}`"))?;
        let cluster = live.leaf(cluster, fastrand::u64(..));
        let context = PickContext { random: fastrand::u64(..), ..PickContext::default() };
        let endpoint = cluster.pick(&context).map_err(|refusal| refusal.to_string())?;
        let options = SendOptions { downstream_h2: true, ..SendOptions::default() };
        let sent = cluster.send(&endpoint, &mut request, options).await;
        let (head, body) = sent.map_err(|error| error.refusal.to_string())?.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?;
        let status = head.headers.get("grpc-status").cloned();
        let trailer = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        match status.or(trailer) {
            Some(code) if code != "0" => {
                Err(format!("the collector answered grpc-status {code:?}"))
            }
            _ if !head.status.is_success() => {
                Err(format!("the collector answered {}", head.status))
            }
            _ => Ok(()),
        }
    }
}

/// A unary call: one message, uncompressed, with its length before it.
fn grpc(authority: &str, call: Call, payload: &Bytes) -> http::Result<Request<RequestBody>> {
    let mut body = BytesMut::with_capacity(payload.len() + 5);
    body.put_u8(0);
    body.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    body.put_slice(payload);
    Request::post(format!("http://{authority}{}", call.grpc_path()))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header("te", HeaderValue::from_static("trailers"))
        .body(RequestBody::Full(Some(body.freeze())))
}

fn http(authority: &str, path: &str, payload: Bytes) -> http::Result<Request<RequestBody>> {
    Request::post(format!("http://{authority}{path}"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))
        .body(RequestBody::Full(Some(payload)))
}
