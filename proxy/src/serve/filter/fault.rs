//! Fault injection: delays and aborts (Envoy: fault filter).

use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, StatusCode};

use super::super::exchange::Exchange;
use super::super::read;
use super::super::reply::Answer;
use super::denial::Denial;
use super::{OnReply, Routed, drawn};
use crate::http::body::RequestBody;
use crate::model::filter::{Fault, FaultAbort, FaultDelay, FaultRate};
use crate::telemetry::reason::Reason;
use crate::telemetry::stats::{Counter, Gauge, GaugeGuard, Scope};

const DELAY: &str = "x-envoy-fault-delay-request";
const DELAY_PERCENT: &str = "x-envoy-fault-delay-request-percentage";
const ABORT: &str = "x-envoy-fault-abort-request";
const ABORT_GRPC: &str = "x-envoy-fault-abort-grpc-request";
const ABORT_PERCENT: &str = "x-envoy-fault-abort-request-percentage";
const THROUGHPUT: &str = "x-envoy-fault-throughput-response";
const THROUGHPUT_PERCENT: &str = "x-envoy-fault-throughput-response-percentage";
const NODE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-node");
/// `%RESPONSE_FLAGS%` of a request that was delayed.
const DELAY_INJECTED: &str = "DI";

#[derive(Debug)]
pub(super) struct FaultStats {
    delays_injected: Counter,
    aborts_injected: Counter,
    response_rl_injected: Counter,
    faults_overflow: Counter,
    active_faults: Gauge,
}

impl FaultStats {
    pub(super) fn new(scope: &Scope) -> Self {
        Self {
            delays_injected: scope.counter("fault.delays_injected"),
            aborts_injected: scope.counter("fault.aborts_injected"),
            response_rl_injected: scope.counter("fault.response_rl_injected"),
            faults_overflow: scope.counter("fault.faults_overflow"),
            active_faults: scope.gauge("fault.active_faults"),
        }
    }
}

/// A fault that a request was drawn for.
pub(super) struct Drawn {
    delay: Option<Duration>,
    abort: Option<(StatusCode, Option<u16>)>,
    /// KiB a second.
    rate: Option<u64>,
    active: GaugeGuard,
}

/// Whether there is a fault for this request, and which.
pub(super) fn draw(
    fault: &Fault,
    stats: &FaultStats,
    routed: Routed<'_>,
    request: &Request<RequestBody>,
) -> Option<Drawn> {
    if !concerns(fault, routed, request) {
        return None;
    }
    let delay = delay(fault, request.headers());
    let abort = abort(fault, request.headers());
    let rate = rate(fault, request.headers());
    if delay.is_none() && abort.is_none() && rate.is_none() {
        return None;
    }
    let most = fault.max_active.map_or(i64::MAX, i64::from);
    if stats.active_faults.get() >= most {
        stats.faults_overflow.inc();
        return None;
    }
    Some(Drawn { delay, abort, rate, active: stats.active_faults.guard() })
}

/// Wait, then let go on; Some: or abort, if the request was drawn for that.
pub(super) async fn inject(
    exchange: &mut Exchange,
    drawn: Drawn,
    stats: &FaultStats,
) -> Option<Answer> {
    if let Some(delay) = drawn.delay {
        stats.delays_injected.inc();
        exchange.facts.flags.push(DELAY_INJECTED);
        tokio::time::sleep(delay).await;
    }
    let Some((status, grpc)) = drawn.abort else {
        if let Some(rate) = drawn.rate {
            stats.response_rl_injected.inc();
            exchange.notes.on_reply(OnReply::Slow(rate, drawn.active));
        }
        return None;
    };
    stats.aborts_injected.inc();
    exchange.notes.grpc_status = grpc;
    let denial = Denial::new(Reason::FaultInjected, status, "fault filter abort");
    let why = Reason::FaultInjected.details().to_owned();
    Some(denial.answer(exchange, why))
}

fn concerns(fault: &Fault, routed: Routed<'_>, request: &Request<RequestBody>) -> bool {
    let node = || request.headers().get(NODE).and_then(|node| node.to_str().ok()).unwrap_or("");
    let nodes = &fault.downstream_nodes;
    fault.upstream_cluster.as_ref().is_none_or(|wanted| routed.cluster() == Some(wanted))
        && fault.headers.iter().all(|matcher| matcher.matches(&read::view(request)))
        && (nodes.is_empty() || nodes.iter().any(|wanted| wanted == node()))
}

fn delay(fault: &Fault, headers: &HeaderMap) -> Option<Duration> {
    let (kind, share) = fault.delay?;
    match kind {
        FaultDelay::Fixed(fixed) => drawn(share).then_some(fixed),
        FaultDelay::Header => {
            let delay = number(headers, DELAY).filter(|delay| *delay > 0)?;
            let delay = Duration::from_millis(delay);
            drawn(asked(headers, DELAY_PERCENT, share)).then_some(delay)
        }
    }
}

fn abort(fault: &Fault, headers: &HeaderMap) -> Option<(StatusCode, Option<u16>)> {
    let (kind, share) = fault.abort?;
    // As in Envoy: whoever does not speak gRPC is told that all is well.
    let of_grpc = |status: u16| (StatusCode::OK, Some(status));
    match kind {
        FaultAbort::Http(status) => drawn(share).then_some((status, None)),
        FaultAbort::Grpc(status) => drawn(share).then_some(of_grpc(status)),
        FaultAbort::Header => {
            let http = number(headers, ABORT)
                .and_then(|code| u16::try_from(code).ok())
                .filter(|code| (200..600).contains(code))
                .and_then(|code| StatusCode::from_u16(code).ok())
                .map(|status| (status, None));
            let grpc = || number(headers, ABORT_GRPC).and_then(|code| u16::try_from(code).ok());
            let chosen = http.or_else(|| grpc().map(of_grpc))?;
            drawn(asked(headers, ABORT_PERCENT, share)).then_some(chosen)
        }
    }
}

fn rate(fault: &Fault, headers: &HeaderMap) -> Option<u64> {
    let (kind, share) = fault.rate?;
    match kind {
        FaultRate::Fixed(fixed) => drawn(share).then_some(fixed),
        FaultRate::Header => {
            let rate = number(headers, THROUGHPUT).filter(|rate| *rate > 0)?;
            drawn(asked(headers, THROUGHPUT_PERCENT, share)).then_some(rate)
        }
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The header may ask for less than what is configured, never for more.
fn asked(headers: &HeaderMap, name: &str, share: u32) -> u32 {
    let percent = number(headers, name).and_then(|percent| u32::try_from(percent).ok());
    percent.map_or(share, |percent| percent.saturating_mul(10_000).min(share))
}
