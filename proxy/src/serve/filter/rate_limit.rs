//! Local rate limits (Envoy: local rate limit filter).

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use ipnet::IpNet;

use super::super::exchange::Exchange;
use super::super::{headers, read};
use super::{OnReply, Routed};
use crate::http::body::RequestBody;
use crate::http::target;
use crate::model::Name;
use crate::model::rate_limit::{DescribeBy, Limited, LocalRateLimit, Taken};
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
    pub(super) fn new(registry: &Registry, prefix: &Name) -> Self {
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

/// # Errors
/// A bucket is empty.
pub(super) fn check(
    exchange: &mut Exchange,
    limit: &Arc<LocalRateLimit>,
    stats: &RateLimitStats,
    (routed, request): (Routed<'_>, &mut Request<RequestBody>),
) -> Result<(), Refusal> {
    if !drawn(limit.enabled) {
        return Ok(());
    }
    stats.enabled.inc();
    let Some(taken) = take(exchange, limit, routed, request) else {
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
    for actions in &limit.describe {
        let Some(entries) = describe(exchange, actions, routed, request) else { continue };
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

/// The entries that the actions make. None: one of them has nothing to say.
fn describe(
    exchange: &Exchange,
    actions: &[DescribeBy],
    routed: Routed<'_>,
    request: &Request<RequestBody>,
) -> Option<Vec<(Name, String)>> {
    let client = exchange.facts.client.or_else(|| exchange.connection.remote_ip());
    let mut entries = Vec::with_capacity(actions.len());
    for action in actions {
        let entry = match action {
            DescribeBy::Generic(key, value) => (Arc::clone(key), value.as_ref().to_owned()),
            DescribeBy::Header(name, key, skip) => match request.headers().get(name) {
                Some(value) => {
                    (Arc::clone(key), String::from_utf8_lossy(value.as_bytes()).into_owned())
                }
                None if *skip => continue,
                None => return None,
            },
            DescribeBy::Query(name, key, skip) => match query(target::path(request.uri()), name) {
                Some(value) => (Arc::clone(key), value.to_owned()),
                None if *skip => continue,
                None => return None,
            },
            DescribeBy::RemoteAddress => ("remote_address".into(), client?.to_string()),
            DescribeBy::MaskedAddress(v4, v6) => {
                ("masked_remote_address".into(), masked(client?, *v4, *v6)?)
            }
            DescribeBy::DestinationCluster => {
                ("destination_cluster".into(), routed.cluster()?.to_string())
            }
            DescribeBy::HeaderMatch(key, value, matchers, expected) => {
                let view = read::view(request);
                let matched = matchers.iter().all(|matcher| matcher.matches(&view));
                if matched != *expected {
                    return None;
                }
                (Arc::clone(key), value.as_ref().to_owned())
            }
        };
        entries.push(entry);
    }
    Some(entries)
}

fn query<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = path.split_once('?')?;
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

fn masked(client: IpAddr, v4: u8, v6: u8) -> Option<String> {
    let bits = if client.is_ipv4() { v4 } else { v6 };
    Some(IpNet::new(client, bits).ok()?.trunc().to_string())
}

fn drawn(share: u32) -> bool {
    share >= 1_000_000 || fastrand::u32(..1_000_000) < share
}

fn now() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let since = BEGAN.get_or_init(Instant::now).elapsed();
    u64::try_from((LONG_BEFORE + since).as_nanos()).unwrap_or(u64::MAX)
}
