//! What is said in the `status` of objects. Pure.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::objects::Subject;
use crate::intent::{Kind, Problem, Severity};

/// Who we are in `status.parents` of routes (Gateway API, `RouteParentStatus`).
pub const CONTROLLER: &str = "pillion.io/mesh-controller";
/// Longest message of a condition, in bytes (Kubernetes, `metav1.Condition`).
const MAX_MESSAGE: usize = 32_768;

/// The status that `subject` should have, if it is not the one that it has. `problems` are those of the whole mesh.
#[must_use]
pub fn wanted(subject: &Subject, problems: &[Problem], now: SystemTime) -> Option<Value> {
    let errors: Vec<&Problem> = problems
        .iter()
        .filter(|one| *one.file == *subject.place && one.severity == Severity::Error)
        .collect();
    let wanted = match subject.kind {
        Kind::HttpRoute | Kind::GrpcRoute => route(subject, &errors, now),
        _ => {
            let before = &subject.status["conditions"];
            let accepted = accepted(&errors, "Invalid");
            let conditions = others(before, &["Accepted"])
                .chain([condition(subject, before, accepted, now)])
                .collect::<Vec<_>>();
            merged(&subject.status, "conditions", conditions)
        }
    };
    (wanted != subject.status).then_some(wanted)
}

/// A condition without its history: type, whether it holds, reason, message.
struct Said {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

fn route(subject: &Subject, errors: &[&Problem], now: SystemTime) -> Value {
    let before = subject.status["parents"].as_array().cloned().unwrap_or_default();
    let foreign = before.iter().filter(|one| one["controllerName"] != CONTROLLER).cloned();
    let mut parents: Vec<Value> = foreign.collect();
    for (index, parent) in subject.parents.iter().enumerate() {
        let of_core = matches!(parent["group"].as_str(), Some("" | "core"));
        if parent["kind"] != "Service" || !(of_core || parent["group"].is_null()) {
            continue;
        }
        let own = before
            .iter()
            .find(|one| one["controllerName"] == CONTROLLER && one["parentRef"] == *parent);
        let known = own.map_or(&Value::Null, |own| &own["conditions"]);
        let said = of_parent(index, errors, subject.rejected);
        let names: Vec<&str> = said.iter().map(|one| one.kind).collect();
        let kept: Vec<Value> = others(known, &names).collect();
        let made = said.into_iter().map(|one| condition(subject, known, one, now));
        let conditions: Vec<Value> = kept.into_iter().chain(made).collect();
        parents.push(json!({
            "parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions,
        }));
    }
    if parents.is_empty() && subject.status.is_null() {
        return Value::Null;
    }
    merged(&subject.status, "parents", parents)
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
    let accepted = if missing.is_empty() {
        accepted(&invalid, "UnsupportedValue")
    } else {
        accepted(&missing, "NoMatchingParent")
    };
    let resolved = Said {
        kind: "ResolvedRefs",
        holds: backends.is_empty(),
        reason: if backends.is_empty() { "ResolvedRefs" } else { "BackendNotFound" },
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
    let mut text = errors.iter().map(one).collect::<Vec<_>>().join(". ");
    if text.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
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

/// Conditions that somebody else wrote.
fn others<'a>(before: &'a Value, names: &'a [&str]) -> impl Iterator<Item = Value> + 'a {
    let conditions = before.as_array().into_iter().flatten();
    conditions.filter(|one| !names.iter().any(|name| one["type"] == *name)).cloned()
}

fn merged(status: &Value, field: &str, list: Vec<Value>) -> Value {
    let mut status = if status.is_object() { status.clone() } else { json!({}) };
    status[field] = list.into();
    status
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
