//! What follows a try: whether there is another one, and when.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Response, StatusCode};

use super::admit::Plan;
use super::clock::Clock;
use super::exchange::Exchange;
use super::source::Source;
use super::timers::Timers;
use crate::cluster::{Endpoint, ResponseBody, RetryPermit, SendError};
use crate::policy::retry::{Outcome, Wait};
use crate::telemetry::reason::{Reason, Refusal, Sent, Side};

/// What follows a try.
pub(super) enum Next {
    /// Nothing: what came of it is passed on.
    Final,
    AgainAfter(Duration),
}

/// The tries so far.
#[derive(Default)]
pub(super) struct Tried {
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    /// A stale pooled connection was excused already.
    excused: bool,
    /// Counted against the budget while a retry is under way.
    pub(super) permit: Option<RetryPermit>,
    /// The last try ran out of its time.
    pub(super) timed_out: bool,
}

/// Decide what follows a try.
pub(super) fn after(
    exchange: &mut Exchange,
    plan: &mut Plan<'_>,
    source: &mut Source<'_>,
    tried: &mut Tried,
    outcome: &Result<Response<ResponseBody>, SendError>,
) -> Next {
    let repeated = tried.permit.take().is_some();
    if let Err(SendError { refusal, unsent }) = outcome
        && let Some(next) = excuse(plan, source, tried, (refusal, *unsent))
    {
        return next;
    }
    let ended = match outcome {
        Ok(response) => Outcome::Response(response.status(), response.headers()),
        Err(error) => Outcome::Failure(&error.refusal),
    };
    let wanted = plan.retries.wants(&ended);
    let asked = if wanted { plan.retries.asked(&ended, SystemTime::now()) } else { None };
    if wanted
        && source.can_repeat()
        && let Some(wait) = try_again(exchange, plan, tried, asked)
    {
        tried.timed_out = matches!(outcome, Err(error) if is_timeout(error.refusal.reason));
        if let Ok(response) = outcome {
            plan.cluster.stats.charge_retried(response.status().as_u16());
        }
        return Next::AgainAfter(wait);
    }
    if repeated && !wanted {
        plan.cluster.stats.upstream_rq_retry_success.inc();
        exchange.count(|stats| stats.retry_success.inc());
    }
    if let Err(error) = outcome {
        failed(exchange, &error.refusal);
    }
    Next::Final
}

fn is_timeout(reason: Reason) -> bool {
    matches!(reason, Reason::PerTryTimeout | Reason::PerTryIdleTimeout)
}

/// A reused connection that died before a byte of the answer: most likely it was closed at the
/// very moment. Tried once more, outside the policy, where that is provably safe: the request
/// came back unsent, or its method may be repeated (RFC 9110 section 9.2.2) and nothing of it is
/// lost.
fn excuse(
    plan: &Plan<'_>,
    source: &mut Source<'_>,
    tried: &mut Tried,
    (refusal, unsent): (&Refusal, bool),
) -> Option<Next> {
    if tried.excused || refusal.sent != Sent::OnReusedConnection {
        return None;
    }
    if unsent {
        source.give_back();
    } else if !source.is_harmless() {
        return None;
    }
    tried.excused = true;
    plan.cluster.stats.upstream_rq_retry.inc();
    Some(Next::AgainAfter(Duration::ZERO))
}

/// Take a retry from the policy and the budget, if both have one left. `asked`: how long the
/// endpoint asked to be left alone.
pub(super) fn try_again(
    exchange: &mut Exchange,
    plan: &mut Plan<'_>,
    tried: &mut Tried,
    asked: Option<Duration>,
) -> Option<Duration> {
    let stats = &plan.cluster.stats;
    let Some(wait) = plan.retries.take(fastrand::u64(..), asked) else {
        stats.upstream_rq_retry_limit_exceeded.inc();
        exchange.count(|stats| stats.retry_limit_exceeded.inc());
        exchange.flag(Reason::RetryLimitExceeded);
        return None;
    };
    let Some(permit) = plan.cluster.admit_retry(plan.forward.priority) else {
        stats.upstream_rq_retry_overflow.inc();
        exchange.count(|stats| stats.retry_overflow.inc());
        exchange.flag(Reason::Overflow);
        return None;
    };
    stats.upstream_rq_retry.inc();
    exchange.count(|stats| stats.retry.inc());
    match wait {
        Wait::BackOff(_) => stats.upstream_rq_retry_backoff_exponential.inc(),
        Wait::AsAsked(_) => stats.upstream_rq_retry_backoff_ratelimited.inc(),
    }
    tried.permit = Some(permit);
    Some(wait.time())
}

/// What the log tells about the failure that the client is told.
pub(super) fn failed(exchange: &mut Exchange, refusal: &Refusal) {
    exchange.flag(refusal.reason);
    let transport = [Reason::ConnectFailure, Reason::ConnectTimeout, Reason::TlsFailure];
    if transport.contains(&refusal.reason) {
        exchange.facts.failure = Some(refusal.detail.to_string());
    }
}

pub(super) async fn back_off(
    clock: &Clock,
    wait: Duration,
    timers: &Timers,
) -> Result<(), Refusal> {
    if wait.is_zero() {
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(wait) => Ok(()),
        reason = clock.run_out(None, timers) => Err(Refusal {
            reason,
            status: StatusCode::GATEWAY_TIMEOUT,
            side: Side::Upstream,
            sent: Sent::Maybe,
            detail: "upstream request timeout".into(),
        }),
    }
}
