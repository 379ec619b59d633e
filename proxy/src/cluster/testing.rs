//! Clusters and endpoints for tests.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Cluster, Clusters, Endpoint, PickContext, ResponseBody, SendError, SendOptions};
use crate::http::body::{BodyError, RequestBody};
use crate::model::cluster::{Cluster as Config, OutlierDetection};
use crate::model::endpoint::{
    Assignment, Endpoint as Configured, LocalityEndpoints, Target, Traits,
};
use crate::model::listener::Address;
use crate::model::{Changes, Name, Snapshot};
use crate::telemetry::stats::Registry;

/// A plain cluster `shop` with Envoy's defaults.
pub(super) fn config() -> Config {
    Config { name: "shop".into(), stat_name: "shop".into(), ..Config::default() }
}

pub(super) fn outliers() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 3,
        consecutive_gateway_failure: 0,
        interval: Duration::from_secs(3600),
        max_ejection_percent: 50,
        always_eject_one: true,
        ..OutlierDetection::default()
    }
}

pub(super) fn endpoint(address: SocketAddr) -> Configured {
    Configured { address: Target::Address(Address::Socket(address)), traits: Traits::plain() }
}

/// The same, of which something else is said.
pub(super) fn but(endpoint: Configured, change: impl FnOnce(&mut Traits)) -> Configured {
    let mut traits = Traits::clone(&endpoint.traits);
    change(&mut traits);
    Configured { traits: Arc::new(traits), ..endpoint }
}

/// `127.0.0.1:<port>`, where nobody has to listen.
pub(super) fn at(port: u16) -> Configured {
    endpoint(SocketAddr::from(([127, 0, 0, 1], port)))
}

pub(super) fn locality(priority: u32, endpoints: Vec<Configured>) -> LocalityEndpoints {
    LocalityEndpoints { priority, weight: Some(1), endpoints, ..LocalityEndpoints::default() }
}

pub(super) fn assignment(localities: Vec<LocalityEndpoints>) -> Assignment {
    Assignment { localities, overprovisioning_factor: 140, ..Assignment::default() }
}

/// One cluster, published.
pub(super) struct Shop {
    pub(super) clusters: Arc<Clusters>,
    pub(super) registry: Registry,
}

impl Shop {
    pub(super) fn new(config: Config, assignment: Assignment) -> Self {
        let registry = Registry::new();
        let shop = Self { clusters: Clusters::new(&registry, 2), registry };
        shop.publish(config, assignment);
        shop
    }

    pub(super) fn one(config: Config, address: SocketAddr) -> Self {
        Self::new(config, assignment(vec![locality(0, vec![endpoint(address)])]))
    }

    pub(super) fn publish(&self, config: Config, assignment: Assignment) {
        let mut snapshot = Snapshot::default();
        let name = Name::clone(&config.name);
        snapshot.clusters.insert_mut(Name::clone(&name), Arc::new(config));
        snapshot.assignments.insert_mut(name, Arc::new(assignment));
        let changes = Changes::all(&snapshot);
        self.clusters.publish(snapshot, &changes);
    }

    pub(super) fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(self.clusters.load().cluster("shop").unwrap())
    }

    pub(super) fn pick(&self) -> Arc<Endpoint> {
        let context = PickContext { random: fastrand::u64(..), ..PickContext::default() };
        self.cluster().pick(&context).unwrap()
    }

    pub(super) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, SendError> {
        self.cluster().send(&self.pick(), &mut request, SendOptions::default()).await
    }

    /// `GET /`, with the whole answer read.
    pub(super) async fn get(&self) -> Result<(u16, Bytes), SendError> {
        let response = self.send(get("/")).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await.unwrap().to_bytes()))
    }
}

pub(super) fn get(path: &str) -> Request<RequestBody> {
    Request::get(path).header("host", "shop.test").body(RequestBody::Empty).unwrap()
}

/// A body whose pieces come through a channel.
pub(super) fn pieces() -> (mpsc::UnboundedSender<Result<Frame<Bytes>, BodyError>>, RequestBody) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    (sender, RequestBody::Boxed(Box::pin(StreamBody::new(stream))))
}

pub(super) fn data(text: &'static str) -> Result<Frame<Bytes>, BodyError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

pub(super) fn post(body: RequestBody) -> Request<RequestBody> {
    Request::post("/").header("host", "shop.test").body(body).unwrap()
}

/// A server on a loopback port. It ends with the test.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Backend {
    /// Each connection is handed to `serve`.
    pub(super) async fn raw<F, Fut>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream));
            }
        });
        Self { address, accepted, task }
    }

    pub(super) async fn http1<F, Fut>(handle: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::raw(move |stream| {
            let handle = handle.clone();
            async move {
                let service = service_fn(move |request| answer(handle(request)));
                let _ = http1::Builder::new()
                    .preserve_header_case(true)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        })
        .await
    }

    pub(super) async fn http2<F, Fut>(handle: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::raw(move |stream| {
            let handle = handle.clone();
            async move {
                let service = service_fn(move |request| answer(handle(request)));
                let _ = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        })
        .await
    }

    /// Connections so far.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    response: impl Future<Output = Response<Full<Bytes>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(response.await)
}

pub(super) fn ok(text: &'static str) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from_static(text.as_bytes())))
}

/// Waits for something that will happen soon.
pub(super) async fn eventually(what: &str, happened: impl Fn() -> bool) {
    for _ in 0..2000 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not happen: {what}");
}
