//! What an exchange tells when it is over: metrics, an access-log line, a span.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Request};

use super::exchange::Exchange;
use crate::http::body::RequestBody;
use crate::http::target;
use crate::model::listener::{Address, Direction};
use crate::telemetry::format::{Peer, Record};
use crate::telemetry::reason::Reason;
use crate::tls::PeerIdentity;

/// Begin the request's span, if the connection manager traces.
pub(super) fn start_span(exchange: &mut Exchange, request: &Request<RequestBody>) {
    let http = &exchange.connection.http;
    let Some(tracer) = &http.tracer else { return };
    let inbound = http.direction == Direction::Inbound;
    let span = tracer.start(request.headers(), &mut || fastrand::u64(..), exchange.wall, inbound);
    if span.is_sampled() {
        http.stats.tracing_sampled.inc();
    } else {
        http.stats.tracing_not_sampled.inc();
    }
    exchange.span = Some(span);
}

/// Pass the trace on to the upstream.
pub(super) fn inject_span(exchange: &Exchange, request: &mut Request<RequestBody>) {
    if let Some(span) = &exchange.span {
        span.inject(request.headers_mut());
    }
}

/// Tell everything. Called once, when the exchange is dropped.
pub(super) fn finish(exchange: &mut Exchange) {
    let took = exchange.started.elapsed();
    if exchange.facts.status.is_none() {
        // The peer left before there was an answer.
        exchange.flag(Reason::DownstreamTermination);
    }
    let stats = &exchange.connection.http.stats;
    stats.end(exchange.facts.status, took);
    if let (Some(cluster), Some(status)) = (&exchange.facts.cluster, exchange.facts.status)
        && exchange.facts.attempts > 0
    {
        cluster.stats.charge(status.as_u16());
        if let Some(after) = exchange.facts.response_after {
            cluster.stats.upstream_rq_time.record(after.as_secs_f64() * 1000.0);
        }
    }
    if !exchange.is_recorded() {
        return;
    }
    let span = exchange.span.take();
    let end = SystemTime::now();
    with(exchange, None, None, |record| {
        exchange.connection.http.logger.log(record);
        if let Some(span) = span {
            span.finish(record, end);
        }
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
    let remote = socket(&ends.remote);
    let meter = exchange.meter.as_ref();
    told(&Record {
        start: Some(exchange.wall),
        duration: Some(exchange.started.elapsed()),
        request_duration: Some(request_time(exchange)),
        response_duration: facts.response_after,
        method: method.map(http::Method::as_str),
        path: uri.map(target::path),
        authority: uri.zip(headers).map(|(uri, headers)| target::authority(uri, headers)),
        scheme: Some(if ends.tls_version.is_some() { "https" } else { "http" }),
        protocol: Some(if exchange.connection.is_http2() { "HTTP/2" } else { "HTTP/1.1" }),
        request_headers: headers,
        response_headers: response.or(facts.response.as_deref()),
        response_trailers: facts.trailers.as_deref(),
        status: facts.status.map(|status| status.as_u16()),
        flags: &facts.flags,
        details: facts.why.as_deref().or(facts.details),
        grpc: exchange.grpc,
        bytes_received: meter.map_or(0, crate::http::meter::Meter::bytes),
        bytes_sent: facts.bytes_sent,
        upstream_host: facts.endpoint.as_ref().map(|endpoint| &*endpoint.address_text),
        upstream_local: facts.upstream_local.as_deref(),
        upstream_cluster: facts.cluster.as_ref().map(|cluster| &*cluster.config.name),
        upstream_attempts: facts.attempts,
        upstream_transport_failure: facts.failure.as_deref(),
        downstream_remote: facts
            .client
            .map(|ip| SocketAddr::new(ip, remote.map_or(0, |remote| remote.port())))
            .or(remote),
        downstream_direct_remote: socket(&ends.direct),
        downstream_local: socket(&ends.local),
        peer: ends.peer.as_ref().map(peer).unwrap_or_default(),
        local_uri: exchange.connection.http.local_uri.as_deref(),
        sni: ends.sni.as_deref(),
        tls_version: ends.tls_version,
        route: facts.route.as_ref().map(|route| &*route.name),
        virtual_host: facts.host.as_ref().map(|host| &*host.name),
        filter_chain: Some(&ends.chain),
        connection_id: exchange.connection.id,
        operation: facts.route.as_ref().and_then(|route| route.operation.as_deref()),
        span: exchange.span.as_ref(),
    });
}

/// From the start to the end of the request; so far, if it has not ended.
fn request_time(exchange: &Exchange) -> Duration {
    match &exchange.meter {
        None => Duration::ZERO,
        Some(meter) => {
            meter.ended().unwrap_or_else(Instant::now).saturating_duration_since(exchange.started)
        }
    }
}

fn socket(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Socket(address) => Some(*address),
        Address::Pipe(_) => None,
    }
}

fn peer(identity: &PeerIdentity) -> Peer<'_> {
    Peer {
        uris: &identity.uri_sans,
        dns: &identity.dns_sans,
        subject: &identity.subject,
        issuer: &identity.issuer,
        serial: &identity.serial,
        sha256: &identity.sha256,
    }
}
