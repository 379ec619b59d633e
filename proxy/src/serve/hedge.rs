//! Hedging (`hedge_policy`): a try that is late is not given up when another one is made; the first
//! good answer wins, and the others are cancelled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response, StatusCode};

use super::admit::Plan;
use super::again::{self, Tried};
use super::attempt;
use super::clock::Clock;
use super::exchange::Exchange;
use super::source::Source;
use crate::cluster::{
    Cluster, Endpoint, Outcome as Observed, RequestPermit, ResponseBody, SendError, SentOn,
};
use crate::http::body::RequestBody;
use crate::policy::retry::Outcome;
use crate::telemetry::reason::{Reason, Refusal};

/// A try that has ended.
struct Landed {
    number: usize,
    endpoint: Arc<Endpoint>,
    sent_on: Option<SentOn>,
    leaf: (Arc<Cluster>, Option<RequestPermit>),
    outcome: Result<Response<ResponseBody>, SendError>,
}

/// The tries of one exchange.
#[derive(Default)]
struct Race {
    flying: FuturesUnordered<BoxFuture<'static, Landed>>,
    tried: Tried,
    /// When the next try begins.
    due: Option<Instant>,
    /// When the newest try is late, unless that has led to another one already.
    late: Option<Instant>,
    /// By the number of the try: it was late, so it leads to no other one any more.
    given: Vec<bool>,
}

/// Send the request until there is an answer to be passed on.
///
/// # Errors
/// No try brought one.
pub(super) async fn run(
    exchange: &mut Exchange,
    plan: &mut Plan<'_>,
    source: &mut Source<'_>,
    (clock, to): (&Clock, Option<SocketAddr>),
) -> Result<Response<ResponseBody>, Refusal> {
    let connection = Arc::clone(&exchange.connection);
    let mut race = Race::default();
    race.start(exchange, plan, source, to)?;
    loop {
        tokio::select! {
            biased;
            Some(landed) = race.flying.next(), if !race.flying.is_empty() => {
                if let Some(ended) = race.landed(exchange, plan, source, landed) {
                    return ended;
                }
            }
            () = until(race.due), if race.due.is_some() => race.start(exchange, plan, source, to)?,
            () = until(race.late), if race.late.is_some() => race.is_late(exchange, plan, source),
            reason = clock.run_out(None, &connection.timers) => {
                // The first is counted where it is made a refusal of.
                for _ in 1..race.flying.len() {
                    plan.cluster.stats.out_of_time(reason);
                    attempt::count_timeout(exchange, reason);
                }
                let refusal = attempt::timed_out(exchange, plan, clock, reason);
                again::failed(exchange, &refusal);
                return Err(refusal);
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

impl Race {
    /// A try begins.
    fn start(
        &mut self,
        exchange: &mut Exchange,
        plan: &mut Plan<'_>,
        source: &mut Source<'_>,
        to: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        self.due = None;
        exchange.facts.attempts += 1;
        let endpoint = attempt::pick(exchange, plan, (&self.tried, to))?;
        // What is under way is not disturbed: the whole request goes beside it.
        let request = if self.flying.is_empty() { source.take() } else { source.whole() };
        let Some(mut request) = request else {
            return Err(Refusal::local(
                Reason::RetryLimitExceeded,
                StatusCode::SERVICE_UNAVAILABLE,
                "the request body is too large to be sent again",
            ));
        };
        let begun = attempt::dress(exchange, plan, (&self.tried, &endpoint), &mut request);
        self.late = plan.timeouts.per_try.map(|limit| begun + limit);
        self.tried.endpoints.push(Arc::clone(&endpoint));
        self.fly(exchange, plan, endpoint, request);
        Ok(())
    }

    fn fly(
        &mut self,
        exchange: &Exchange,
        plan: &mut Plan<'_>,
        endpoint: Arc<Endpoint>,
        mut request: Request<RequestBody>,
    ) {
        let number = self.given.len();
        self.given.push(false);
        let options = attempt::options(exchange, plan, false);
        let sent_on = exchange.facts.sent_on.clone();
        let leaf = (Arc::clone(&plan.leaf.0), plan.leaf.1.take());
        self.flying.push(Box::pin(async move {
            let outcome = leaf.0.send(&endpoint, &mut request, options).await;
            Landed { number, endpoint, sent_on, leaf, outcome }
        }));
    }

    /// The newest try is late: another one, if the request is all here and a retry is left.
    fn is_late(&mut self, exchange: &mut Exchange, plan: &mut Plan<'_>, source: &Source<'_>) {
        self.late = None;
        if let Some(endpoint) = self.tried.endpoints.last() {
            plan.leaf.0.record(endpoint, Observed::LocalFailure(Reason::PerTryTimeout));
        }
        if source.whole().is_none() {
            return;
        }
        if let Some(wait) = again::try_again(exchange, plan, &mut self.tried, None) {
            if let Some(given) = self.given.last_mut() {
                *given = true;
            }
            self.tried.timed_out = true;
            self.due = Some(Instant::now() + wait);
        }
    }

    /// A try has ended. None: the race goes on.
    fn landed(
        &mut self,
        exchange: &mut Exchange,
        plan: &mut Plan<'_>,
        source: &Source<'_>,
        landed: Landed,
    ) -> Option<Result<Response<ResponseBody>, Refusal>> {
        attempt::count(exchange, &landed.outcome);
        attempt::observe(&landed.leaf.0, &landed.endpoint, &landed.outcome);
        let ended = match &landed.outcome {
            Ok(response) => Outcome::Response(response.status(), response.headers()),
            Err(error) => Outcome::Failure(&error.refusal),
        };
        let wanted = plan.retries.wants(&ended);
        let given = self.given.get(landed.number).copied().unwrap_or(false);
        let newest = landed.number + 1 == self.given.len();
        if wanted && !given {
            let asked = plan.retries.asked(&ended, std::time::SystemTime::now());
            let can =
                if self.flying.is_empty() { source.can_repeat() } else { source.whole().is_some() };
            if can && let Some(wait) = again::try_again(exchange, plan, &mut self.tried, asked) {
                if let Ok(response) = &landed.outcome {
                    plan.cluster.stats.charge_retried(response.status().as_u16());
                }
                self.tried.timed_out = false;
                self.due = Some(Instant::now() + wait);
                if newest {
                    self.late = None;
                }
                return None;
            }
        }
        let others = !self.flying.is_empty() || self.due.is_some();
        if (wanted || landed.outcome.is_err()) && others {
            if newest {
                self.late = None;
            }
            return None;
        }
        Some(self.end(exchange, plan, wanted || given, landed))
    }

    /// This try is the one. `unlucky`: not because a retry went well.
    fn end(
        &mut self,
        exchange: &mut Exchange,
        plan: &mut Plan<'_>,
        unlucky: bool,
        landed: Landed,
    ) -> Result<Response<ResponseBody>, Refusal> {
        if self.tried.permit.take().is_some() && !unlucky {
            plan.cluster.stats.upstream_rq_retry_success.inc();
            exchange.count(|stats| stats.retry_success.inc());
        }
        exchange.facts.endpoint = Some(landed.endpoint);
        exchange.facts.sent_on = landed.sent_on;
        plan.leaf = landed.leaf;
        match landed.outcome {
            Ok(response) => {
                attempt::answered(exchange, &response);
                Ok(response)
            }
            Err(error) => {
                again::failed(exchange, &error.refusal);
                Err(error.refusal)
            }
        }
    }
}
