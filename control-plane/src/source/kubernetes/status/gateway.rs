//! The status of a Gateway and of its listeners (Gateway API, `GatewayStatus`, `ListenerStatus`).

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::super::access::GATEWAY_GROUP;
use super::super::objects::Subject;
use super::{About, Said, accepted, conditions, merged, shortened, text};
use crate::intent::{Cause, Gateway, Intent, Listener, Problem, attach};

/// Why a Gateway, or a listener of it, is not run: reason and message.
type Obstacle = Option<(&'static str, String)>;

pub(super) fn status(subject: &Subject, (errors, known): About<'_>, now: SystemTime) -> Value {
    let gateway = known.intent.gateways.get(&subject.name);
    let of_listener = |one: &&&Problem| one.field.starts_with("spec.listeners[");
    let in_listeners = !subject.rejected && errors.iter().any(|one| of_listener(&one));
    let own: Vec<&Problem> =
        errors.iter().filter(|one| subject.rejected || !of_listener(one)).copied().collect();
    let mut is_accepted = accepted(&own, "Invalid");
    if in_listeners && own.is_empty() {
        // Some listeners are not as they should be; the others serve (`GatewayReasonListenersNotValid`).
        is_accepted.reason = "ListenersNotValid";
        "not every listener is in force".clone_into(&mut is_accepted.message);
    }
    let obstacle = obstacle(subject, (errors, known), gateway);
    let said = vec![is_accepted, programmed(obstacle.as_ref())];
    let made = conditions(subject, &subject.status["conditions"], said, now);
    let listeners = subject.listeners.iter().enumerate().map(|(index, name)| {
        let place = format!("spec.listeners[{index}]");
        let about: Vec<&Problem> = errors
            .iter()
            .filter(|one| {
                let rest = one.field.strip_prefix(&place);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
            .copied()
            .collect();
        let listener =
            gateway.and_then(|found| found.listeners.iter().find(|one| one.name == *name));
        let facts = Facts { name, listener, errors: &about, obstacle: obstacle.clone() };
        facts.status(subject, (gateway, known.intent), now)
    });
    let status = merged(&subject.status, "listeners", listeners.collect());
    let status = match (subject.addresses.as_slice(), &status["addresses"]) {
        ([], Value::Null) => status,
        (addresses, _) => merged(&status, "addresses", addresses.to_vec()),
    };
    merged(&status, "conditions", made)
}

fn obstacle(
    subject: &Subject,
    (errors, known): About<'_>,
    gateway: Option<&Arc<Gateway>>,
) -> Obstacle {
    if gateway.is_none() || subject.rejected {
        return Some(("Invalid", text(errors, "no version of it was in force yet")));
    }
    let id = subject.id()?;
    if let Some(refused) = known.feedback.of(&id) {
        return Some(("Invalid", shortened(refused)));
    }
    let running = known.feedback.gateways.get(&subject.name.to_string()).copied().unwrap_or(0);
    (running == 0).then(|| {
        let name = &subject.name;
        let message = format!("no proxy runs it: one is started with `--gateway {name}`");
        ("Pending", message)
    })
}

fn programmed(obstacle: Option<&(&'static str, String)>) -> Said {
    let (reason, message) = match obstacle {
        None => ("Programmed", "its proxies have it".to_owned()),
        Some((reason, message)) => (*reason, message.clone()),
    };
    Said { kind: "Programmed", holds: obstacle.is_none(), reason, message }
}

/// What is known of one listener.
struct Facts<'a> {
    name: &'a str,
    /// As it is in force.
    listener: Option<&'a Listener>,
    errors: &'a [&'a Problem],
    obstacle: Obstacle,
}

impl Facts<'_> {
    fn status(
        &self,
        subject: &Subject,
        (gateway, intent): (Option<&Arc<Gateway>>, &Intent),
        now: SystemTime,
    ) -> Value {
        let before = subject.status["listeners"].as_array().into_iter().flatten();
        let before = before.into_iter().find(|one| one["name"] == self.name);
        let history = before.map_or(&Value::Null, |one| &one["conditions"]);
        let attached = match (gateway, self.listener) {
            (Some(gateway), Some(listener)) => attached(intent, gateway, listener),
            _ => 0,
        };
        let kinds: Vec<Value> = self
            .listener
            .into_iter()
            .flat_map(Listener::supported_kinds)
            .map(|kind| json!({"group": GATEWAY_GROUP, "kind": kind}))
            .collect();
        json!({
            "name": self.name, "attachedRoutes": attached, "supportedKinds": kinds,
            "conditions": conditions(subject, history, self.said(subject.rejected), now),
        })
    }

    fn said(&self, rejected: bool) -> Vec<Said> {
        let of_refs = |one: &&&Problem| !rejected && one.field.contains("certificateRefs");
        let refs: Vec<&Problem> = self.errors.iter().filter(of_refs).copied().collect();
        let others: Vec<&Problem> =
            self.errors.iter().filter(|one| !of_refs(one)).copied().collect();
        let kinds = self.listener.is_some_and(Listener::has_unfit_kinds);
        let resolved = Said {
            kind: "ResolvedRefs",
            holds: refs.is_empty() && !kinds,
            reason: match refs.first().map(|one| one.cause) {
                Some(Cause::NotPermitted) => "RefNotPermitted",
                Some(_) => "InvalidCertificateRef",
                None if kinds => "InvalidRouteKinds",
                None => "ResolvedRefs",
            },
            message: match kinds && refs.is_empty() {
                true => "`allowedRoutes.kinds` names kinds that do not fit the protocol".to_owned(),
                false => text(&refs, "every reference was found"),
            },
        };
        // A listener that ends TLS and has no certificate at all is left out.
        let bare = self.listener.is_some_and(|one| one.ends_tls() && one.certificates.is_empty());
        let own = (!refs.is_empty() && bare).then(|| ("Invalid", text(&refs, "")));
        let obstacle = own.or_else(|| self.obstacle.clone());
        vec![accepted(&others, "Invalid"), resolved, programmed(obstacle.as_ref())]
    }
}

/// How many routes are attached to a listener (`ListenerStatus.attachedRoutes`).
fn attached(intent: &Intent, gateway: &Gateway, listener: &Listener) -> usize {
    let of_requests = intent.routes.values().map(|route| route.claim());
    let of_connections = intent.l4_routes.values().map(|route| route.claim());
    let all = of_requests.chain(of_connections);
    all.filter(|claim| !attach::hosts(gateway, listener, *claim).is_empty()).count()
}
