//! What an exchange tells when it is over: metrics, an access-log line, a span.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Request};
use tokio::time::{Interval, MissedTickBehavior};

use super::exchange::{Exchange, Facts};
use super::filter::Routed;
use crate::cluster::{Connection, Endpoint, SentOn};
use crate::http::body::RequestBody;
use crate::http::meter::Meter;
use crate::http::presence::Presence;
use crate::http::request_id;
use crate::http::target;
use crate::model::listener::{Address, Direction};
use crate::model::names;
use crate::model::route::{Decorator, VirtualCluster};
use crate::model::tracing::RouteTracing;
use crate::telemetry::format::{self, LogKind, Record, Times};
use crate::telemetry::reason::Reason;
use crate::telemetry::trace::{Outcome, Span, TraceContext, TraceReason, Wants, Why};

/// Begin the request's span, if the connection manager traces. The id of the request carries from
/// hop to hop why it is traced, and a number that all hops draw the same from.
pub(super) fn start_span(
    exchange: &mut Exchange,
    (of_route, decorator): (Option<Arc<RouteTracing>>, Option<Arc<Decorator>>),
    request: &mut Request<RequestBody>,
) {
    let http = Arc::clone(&exchange.connection.http);
    let Some(tracer) = &http.tracer else { return };
    let headers = request.headers_mut();
    let found = headers.get(names::X_REQUEST_ID).and_then(request_id::read);
    let (found, number) = found.unwrap_or((TraceReason::No, exchange.random));
    let present = exchange.present;
    let forced =
        present.has(Presence::FORCE_TRACE) && headers.contains_key(names::X_ENVOY_FORCE_TRACE);
    let random = fastrand::u64(..);
    let asks = (found, forced, present.has(Presence::CLIENT_TRACE_ID));
    let reason = tracer.reason(of_route.as_deref(), headers, asks, (number, random));
    if reason != found
        && let Some(packed) =
            headers.get(names::X_REQUEST_ID).filter(|id| request_id::read(id).is_some())
        && let Some(packed) = request_id::pack(packed, reason)
    {
        headers.insert(names::X_REQUEST_ID, packed);
    }
    if forced {
        // Who asks for a trace wants to find it.
        exchange.echo_request_id = headers.get(names::X_REQUEST_ID).cloned();
    }
    let inbound = http.direction != Direction::Outbound;
    let bound = tracer.allows(of_route.as_deref(), number);
    let decision = (reason != TraceReason::No, bound, inbound);
    let parent = if present.has(Presence::TRACE) {
        TraceContext::extract_with(headers, present.has(Presence::TRACE_STATE))
    } else {
        None
    };
    let mut span = tracer.start(parent, &mut || fastrand::u64(..), exchange.wall, decision);
    span.decorate(decorator, headers, present.has(Presence::DECORATOR));
    let stats = &http.stats;
    match reason {
        TraceReason::No => &stats.tracing_not_sampled,
        TraceReason::Client => &stats.tracing_client_enabled,
        TraceReason::Forced => &stats.tracing_service_forced,
        TraceReason::Sampled => &stats.tracing_sampled,
    }
    .inc();
    exchange.span = Some(span.of_route(of_route));
}

/// A try begins: a span of its own, if the tracer wants that.
pub(super) fn start_try(exchange: &mut Exchange, headers: &mut HeaderMap) {
    end_try(exchange);
    let span = exchange.span.as_ref().and_then(|span| span.of_try(fastrand::u64(..)));
    if let Some(span) = &span {
        span.inject(headers, exchange.present.has(Presence::TRACE_STATE));
    }
    exchange.try_span = span.map(Box::new);
}

/// The try is over, or all is.
fn end_try(exchange: &mut Exchange) {
    if let Some(span) = exchange.try_span.take() {
        with(exchange, None, None, |record| span.finish_try(record, SystemTime::now()));
    }
}

/// Pass the trace on to the upstream.
pub(super) fn inject_span(exchange: &Exchange, request: &mut Request<RequestBody>) {
    if let Some(span) = &exchange.span {
        span.inject(request.headers_mut(), exchange.present.has(Presence::TRACE_STATE));
    }
}

/// Tell everything. Called once, when the exchange is dropped.
pub(super) fn finish(exchange: &mut Exchange, took: Duration) {
    if exchange.facts.status.is_none() {
        // The peer left before there was an answer.
        let departure = exchange.connection.lifetime.departure();
        exchange.flag(departure.unwrap_or(Reason::DownstreamTermination));
    }
    let stats = &exchange.connection.http.stats;
    stats.end(exchange.facts.status, took, exchange.facts.health_check);
    if let (Some(cluster), Some(status)) = (&exchange.facts.cluster, exchange.facts.status)
        && exchange.facts.attempts > 0
    {
        let internal = exchange.facts.internal;
        cluster.stats.charge(status.as_u16(), internal);
        if let Some(after) = exchange.facts.response_after {
            cluster.stats.took(after.as_secs_f64() * 1000.0, internal);
        }
        let after = exchange.facts.response_after.map(|after| after.as_secs_f64() * 1000.0);
        exchange.count(|stats| stats.charge(status.as_u16(), after));
    }
    let kept = look_again(exchange, took);
    if !exchange.is_recorded() && kept.is_none() {
        return;
    }
    end_try(exchange);
    let span = exchange.span.take();
    let end = SystemTime::now();
    with(exchange, None, None, |record| {
        exchange.connection.http.logger.log(&Record { span: span.as_ref(), ..*record });
        if let Some(span) = span {
            span.finish(record, end, kept);
        }
    });
}

/// Whether a span that was not sampled is kept for what came of its exchange.
fn look_again(exchange: &Exchange, took: Duration) -> Option<Why> {
    let span = exchange.span.as_ref().filter(|span| span.wants() != Wants::Nothing)?;
    let facts = &exchange.facts;
    let (trailers, headers) = (facts.trailers.as_deref(), facts.response.as_deref());
    let told = || format::told_grpc_status(trailers, headers);
    let outcome = Outcome {
        status: facts.status.map(|status| status.as_u16()),
        grpc: exchange.grpc.then(told).flatten(),
        flags: &facts.flags,
        took,
        is_session: facts.is_session,
        is_health_check: facts.health_check,
    };
    span.look_again(&outcome, SystemTime::now())
}

/// The head as it is routed, and later as it is sent, for those who will want to read about it.
pub(super) fn keep_head(exchange: &mut Exchange, request: &Request<RequestBody>) {
    let wants = exchange.span.as_ref().map_or(Wants::Nothing, Span::wants);
    if exchange.head.is_none() && wants != Wants::Nothing {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method.clone_from(request.method());
        exchange.head = Some(Box::new(head));
        exchange.lean_head = wants != Wants::All;
    }
    let Some(head) = &mut exchange.head else { return };
    head.uri.clone_from(request.uri());
    match wants {
        Wants::Head(names) if exchange.lean_head => {
            head.headers.clear();
            for name in names {
                for value in request.headers().get_all(name) {
                    head.headers.append(name, value.clone());
                }
            }
        }
        _ => head.headers.clone_from(request.headers()),
    }
}

/// The request has its route, if there is one: write so, if that is wanted.
pub(super) fn begin(exchange: &mut Exchange, routed: Routed<'_>) {
    let http = Arc::clone(&exchange.connection.http);
    let moments = &http.manager.log_moments;
    if moments.start && http.logger.is_enabled() {
        exchange.note(routed);
        log(exchange, LogKind::DownstreamStart);
    }
}

/// An upgrade or a CONNECT has been answered well: write so, if that is wanted.
pub(super) fn tunnel_established(exchange: &mut Exchange) {
    exchange.facts.is_session = true;
    if exchange.connection.http.manager.log_moments.tunnel {
        log(exchange, LogKind::TunnelEstablished);
    }
}

/// When an exchange that goes on is written next.
#[derive(Debug)]
pub(crate) struct Periodic(Pin<Box<Interval>>);

/// Write about an exchange that goes on, as often as that is wanted.
pub(super) fn poll_periodic(exchange: &mut Exchange, cx: &mut Context<'_>) {
    let Some(every) = exchange.connection.http.manager.log_moments.interval else { return };
    let mut periodic =
        exchange.periodic.take().unwrap_or_else(|| Periodic(Box::pin(intervals(every))));
    while periodic.0.poll_tick(cx).is_ready() {
        log(exchange, LogKind::DownstreamPeriodic);
    }
    exchange.periodic = Some(periodic);
}

/// The same while something else is waited for.
pub(super) async fn meanwhile<T>(exchange: &mut Exchange, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            poll_periodic(exchange, cx);
        }
        polled
    })
    .await
}

/// Do something at every interval while something else is waited for.
pub(super) async fn every<T>(
    every: Option<Duration>,
    work: impl Future<Output = T>,
    mut tick: impl FnMut(),
) -> T {
    let Some(every) = every else { return work.await };
    let (mut work, mut interval) = (std::pin::pin!(work), intervals(every));
    loop {
        tokio::select! {
            biased;
            done = work.as_mut() => return done,
            _ = interval.tick() => tick(),
        }
    }
}

fn intervals(every: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

fn log(exchange: &Exchange, kind: LogKind) {
    with(exchange, None, None, |record| {
        exchange.connection.http.logger.log(&Record { kind, ..*record });
    });
}

/// The exchange as formatters see it. The request and response are given while the exchange is
/// under way; afterwards what was kept of them is used.
pub(super) fn with(
    exchange: &Exchange,
    request: Option<&Request<RequestBody>>,
    response: Option<&HeaderMap>,
    told: impl FnOnce(&Record<'_>),
) {
    let facts = &exchange.facts;
    let ends = &exchange.connection.ends;
    let kept = exchange.head.as_deref();
    let headers = request.map(Request::headers).or_else(|| kept.map(|head| &head.headers));
    let uri = request.map(Request::uri).or_else(|| kept.map(|head| &head.uri));
    let method = request.map(Request::method).or_else(|| kept.map(|head| &head.method));
    let upstream = facts.sent_on.as_ref().and_then(SentOn::connection);
    let upstream_local = upstream.as_ref().and_then(|one| Some(one.local_address()?.to_string()));
    let endpoint = facts.endpoint.as_deref();
    told(&Record {
        start: Some(exchange.wall),
        method: method.map(http::Method::as_str),
        // CONNECT has none.
        path: uri.map(target::path).filter(|path| !path.is_empty()),
        authority: uri.zip(headers).map(|(uri, headers)| target::authority(uri, headers)),
        scheme: Some(scheme(headers, ends.tls_version.is_some())),
        protocol: Some(if exchange.connection.is_http2() { "HTTP/2" } else { "HTTP/1.1" }),
        request_headers: headers,
        response_headers: response.or(facts.response.as_deref()),
        response_trailers: facts.trailers.as_deref(),
        upstream_host: endpoint.map(|endpoint| endpoint.address_text()),
        upstream_metadata: endpoint.map(|endpoint| &endpoint.metadata),
        upstream_hostname: endpoint.map(Endpoint::hostname).filter(|name| !name.is_empty()),
        upstream_local: upstream_local.as_deref(),
        upstream: upstream.as_deref().map(Connection::told),
        grpc: exchange.grpc,
        ..timed(exchange, from_client(exchange, outcome(facts)))
    });
}

/// What came of it.
fn outcome(facts: &Facts) -> Record<'_> {
    let answered = facts.response_after.map(|_| "via_upstream");
    Record {
        status: facts.status.map(|status| status.as_u16()),
        response_status: facts.own_status.map(|status| status.as_u16()),
        flags: &facts.flags,
        details: facts.why.as_deref().or(facts.details).or(answered),
        termination: facts.termination,
        dynamic: facts.dynamic.as_deref(),
        health_check: facts.health_check,
        bytes_sent: facts.bytes_sent,
        upstream_cluster: facts.cluster.as_ref().map(|cluster| &*cluster.config.name),
        upstream_attempts: facts.attempts,
        upstream_transport_failure: facts.failure.as_deref(),
        route: facts.route.as_ref().map(|route| &*route.name),
        virtual_cluster: facts.virtual_cluster.as_deref().and_then(VirtualCluster::told),
        virtual_host: facts.host.as_ref().map(|host| &*host.name),
        ..Record::default()
    }
}

/// The connection that it came on.
fn from_client<'a>(exchange: &'a Exchange, record: Record<'a>) -> Record<'a> {
    let ends = &exchange.connection.ends;
    let (remote, local) = (socket(&ends.remote), socket(&ends.local));
    let client = exchange.facts.client;
    let trusted = client.map(|ip| SocketAddr::new(ip, remote.map_or(0, |remote| remote.port())));
    Record {
        downstream_remote: trusted.or(remote),
        downstream_direct_remote: socket(&ends.direct),
        downstream_local: ends.original_dst.or(local),
        downstream_direct_local: local,
        peer: ends.peer.as_ref().map(|peer| peer as _),
        local: exchange.connection.http.local.as_ref().map(|local| local as _),
        sni: ends.sni.as_deref(),
        tls: ends.tls,
        filter_chain: Some(&ends.chain),
        listener: Some(&ends.listener),
        connection_id: exchange.connection.id,
        unique: (u128::from(exchange.random) << 64) ^ nanos(exchange.wall),
        span: exchange.span.as_ref(),
        ..record
    }
}

/// When what happened, and the bytes of the request.
fn timed<'a>(exchange: &Exchange, record: Record<'a>) -> Record<'a> {
    let facts = &exchange.facts;
    let request_duration = request_time(exchange);
    // Nothing is sent where there was no connection.
    let had_connection = facts.sent_on.as_ref().and_then(SentOn::connection).is_some();
    let sent_after = facts.sent_after.filter(|_| had_connection);
    Record {
        duration: Some(exchange.started.elapsed()),
        request_duration,
        response_duration: facts.response_after,
        times: Times {
            send_start: sent_after,
            send_end: sent_after.and_then(|sent| Some(sent.max(request_duration?))),
            response_end: facts.response_end,
            reply_start: facts.reply_after,
        },
        bytes_received: exchange.meter.as_ref().map_or(0, Meter::bytes),
        ..record
    }
}

/// What the client spoke to the first proxy of ours.
fn scheme(headers: Option<&HeaderMap>, tls: bool) -> &'static str {
    let forwarded = headers.and_then(|headers| headers.get(names::X_FORWARDED_PROTO));
    match forwarded.map(http::HeaderValue::as_bytes) {
        Some(b"https") => "https",
        Some(b"http") => "http",
        _ if tls => "https",
        _ => "http",
    }
}

/// From the start to the end of the request. None: it has not ended.
fn request_time(exchange: &Exchange) -> Option<Duration> {
    match &exchange.meter {
        None => Some(Duration::ZERO),
        Some(meter) => meter.ended().map(|ended| ended.saturating_duration_since(exchange.started)),
    }
}

fn socket(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Socket(address) => Some(*address),
        Address::Pipe(_) => None,
    }
}

fn nanos(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}
