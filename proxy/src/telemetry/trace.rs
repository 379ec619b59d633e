//! Traces: context in and out (W3C Trace Context, B3), sampling, spans.

mod attributes;
mod context;
mod operation;
mod tail;

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName};
use tokio::sync::mpsc;

pub use context::{B3, TraceContext, TraceId};
pub use tail::{Outcome, Why};

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
    /// Kept by the second look, and left out for being too many.
    tail: (Counter, Counter),
    tail_cap: Arc<tail::Cap>,
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
            tail: (scope.counter("tail_kept"), scope.counter("tail_over_limit")),
            tail_cap: Arc::default(),
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
pub struct Tracer(Arc<Shared>);

/// What all spans of a connection manager have in common.
#[derive(Debug)]
struct Shared {
    config: Arc<Tracing>,
    queue: SpanQueue,
    /// Headers to keep for the second look. None: everything, if there is such a look at all.
    tail_head: Option<Arc<[HeaderName]>>,
}

/// How much of an exchange its span will want when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants<'a> {
    /// Nothing: it will not be sent.
    Nothing,
    /// The target, the method and these headers of the request: it is sent if the exchange fails or is slow.
    Head(&'a [HeaderName]),
    /// All that a log would tell.
    All,
}

/// A request that is part of a trace. One that is not sampled only passes the context on, unless there is to be a
/// second look at its end.
pub struct Span {
    of: Arc<Shared>,
    context: TraceContext,
    parent: Option<u64>,
    start: SystemTime,
    inbound: bool,
    /// What the route says about it.
    of_route: Option<Arc<RouteTracing>>,
    operation: operation::Operation,
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
        let tail_head = attributes::tail_head(&config);
        Self(Arc::new(Shared { config, queue, tail_head }))
    }

    /// Why a request is traced, if it begins a trace here: what its id says already, else the
    /// client's word (`asks`: it sends `x-client-trace-id`), ours (`forced`: `x-envoy-force-trace`), or chance. `number` is
    /// the same at every hop, and so is the outcome.
    pub fn reason(
        &self,
        of_route: Option<&RouteTracing>,
        headers: &HeaderMap,
        (found, forced, asks): (TraceReason, bool, bool),
        (number, random): (u64, u64),
    ) -> TraceReason {
        let share = number % 10_000;
        let within = |percent: f64| (share as f64) < percent * 100.0;
        let config = &self.0.config;
        let (client_share, random_share, overall_share) = match of_route {
            Some(route) => (route.client_sampling, route.random_sampling, route.overall_sampling),
            None => (config.client_sampling, config.random_sampling, config.overall_sampling),
        };
        let client = || chance(client_share * 10_000.0, random);
        let internal = || headers.get(names::X_ENVOY_INTERNAL).is_some_and(|value| value == "true");
        let reason = match found {
            TraceReason::No if asks && client() => TraceReason::Client,
            TraceReason::No if forced && internal() => TraceReason::Forced,
            TraceReason::No if within(random_share) => TraceReason::Sampled,
            found => found,
        };
        if within(overall_share) { reason } else { TraceReason::No }
    }

    /// Whether the share of all that may be traced (`overall_sampling`) leaves room for a request.
    pub fn allows(&self, of_route: Option<&RouteTracing>, number: u64) -> bool {
        let overall =
            of_route.map_or(self.0.config.overall_sampling, |route| route.overall_sampling);
        ((number % 10_000) as f64) < overall * 100.0
    }

    /// Begin the span of a request, under the context that it brings. `traced`: by the percentages; `allowed`: by their upper bound. Where it is not sampled it is not recorded either (but for a second look), and
    /// the decision is passed on, so that the hops behind this one do not draw again.
    pub fn start(
        &self,
        parent: Option<TraceContext>,
        random: &mut dyn FnMut() -> u64,
        start: SystemTime,
        (traced, allowed, inbound): (bool, bool, bool),
    ) -> Span {
        let sampled = self.samples(parent.as_ref(), (traced, allowed), random);
        let span_id = nonzero(random);
        let context = match &parent {
            Some(parent) => parent.child(span_id, sampled),
            None => TraceContext::root(fresh_trace_id(random), span_id, sampled),
        };
        Span {
            of: Arc::clone(&self.0),
            context,
            parent: parent.map(|parent| parent.span_id),
            start,
            inbound,
            of_route: None,
            operation: operation::Operation::default(),
        }
    }

    fn samples(
        &self,
        parent: Option<&TraceContext>,
        (traced, allowed): (bool, bool),
        random: &mut dyn FnMut() -> u64,
    ) -> bool {
        match (&self.0.config.sampler, parent) {
            (Sampler::Manager, Some(parent)) => parent.sampled && allowed,
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

    /// What is to be kept for its end.
    pub fn wants(&self) -> Wants<'_> {
        let tagged = self.of_route.as_ref().is_some_and(|route| !route.custom_tags.is_empty());
        match &self.of.tail_head {
            _ if self.context.sampled => Wants::All,
            _ if self.of.config.tail.is_none() => Wants::Nothing,
            Some(names) if !tagged => Wants::Head(names),
            _ => Wants::All,
        }
    }

    /// The second look at a span that the head decision left out: whether it is sent nevertheless. `now` is the wall
    /// clock's.
    pub fn look_again(&self, outcome: &Outcome<'_>, now: SystemTime) -> Option<Why> {
        let tail = self.of.config.tail.as_ref().filter(|_| !self.context.sampled)?;
        let why = tail::look(tail, outcome)?;
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (kept, over_limit) = &self.of.queue.tail;
        let room = self.of.queue.tail_cap.take(second, tail.per_second);
        if room { kept } else { over_limit }.inc();
        room.then_some(why)
    }

    /// Whether it was sampled at the head.
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

    /// Pass the trace on, in place of what is there. `stated`: there may be a `tracestate`.
    pub fn inject(&self, headers: &mut HeaderMap, stated: bool) {
        self.context.inject_with(headers, stated);
    }

    /// The span of one try, if the tracer wants such and this one is recorded.
    pub fn of_try(&self, random: u64) -> Option<Self> {
        let wanted = self.of.config.spawn_upstream_span && self.context.sampled;
        wanted.then(|| Self {
            of: Arc::clone(&self.of),
            context: self.context.child(random.max(1), true),
            parent: Some(self.context.span_id),
            start: SystemTime::now(),
            inbound: false,
            of_route: self.of_route.clone(),
            operation: operation::Operation::default(),
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

    /// It is over: queue it, if it was sampled, or if the second look says why it is kept.
    pub fn finish(self, record: &Record<'_>, end: SystemTime, kept: Option<Why>) {
        if !self.context.sampled && kept.is_none() {
            return;
        }
        let limit = self.of.config.max_path_tag_length as usize;
        let mut attributes = attributes::of_request(record, limit);
        attributes.extend(kept.map(|why| ("pillion.tail", why.as_str().to_owned())));
        let name = self.name(record);
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
        let shared = self.of.config.custom_tags.iter();
        let shared = shared.filter(|(name, _)| own.iter().all(|(other, _)| other != name));
        let tags = shared.chain(own).map(|(name, template)| {
            let mut text = String::new();
            format::write(template, record, &mut text);
            (name.to_string(), text)
        });
        self.of.queue.put(FinishedSpan {
            name,
            tags: tags.filter(|(_, text)| !text.is_empty() && text != "-").collect(),
            attributes,
            config: Arc::clone(&self.of.config),
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

#[cfg(test)]
#[path = "trace/tests.rs"]
mod tests;
