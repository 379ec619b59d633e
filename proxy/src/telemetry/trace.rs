//! Traces: context in and out (W3C Trace Context, B3), sampling, spans.

mod attributes;
mod context;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use tokio::sync::mpsc;

pub use context::{B3, TraceContext, TraceId};

use super::format::{self, Record};
use super::stats::{Counter, Registry};
use crate::model::names;
use crate::model::tracing::{RouteTracing, Sampler, Tracing};

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
    /// What the route says about it.
    of_route: Option<Arc<RouteTracing>>,
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
    pub attributes: Vec<(&'static str, String)>,
    /// Custom tags.
    pub tags: Vec<(String, String)>,
}

/// Why a request is traced (Envoy: the reason in `x-request-id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceReason {
    /// It is not.
    No,
    /// By chance.
    Sampled,
    /// `x-envoy-force-trace` of an internal request.
    Forced,
    /// `x-client-trace-id`.
    Client,
}

impl Tracer {
    /// A tracer by this configuration.
    pub fn new(config: Arc<Tracing>, queue: SpanQueue) -> Self {
        Self { config, queue }
    }

    /// Why a request is traced, if it begins a trace here: what its id says already, else the
    /// client's word, ours, or chance. `number` is the same at every hop, and so is the outcome.
    pub fn reason(
        &self,
        of_route: Option<&RouteTracing>,
        headers: &HeaderMap,
        (found, number): (TraceReason, u64),
        random: u64,
    ) -> TraceReason {
        let share = number % 10_000;
        let within = |percent: f64| (share as f64) < percent * 100.0;
        let config = &self.config;
        let (client_share, random_share, overall_share) = match of_route {
            Some(route) => (route.client_sampling, route.random_sampling, route.overall_sampling),
            None => (config.client_sampling, config.random_sampling, config.overall_sampling),
        };
        let client = || chance(client_share * 10_000.0, random);
        let internal = || headers.get(names::X_ENVOY_INTERNAL).is_some_and(|value| value == "true");
        let reason = match found {
            TraceReason::No if headers.contains_key(names::X_CLIENT_TRACE_ID) && client() => {
                TraceReason::Client
            }
            TraceReason::No if headers.contains_key(names::X_ENVOY_FORCE_TRACE) && internal() => {
                TraceReason::Forced
            }
            TraceReason::No if within(random_share) => TraceReason::Sampled,
            found => found,
        };
        if within(overall_share) { reason } else { TraceReason::No }
    }

    /// Begin the span of a request. Where it is not sampled it is not recorded either, but the
    /// decision is passed on, so that the hops behind this one do not draw again.
    pub fn start(
        &self,
        headers: &HeaderMap,
        random: &mut dyn FnMut() -> u64,
        start: SystemTime,
        (traced, inbound): (bool, bool),
    ) -> Span {
        let parent = TraceContext::extract(headers);
        let sampled = self.samples(parent.as_ref(), traced, random);
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
            of_route: None,
        }
    }

    fn samples(
        &self,
        parent: Option<&TraceContext>,
        traced: bool,
        random: &mut dyn FnMut() -> u64,
    ) -> bool {
        match (&self.config.sampler, parent) {
            (Sampler::Manager, Some(parent)) => parent.sampled,
            (Sampler::Manager, None) => traced,
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
    /// The same, with the tags of its route.
    #[must_use]
    pub fn of_route(self, of_route: Option<Arc<RouteTracing>>) -> Self {
        Self { of_route, ..self }
    }

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

    /// The span of one try, if the tracer wants such and this one is recorded.
    pub fn of_try(&self, random: u64) -> Option<Self> {
        let wanted = self.config.spawn_upstream_span && self.context.sampled;
        wanted.then(|| Self {
            config: Arc::clone(&self.config),
            queue: self.queue.clone(),
            context: self.context.child(random.max(1), true),
            parent: Some(self.context.span_id),
            start: SystemTime::now(),
            inbound: false,
            of_route: self.of_route.clone(),
        })
    }

    /// A try is over: queue its span.
    pub fn finish_try(self, record: &Record<'_>, end: SystemTime) {
        let cluster = record.upstream_cluster.unwrap_or_default();
        self.queue_as(
            format!("router {cluster} egress"),
            attributes::of_try(record),
            (record, end),
        );
    }

    /// It is over: queue it, if it is recorded.
    pub fn finish(self, record: &Record<'_>, end: SystemTime) {
        if !self.context.sampled {
            return;
        }
        let attributes = attributes::of_request(record, self.config.max_path_tag_length as usize);
        let name = name(record, self.inbound);
        self.queue_as(name, attributes, (record, end));
    }

    fn queue_as(
        self,
        name: String,
        attributes: Vec<(&'static str, String)>,
        (record, end): (&Record<'_>, SystemTime),
    ) {
        let own = self.of_route.as_ref().map(|of_route| &*of_route.custom_tags);
        let own = own.unwrap_or_default();
        let shared = self.config.custom_tags.iter();
        let shared = shared.filter(|(name, _)| own.iter().all(|(other, _)| other != name));
        let tags = shared.chain(own).map(|(name, template)| {
            let mut text = String::new();
            format::write(template, record, &mut text);
            (name.to_string(), text)
        });
        self.queue.put(FinishedSpan {
            name,
            tags: tags.filter(|(_, text)| !text.is_empty() && text != "-").collect(),
            attributes,
            config: Arc::clone(&self.config),
            context: self.context.clone(),
            parent: self.parent,
            inbound: self.inbound,
            start: self.start,
            end,
            error: attributes::failed(record),
        });
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span").field("context", &self.context).finish_non_exhaustive()
    }
}

/// Envoy's names: what comes in is just that, what goes out says where to.
fn name(record: &Record<'_>, inbound: bool) -> String {
    match (record.operation, record.authority) {
        (Some(operation), _) if !operation.is_empty() => operation.to_owned(),
        (_, Some(authority)) if !inbound => format!("egress {authority}"),
        _ if !inbound => "egress".to_owned(),
        _ => "ingress".to_owned(),
    }
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
            resource: Vec::new(),
            client_sampling: 100.0,
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
        let span = tracer.start(&HeaderMap::new(), &mut || 7, UNIX_EPOCH, (false, true));
        let mut headers = HeaderMap::new();
        span.inject(&mut headers);
        let text = headers["traceparent"].to_str().unwrap().to_owned();
        assert!(text.ends_with("-00"), "{text}");
        span.finish(&Record::default(), UNIX_EPOCH);
        assert!(spans.try_recv().is_err());
        let next = tracer.start(&headers, &mut || 9, UNIX_EPOCH, (false, true));
        assert!(!next.is_sampled());
        assert!(text.contains(&next.trace_id().to_string()));
    }

    #[test]
    fn a_sampled_parent_is_followed() {
        let (tracer, mut spans) = tracer(0.0);
        let mut headers = HeaderMap::new();
        TraceContext::root(TraceId::new(1, 2), 3, true).inject(&mut headers);
        let span = tracer.start(&headers, &mut || 4, UNIX_EPOCH, (false, false));
        span.finish(&Record { status: Some(200), ..Record::default() }, UNIX_EPOCH);
        let finished = spans.try_recv().unwrap();
        assert_eq!(finished.parent, Some(3));
        assert_eq!(finished.context.trace_id, TraceId::new(1, 2));
        assert!(!finished.error);
        let request = crate::telemetry::otlp::encode(&[finished]);
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!(span.parent_span_id, 3_u64.to_be_bytes());
    }

    #[test]
    fn why_a_request_is_traced() {
        let with = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, "1".parse().unwrap());
            headers.insert("x-envoy-internal", "true".parse().unwrap());
            headers
        };
        let (tracer, _spans) = tracer(25.0);
        let reason =
            |headers: &HeaderMap, found, number| tracer.reason(None, headers, (found, number), 0);
        let none = HeaderMap::new();
        assert_eq!(reason(&none, TraceReason::No, 2499), TraceReason::Sampled);
        assert_eq!(reason(&none, TraceReason::No, 2500), TraceReason::No);
        assert_eq!(reason(&none, TraceReason::Sampled, 2500), TraceReason::Sampled);
        assert_eq!(reason(&with("x-client-trace-id"), TraceReason::No, 9999), TraceReason::Client);
        assert_eq!(
            reason(&with("x-envoy-force-trace"), TraceReason::No, 9999),
            TraceReason::Forced
        );
        let mut outside = HeaderMap::new();
        outside.insert("x-envoy-force-trace", "1".parse().unwrap());
        assert_eq!(reason(&outside, TraceReason::No, 9999), TraceReason::No);
    }
}
