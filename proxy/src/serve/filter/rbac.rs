//! Role-based access control (Envoy: RBAC filter).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, StatusCode};

use super::super::connection::socket;
use super::super::exchange::Exchange;
use super::super::read;
use super::super::reply::Answer;
use super::denial::Denial;
use crate::http::body::RequestBody;
use crate::model::Name;
use crate::model::filter::RbacFilter;
use crate::policy::rbac::{Decision, Subject, decide};
use crate::telemetry::reason::Reason;
use crate::telemetry::stats::{Counter, Scope};

/// `rbac.`
#[derive(Debug)]
pub(super) struct RbacStats {
    rules: Outcomes,
    shadow: Outcomes,
}

/// `rbac.<prefix>.`
#[derive(Debug)]
struct Outcomes {
    allowed: Counter,
    denied: Counter,
    /// Put before `allowed` and `denied`.
    kind: &'static str,
    scope: Scope,
    /// `policy.<name>.`, as they were first needed. There are as many as the configuration names.
    policies: Mutex<HashMap<Name, [Counter; 2]>>,
}

impl RbacStats {
    pub(super) fn new(scope: &Scope, config: &RbacFilter) -> Self {
        Self {
            rules: Outcomes::new(scope, &config.prefix, ""),
            shadow: Outcomes::new(scope, &config.shadow_prefix, "shadow_"),
        }
    }
}

impl Outcomes {
    fn new(scope: &Scope, prefix: &Name, kind: &'static str) -> Self {
        let label = (!prefix.is_empty()).then(|| ("envoy_rbac_http_prefix", Arc::clone(prefix)));
        let scope = scope.scope("rbac", label);
        Self {
            allowed: scope.counter(&format!("{kind}allowed")),
            denied: scope.counter(&format!("{kind}denied")),
            kind,
            scope,
            policies: Mutex::default(),
        }
    }

    fn count(&self, decision: &Decision<'_>, per_policy: bool) {
        if decision.allowed { &self.allowed } else { &self.denied }.inc();
        let Some(policy) = decision.policy.filter(|_| per_policy) else { return };
        let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        if !policies.contains_key(policy) {
            let label = ("envoy_rbac_policy_name", Arc::clone(policy));
            let scope = self.scope.scope("policy", Some(label));
            let counter = |name: &str| scope.counter(&format!("{}{name}", self.kind));
            policies.insert(Arc::clone(policy), [counter("allowed"), counter("denied")]);
        }
        if let Some([allowed, denied]) = policies.get(policy) {
            if decision.allowed { allowed } else { denied }.inc();
        }
    }
}

/// Some: the rules do not allow the request (403). Which policy said so, the access log tells, and
/// not the client.
pub(super) fn check(
    exchange: &mut Exchange,
    config: &RbacFilter,
    stats: &RbacStats,
    request: &Request<RequestBody>,
) -> Option<Answer> {
    let connection = &exchange.connection;
    let ends = &connection.ends;
    let subject = Subject {
        request: Some(read::view(request)),
        remote: exchange.facts.client.or_else(|| connection.remote_ip()),
        direct: connection.direct_ip(),
        destination: ends.original_dst.or_else(|| socket(&ends.local)),
        server_name: ends.sni.as_deref(),
        peer: ends.peer.as_ref(),
        ..Subject::default()
    };
    if let Some(shadow) = &config.shadow {
        stats.shadow.count(&decide(shadow, &subject), config.per_policy);
    }
    let decision = decide(config.rules.as_ref()?, &subject);
    stats.rules.count(&decision, config.per_policy);
    if decision.allowed {
        return None;
    }
    let policy = decision.policy.map_or("none", |name| name);
    let why = format!("rbac_access_denied_matched_policy[{policy}]");
    let denial = Denial::new(Reason::Denied, StatusCode::FORBIDDEN, "RBAC: access denied");
    Some(denial.answer(exchange, why))
}
