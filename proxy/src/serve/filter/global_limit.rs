//! Global rate limits (Envoy: rate limit filter).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};

use super::super::exchange::Exchange;
use super::super::headers;
use super::super::reply::Answer;
use super::rls::{self, Code, Decision, Descriptor};
use super::{OnReply, Routed, describe, drawn};
use crate::cluster::{Cluster, ClusterStats};
use crate::http::body::RequestBody;
use crate::model::format::Template;
use crate::model::global_rate_limit::{GlobalRateLimit, GlobalRateLimitRoute};
use crate::model::rate_limit::Hits;
use crate::telemetry::reason::{Reason, Refusal};
use crate::telemetry::stats::{Counter, Scope};

const LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const INTERNAL: &str = "x-envoy-internal";
const RESOURCE_EXHAUSTED: u16 = 8;

/// `cluster.<name>.ratelimit.`
#[derive(Debug)]
struct LimitStats {
    ok: Counter,
    error: Counter,
    over_limit: Counter,
    failure_mode_allowed: Counter,
}

impl LimitStats {
    fn new(scope: &Scope, prefix: &str) -> Self {
        let dot = if prefix.is_empty() { "" } else { "." };
        let counter = |name: &str| scope.counter(&format!("ratelimit.{prefix}{dot}{name}"));
        Self {
            ok: counter("ok"),
            error: counter("error"),
            over_limit: counter("over_limit"),
            failure_mode_allowed: counter("failure_mode_allowed"),
        }
    }
}

/// Ask whether the request may pass.
///
/// # Errors
/// It may not, or nobody could say and the configuration wants that refused.
pub(super) async fn check(
    exchange: &mut Exchange,
    (config, of_route): (&GlobalRateLimit, Option<&GlobalRateLimitRoute>),
    routed: Routed<'_>,
    request: &mut Request<RequestBody>,
) -> Result<Option<Answer>, Refusal> {
    let internal = request.headers().get(INTERNAL).is_some_and(|value| value == "true");
    if config.internal.is_some_and(|wanted| wanted != internal) || !drawn(config.enabled) {
        return Ok(None);
    }
    let Some(cluster) = exchange.facts.cluster.clone() else { return Ok(None) };
    let descriptors = descriptors(exchange, (config, of_route), routed, request);
    if descriptors.is_empty() {
        return Ok(None);
    }
    let stats = stats(exchange, config, &cluster);
    let domain = of_route.and_then(|route| route.domain.as_deref()).unwrap_or(&config.domain);
    let clusters = &exchange.connection.http.context.clusters;
    let asked = rls::ask(clusters, config, domain, descriptors).await;
    let decision = match asked {
        Ok(decision) => decision,
        Err(error) => return failed(config, &stats, &error),
    };
    let mut add = rls::headers(&decision.response_headers);
    if decision.code != Code::OverLimit {
        stats.ok.inc();
        tell(config, &decision, &mut add);
        remember(exchange, add, false);
        for (name, value) in rls::headers(&decision.request_headers).iter() {
            request.headers_mut().append(name, value.clone());
        }
        return Ok(None);
    }
    stats.over_limit.inc();
    cluster.stats.charge(config.status.as_u16(), false);
    if config.tell_limited {
        add.insert(LIMITED, HeaderValue::from_static("true"));
    }
    tell(config, &decision, &mut add);
    if !drawn(config.enforced) {
        remember(exchange, add, false);
        return Ok(None);
    }
    headers::change(exchange, std::iter::once(&config.response_headers), &mut add);
    remember(exchange, add, true);
    refuse(exchange, config, decision.body)
}

fn remember(exchange: &mut Exchange, headers: HeaderMap, ours: bool) {
    if !headers.is_empty() {
        exchange.notes.on_reply(OnReply::Add(headers, ours));
    }
}

fn tell(config: &GlobalRateLimit, decision: &Decision, add: &mut HeaderMap) {
    if config.headers {
        rls::tell(&decision.statuses, add);
    }
}

fn refuse(
    exchange: &mut Exchange,
    config: &GlobalRateLimit,
    body: Bytes,
) -> Result<Option<Answer>, Refusal> {
    let reason = Reason::GlobalRateLimited;
    if exchange.grpc {
        if config.resource_exhausted {
            exchange.notes.grpc_status = Some(RESOURCE_EXHAUSTED);
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        return Err(Refusal::downstream(reason, config.status, text));
    }
    let mut response = Response::new(body);
    *response.status_mut() = config.status;
    Ok(Some(Answer::Local(reason, response)))
}

fn failed(
    config: &GlobalRateLimit,
    stats: &LimitStats,
    error: &str,
) -> Result<Option<Answer>, Refusal> {
    stats.error.inc();
    if !drawn_of(config.deny_on_failure) {
        stats.failure_mode_allowed.inc();
        return Ok(None);
    }
    let detail = format!("rate limit service {}: {error}", config.service.cluster);
    Err(Refusal::local(Reason::RateLimitService, config.status_on_failure, detail))
}

/// As [`drawn`], where zero is no share at all.
fn drawn_of(share: u32) -> bool {
    share > 0 && drawn(share)
}

/// Put the service's headers into an answer; `ours`: its type wins over the one that we gave it.
pub(super) fn add(headers: &HeaderMap, ours: bool, map: &mut HeaderMap) {
    if ours && headers.contains_key(CONTENT_TYPE) {
        map.remove(CONTENT_TYPE);
    }
    for (name, value) in headers {
        map.append(name, value.clone());
    }
}

fn descriptors(
    exchange: &Exchange,
    (config, of_route): (&GlobalRateLimit, Option<&GlobalRateLimitRoute>),
    routed: Routed<'_>,
    request: &Request<RequestBody>,
) -> Vec<Descriptor> {
    let own = of_route.map(|route| &route.rules).filter(|rules| !rules.is_empty());
    let own = own.unwrap_or(&config.rules);
    let host = of_route.map_or_else(Default::default, |route| route.host);
    let rules = describe::rules(own, host, config.stage, routed);
    let described = rules.into_iter().filter_map(|rule| {
        let entries = describe::entries(exchange, &rule.actions, routed, request)?;
        // As in Envoy, rules of the route itself have no hits of their own.
        let hits = match rule.hits.as_ref().filter(|_| !own.is_empty()) {
            None => None,
            Some(Hits::Number(number)) => Some(*number),
            Some(Hits::Format(format)) => Some(number(exchange, format, request)?),
        };
        Some(Descriptor::new(entries, hits))
    });
    described.collect()
}

fn number(exchange: &Exchange, format: &Template, request: &Request<RequestBody>) -> Option<u64> {
    headers::value_of(exchange, format, Some(request), None).to_str().ok()?.parse().ok()
}

fn stats(exchange: &Exchange, config: &GlobalRateLimit, cluster: &Cluster) -> Arc<LimitStats> {
    type Known = Mutex<HashMap<Arc<str>, Arc<LimitStats>>>;
    let known: &Known = config.kept.get(Known::default);
    let name = &cluster.config.stat_name;
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(stats) = known.get(name) {
        return Arc::clone(stats);
    }
    let scope = ClusterStats::scope(&exchange.connection.http.context.registry, name);
    let stats = Arc::new(LimitStats::new(&scope, &config.stat_prefix));
    known.insert(Arc::clone(name), Arc::clone(&stats));
    stats
}
