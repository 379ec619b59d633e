//! Counts gRPC calls and their messages (Envoy: gRPC statistics filter).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::BytesMut;
use http::{HeaderMap, Request, Response};
use http_body::Body as _;

use super::super::body::AnswerBody;
use super::super::exchange::Exchange;
use crate::cluster::ClusterStats;
use crate::http::body::{BodyError, RequestBody};
use crate::http::transform::{Change, Changed};
use crate::http::{grpc, target};
use crate::model::grpc_stats::{GrpcStats, Methods};
use crate::telemetry::stats::{Counter, Histogram, Scope};

/// More methods than this are counted together: a client may make names up.
const MOST_METHODS: usize = 1000;

/// Metrics of a method, or of all of a cluster.
#[derive(Debug)]
pub(crate) struct Method {
    scope: Scope,
    success: Counter,
    failure: Counter,
    total: Counter,
    request_messages: Counter,
    response_messages: Counter,
    time: Option<Histogram>,
}

/// Metrics by cluster and method, as they were first needed.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<String, Arc<Method>>>);

impl Known {
    /// Those of a method, or those of all where there is no name; under `grpc` or `grpc-web`.
    fn method(
        &self,
        exchange: &Exchange,
        kind: &str,
        name: Option<String>,
        time: bool,
    ) -> Option<Arc<Method>> {
        let cluster = &exchange.facts.cluster.as_ref()?.config.stat_name;
        let registry = &exchange.connection.http.context.registry;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name.filter(|_| known.len() < MOST_METHODS);
        let key = format!("{cluster}\0{}", name.as_deref().unwrap_or(""));
        let made = || {
            let scope = ClusterStats::scope(registry, cluster).scope(kind, None);
            Arc::new(Method::new(scope, name.as_deref(), time))
        };
        Some(Arc::clone(known.entry(key).or_insert_with(made)))
    }

    /// Begins to count a call by gRPC-Web.
    pub(super) fn web(&self, exchange: &Exchange, path: &str) -> Option<Call> {
        let name = split(path).map(|(service, method)| format!("{service}.{method}"));
        let method = self.method(exchange, "grpc-web", name, false)?;
        Some(Call { method, since: Instant::now() })
    }
}

/// A call that is being counted.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Arc<Method>,
    since: Instant,
}

/// Begins to count, if the request is gRPC and its cluster is known.
pub(super) fn request(
    exchange: &Exchange,
    config: &GrpcStats,
    request: &mut Request<RequestBody>,
) -> Option<Call> {
    if !grpc::is_grpc(request.headers()) {
        return None;
    }
    let known: &Known = config.kept.get(Known::default);
    let name = named(config, target::path(request.uri()));
    let method = known.method(exchange, "grpc", name, config.upstream_time)?;
    if !matches!(request.body(), RequestBody::Empty) {
        let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
        let counts = Frames {
            counter: Some(method.request_messages.clone()),
            left: Left::default(),
            call: None,
        };
        *request.body_mut() = RequestBody::Boxed(Changed::boxed(body.boxed(), counts));
    }
    Some(Call { method, since: Instant::now() })
}

/// Counts the answer's messages, and its status when it comes.
pub(super) fn response(call: Call, response: Response<AnswerBody>) -> Response<AnswerBody> {
    if let Some(status) = response.headers().get("grpc-status") {
        call.end(status.to_str().unwrap_or(""));
    }
    // What is no gRPC has no messages.
    let ours = response.status() == http::StatusCode::OK && grpc::is_grpc(response.headers());
    if response.body().is_end_stream() {
        return response;
    }
    let counter = ours.then(|| call.method.response_messages.clone());
    let counts = Frames { counter, left: Left::default(), call: Some(call) };
    response.map(|body| AnswerBody::Boxed(Changed::boxed(body.boxed(), counts)))
}

/// `service.method`, if this one is told apart.
fn named(config: &GrpcStats, path: &str) -> Option<String> {
    let (service, method) = split(path)?;
    let apart = match &config.methods {
        Methods::None => false,
        Methods::All => true,
        Methods::These(these) => these.iter().any(|(s, m)| s == service && m == method),
    };
    let service = if config.replace_dots { service.replace('.', "_") } else { service.to_owned() };
    apart.then(|| format!("{service}.{method}"))
}

fn split(path: &str) -> Option<(&str, &str)> {
    path.split('?').next()?.strip_prefix('/')?.rsplit_once('/')
}

impl Method {
    fn new(scope: Scope, name: Option<&str>, time: bool) -> Self {
        let scope = match name {
            Some(name) => scope.scope(name, None),
            None => scope,
        };
        Self {
            success: scope.counter("success"),
            failure: scope.counter("failure"),
            total: scope.counter("total"),
            request_messages: scope.counter("request_message_count"),
            response_messages: scope.counter("response_message_count"),
            time: time.then(|| scope.histogram("upstream_rq_time")),
            scope,
        }
    }
}

impl Call {
    /// Its status is known.
    pub(super) fn end(&self, status: &str) {
        let method = &self.method;
        let code = status.parse::<u32>().ok();
        if let Some(code) = code {
            method.scope.counter(&code.to_string()).inc();
        }
        if code == Some(0) { &method.success } else { &method.failure }.inc();
        method.total.inc();
        if let Some(time) = &method.time {
            time.record(self.since.elapsed().as_secs_f64() * 1000.0);
        }
    }
}

/// Counts frames that go by.
struct Frames {
    /// None: they are not counted.
    counter: Option<Counter>,
    left: Left,
    call: Option<Call>,
}

/// What is left of a frame: its head, or so many bytes of its message.
#[derive(Debug, Default)]
struct Left {
    head: Vec<u8>,
    message: usize,
}

impl Left {
    /// How many frames begin in this piece, counted when their length is known.
    fn count(&mut self, mut piece: &[u8]) -> u64 {
        let mut frames = 0;
        while !piece.is_empty() {
            let skipped = self.message.min(piece.len());
            self.message -= skipped;
            piece = &piece[skipped..];
            let of_head = piece.len().min(5 - self.head.len());
            self.head.extend_from_slice(&piece[..of_head]);
            piece = &piece[of_head..];
            if let [_, a, b, c, d] = self.head[..] {
                frames += 1;
                self.message = u32::from_be_bytes([a, b, c, d]) as usize;
                self.head.clear();
            }
        }
        frames
    }
}

impl Change for Frames {
    fn data(&mut self, piece: &[u8], _more: bool, out: &mut BytesMut) -> Result<(), BodyError> {
        if let Some(counter) = &self.counter {
            counter.add(self.left.count(piece));
        }
        out.extend_from_slice(piece);
        Ok(())
    }

    fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        _out: &mut BytesMut,
    ) -> Result<Option<HeaderMap>, BodyError> {
        let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
        if let (Some(call), Some(status)) = (self.call.take(), status) {
            call.end(status.to_str().unwrap_or(""));
        }
        Ok(trailers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_in_any_pieces() {
        let stream =
            [&[0, 0, 0, 0, 2][..], b"ab", &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 1], b"c"].concat();
        for size in 1..=stream.len() {
            let mut left = Left::default();
            let frames: u64 = stream.chunks(size).map(|piece| left.count(piece)).sum();
            assert_eq!(frames, 3, "in pieces of {size}");
        }
    }
}
