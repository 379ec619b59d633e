//! Local rate limits (Envoy: local rate limit filter).

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::super::exchange::Exchange;
use super::super::headers;
use super::{OnReply, Routed, describe, drawn};
use crate::http::body::RequestBody;
use crate::model::Name;
use crate::model::rate_limit::{Limited, LocalRateLimit, Taken};
use crate::telemetry::reason::{Reason, Refusal};
use crate::telemetry::stats::{Counter, Registry};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const RESOURCE_EXHAUSTED: u16 = 8;
/// Buckets count from long before the process began, so that new ones are full.
const LONG_BEFORE: Duration = Duration::from_nanos(1 << 60);

#[derive(Debug)]
pub(super) struct RateLimitStats {
    enabled: Counter,
    ok: Counter,
    rate_limited: Counter,
    enforced: Counter,
}

impl RateLimitStats {
    /// Flat `<prefix>.http_local_rate_limit.…`, as in Envoy.
    fn new(registry: &Registry, prefix: &Name) -> Self {
        let counter = |name: &str| {
            registry.prefixed_counter(
                &format!("{prefix}.http_local_rate_limit.{name}"),
                &format!("http_local_rate_limit_{name}"),
                ("envoy_local_http_ratelimit_prefix", Arc::clone(prefix)),
            )
        };
        Self {
            enabled: counter("enabled"),
            ok: counter("ok"),
            rate_limited: counter("rate_limited"),
            enforced: counter("enforced"),
        }
    }
}

/// The counters of these settings, whether they stand on a connection manager or on a route.
pub(super) fn counters<'a>(limit: &'a LocalRateLimit, registry: &Registry) -> &'a RateLimitStats {
    limit.kept.get(|| RateLimitStats::new(registry, &limit.stat_prefix))
}

/// # Errors
/// A bucket is empty.
pub(super) fn check(
    exchange: &mut Exchange,
    limit: &Arc<LocalRateLimit>,
    (routed, request): (Routed<'_>, &mut Request<RequestBody>),
) -> Result<(), Refusal> {
    if !drawn(limit.enabled) {
        return Ok(());
    }
    let stats = counters(limit, &exchange.connection.http.context.registry);
    stats.enabled.inc();
    let own = limit.per_connection.then(|| exchange.connection.own_limit(limit));
    let buckets = own.as_ref().unwrap_or(limit);
    let Some(taken) = take(exchange, buckets, routed, request) else {
        stats.ok.inc();
        return Ok(());
    };
    if limit.headers {
        exchange.notes.on_reply(OnReply::RateLimit(taken));
    }
    if taken.granted {
        stats.ok.inc();
        return Ok(());
    }
    stats.rate_limited.inc();
    if !drawn(limit.enforced) {
        headers::to_request(exchange, &limit.request_headers, request);
        return Ok(());
    }
    stats.enforced.inc();
    exchange.notes.on_reply(OnReply::Limited(Arc::clone(limit)));
    if limit.resource_exhausted {
        exchange.notes.grpc_status = Some(RESOURCE_EXHAUSTED);
    }
    let detail = format!("local rate limit `{}`", limit.stat_prefix);
    Err(Refusal::downstream(Reason::RateLimited, limit.status, detail))
}

/// `x-ratelimit-*`, as draft 03 of the IETF's rate-limit headers has them.
pub(super) fn tell(taken: Taken, map: &mut HeaderMap) {
    map.insert(LIMIT, HeaderValue::from(taken.limit));
    map.insert(REMAINING, HeaderValue::from(taken.remaining));
    let seconds = taken.reset.as_nanos().div_ceil(1_000_000_000);
    map.insert(RESET, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
}

/// A token of every bucket that the request belongs to; told is the one that refused, else the one
/// with the fewest left. None: no bucket is for it.
fn take(
    exchange: &Exchange,
    limit: &LocalRateLimit,
    routed: Routed<'_>,
    request: &Request<RequestBody>,
) -> Option<Taken> {
    let now = now();
    let mut told: Option<Taken> = None;
    let mut keep = |taken: Taken| {
        let tighter = told
            .is_none_or(|told| (taken.granted, taken.remaining) < (told.granted, told.remaining));
        if tighter {
            told = Some(taken);
        }
    };
    let mut described = false;
    let rules = describe::rules(&limit.describe, limit.host, limit.stage, routed);
    for rule in rules {
        let Some(entries) = describe::entries(exchange, &rule.actions, routed, request) else {
            continue;
        };
        for limited in &limit.descriptors {
            if let Some(open) = fits(limited, &entries) {
                described = true;
                keep(limited.buckets.take(&open, limited.rate, now));
            }
        }
    }
    match &limit.bucket {
        Some(bucket) if !described || limit.always_take_default => keep(bucket.take(now)),
        _ => {}
    }
    told
}

/// The values that the descriptor leaves open, joined. None: it is not for these entries.
fn fits(limited: &Limited, entries: &[(Name, String)]) -> Option<String> {
    if limited.entries.len() != entries.len() {
        return None;
    }
    let mut open = String::new();
    for ((key, value), (have_key, have)) in limited.entries.iter().zip(entries) {
        if key != have_key || (!value.is_empty() && **value != **have) {
            return None;
        }
        if value.is_empty() {
            open.push_str(have);
            open.push('\0');
        }
    }
    Some(open)
}

fn now() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let since = BEGAN.get_or_init(Instant::now).elapsed();
    u64::try_from((LONG_BEFORE + since).as_nanos()).unwrap_or(u64::MAX)
}
