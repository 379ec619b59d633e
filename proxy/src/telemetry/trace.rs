//! Traces: context in and out (W3C Trace Context, B3), sampling, spans.

mod context;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use tokio::sync::mpsc;

pub use context::{TraceContext, TraceId};

use super::format::{self, Record};
use super::stats::{Counter, Registry};
use crate::model::tracing::{Sampler, Tracing};

/// Finished spans that wait to be sent; more are dropped and counted.
const QUEUE: usize = 8 * 1024;

/// Where finished spans go. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SpanQueue {
    sender: mpsc::Sender<FinishedSpan>,
    dropped: Counter,
    /// Sent for good: counted by the exporter.
    sent: Counter,
}

impl SpanQueue {
    /// A queue, and its end for [`super::export::run`].
    pub fn new(registry: &Registry) -> (Self, mpsc::Receiver<FinishedSpan>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let scope = registry.scope("tracing", None).scope("opentelemetry", None);
        let queue = Self {
            sender,
            dropped: scope.counter("spans_dropped"),
            sent: scope.counter("spans_sent"),
        };
        (queue, receiver)
    }

    /// What the exporter counts: spans that arrived, and spans that are lost.
    pub fn outcomes(&self) -> (Counter, Counter) {
        (self.sent.clone(), self.dropped.clone())
    }

    fn put(&self, span: FinishedSpan) {
        match self.sender.try_send(span) {
            Ok(()) => {}
            Err(_) => self.dropped.inc(),
        }
    }
}

/// Makes the spans of one connection manager.
#[derive(Debug)]
pub struct Tracer {
    config: Arc<Tracing>,
    queue: SpanQueue,
}

/// A request that is part of a trace. One that is not sampled only passes the context on.
pub struct Span {
    config: Arc<Tracing>,
    queue: SpanQueue,
    context: TraceContext,
    parent: Option<u64>,
    start: SystemTime,
    inbound: bool,
}

/// A span that is over, ready to be sent.
#[derive(Debug)]
pub struct FinishedSpan {
    /// The tracer that it belongs to: exporter and service name.
    pub config: Arc<Tracing>,
    /// Its ids.
    pub context: TraceContext,
    /// Id of the parent. None: it is a root.
    pub parent: Option<u64>,
    /// Its name.
    pub name: String,
    /// Server side (true) or client side.
    pub inbound: bool,
    /// From.
    pub start: SystemTime,
    /// Until.
    pub end: SystemTime,
    /// Whether it failed.
    pub error: bool,
    /// Attributes.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Custom tags.
    pub tags: Vec<(String, String)>,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
}

impl Tracer {
    /// A tracer by this configuration.
    pub fn new(config: Arc<Tracing>, queue: SpanQueue) -> Self {
        Self { config, queue }
    }

    /// Begin the span of a request. Where it is not sampled it is not recorded either, but the
    /// decision is passed on, so that the hops behind this one do not draw again.
    pub fn start(
        &self,
        headers: &HeaderMap,
        random: &mut dyn FnMut() -> u64,
        start: SystemTime,
        inbound: bool,
    ) -> Span {
        let parent = TraceContext::extract(headers);
        let sampled = self.samples(parent.as_ref(), random);
        let span_id = nonzero(random);
        let context = match &parent {
            Some(parent) => parent.child(span_id, sampled),
            None => TraceContext::root(fresh_trace_id(random), span_id, sampled),
        };
        Span {
            config: Arc::clone(&self.config),
            queue: self.queue.clone(),
            context,
            parent: parent.map(|parent| parent.span_id),
            start,
            inbound,
        }
    }

    fn samples(&self, parent: Option<&TraceContext>, random: &mut dyn FnMut() -> u64) -> bool {
        match (&self.config.sampler, parent) {
            (Sampler::Manager, Some(parent)) => parent.sampled,
            (Sampler::Manager, None) => {
                let percent = self.config.random_sampling.min(self.config.overall_sampling);
                chance(percent * 10_000.0, random())
            }
            (sampler, parent) => decide(sampler, parent, random),
        }
    }
}

fn decide(
    sampler: &Sampler,
    parent: Option<&TraceContext>,
    random: &mut dyn FnMut() -> u64,
) -> bool {
    match sampler {
        Sampler::AlwaysOn | Sampler::Manager => true,
        Sampler::ParentBased(inner) => match parent {
            Some(parent) => parent.sampled,
            None => decide(inner, None, random),
        },
        Sampler::TraceIdRatio(share) => {
            // By the id, so that every service decides alike.
            let of = parent.map_or_else(&mut *random, |parent| parent.trace_id.low());
            chance(f64::from(*share), of)
        }
    }
}

fn chance(parts_per_million: f64, random: u64) -> bool {
    ((random % 1_000_000) as f64) < parts_per_million
}

fn nonzero(random: &mut dyn FnMut() -> u64) -> u64 {
    random().max(1)
}

fn fresh_trace_id(random: &mut dyn FnMut() -> u64) -> TraceId {
    TraceId::new(nonzero(random), random())
}

impl Span {
    /// Whether it is recorded.
    pub fn is_sampled(&self) -> bool {
        self.context.sampled
    }

    /// 32 hexadecimal digits.
    pub fn trace_id(&self) -> TraceId {
        self.context.trace_id
    }

    /// 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.context.span_id)
    }

    /// Ids of the trace and of the span.
    pub fn ids(&self) -> (TraceId, u64) {
        (self.context.trace_id, self.context.span_id)
    }

    /// Pass the trace on.
    pub fn inject(&self, headers: &mut HeaderMap) {
        self.context.inject(headers);
    }

    /// It is over: queue it, if it is recorded.
    pub fn finish(self, record: &Record<'_>, end: SystemTime) {
        if !self.context.sampled {
            return;
        }
        let status = record.status.unwrap_or(0);
        let error =
            status >= 500 || status == 0 || format::grpc_status(record).is_some_and(|c| c != 0);
        let tags = self.config.custom_tags.iter().map(|(name, template)| {
            let mut text = String::new();
            format::write(template, record, &mut text);
            (name.to_string(), text)
        });
        self.queue.put(FinishedSpan {
            name: name(record, self.inbound),
            tags: tags.filter(|(_, text)| text != "-").collect(),
            attributes: attributes(record, self.config.max_path_tag_length as usize),
            config: Arc::clone(&self.config),
            context: self.context.clone(),
            parent: self.parent,
            inbound: self.inbound,
            start: self.start,
            end,
            error,
        });
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span").field("context", &self.context).finish_non_exhaustive()
    }
}

fn name(record: &Record<'_>, inbound: bool) -> String {
    if let Some(operation) = record.operation {
        return operation.to_owned();
    }
    match record.authority {
        // Envoy's name for spans on their way out.
        Some(authority) if !inbound => format!("egress {authority}"),
        Some(authority) => format!("ingress {authority}"),
        None => "ingress".to_owned(),
    }
}

/// Names of OpenTelemetry's semantic conventions for HTTP, and Envoy's own.
fn attributes(record: &Record<'_>, path_limit: usize) -> Vec<(&'static str, Attribute)> {
    let mut all = Vec::with_capacity(16);
    let mut text = |name, value: Option<&str>| {
        if let Some(value) = value {
            all.push((name, Attribute::Text(value.to_owned())));
        }
    };
    let path = record.path.map(|path| path.get(..path_limit).unwrap_or(path));
    let header = |name: &str| record.request_headers?.get(name)?.to_str().ok();
    text("http.request.method", record.method);
    text("url.path", path.map(|path| path.split('?').next().unwrap_or(path)));
    text("url.scheme", record.scheme);
    text("server.address", record.authority);
    text("network.protocol.name", record.protocol);
    text("user_agent.original", header("user-agent"));
    text("guid:x-request-id", header("x-request-id"));
    text("upstream_cluster", record.upstream_cluster);
    text("upstream_cluster.name", record.upstream_cluster);
    text("upstream_address", record.upstream_host);
    text("http.route", record.route.filter(|route| !route.is_empty()));
    text("peer.uri_san", record.peer.and_then(|peer| peer.uris().first()).map(String::as_str));
    let flags = if record.flags.is_empty() { "-".to_owned() } else { record.flags.join(",") };
    text("response_flags", Some(&flags));
    let peer = record.downstream_remote.map(|address| address.ip().to_string());
    text("peer.address", peer.as_deref());
    let mut number = |name, value: u64| {
        all.push((name, Attribute::Number(i64::try_from(value).unwrap_or(i64::MAX))));
    };
    number("http.response.status_code", record.status.unwrap_or(0).into());
    number("request_size", record.bytes_received);
    number("response_size", record.bytes_sent);
    if record.upstream_attempts > 1 {
        number("retry_count", u64::from(record.upstream_attempts - 1));
    }
    if let Some(code) = format::grpc_status(record) {
        number("rpc.grpc.status_code", code.into());
    }
    all
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::model::collector::{Collector, CollectorProtocol};

    fn tracer(random_sampling: f64) -> (Tracer, mpsc::Receiver<FinishedSpan>) {
        let (queue, spans) = SpanQueue::new(&Registry::new());
        let config = Tracing {
            exporter: Collector {
                cluster: "otel".into(),
                authority: "otel".into(),
                protocol: CollectorProtocol::Grpc,
                headers: Vec::new(),
            },
            service_name: "web.default".into(),
            random_sampling,
            overall_sampling: 100.0,
            sampler: Sampler::Manager,
            custom_tags: Vec::new(),
            spawn_upstream_span: false,
            max_path_tag_length: 256,
        };
        (Tracer::new(Arc::new(config), queue), spans)
    }

    #[test]
    fn a_request_that_is_not_sampled_tells_so_to_the_next_hop_and_is_not_recorded() {
        let (tracer, mut spans) = tracer(0.0);
        let span = tracer.start(&HeaderMap::new(), &mut || 7, UNIX_EPOCH, true);
        let mut headers = HeaderMap::new();
        span.inject(&mut headers);
        let text = headers["traceparent"].to_str().unwrap().to_owned();
        assert!(text.ends_with("-00"), "{text}");
        span.finish(&Record::default(), UNIX_EPOCH);
        assert!(spans.try_recv().is_err());
        let next = tracer.start(&headers, &mut || 9, UNIX_EPOCH, true);
        assert!(!next.is_sampled());
        assert!(text.contains(&next.trace_id().to_string()));
    }

    #[test]
    fn a_sampled_parent_is_followed() {
        let (tracer, mut spans) = tracer(0.0);
        let mut headers = HeaderMap::new();
        TraceContext::root(TraceId::new(1, 2), 3, true).inject(&mut headers);
        let span = tracer.start(&headers, &mut || 4, UNIX_EPOCH, false);
        span.finish(&Record { status: Some(200), ..Record::default() }, UNIX_EPOCH);
        let finished = spans.try_recv().unwrap();
        assert_eq!(finished.parent, Some(3));
        assert_eq!(finished.context.trace_id, TraceId::new(1, 2));
        assert!(!finished.error);
        let request = crate::telemetry::otlp::encode(&[finished]);
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!(span.parent_span_id, 3_u64.to_be_bytes());
    }
}
