//! The health port of a sidecar: for the kubelet and others that have no certificate of the mesh. It says whether the
//! sidecar is ready, and asks the application what its own probes ask, on loopback.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admin::{ServerState, Source};
use crate::model::tls::{CommonTls, UpstreamTls};
use crate::net::{Acceptor, Io};
use crate::tls;

/// How many may ask at a time.
const MAX_CONNECTIONS: usize = 64;
/// How long a request head may take, or a connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What of a gRPC health answer is read: it has two bytes and five before them.
const MAX_ANSWER: usize = 1024;

/// Probes of the application, by `CONTAINER/KIND`.
pub(super) type Probes = BTreeMap<String, Probe>;

/// One probe of the application, as the kubelet would have made it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Probe {
    target: Target,
    timeout_seconds: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Target {
    HttpGet {
        port: u16,
        path: String,
        /// Over TLS; the certificate is not looked at, as the kubelet does not.
        #[serde(default)]
        https: bool,
        #[serde(default)]
        headers: Vec<(String, String)>,
    },
    TcpSocket {
        port: u16,
    },
    Grpc {
        port: u16,
        #[serde(default)]
        service: String,
    },
}

/// Read the probes: a JSON object.
///
/// # Errors
/// It is none, or has something unknown in it.
pub(super) fn probes(text: &str) -> Result<Probes, String> {
    serde_json::from_str(text).map_err(|error| format!("--app-probes: {error}"))
}

/// Answer on this socket for ever.
pub(super) async fn serve(mut acceptor: Acceptor, source: Arc<dyn Source>, probes: Probes) {
    let probes = Arc::new(probes);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let io = match acceptor.accept().await {
            Ok((io, _)) => io,
            Err(error) => {
                tracing::error!(%error, "the health port ended");
                return;
            }
        };
        let (source, probes) = (Arc::clone(&source), Arc::clone(&probes));
        tokio::spawn(async move {
            connection(io, source, probes).await;
            drop(permit);
        });
    }
}

async fn connection(io: Io, source: Arc<dyn Source>, probes: Arc<Probes>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (source, probes) = (Arc::clone(&source), Arc::clone(&probes));
        async move {
            let (status, text) = answer(request.uri().path(), &*source, &probes).await;
            let mut response = Response::new(Full::new(Bytes::from(text)));
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(io), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the health port ended early");
    }
}

async fn answer(path: &str, source: &dyn Source, probes: &Probes) -> (StatusCode, String) {
    if path == "/healthz/live" {
        return (StatusCode::OK, "LIVE\n".to_owned());
    }
    if path == "/healthz/ready" {
        let readiness = source.readiness();
        return match readiness.state {
            ServerState::Live => (StatusCode::OK, "LIVE\n".to_owned()),
            ServerState::Draining => (StatusCode::SERVICE_UNAVAILABLE, "DRAINING\n".to_owned()),
            _ => (StatusCode::SERVICE_UNAVAILABLE, readiness.waiting_for.join("; ") + "\n"),
        };
    }
    let Some(probe) = path.strip_prefix("/app-health/").and_then(|name| probes.get(name)) else {
        let text = "expected /healthz/ready, /healthz/live or /app-health/CONTAINER/PROBE\n";
        return (StatusCode::NOT_FOUND, text.to_owned());
    };
    match timeout(Duration::from_secs(probe.timeout_seconds), ask(&probe.target)).await {
        Ok(Ok(status)) if status.is_success() || status.is_redirection() => {
            (StatusCode::OK, "the application is well\n".to_owned())
        }
        Ok(Ok(status)) => (status, format!("the application answers {status}\n")),
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("the application: {error}\n")),
        Err(_) => {
            let text = format!("no answer of the application in {} s\n", probe.timeout_seconds);
            (StatusCode::GATEWAY_TIMEOUT, text)
        }
    }
}

/// The application's answer as a status.
async fn ask(target: &Target) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let (Target::HttpGet { port, .. } | Target::TcpSocket { port } | Target::Grpc { port, .. }) =
        target;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
    let stream = TcpStream::connect(address).await?;
    match target {
        Target::TcpSocket { .. } => Ok(StatusCode::OK),
        Target::HttpGet { path, https, headers, .. } => {
            let mut request = Request::get(path.as_str()).header("user-agent", "pillion-probe");
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
                request = request.header("host", address.to_string());
            }
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let request = request.body(Empty::<Bytes>::new())?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(wrap(stream, *https).await?))
                    .await?;
            // Ended when dropped. (What it says when it fails, the request says too.)
            let mut driver = JoinSet::new();
            driver.spawn(connection);
            Ok(sender.send_request(request).await?.status())
        }
        Target::Grpc { service, .. } => grpc(stream, address, service).await,
    }
}

async fn wrap(
    stream: TcpStream,
    https: bool,
) -> Result<Io, Box<dyn std::error::Error + Send + Sync>> {
    let io = Io::Tcp(stream);
    if !https {
        return Ok(io);
    }
    let context = UpstreamTls {
        common: CommonTls::default(),
        sni: "".into(),
        auto_host_sni: false,
        by_request: false,
        auto_sni_san_validation: false,
    };
    let config = tls::client_config(&context, &tls::NoSecrets)?;
    Ok(io.connect_tls(config, tls::server_name("")?).await?)
}

/// `grpc.health.v1.Health/Check` (<https://grpc.io/docs/guides/health-checking>).
async fn grpc(
    stream: TcpStream,
    address: SocketAddr,
    service: &str,
) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        prost::encoding::string::encode(1, &service.to_owned(), &mut message);
    }
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len())?.to_be_bytes());
    frame.extend(message);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(frame)))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = sender.send_request(request).await?;
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
    // Field 1, a number: 1 is SERVING.
    let serves = body.get(5..) == Some(&[8, 1]);
    Ok(if serves { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
