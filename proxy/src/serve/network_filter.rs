//! Network filters at work: whether a connection may go on, before its first byte.
//!
//! Envoy asks some of them when the first bytes come, so that a server that speaks first is heard by clients that may
//! not connect; here nobody is let in before all have been asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::connection::{Ends, socket};
use crate::model::network_filter::{ConnectionLimit, ConnectionRate, NetworkFilter, NetworkRbac};
use crate::policy::rbac::{Subject, decide};
use crate::telemetry::stats::{Counter, Gauge, GaugeGuard, Registry};

/// A filter as it lives.
#[derive(Debug)]
pub(super) enum Gate {
    Rbac(Arc<NetworkRbac>, RbacStats),
    Limit(Arc<ConnectionLimit>, Arc<AtomicU64>, Counter, Gauge),
    Rate(Arc<ConnectionRate>, Counter),
}

#[derive(Debug)]
pub(super) struct RbacStats {
    allowed: Counter,
    denied: Counter,
    shadow_allowed: Counter,
    shadow_denied: Counter,
}

/// Why a connection is closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Denied {
    /// In the access log.
    pub(super) why: String,
    /// Not before so long.
    pub(super) after: Duration,
}

/// A place under a connection limit.
#[derive(Debug)]
pub(super) struct Place {
    taken: Arc<AtomicU64>,
    _active: GaugeGuard,
}

/// The filters of a chain.
pub(super) fn all(filters: &[NetworkFilter], registry: &Registry) -> Vec<Gate> {
    filters.iter().map(|filter| gate(filter, registry)).collect()
}

/// Ask all of them. What is returned has to be held while the connection is open.
///
/// # Errors
/// One of them does not let the connection pass.
pub(super) fn pass(gates: &[Gate], ends: &Ends, now: Instant) -> Result<Vec<Place>, Denied> {
    let mut places = Vec::new();
    for gate in gates {
        match gate {
            Gate::Rbac(config, stats) => permitted(config, stats, ends)?,
            Gate::Limit(config, taken, limited, active) => {
                if taken.fetch_add(1, Ordering::AcqRel) >= config.most {
                    taken.fetch_sub(1, Ordering::AcqRel);
                    limited.inc();
                    return Err(Denied { why: "connection_limit".to_owned(), after: config.delay });
                }
                places.push(Place { taken: Arc::clone(taken), _active: active.guard() });
            }
            Gate::Rate(config, limited) => {
                if !config.bucket.take(nanos(now)).granted {
                    limited.inc();
                    return Err(Denied { why: "rate_limited".to_owned(), after: Duration::ZERO });
                }
            }
        }
    }
    Ok(places)
}

fn gate(filter: &NetworkFilter, registry: &Registry) -> Gate {
    match filter {
        NetworkFilter::Rbac(config) => {
            let label = || ("envoy_rbac_prefix", Arc::clone(&config.stat_prefix));
            let counter = |shadow: &str, name: &str| {
                let flat = format!("{}.rbac.{shadow}{name}", config.stat_prefix);
                registry.prefixed_counter(&flat, &format!("rbac_{name}"), label())
            };
            let shadow = &*config.shadow_prefix;
            let stats = RbacStats {
                allowed: counter("", "allowed"),
                denied: counter("", "denied"),
                shadow_allowed: counter(shadow, "shadow_allowed"),
                shadow_denied: counter(shadow, "shadow_denied"),
            };
            Gate::Rbac(Arc::clone(config), stats)
        }
        NetworkFilter::ConnectionLimit(config) => {
            let label = ("envoy_connection_limit_prefix", Arc::clone(&config.stat_prefix));
            let scope = registry.scope("connection_limit", Some(label));
            let (limited, active) =
                (scope.counter("limited_connections"), scope.gauge("active_connections"));
            Gate::Limit(Arc::clone(config), Arc::default(), limited, active)
        }
        NetworkFilter::RateLimit(config) => {
            let label = ("envoy_local_ratelimit_prefix", Arc::clone(&config.stat_prefix));
            let scope = registry.scope("local_rate_limit", Some(label));
            Gate::Rate(Arc::clone(config), scope.counter("rate_limited"))
        }
    }
}

fn permitted(config: &NetworkRbac, stats: &RbacStats, ends: &Ends) -> Result<(), Denied> {
    let subject = Subject {
        request: None,
        remote: socket(&ends.remote).map(|address| address.ip()),
        direct: socket(&ends.direct).map(|address| address.ip()),
        destination: ends.destination(),
        server_name: ends.sni.as_deref(),
        dynamic: None,
        peer: ends.peer.as_ref(),
        ..Subject::default()
    };
    if let Some(shadow) = &config.shadow {
        let allowed = decide(shadow, &subject).allowed;
        if allowed { &stats.shadow_allowed } else { &stats.shadow_denied }.inc();
    }
    let Some(rules) = &config.rules else { return Ok(()) };
    let decision = decide(rules, &subject);
    if decision.allowed {
        stats.allowed.inc();
        return Ok(());
    }
    stats.denied.inc();
    let policy = decision.policy.map_or("none", |name| name);
    let why = format!("rbac_access_denied_matched_policy[{policy}]");
    Err(Denied { why, after: Duration::ZERO })
}

/// Buckets count from long before the process began, so that new ones are full.
fn nanos(now: Instant) -> u64 {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let begun = *BEGUN.get_or_init(|| now);
    let since = now.saturating_duration_since(begun) + Duration::from_nanos(1 << 60);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}
