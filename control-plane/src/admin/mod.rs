//! The administration interface: HTTP/1.1 on a loopback port.
//!
//! `/ready` and `/healthz` for probes, `/metrics` for Prometheus, `/api/v1/status` and
//! `/api/v1/problems` for people and scripts, `/debug/config?node=ID` for what a node shall have.
//! Reading only: nothing here changes anything.

mod status;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::intent::Problem;

pub use status::{
    NodeStatus, ProblemStatus, RefusalStatus, Status, TypeStatus, WorkloadStatus, problem_status,
};

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 256;
/// A request's head must be there within this time.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

const PAGES: &str = "\
/ready                   200 when the control plane serves, else 503
/healthz                 200 as long as the process lives
/metrics                 Prometheus
/api/v1/status           connected nodes, workloads, problems (JSON)
/api/v1/problems         what is wrong with the configuration (JSON)
/debug/config?node=ID    the resources that a node shall have (JSON, without secrets)
";

/// Where the answers come from.
pub trait Source: Send + Sync + 'static {
    /// Why the control plane is not ready, if it is not.
    fn not_ready(&self) -> Option<String>;
    /// What is not as it should be, although it is ready.
    fn remark(&self) -> Option<String> {
        None
    }
    /// Everything in short.
    fn status(&self) -> Status;
    /// What is wrong with the configuration.
    fn problems(&self) -> Arc<Vec<Problem>>;
    /// Prometheus text.
    fn metrics(&self) -> String;
    /// The resources of a connected node; `None` when no such node is connected.
    fn node_config(&self, node: &str) -> Option<Result<serde_json::Value, String>>;
}

/// Answers requests for ever; ends when it is dropped.
pub async fn serve(listener: TcpListener, source: Arc<dyn Source>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the administration port cannot accept at the moment");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let source = Arc::clone(&source);
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = answer(request.method(), request.uri(), source.as_ref());
                async move { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "an administration connection broke");
            }
            drop(slot);
        });
    }
}

fn answer(method: &Method, uri: &http::Uri, source: &dyn Source) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
    }
    match uri.path() {
        "/" => text(StatusCode::OK, PAGES.to_owned()),
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/ready" => match source.not_ready() {
            None => {
                let more = source.remark().map(|remark| format!("{remark}\n"));
                text(StatusCode::OK, format!("ready\n{}", more.unwrap_or_default()))
            }
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        },
        "/metrics" => text(StatusCode::OK, source.metrics()),
        "/api/v1/status" => json(StatusCode::OK, &source.status()),
        "/api/v1/problems" => json(StatusCode::OK, source.problems().as_ref()),
        "/debug/config" => config(uri, source),
        path => text(StatusCode::NOT_FOUND, format!("no page {path}; there are:\n{PAGES}")),
    }
}

fn config(uri: &http::Uri, source: &dyn Source) -> Response<Full<Bytes>> {
    let node = uri.query().unwrap_or_default().split('&').find_map(|p| p.strip_prefix("node="));
    let Some(node) = node.map(percent_decoded) else {
        let message = "node=ID is missing; /api/v1/status lists the nodes\n".to_owned();
        return text(StatusCode::BAD_REQUEST, message);
    };
    match source.node_config(&node) {
        Some(Ok(config)) => json(StatusCode::OK, &config),
        Some(Err(why)) => text(StatusCode::UNPROCESSABLE_ENTITY, format!("{why}\n")),
        None => text(StatusCode::NOT_FOUND, format!("no node {node:?} is connected\n")),
    }
}

/// `%7E` to `~`, as in node ids; anything malformed stays as it is.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body.into())
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec_pretty(body) {
        Ok(body) => response(status, "application/json", body.into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        ready: bool,
    }

    impl Source for Fake {
        fn not_ready(&self) -> Option<String> {
            (!self.ready).then(|| "still starting".to_owned())
        }
        fn status(&self) -> Status {
            Status::default()
        }
        fn problems(&self) -> Arc<Vec<Problem>> {
            Arc::default()
        }
        fn metrics(&self) -> String {
            "pillion_up 1\n".to_owned()
        }
        fn node_config(&self, node: &str) -> Option<Result<serde_json::Value, String>> {
            (node == "a~b c").then(|| Ok(serde_json::json!({"cds": []})))
        }
    }

    fn get(path: &str, ready: bool) -> StatusCode {
        answer(&Method::GET, &path.parse().unwrap(), &Fake { ready }).status()
    }

    #[test]
    fn pages_answer_as_they_say() {
        for path in ["/", "/healthz", "/ready", "/metrics", "/api/v1/status", "/api/v1/problems"] {
            assert_eq!(get(path, true), StatusCode::OK, "{path}");
        }
        assert_eq!(get("/ready", false), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get("/healthz", false), StatusCode::OK);
        assert_eq!(get("/nope", true), StatusCode::NOT_FOUND);
        assert_eq!(get("/debug/config", true), StatusCode::BAD_REQUEST);
        assert_eq!(get("/debug/config?node=other", true), StatusCode::NOT_FOUND);
        assert_eq!(get("/debug/config?node=a%7Eb%20c", true), StatusCode::OK);
    }

    #[test]
    fn nothing_can_be_changed() {
        let response = answer(&Method::POST, &"/ready".parse().unwrap(), &Fake { ready: true });
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
