//! The HTTPS port of the control plane on Kubernetes: `POST /inject` for the API server, `/healthz` and `/readyz` for the
//! kubelet, `/metrics` for Prometheus.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::{Options, admission};

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 256;
/// A handshake, or a request's head, must be done within this time.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// A request's body must be there within this time; the API server itself waits for 30 s at the most.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// Largest review, in bytes: twice what the API server takes as an object.
const MAX_REVIEW: usize = 6 << 20;

/// What the control plane says of itself.
pub trait Health: Send + Sync + 'static {
    /// Why it is not ready, if it is not.
    fn not_ready(&self) -> Option<String>;
    /// What is not as it should be, although it is ready.
    fn remark(&self) -> Option<String> {
        None
    }
    /// Prometheus text.
    fn metrics(&self) -> String;
}

/// What is answered.
pub struct Webhook {
    /// What every sidecar is told.
    pub options: Options,
    /// The control plane.
    pub health: Arc<dyn Health>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Answers on this socket for ever; ends when it is dropped.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, webhook: Arc<Webhook>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the webhook's port cannot accept at the moment");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, webhook) = (acceptor.clone(), Arc::clone(&webhook));
        tokio::spawn(async move {
            connection(stream, acceptor, webhook).await;
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, webhook: Arc<Webhook>) {
    let stream = match tokio::time::timeout(HEAD_LIMIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(%error, "a TLS handshake at the webhook's port failed");
            return;
        }
        Err(_) => return,
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let webhook = Arc::clone(&webhook);
        async move { Ok::<_, Infallible>(answer(request, &webhook).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the webhook's port broke");
    }
}

async fn answer(request: Request<Incoming>, webhook: &Webhook) -> Response<Full<Bytes>> {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/healthz" if get => text(StatusCode::OK, "ok\n"),
        "/readyz" if get => match webhook.health.not_ready() {
            None => {
                let more = webhook.health.remark().map(|remark| format!("{remark}\n"));
                text(StatusCode::OK, format!("ready\n{}", more.unwrap_or_default()))
            }
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        },
        "/metrics" if get => text(StatusCode::OK, webhook.health.metrics()),
        "/inject" if *request.method() == Method::POST => inject(request, webhook).await,
        "/inject" => text(StatusCode::METHOD_NOT_ALLOWED, "expected POST\n"),
        _ => text(
            StatusCode::NOT_FOUND,
            "expected POST /inject, or GET /healthz, /readyz or /metrics\n",
        ),
    }
}

async fn inject(request: Request<Incoming>, webhook: &Webhook) -> Response<Full<Bytes>> {
    let body = Limited::new(request.into_body(), MAX_REVIEW).collect();
    let body = match tokio::time::timeout(BODY_LIMIT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return text(StatusCode::BAD_REQUEST, format!("the body: {error}\n")),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time\n"),
    };
    let reviewed = serde_json::from_slice(&body)
        .map_err(|error| format!("the body is not JSON: {error}"))
        .and_then(|review| admission::review(&review, &webhook.options));
    match reviewed {
        Ok(review) => {
            let outcome = &review["response"]["auditAnnotations"]["outcome"];
            tracing::debug!(%outcome, message = %review["response"]["status"]["message"], "reviewed a pod");
            response(StatusCode::OK, "application/json", review.to_string())
        }
        Err(error) => {
            tracing::warn!(%error, "a review cannot be answered");
            text(StatusCode::BAD_REQUEST, format!("{error}\n"))
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn response(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
