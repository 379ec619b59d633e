//! Spans over our own clusters, by OTLP.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request};
use http_body_util::BodyExt;

use crate::cluster::{Clusters, PickContext, SendOptions};
use crate::http::body::RequestBody;
use crate::model::tracing::Exporter;
use crate::telemetry::export::SpanSink;

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// A collector that takes longer than this is given up.
const LIMIT: Duration = Duration::from_secs(5);

/// Sends batches to the cluster that the tracer names.
pub(super) struct Sender(pub(super) Arc<Clusters>);

impl SpanSink for Sender {
    fn send<'a>(
        &'a self,
        exporter: &'a Exporter,
        payload: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(async move {
            match tokio::time::timeout(LIMIT, self.deliver(exporter, payload)).await {
                Ok(sent) => sent,
                Err(_) => Err(format!("the collector did not answer within {LIMIT:?}")),
            }
        })
    }
}

impl Sender {
    async fn deliver(&self, exporter: &Exporter, payload: Bytes) -> Result<(), String> {
        let (name, request) = match exporter {
            Exporter::Grpc(name) => (name, grpc(name, &payload)),
            Exporter::Http { cluster, authority, path } => {
                (cluster, http(authority, path, payload))
            }
        };
        let request = request.map_err(|error| error.to_string())?;
        let live = self.0.load();
        let cluster = live.cluster(name).ok_or_else(|| format!("there is no cluster `{name}`"))?;
        let context = PickContext { random: fastrand::u64(..), ..PickContext::default() };
        let endpoint = cluster.pick(&context).map_err(|refusal| refusal.to_string())?;
        let options = SendOptions { downstream_h2: true, ..SendOptions::default() };
        let sent = cluster.send(&endpoint, request, options).await;
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
fn grpc(cluster: &str, payload: &Bytes) -> http::Result<Request<RequestBody>> {
    let mut body = BytesMut::with_capacity(payload.len() + 5);
    body.put_u8(0);
    body.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    body.put_slice(payload);
    let authority = cluster.replace(':', "-");
    Request::post(format!("http://{authority}{GRPC_PATH}"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header("te", HeaderValue::from_static("trailers"))
        .body(RequestBody::Full(Some(body.freeze())))
}

fn http(authority: &str, path: &str, payload: Bytes) -> http::Result<Request<RequestBody>> {
    Request::post(format!("http://{authority}{path}"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))
        .body(RequestBody::Full(Some(payload)))
}
