//! What is said in the `status` of objects. Pure.

mod gateway;

use std::time::SystemTime;

use serde_json::{Value, json};

use super::access::GATEWAY_GROUP;
use super::feedback::Feedback;
use super::objects::{Resource, Subject};
use crate::intent::{Cause, Intent, Name, ObjectId, Problem, Severity};

/// Who we are in `status.parents` of routes for Services (Gateway API, `RouteParentStatus`).
pub const CONTROLLER: &str = "pillion.io/mesh-controller";
/// Who we are for gateways: `controllerName` of GatewayClasses, and in `status.parents` of their routes.
pub const GATEWAY_CONTROLLER: &str = "pillion.io/gateway-controller";
/// Whether proxies take what is made of an object.
const APPLIED: &str = "pillion.io/Applied";
/// Longest message of a condition, in bytes (Kubernetes, `metav1.Condition`).
const MAX_MESSAGE: usize = 32_768;

/// What is known of the whole mesh.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// What is in force.
    pub intent: &'a Intent,
    /// What is wrong with it.
    pub problems: &'a [Problem],
    /// What proxies say.
    pub feedback: &'a Feedback,
}

/// The status that `subject` should have, if it is not the one that it has.
#[must_use]
pub fn wanted(subject: &Subject, known: Known<'_>, now: SystemTime) -> Option<Value> {
    let counts = |one: &Problem| one.severity == Severity::Error || one.cause == Cause::InvalidKind;
    let errors: Vec<&Problem> =
        known.problems.iter().filter(|one| *one.file == *subject.place && counts(one)).collect();
    let said = match subject.resource {
        resource if resource.is_route() => {
            let wanted = route(subject, (&errors, known), now);
            return (wanted != subject.status).then_some(wanted);
        }
        Resource::Gateways => {
            let wanted = gateway::status(subject, (&errors, known), now);
            return (wanted != subject.status).then_some(wanted);
        }
        Resource::TrafficPolicies => {
            vec![accepted(&errors, "Invalid"), applied(known.feedback.of(&subject.id()?))]
        }
        _ => vec![accepted(&errors, "Invalid")],
    };
    let conditions = conditions(subject, &subject.status["conditions"], said, now);
    let wanted = merged(&subject.status, "conditions", conditions);
    (wanted != subject.status).then_some(wanted)
}

/// Whether an entry of `status.parents` is ours.
pub(super) fn is_own(entry: &Value) -> bool {
    entry["controllerName"] == CONTROLLER || entry["controllerName"] == GATEWAY_CONTROLLER
}

/// The Gateway that a parent of a route is (Gateway API, `ParentReference`).
pub(super) fn gateway_of(route: &Subject, parent: &Value) -> Option<Name> {
    let is = |field: &str, value: &str| parent[field].as_str().is_none_or(|one| one == value);
    let namespace = parent["namespace"].as_str().unwrap_or(&route.name.namespace);
    (is("group", GATEWAY_GROUP) && is("kind", "Gateway"))
        .then(|| Name::new(namespace, parent["name"].as_str().unwrap_or_default()))
}

impl Subject {
    fn id(&self) -> Option<ObjectId> {
        Some(ObjectId { kind: self.resource.intent()?, name: self.name.clone() })
    }
}

/// A condition without its history: type, whether it holds, reason, message.
struct Said {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// What is wrong with an object, and what is known of all.
type About<'a> = (&'a [&'a Problem], Known<'a>);

fn route(subject: &Subject, (errors, known): About<'_>, now: SystemTime) -> Value {
    let before = subject.status["parents"].as_array().cloned().unwrap_or_default();
    let foreign = before.iter().filter(|one| !is_own(one)).cloned();
    let mut parents: Vec<Value> = foreign.collect();
    for (index, parent) in subject.parents.iter().enumerate() {
        let Some(controller) = controller(subject, parent, known.intent) else { continue };
        let own = before
            .iter()
            .find(|one| one["controllerName"] == controller && one["parentRef"] == *parent);
        let history = own.map_or(&Value::Null, |own| &own["conditions"]);
        let mut said = of_parent(index, errors, subject.rejected);
        if let Some(id) = subject.id().filter(|_| !subject.rejected) {
            said.push(applied(known.feedback.of(&id)));
        }
        parents.push(json!({
            "parentRef": parent, "controllerName": controller,
            "conditions": conditions(subject, history, said, now),
        }));
    }
    if parents.is_empty() && subject.status.is_null() {
        return Value::Null;
    }
    merged(&subject.status, "parents", parents)
}

/// Under which name we speak of a parent; `None` if it is not ours.
fn controller(route: &Subject, parent: &Value, intent: &Intent) -> Option<&'static str> {
    if let Some(gateway) = gateway_of(route, parent) {
        let is_ours = intent.gateways.get(&gateway).is_some_and(|gateway| gateway.is_ours());
        return is_ours.then_some(GATEWAY_CONTROLLER);
    }
    let of_core = matches!(parent["group"].as_str(), None | Some("" | "core"));
    let routes_services = matches!(route.resource, Resource::HttpRoutes | Resource::GrpcRoutes);
    (parent["kind"] == "Service" && of_core && routes_services).then_some(CONTROLLER)
}

/// Gateway API: `RouteConditionAccepted`, `RouteConditionResolvedRefs`.
fn of_parent(index: usize, errors: &[&Problem], rejected: bool) -> Vec<Said> {
    let own = format!("spec.parentRefs[{index}]");
    let is_parent = |one: &&&Problem| one.field.starts_with("spec.parentRefs[");
    let is_own = |one: &&&Problem| {
        one.field.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let is_backend = |one: &&&Problem| one.field.contains("backendRef") && !rejected;
    let missing: Vec<&Problem> = errors.iter().filter(is_own).copied().collect();
    let invalid: Vec<&Problem> =
        errors.iter().filter(|one| !is_parent(one) && !is_backend(one)).copied().collect();
    let backends: Vec<&Problem> = errors.iter().filter(is_backend).copied().collect();
    if rejected {
        let all: Vec<&Problem> = missing.into_iter().chain(invalid).collect();
        return vec![accepted(&all, "UnsupportedValue")];
    }
    let accepted = match missing.first().map(|one| one.cause) {
        None => accepted(&invalid, "UnsupportedValue"),
        Some(Cause::NotAllowed) => accepted(&missing, "NotAllowedByListeners"),
        Some(Cause::NoMatchingHostname) => accepted(&missing, "NoMatchingListenerHostname"),
        Some(_) => accepted(&missing, "NoMatchingParent"),
    };
    let resolved = Said {
        kind: "ResolvedRefs",
        holds: backends.is_empty(),
        reason: match backends.first().map(|one| one.cause) {
            None => "ResolvedRefs",
            Some(Cause::NotPermitted) => "RefNotPermitted",
            Some(Cause::InvalidKind) => "InvalidKind",
            Some(_) => "BackendNotFound",
        },
        message: text(&backends, "every backend was found"),
    };
    vec![accepted, resolved]
}

fn accepted(errors: &[&Problem], reason: &'static str) -> Said {
    Said {
        kind: "Accepted",
        holds: errors.is_empty(),
        reason: if errors.is_empty() { "Accepted" } else { reason },
        message: text(errors, "in force"),
    }
}

fn applied(refused: Option<String>) -> Said {
    Said {
        kind: APPLIED,
        holds: refused.is_none(),
        reason: if refused.is_none() { "Applied" } else { "RefusedByProxy" },
        message: refused.map_or_else(|| "no proxy refuses it".to_owned(), shortened),
    }
}

/// The problems in one line, each with its field and what was expected.
fn text(errors: &[&Problem], fine: &str) -> String {
    if errors.is_empty() {
        return fine.to_owned();
    }
    let one = |problem: &&Problem| {
        let mut text = match problem.field.as_str() {
            "" => problem.message.clone(),
            field => format!("{field}: {}", problem.message),
        };
        if let Some(expected) = &problem.expected {
            text.push_str("; expected ");
            text.push_str(expected);
        }
        text
    };
    shortened(errors.iter().map(one).collect::<Vec<_>>().join(". "))
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// Those that somebody else wrote, and ours.
fn conditions(subject: &Subject, before: &Value, said: Vec<Said>, now: SystemTime) -> Vec<Value> {
    let names: Vec<&str> = said.iter().map(|one| one.kind).collect();
    let known = before.as_array().into_iter().flatten();
    let kept = known.filter(|one| !names.iter().any(|name| one["type"] == *name)).cloned();
    let made = said.into_iter().map(|one| condition(subject, before, one, now));
    kept.chain(made).collect()
}

/// `metav1.Condition`. The time of the last transition stays unless the condition turned.
fn condition(subject: &Subject, before: &Value, said: Said, now: SystemTime) -> Value {
    let status = if said.holds { "True" } else { "False" };
    let known = before.as_array().into_iter().flatten().find(|one| one["type"] == said.kind);
    let since = known
        .filter(|known| known["status"] == status)
        .and_then(|known| known["lastTransitionTime"].as_str());
    let since = since.map_or_else(|| super::time::rfc3339(now), str::to_owned);
    json!({
        "type": said.kind,
        "status": status,
        "observedGeneration": subject.generation,
        "lastTransitionTime": since,
        "reason": said.reason,
        "message": said.message,
    })
}

fn merged(status: &Value, field: &str, list: Vec<Value>) -> Value {
    let mut status = if status.is_object() { status.clone() } else { json!({}) };
    status[field] = list.into();
    status
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
