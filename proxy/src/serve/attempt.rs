//! Steps six and seven, pick and forward: one try after another, until one is final.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body as _;

use super::admit::{self, Plan};
use super::again::{self, Next, Tried};
use super::clock::Clock;
use super::exchange::Exchange;
use super::source::Source;
use super::{hedge, mirror, record, tunnel};
use crate::cluster::{
    Cluster, Endpoint, Named, Outcome as Observed, PickContext, ResponseBody, SendError,
    SendOptions, SentOn,
};
use crate::http::body::RequestBody;
use crate::http::presence::Presence;
use crate::http::target;
use crate::model::names;
use crate::model::overload::Timer;
use crate::model::route::HostRewrite;
use crate::telemetry::reason::{Reason, Refusal, Sent, Side};

const IS_TIMEOUT_RETRY: HeaderName = HeaderName::from_static("x-envoy-is-timeout-retry");

/// Send the request until a try is final: an answer to be passed on, or a refusal.
///
/// # Errors
/// No endpoint, a failure that may not be retried, or retries used up.
pub(super) async fn run(
    exchange: &mut Exchange,
    plan: &mut Plan<'_>,
    request: &mut Request<RequestBody>,
) -> Result<Response<ResponseBody>, Refusal> {
    let to = if plan.cluster.forwards() {
        let authority = target::authority(request.uri(), request.headers()).to_owned();
        destination(exchange, &plan.cluster, &authority).await?
    } else {
        exchange.connection.original_dst()
    };
    let mut source = Source::new(plan, request);
    let clock = clock(exchange, plan);
    if plan.hedges() {
        // In a box, so that others do not carry its state.
        let answer = Box::pin(hedge::run(exchange, plan, &mut source, (&clock, to))).await?;
        mirror::send(exchange, plan, &source);
        return Ok(answer);
    }
    let mut tried = Tried::default();
    loop {
        exchange.facts.attempts += 1;
        let endpoint = pick(exchange, plan, (&tried, to))?;
        let again = source.is_wanted_again();
        let Some(request) = source.next() else {
            return Err(Refusal::local(
                Reason::RetryLimitExceeded,
                StatusCode::SERVICE_UNAVAILABLE,
                "the request body is too large to be sent again",
            ));
        };
        let begun = dress(exchange, plan, (&tried, &endpoint), request);
        let options = options(exchange, plan, again);
        let outcome = one_try(exchange, plan, (&endpoint, &clock, begun), (request, options)).await;
        count(exchange, &outcome);
        observe(&plan.leaf.0, &endpoint, &outcome);
        match again::after(exchange, plan, &mut source, &mut tried, &outcome) {
            Next::Final => {
                if outcome.is_ok() {
                    mirror::send(exchange, plan, &source);
                }
                return outcome.map_err(|error| error.refusal);
            }
            Next::AgainAfter(wait) => {
                // What there is of an answer is not wanted while the next try waits.
                drop(outcome);
                tried.endpoints.push(endpoint);
                again::back_off(&clock, wait, &exchange.connection.timers).await?;
            }
        }
    }
}

/// What differs from try to try. When the try begins: now.
pub(super) fn dress(
    exchange: &mut Exchange,
    plan: &Plan<'_>,
    (tried, endpoint): (&Tried, &Endpoint),
    request: &mut Request<RequestBody>,
) -> Instant {
    admit::count_attempt(plan, exchange.facts.attempts, request);
    if plan.host.include_is_timeout_retry && !tried.endpoints.is_empty() {
        let value = if tried.timed_out { "true" } else { "false" };
        request.headers_mut().insert(IS_TIMEOUT_RETRY, HeaderValue::from_static(value));
    }
    rewrite_host(plan, endpoint, request);
    exchange.facts.sent_on = exchange.is_recorded().then(SentOn::default);
    if let Some(sent_on) = &exchange.facts.sent_on {
        request.extensions_mut().insert(sent_on.clone());
    }
    record::start_try(exchange, request.headers_mut());
    let since = exchange.started.elapsed();
    exchange.facts.sent_after.get_or_insert(since);
    exchange.started + since
}

/// The head of an answer is here; an answer without a body is here as a whole.
pub(super) fn answered(exchange: &mut Exchange, response: &Response<ResponseBody>) {
    let after = Some(exchange.started.elapsed());
    exchange.facts.response_after = after;
    if response.body().is_end_stream() {
        exchange.facts.response_end = after;
    }
}

pub(super) fn clock(exchange: &Exchange, plan: &Plan<'_>) -> Clock {
    let timeouts = &exchange.connection.http.manager.timeouts;
    let idle = plan.forward.idle_timeout.or(timeouts.stream_idle).filter(|idle| !idle.is_zero());
    let overload = &exchange.connection.http.overload;
    let idle = idle.map(|idle| overload.timeout(Timer::StreamIdle, idle));
    let mut limits = plan.timeouts;
    limits.max_stream = limits.max_stream.or(timeouts.max_stream_duration);
    Clock::new(exchange.started, limits, idle, timeouts.request, exchange.meter.clone())
}

/// Where a request goes in a cluster that has no endpoints of its own: to the host that it names, or
/// to where its connection was going.
///
/// # Errors
/// The name has no address, or it is this proxy's own.
pub(super) async fn destination(
    exchange: &mut Exchange,
    cluster: &Cluster,
    authority: &str,
) -> Result<Option<SocketAddr>, Refusal> {
    let named = cluster.forward_to(authority).await;
    let named = named.inspect_err(|refusal| exchange.flag(refusal.reason))?;
    match named {
        Some(address) if exchange.connection.is_here(address) => Err(tunnel::leads_back(authority)),
        Some(address) => Ok(Some(address)),
        None => Ok(exchange.connection.original_dst()),
    }
}

pub(super) fn pick(
    exchange: &mut Exchange,
    plan: &mut Plan<'_>,
    (tried, to): (&Tried, Option<SocketAddr>),
) -> Result<Arc<Endpoint>, Refusal> {
    let random = fastrand::u64(..);
    if plan.cluster.is_aggregate() {
        let leaf = exchange.live.leaf(&plan.cluster, plan.hash.unwrap_or(random));
        let permit = leaf.admit(plan.forward.priority);
        plan.leaf = (leaf, Some(permit.inspect_err(|refusal| exchange.flag(refusal.reason))?));
    }
    let again = !tried.endpoints.is_empty();
    let leave = plan.priorities_to_leave(&tried.endpoints);
    let avoid = if plan.avoid_previous_hosts { tried.endpoints.as_slice() } else { &[] };
    let endpoint = plan
        .leaf
        .0
        .pick(&PickContext {
            hash: plan.hash,
            avoid,
            attempts: plan.host_selection_attempts,
            original_dst: to,
            subset: plan.subset,
            named: named(plan, tried.endpoints.len()),
            omit: plan.policy.map(|policy| &policy.omit).filter(|_| again),
            leave: &leave,
            random,
        })
        .inspect_err(|refusal| exchange.flag(refusal.reason))?;
    exchange.facts.endpoint = Some(Arc::clone(&endpoint));
    Ok(endpoint)
}

/// The endpoint that the request names for this try.
fn named<'p>(plan: &'p Plan<'_>, attempt: usize) -> Option<Named<'p>> {
    let named = plan.named.as_ref().filter(|named| named.every_try || attempt == 0)?;
    Some(Named { addresses: &named.addresses, attempt, strict: named.strict })
}

/// `again`: the head of the request may be wanted for another try.
pub(super) fn options(exchange: &Exchange, plan: &Plan<'_>, again: bool) -> SendOptions {
    SendOptions {
        priority: plan.forward.priority,
        downstream_h2: exchange.connection.is_http2(),
        sni: None,
        behalf: exchange.connection.ends.behalf(),
        again,
    }
}

async fn one_try(
    exchange: &mut Exchange,
    plan: &Plan<'_>,
    (endpoint, clock, begun): (&Arc<Endpoint>, &Clock, Instant),
    (request, options): (&mut Request<RequestBody>, SendOptions),
) -> Result<Response<ResponseBody>, SendError> {
    let connection = Arc::clone(&exchange.connection);
    // Pinned here: what `select!` is given it moves, twice.
    let sent = std::pin::pin!(plan.leaf.0.send(endpoint, request, options));
    let late = std::pin::pin!(clock.run_out(Some(begun), &connection.timers));
    tokio::select! {
        biased;
        sent = sent => {
            if let Ok(response) = &sent {
                answered(exchange, response);
            }
            sent
        }
        reason = late => {
            Err(SendError { refusal: timed_out(exchange, plan, clock, reason), unsent: false })
        }
    }
}

/// The refusal that a deadline leads to, with Envoy's status for it.
pub(super) fn timed_out(
    exchange: &Exchange,
    plan: &Plan<'_>,
    clock: &Clock,
    reason: Reason,
) -> Refusal {
    count_timeout(exchange, reason);
    plan.cluster.stats.out_of_time(reason);
    let (status, side, detail) = match reason {
        Reason::DownstreamRequestTimeout => {
            (StatusCode::REQUEST_TIMEOUT, Side::Downstream, "request timeout")
        }
        Reason::StreamIdleTimeout if !clock.request_complete() => {
            (StatusCode::REQUEST_TIMEOUT, Side::Downstream, "stream timeout")
        }
        Reason::StreamIdleTimeout => {
            (StatusCode::GATEWAY_TIMEOUT, Side::Upstream, "stream timeout")
        }
        Reason::MaxDuration => {
            (StatusCode::REQUEST_TIMEOUT, Side::Local, "max stream duration reached")
        }
        _ => (StatusCode::GATEWAY_TIMEOUT, Side::Upstream, "upstream request timeout"),
    };
    Refusal { reason, status, side, sent: Sent::Maybe, detail: detail.into() }
}

pub(super) fn count_timeout(exchange: &Exchange, reason: Reason) {
    if reason == Reason::RequestTimeout {
        exchange.count(|stats| stats.timeout.inc());
    }
}

/// A try that had a connection counts as sent.
pub(super) fn count(exchange: &Exchange, outcome: &Result<Response<ResponseBody>, SendError>) {
    let sent = match outcome {
        Ok(_) => true,
        Err(error) => !matches!(
            error.refusal.reason,
            Reason::ConnectFailure
                | Reason::ConnectTimeout
                | Reason::TlsFailure
                | Reason::Overflow
                | Reason::DnsFailure
        ),
    };
    if sent {
        exchange.count(|stats| stats.total.inc());
    }
}

/// Tell outlier detection.
pub(super) fn observe(
    cluster: &Cluster,
    endpoint: &Arc<Endpoint>,
    outcome: &Result<Response<ResponseBody>, SendError>,
) {
    let observed = match outcome {
        Ok(response) => Observed::Status(grpc_as_http(response)),
        Err(error) if error.refusal.side == Side::Upstream => {
            Observed::LocalFailure(error.refusal.reason)
        }
        // Our own limit or the client's fault: the endpoint has nothing to do with it.
        Err(_) => return,
    };
    cluster.record(endpoint, observed);
}

/// A trailers-only gRPC failure counts as the HTTP status that means the same.
fn grpc_as_http(response: &Response<ResponseBody>) -> u16 {
    let status = response.status().as_u16();
    if !response.body().present().has(Presence::GRPC) {
        return status;
    }
    match response.headers().get(names::GRPC_STATUS).map(HeaderValue::as_bytes) {
        Some(b"14") if status == 200 => 503,
        Some(b"13" | b"2" | b"15") if status == 200 => 500,
        _ => status,
    }
}

fn rewrite_host(plan: &Plan<'_>, endpoint: &Endpoint, request: &mut Request<RequestBody>) {
    if matches!(plan.forward.host_rewrite, HostRewrite::Auto)
        && let Ok(host) = HeaderValue::from_str(endpoint.hostname())
        && !host.is_empty()
    {
        admit::set_host(plan, request, &host);
    }
    // The version of a request is the connection's affair.
    *request.version_mut() = Version::HTTP_11;
}
