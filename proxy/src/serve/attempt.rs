//! Steps six and seven, pick and forward: one try after another, until one is final.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};

use super::admit::{self, Plan};
use super::clock::Clock;
use super::exchange::Exchange;
use super::{mirror, record, tunnel};
use crate::cluster::{
    Cluster, Endpoint, Named, Outcome as Observed, PickContext, ResponseBody, SendError,
    SendOptions, SentOn,
};
use crate::http::body::RequestBody;
use crate::http::replay::Replay;
use crate::http::target;
use crate::model::names;
use crate::model::route::HostRewrite;
use crate::policy::retry::Outcome;
use crate::telemetry::reason::{Reason, Refusal, Sent, Side};

/// Send the request until a try is final: an answer to be passed on, or a refusal.
///
/// # Errors
/// No endpoint, a failure that may not be retried, or retries used up.
pub(super) async fn run(
    exchange: &mut Exchange,
    plan: &mut Plan<'_>,
    request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, Refusal> {
    let authority = target::authority(request.uri(), request.headers()).to_owned();
    let to = destination(exchange, &plan.cluster, &authority).await?;
    let mut source = Source::new(plan, request);
    let clock = clock(exchange, plan);
    let mut tried = Tried::default();
    loop {
        exchange.facts.attempts += 1;
        let endpoint = pick(exchange, plan, (&tried, to))?;
        let Some(mut request) = source.take() else {
            return Err(Refusal::local(
                Reason::RetryLimitExceeded,
                StatusCode::SERVICE_UNAVAILABLE,
                "the request body is too large to be sent again",
            ));
        };
        admit::count_attempt(plan, exchange.facts.attempts, &mut request);
        rewrite_host(plan, &endpoint, &mut request);
        let outcome = one_try(exchange, plan, (&endpoint, &clock), request).await;
        observe(plan, &endpoint, &outcome);
        let next = after(exchange, plan, &mut source, &mut tried, outcome)?;
        tried.endpoints.push(endpoint);
        match next {
            Next::Final(response) => {
                mirror::send(exchange, plan, &source);
                return Ok(response);
            }
            Next::AgainAfter(wait) => back_off(&clock, wait).await?,
        }
    }
}

/// What follows a try.
#[expect(
    clippy::large_enum_variant,
    reason = "lives for one match; boxing would cost an allocation a request"
)]
enum Next {
    Final(Response<ResponseBody>),
    AgainAfter(Duration),
}

/// The tries so far.
#[derive(Default)]
struct Tried {
    endpoints: Vec<Arc<Endpoint>>,
    /// A stale pooled connection was excused already.
    excused: bool,
    /// Counted against the budget while a retry is under way.
    permit: Option<crate::cluster::RetryPermit>,
}

/// The request, to be sent once or, if a retry is possible, again.
pub(super) struct Source {
    head: Option<Parts>,
    first: Option<Request<RequestBody>>,
    pub(super) replay: Option<Replay>,
    had_body: bool,
}

impl Source {
    fn new(plan: &Plan<'_>, request: Request<RequestBody>) -> Self {
        let keep = plan.retries.possible() || !plan.forward.mirrors.is_empty();
        let had_body = !matches!(request.body(), RequestBody::Empty);
        if !keep {
            return Self { head: None, first: Some(request), replay: None, had_body };
        }
        let (head, body) = request.into_parts();
        let kept = Some(head.clone());
        if !had_body {
            let first = Some(Request::from_parts(head, RequestBody::Empty));
            return Self { head: kept, first, replay: None, had_body };
        }
        let replay = Replay::new(body, plan.buffer_limit());
        let first = Some(Request::from_parts(head, replay.reader()));
        Self { head: kept, first, replay: Some(replay), had_body }
    }

    /// A copy of the head, for a mirror.
    pub(super) fn head(&self) -> Option<Parts> {
        self.head.clone()
    }

    fn take(&mut self) -> Option<Request<RequestBody>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let head = self.head.clone()?;
        let body = match &self.replay {
            Some(replay) if replay.can_replay() => replay.reader(),
            Some(_) => return None,
            None => RequestBody::Empty,
        };
        Some(Request::from_parts(head, body))
    }

    /// Whether there will be anything to send.
    fn can_repeat(&self) -> bool {
        self.first.is_some()
            || (self.head.is_some() && self.replay.as_ref().is_none_or(Replay::can_replay))
    }
}

pub(super) fn clock(exchange: &Exchange, plan: &Plan<'_>) -> Clock {
    let timeouts = &exchange.connection.http.manager.timeouts;
    let idle = plan.forward.idle_timeout.or(timeouts.stream_idle).filter(|idle| !idle.is_zero());
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

fn pick(
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

async fn one_try(
    exchange: &mut Exchange,
    plan: &Plan<'_>,
    (endpoint, clock): (&Arc<Endpoint>, &Clock),
    mut request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, SendError> {
    let options = SendOptions {
        priority: plan.forward.priority,
        downstream_h2: exchange.connection.is_http2(),
        sni: None,
        behalf: exchange.connection.ends.behalf(),
    };
    exchange.facts.sent_on = exchange.is_recorded().then(SentOn::default);
    if let Some(sent_on) = &exchange.facts.sent_on {
        request.extensions_mut().insert(sent_on.clone());
    }
    record::start_try(exchange, request.headers_mut());
    let now = Instant::now();
    exchange.facts.sent_after.get_or_insert_with(|| now - exchange.started);
    let try_deadline = plan.timeouts.per_try.map(|limit| now + limit);
    tokio::select! {
        biased;
        sent = plan.leaf.0.send(endpoint, request, options) => {
            if sent.is_ok() {
                exchange.facts.response_after = Some(exchange.started.elapsed());
            }
            sent
        }
        reason = clock.run_out(try_deadline) => {
            Err(SendError { refusal: timed_out(plan, clock, reason), request: None })
        }
    }
}

/// The refusal that a deadline leads to, with Envoy's status for it.
fn timed_out(plan: &Plan<'_>, clock: &Clock, reason: Reason) -> Refusal {
    let stats = &plan.cluster.stats;
    let (status, side, detail) = match reason {
        Reason::PerTryTimeout => {
            stats.upstream_rq_per_try_timeout.inc();
            (StatusCode::GATEWAY_TIMEOUT, Side::Upstream, "upstream request timeout")
        }
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
        _ => {
            stats.upstream_rq_timeout.inc();
            (StatusCode::GATEWAY_TIMEOUT, Side::Upstream, "upstream request timeout")
        }
    };
    Refusal { reason, status, side, sent: Sent::Maybe, detail: detail.into() }
}

/// Tell outlier detection.
fn observe(
    plan: &Plan<'_>,
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
    plan.leaf.0.record(endpoint, observed);
}

/// A trailers-only gRPC failure counts as the HTTP status that means the same.
fn grpc_as_http(response: &Response<ResponseBody>) -> u16 {
    let status = response.status().as_u16();
    match response.headers().get(names::GRPC_STATUS).map(HeaderValue::as_bytes) {
        Some(b"14") if status == 200 => 503,
        Some(b"13" | b"2" | b"15") if status == 200 => 500,
        _ => status,
    }
}

/// Decide what follows a try.
fn after(
    exchange: &mut Exchange,
    plan: &mut Plan<'_>,
    source: &mut Source,
    tried: &mut Tried,
    outcome: Result<Response<ResponseBody>, SendError>,
) -> Result<Next, Refusal> {
    let repeated = tried.permit.take().is_some();
    let outcome = match outcome {
        Ok(response) => Ok(response),
        Err(SendError { refusal, request }) => {
            if let Some(next) = excuse(plan, source, tried, (&refusal, request)) {
                return Ok(next);
            }
            Err(refusal)
        }
    };
    let wanted = plan.retries.wants(&match &outcome {
        Ok(response) => Outcome::Response(response.status(), response.headers()),
        Err(refusal) => Outcome::Failure(refusal),
    });
    if wanted && let Some(wait) = try_again(exchange, plan, source, tried) {
        return Ok(Next::AgainAfter(wait));
    }
    if repeated && !wanted {
        plan.cluster.stats.upstream_rq_retry_success.inc();
    }
    match outcome {
        Ok(response) => Ok(Next::Final(response)),
        Err(refusal) => {
            exchange.flag(refusal.reason);
            let transport = [Reason::ConnectFailure, Reason::ConnectTimeout, Reason::TlsFailure];
            if transport.contains(&refusal.reason) {
                exchange.facts.failure = Some(refusal.detail.to_string());
            }
            Err(refusal)
        }
    }
}

/// A reused connection that died before a byte of the answer: most likely it was closed at the
/// very moment. Tried once more, outside the policy, where that is provably safe: the request
/// came back unsent, or its method may be repeated (RFC 9110 section 9.2.2) and nothing of it is
/// lost.
fn excuse(
    plan: &Plan<'_>,
    source: &mut Source,
    tried: &mut Tried,
    (refusal, unsent): (&Refusal, Option<Request<RequestBody>>),
) -> Option<Next> {
    if tried.excused || refusal.sent != Sent::OnReusedConnection {
        return None;
    }
    if let Some(request) = unsent {
        source.first = Some(request);
    } else if !(source.idempotent() && !source.had_body && source.can_repeat()) {
        return None;
    }
    tried.excused = true;
    plan.cluster.stats.upstream_rq_retry.inc();
    Some(Next::AgainAfter(Duration::ZERO))
}

impl Source {
    fn idempotent(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.method.is_idempotent())
    }
}

/// Take a retry from the policy and the budget, if both have one left.
fn try_again(
    exchange: &mut Exchange,
    plan: &mut Plan<'_>,
    source: &Source,
    tried: &mut Tried,
) -> Option<Duration> {
    let stats = &plan.cluster.stats;
    if !source.can_repeat() {
        return None;
    }
    let Some(permit) = plan.cluster.admit_retry(plan.forward.priority) else {
        stats.upstream_rq_retry_overflow.inc();
        exchange.flag(Reason::Overflow);
        return None;
    };
    let Some(wait) = plan.retries.take(fastrand::u64(..)) else {
        stats.upstream_rq_retry_limit_exceeded.inc();
        exchange.flag(Reason::RetryLimitExceeded);
        return None;
    };
    stats.upstream_rq_retry.inc();
    tried.permit = Some(permit);
    Some(wait)
}

async fn back_off(clock: &Clock, wait: Duration) -> Result<(), Refusal> {
    if wait.is_zero() {
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(wait) => Ok(()),
        reason = clock.run_out(None) => Err(Refusal {
            reason,
            status: StatusCode::GATEWAY_TIMEOUT,
            side: Side::Upstream,
            sent: Sent::Maybe,
            detail: "upstream request timeout".into(),
        }),
    }
}

fn rewrite_host(plan: &Plan<'_>, endpoint: &Endpoint, request: &mut Request<RequestBody>) {
    if matches!(plan.forward.host_rewrite, HostRewrite::Auto)
        && let Ok(host) = HeaderValue::from_str(endpoint.hostname())
        && !host.is_empty()
    {
        admit::set_host(plan, request, &host);
    }
    // The version of a request is the connection's affair; hyper refuses one that disagrees.
    *request.version_mut() = Version::HTTP_11;
}
