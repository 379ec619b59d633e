//! How many requests may be under way (Envoy: adaptive concurrency filter), and which share of them
//! passes (Envoy: admission control filter), by how the last ones went.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::{Response, StatusCode};
use http_body::Body as _;

use super::super::body::AnswerBody;
use super::super::exchange::Exchange;
use super::OnReply;
use crate::http::grpc;
use crate::http::transform::{AtEnd, Changed};
use crate::model::adaptive::{AdaptiveConcurrency, Admission};
use crate::policy::admission::History;
use crate::policy::gradient::{Controller, Told};
use crate::telemetry::reason::{Reason, Refusal};
use crate::telemetry::stats::{Counter, Gauge, Scope};

/// A controller and what it tells.
struct Shared {
    controller: Mutex<(Controller, Told)>,
    rq_blocked: Counter,
    burst_queue_size: Gauge,
    concurrency_limit: Gauge,
    gradient: Gauge,
    min_rtt_calculation_active: Gauge,
    min_rtt_msecs: Gauge,
    sample_rtt_msecs: Gauge,
}

impl Shared {
    fn new(config: &AdaptiveConcurrency, scope: &Scope) -> Self {
        let scope = scope.scope("adaptive_concurrency", None).scope("gradient_controller", None);
        let controller = Controller::new(config.gradient.clone(), Instant::now());
        let shared = Self {
            rq_blocked: scope.counter("rq_blocked"),
            burst_queue_size: scope.gauge("burst_queue_size"),
            concurrency_limit: scope.gauge("concurrency_limit"),
            gradient: scope.gauge("gradient"),
            min_rtt_calculation_active: scope.gauge("min_rtt_calculation_active"),
            min_rtt_msecs: scope.gauge("min_rtt_msecs"),
            sample_rtt_msecs: scope.gauge("sample_rtt_msecs"),
            controller: Mutex::new((controller, Told::default())),
        };
        shared.tell(&mut shared.lock());
        shared
    }

    fn lock(&self) -> MutexGuard<'_, (Controller, Told)> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gauges, where something has changed.
    fn tell(&self, (controller, last): &mut (Controller, Told)) {
        let told = controller.told();
        if told == *last {
            return;
        }
        *last = told;
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.concurrency_limit.set(told.limit.into());
        self.burst_queue_size.set(told.burst.into());
        self.gradient.set(number(told.gradient));
        self.min_rtt_calculation_active.set(told.measuring.into());
        self.min_rtt_msecs.set(number(told.min_rtt_ms));
        self.sample_rtt_msecs.set(number(told.sample_rtt_ms));
    }
}

fn shared<'a>(config: &'a AdaptiveConcurrency, scope: &Scope) -> &'a Shared {
    config.kept.get(|| Shared::new(config, scope))
}

/// A request that was let through.
#[derive(Debug)]
pub(crate) struct Outstanding {
    config: Arc<AdaptiveConcurrency>,
    scope: Scope,
    began: Instant,
    answered: bool,
}

impl Outstanding {
    fn answered(mut self) {
        self.answered = true;
        let shared = shared(&self.config, &self.scope);
        let mut locked = shared.lock();
        locked.0.answered(self.began, Instant::now(), fastrand::u64(..));
        shared.tell(&mut locked);
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        if !self.answered {
            shared(&self.config, &self.scope).lock().0.gave_up();
        }
    }
}

/// # Errors
/// As many requests are under way as may be.
pub(super) fn limit(
    exchange: &mut Exchange,
    config: &Arc<AdaptiveConcurrency>,
    scope: &Scope,
) -> Result<(), Refusal> {
    if !config.enabled {
        return Ok(());
    }
    let shared = shared(config, scope);
    let began = Instant::now();
    let admitted = {
        let mut locked = shared.lock();
        let admitted = locked.0.admit(began);
        shared.tell(&mut locked);
        admitted
    };
    if !admitted {
        shared.rq_blocked.inc();
        let detail = "reached concurrency limit";
        return Err(Refusal::local(Reason::ConcurrencyLimit, config.status, detail));
    }
    let config = Arc::clone(config);
    let outstanding = Outstanding { config, scope: scope.clone(), began, answered: false };
    exchange.notes.on_reply(OnReply::Outstanding(outstanding));
    Ok(())
}

/// The answer is measured to its last byte.
pub(super) fn measure(
    outstanding: Outstanding,
    response: Response<AnswerBody>,
) -> Response<AnswerBody> {
    if response.body().is_end_stream() {
        outstanding.answered();
        return response;
    }
    let end = AtEnd(Some(move |_: Option<&http::HeaderMap>| outstanding.answered()));
    response.map(|body| AnswerBody::Boxed(Changed::boxed(body.boxed(), end)))
}

#[derive(Clone, Debug)]
pub(super) struct AdmissionStats {
    rq_rejected: Counter,
    rq_success: Counter,
    rq_failure: Counter,
}

impl AdmissionStats {
    pub(super) fn new(scope: &Scope) -> Self {
        let scope = scope.scope("admission_control", None);
        Self {
            rq_rejected: scope.counter("rq_rejected"),
            rq_success: scope.counter("rq_success"),
            rq_failure: scope.counter("rq_failure"),
        }
    }
}

type Past = Mutex<History>;

/// # Errors
/// Too many of the last requests failed, and the dice fell so.
pub(super) fn admit(
    exchange: &mut Exchange,
    config: &Arc<Admission>,
    stats: &AdmissionStats,
) -> Result<(), Refusal> {
    if !config.enabled {
        return Ok(());
    }
    let past: &Past = config.kept.get(Past::default);
    let mut past = past.lock().unwrap_or_else(PoisonError::into_inner);
    if past.refuses(config, Instant::now(), fastrand::f64()) {
        stats.rq_rejected.inc();
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let detail = "too many of the last requests failed";
        return Err(Refusal::local(Reason::AdmissionDenied, status, detail));
    }
    drop(past);
    exchange.notes.on_reply(OnReply::Admitted(Arc::clone(config)));
    Ok(())
}

/// Remembers how it went, as soon as that is known.
pub(super) fn judge(
    config: Arc<Admission>,
    stats: &AdmissionStats,
    response: Response<AnswerBody>,
) -> Response<AnswerBody> {
    let code = response.status().as_u16();
    let is_grpc = code == 200 && grpc::is_grpc(response.headers());
    let status = response.headers().get("grpc-status").filter(|_| is_grpc);
    if let Some(status) = status {
        record(&config, stats, grpc_fits(&config, status.to_str().ok()));
        return response;
    }
    if !is_grpc || response.body().is_end_stream() {
        let fits = config.http_success.iter().any(|(from, to)| (*from..*to).contains(&code));
        record(&config, stats, fits);
        return response;
    }
    let stats = stats.clone();
    let end = AtEnd(Some(move |trailers: Option<&http::HeaderMap>| {
        let status = trailers.and_then(|trailers| trailers.get("grpc-status")?.to_str().ok());
        record(&config, &stats, grpc_fits(&config, status));
    }));
    response.map(|body| AnswerBody::Boxed(Changed::boxed(body.boxed(), end)))
}

fn grpc_fits(config: &Admission, status: Option<&str>) -> bool {
    let status = status.and_then(|status| status.parse::<u32>().ok());
    status.is_some_and(|status| config.grpc_success.contains(&status))
}

fn record(config: &Admission, stats: &AdmissionStats, success: bool) {
    if success { &stats.rq_success } else { &stats.rq_failure }.inc();
    let past: &Past = config.kept.get(Past::default);
    let mut past = past.lock().unwrap_or_else(PoisonError::into_inner);
    past.record(config, success, Instant::now());
}
