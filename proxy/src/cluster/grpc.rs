//! A gRPC channel over a cluster of our own: its balancing, TLS, pools and limits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;

use super::{Clusters, Outcome, PickContext, ResponseBody, SendOptions};
use crate::http::body::{BodyError, RequestBody};
use crate::model::Name;
use crate::model::route::Priority;
use crate::model::service::GrpcService;
use crate::telemetry::reason::Refusal;

/// What a tonic client sends its calls to. The cluster is looked up anew for each call, so that
/// it may come, go and change; it has to speak HTTP/2.
#[derive(Clone, Debug)]
pub struct Channel {
    clusters: Arc<Clusters>,
    cluster: Name,
    authority: Authority,
}

impl Channel {
    /// `authority` is sent as `:authority`; None: the cluster's name, where that is one (Envoy's
    /// default), else `localhost`.
    pub fn new(clusters: Arc<Clusters>, cluster: Name, authority: Option<&str>) -> Self {
        let authority = Authority::try_from(authority.unwrap_or(&cluster))
            .unwrap_or_else(|_| Authority::from_static("localhost"));
        Self { clusters, cluster, authority }
    }

    /// The same for a service that is configured, and a request to it with what is sent with every
    /// one. Its time limit is told to the server; whoever calls has to keep it as well.
    pub fn to<T>(
        clusters: Arc<Clusters>,
        service: &GrpcService,
        message: T,
    ) -> (Self, tonic::Request<T>) {
        let authority = service.authority.as_deref();
        let channel = Self::new(clusters, Arc::clone(&service.cluster), authority);
        let metadata: HeaderMap = service.metadata.iter().cloned().collect();
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(metadata);
        if let Some(limit) = service.timeout {
            request.set_timeout(limit);
        }
        (channel, request)
    }

    async fn send(self, request: Request<Body>) -> Result<Response<ResponseBody>, Status> {
        let live = self.clusters.load();
        let cluster = live
            .cluster(&self.cluster)
            .ok_or_else(|| Status::unavailable(format!("there is no cluster {}", self.cluster)))?;
        let cluster = &live.leaf(cluster, fastrand::u64(..));
        let unavailable = |refusal: Refusal| Status::unavailable(refusal.to_string());
        let context = PickContext { random: fastrand::u64(..), ..PickContext::default() };
        let endpoint = cluster.pick(&context).map_err(unavailable)?;
        let _permit = cluster.admit(Priority::Default).map_err(unavailable)?;
        let options = SendOptions {
            downstream_h2: true,
            sni: Some(Name::from(self.authority.host())),
            ..SendOptions::default()
        };
        let mut request = self.prepare(request)?;
        match cluster.send(&endpoint, &mut request, options).await {
            Ok(response) => {
                let status = response.status().as_u16();
                cluster.record(&endpoint, Outcome::Status(status));
                cluster.stats.charge(status, true);
                Ok(response)
            }
            Err(error) => {
                cluster.record(&endpoint, Outcome::LocalFailure(error.refusal.reason));
                cluster.stats.charge(error.refusal.status.as_u16(), true);
                Err(unavailable(error.refusal))
            }
        }
    }

    fn prepare(&self, request: Request<Body>) -> Result<Request<RequestBody>, Status> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().cloned();
        head.uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build()
            .map_err(|error| Status::internal(error.to_string()))?;
        let body = if body.is_end_stream() {
            RequestBody::Empty
        } else {
            RequestBody::Boxed(Box::pin(body.map_err(BodyError::from)))
        };
        Ok(Request::from_parts(head, body))
    }
}

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    /// Always ready: whoever waits for a connection waits in the pool's line.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}
