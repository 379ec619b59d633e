//! Role-based access control (Envoy: RBAC filter).

use http::{Request, StatusCode};

use super::super::connection::socket;
use super::super::exchange::Exchange;
use super::super::read;
use crate::http::body::RequestBody;
use crate::model::filter::RbacFilter;
use crate::policy::rbac::{Subject, decide};
use crate::telemetry::reason::{Reason, Refusal};
use crate::telemetry::stats::{Counter, Scope};

#[derive(Debug)]
pub(super) struct RbacStats {
    allowed: Counter,
    denied: Counter,
    shadow_allowed: Counter,
    shadow_denied: Counter,
}

impl RbacStats {
    pub(super) fn new(scope: &Scope, config: &RbacFilter) -> Self {
        let counter = |prefix: &str, name: &str| scope.counter(&format!("rbac.{prefix}{name}"));
        Self {
            allowed: counter(&config.prefix, "allowed"),
            denied: counter(&config.prefix, "denied"),
            shadow_allowed: counter(&config.shadow_prefix, "shadow_allowed"),
            shadow_denied: counter(&config.shadow_prefix, "shadow_denied"),
        }
    }
}

/// # Errors
/// The rules do not allow the request (403). The client's name for it is not told to the client.
pub(super) fn check(
    exchange: &mut Exchange,
    config: &RbacFilter,
    stats: &RbacStats,
    request: &Request<RequestBody>,
) -> Result<(), Refusal> {
    let connection = &exchange.connection;
    let ends = &connection.ends;
    let subject = Subject {
        request: Some(read::view(request)),
        remote: exchange.facts.client.or_else(|| connection.remote_ip()),
        direct: connection.direct_ip(),
        destination: ends.original_dst.or_else(|| socket(&ends.local)),
        server_name: ends.sni.as_deref(),
        peer: ends.peer.as_ref(),
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
    exchange.facts.why = Some(format!("rbac_access_denied_matched_policy[{policy}]"));
    let status = StatusCode::FORBIDDEN;
    Err(Refusal::downstream(Reason::Denied, status, "RBAC: access denied"))
}
