//! One request of this proxy's own to a service behind a cluster: a whole body goes in, a whole
//! body of bounded size comes out, within a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;

use super::{Cluster, Endpoint, Live, Outcome, PickContext, ResponseBody, SendOptions};
use crate::http::body::RequestBody;
use crate::http::target;
use crate::model::Name;
use crate::model::route::Priority;
use crate::telemetry::reason::{Reason, Refusal, Sent, Side};

/// What an answer may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the request to the last byte of its answer.
    pub time: Duration,
    /// Bytes of the answer's body.
    pub body: usize,
}

impl Live {
    /// Asks a service. The request's authority may stand in its URI or in `Host`.
    ///
    /// # Errors
    /// There is no such cluster, no endpoint, no answer in time, or too long a one.
    pub async fn ask(
        &self,
        cluster: &str,
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, Refusal> {
        let Some(cluster) = self.cluster(cluster) else {
            let detail = format!("cluster `{cluster}` does not exist");
            return Err(Refusal::local(Reason::NoCluster, StatusCode::SERVICE_UNAVAILABLE, detail));
        };
        let cluster = &self.leaf(cluster, fastrand::u64(..));
        let context = PickContext { random: fastrand::u64(..), ..PickContext::default() };
        let endpoint = cluster.pick(&context)?;
        let asking = asked(cluster, &endpoint, request, limits.body);
        let answer = match tokio::time::timeout(limits.time, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(too_late(cluster, limits.time)),
        };
        let (outcome, status) = match &answer {
            Ok(answer) => (Outcome::Status(answer.status().as_u16()), answer.status()),
            Err(refusal) => (Outcome::LocalFailure(refusal.reason), refusal.status),
        };
        cluster.record(&endpoint, outcome);
        cluster.stats.charge(status.as_u16(), true);
        answer
    }
}

async fn asked(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    request: Request<Bytes>,
    limit: usize,
) -> Result<Response<Bytes>, Refusal> {
    let _permit = cluster.admit(Priority::Default)?;
    let authority = target::authority(request.uri(), request.headers());
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let options =
        SendOptions { sni: Some(Name::from(host)), downstream_h2: true, ..SendOptions::default() };
    let mut request = request.map(|body| {
        if body.is_empty() { RequestBody::Empty } else { RequestBody::Full(Some(body)) }
    });
    let sent = cluster.send(endpoint, &mut request, options).await;
    let (head, body) = sent.map_err(|error| error.refusal)?.into_parts();
    let body = whole(body, limit).await.map_err(|why| {
        let detail = format!("the answer of cluster {} {why}", cluster.name());
        Refusal::upstream(Reason::UpstreamProtocolError, Sent::Maybe, detail)
    })?;
    Ok(Response::from_parts(head, body))
}

async fn whole(mut body: ResponseBody, limit: usize) -> Result<Bytes, String> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("broke off: {error}"))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + data.len() > limit {
            return Err(format!("is longer than {limit} bytes"));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

fn too_late(cluster: &Cluster, limit: Duration) -> Refusal {
    cluster.stats.upstream_rq_timeout.inc();
    Refusal {
        reason: Reason::RequestTimeout,
        status: StatusCode::GATEWAY_TIMEOUT,
        side: Side::Upstream,
        sent: Sent::Maybe,
        detail: format!("cluster {} did not answer in {limit:?}", cluster.name()).into(),
    }
}
