//! Health checks of this proxy and of what is behind it (Envoy: health check filter). A request that
//! is one is answered here, or passed on; every other answer says when this proxy is told to fail.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};

use super::super::exchange::Exchange;
use super::super::read;
use super::super::reply::Answer;
use super::{OnReply, Stats};
use crate::cluster::Live;
use crate::http::body::RequestBody;
use crate::model::filter::HealthCheckFilter;
use crate::telemetry::reason::Reason;

const CHECKED: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");
const IMMEDIATE_FAIL: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// The last answer of the upstream, where it is kept.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Option<Kept>>);

#[derive(Clone, Copy, Debug)]
struct Kept {
    status: StatusCode,
    degraded: bool,
    until: Instant,
}

impl Cache {
    fn get(&self, now: Instant) -> Option<Kept> {
        let kept = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.filter(|kept| now < kept.until)
    }

    fn put(&self, status: StatusCode, degraded: bool, until: Instant) {
        let kept = Kept { status, degraded, until };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }
}

/// Answers a health check. None: it is none, or it goes on to the upstream.
pub(super) fn check(
    exchange: &mut Exchange,
    config: &HealthCheckFilter,
    cache: &Cache,
    request: &Request<RequestBody>,
) -> Option<Answer> {
    let view = read::view(request);
    if !config.headers.iter().all(|wanted| wanted.matches(&view)) {
        return None;
    }
    exchange.facts.health_check = true;
    exchange.span = None;
    let failing = exchange.connection.http.context.own.is_failing();
    let now = Instant::now();
    let kept = config.cache_time.and_then(|_| cache.get(now));
    if config.pass_through && !failing && kept.is_none() {
        exchange.notes.on_reply(OnReply::Checked(config.cache_time));
        return None;
    }
    exchange.notes.on_reply(OnReply::Checked(None));
    let (status, why) = match (failing, kept) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "health_check_failed"),
        (false, Some(kept)) => (kept.status, "health_check_cached"),
        (false, None) => clusters(&exchange.live, config),
    };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    if !failing && kept.is_some_and(|kept| kept.degraded) {
        response.headers_mut().insert(DEGRADED, HeaderValue::from_static(""));
    }
    exchange.facts.why = Some(why.to_owned());
    let well = status.is_success();
    let reason = if well { Reason::HealthCheck } else { Reason::FailedHealthCheck };
    Some(Answer::Local(reason, response))
}

/// Whether enough endpoints of every cluster that matters are well.
fn clusters(live: &Live, config: &HealthCheckFilter) -> (StatusCode, &'static str) {
    let mut why = "health_check_ok";
    for (name, least) in &config.clusters {
        why = "health_check_ok_cluster_healthy";
        let Some(cluster) = live.cluster(name) else {
            return (StatusCode::SERVICE_UNAVAILABLE, "health_check_failed_no_cluster_found");
        };
        let (usable, total) = cluster.availability();
        if total == 0 && *least > 0 {
            return (StatusCode::SERVICE_UNAVAILABLE, "health_check_failed_cluster_empty");
        }
        if u64::from(usable) * 100 < u64::from(total) * u64::from(*least) {
            return (StatusCode::SERVICE_UNAVAILABLE, "health_check_failed_cluster_unhealthy");
        }
    }
    (StatusCode::OK, why)
}

/// What the answer to a health check carries; the upstream's own is kept for `cache_time`.
pub(super) fn checked(
    exchange: &Exchange,
    (cache, cache_time): (&Cache, Option<Duration>),
    (status, map): (StatusCode, &mut HeaderMap),
) {
    if let Some(time) = cache_time {
        cache.put(status, map.contains_key(DEGRADED), Instant::now() + time);
    }
    let own = &exchange.connection.http.context.own;
    map.insert(CHECKED, own.service.clone());
}

/// This proxy is told to fail: whoever checks what is behind it learns so at once. Said by every
/// filter of this kind for which the request is no health check.
pub(super) fn tell_failure(exchange: &Exchange, notes: &[(usize, OnReply)], map: &mut HeaderMap) {
    let checked = |place: usize| {
        notes.iter().any(|(at, note)| *at == place && matches!(note, OnReply::Checked(_)))
    };
    let filters = exchange.connection.http.filters.iter().enumerate();
    let mut others = filters.filter(|(_, one)| matches!(one.stats, Stats::HealthCheck(_)));
    if others.any(|(place, _)| !checked(place)) {
        map.insert(IMMEDIATE_FAIL, TRUE);
    }
}
