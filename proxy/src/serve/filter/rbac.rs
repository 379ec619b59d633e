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
use crate::model::metadata::{Fields, Value};
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
    /// Fields of dynamic metadata: which policy, and what came of it.
    fields: [String; 2],
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
            fields: fields(prefix, kind),
            kind,
            scope,
            policies: Mutex::default(),
        }
    }

    /// For those who come after.
    fn note(&self, decision: &Decision<'_>) -> Fields {
        let [policy, result] = &self.fields;
        let said = if decision.allowed { "allowed" } else { "denied" };
        let mut fields = Fields::from([(result.clone(), Value::Text(said.to_owned()))]);
        if let Some(name) = decision.policy {
            fields.insert(policy.clone(), Value::Text(name.to_string()));
        }
        fields
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

fn fields(prefix: &str, kind: &str) -> [String; 2] {
    let kind = if kind.is_empty() { "enforced_" } else { kind };
    ["effective_policy_id", "engine_result"].map(|name| format!("{prefix}{kind}{name}"))
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
        dynamic: exchange.facts.dynamic.as_deref(),
        peer: ends.peer.as_ref(),
        ..Subject::default()
    };
    let told = connection.http.tells_rbac;
    let mut noted = Fields::new();
    if let Some(shadow) = &config.shadow {
        let decision = decide(shadow, &subject);
        stats.shadow.count(&decision, config.per_policy);
        if told {
            noted = stats.shadow.note(&decision);
        }
    }
    let decision = config.rules.as_ref().map(|rules| decide(rules, &subject));
    if let Some(decision) = &decision {
        stats.rules.count(decision, config.per_policy);
        if told {
            noted.extend(stats.rules.note(decision));
        }
    }
    if !noted.is_empty() {
        exchange.facts.dynamic_mut().note(super::RBAC, noted);
    }
    let decision = decision?;
    if decision.allowed {
        return None;
    }
    let policy = decision.policy.map_or("none", |name| name);
    let why = format!("rbac_access_denied_matched_policy[{policy}]");
    let denial = Denial::new(Reason::Denied, StatusCode::FORBIDDEN, "RBAC: access denied");
    Some(denial.answer(exchange, why))
}
