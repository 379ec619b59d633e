//! The webhook's question and answer: an `AdmissionReview` in, an `AdmissionReview` out. Pure.
//! <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Options, Outcome, inject_pod, stays_out};

const API_VERSION: &str = "admission.k8s.io/v1";

/// Answers a review.
///
/// A pod that cannot have a sidecar at all (in the network of its node, of Windows) is let through with a warning. One
/// that says something about its sidecar that is not understood is refused, with the reason: nothing else ever is.
///
/// # Errors
/// It is no `AdmissionReview` of version v1; the text says what was expected.
pub fn review(review: &Value, options: &Options) -> Result<Value, String> {
    let (version, kind) = (&review["apiVersion"], &review["kind"]);
    if version != API_VERSION || kind != "AdmissionReview" {
        return Err(format!(
            "expected an AdmissionReview of {API_VERSION}, found kind {kind} of apiVersion {version}"
        ));
    }
    let request = &review["request"];
    let uid = request["uid"].as_str().filter(|uid| !uid.is_empty());
    let uid = uid.ok_or("request.uid: expected a text that is not empty")?;
    let mut response = answer(request, options);
    response["uid"] = uid.into();
    Ok(json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}))
}

fn answer(request: &Value, options: &Options) -> Value {
    let kind = &request["kind"];
    let is_pod = kind["group"].as_str().is_none_or(str::is_empty) && kind["kind"] == "Pod";
    if !is_pod || request["operation"] != "CREATE" || !request["subResource"].is_null() {
        return allowed("not-a-new-pod");
    }
    let before = &request["object"];
    if let Some(why) = stays_out(&before["spec"]) {
        let mut response = allowed("stays-out");
        response["warnings"] = json!([format!("pillion: no sidecar: {why}")]);
        return response;
    }
    let mut after = before.clone();
    match inject_pod(&mut after, &owner(before), options) {
        Ok(Outcome::Injected) => {
            let mut response = allowed("injected");
            let patch = Value::from(patch(&before["spec"], &after["spec"])).to_string();
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(patch).into();
            response
        }
        Ok(Outcome::Already) => allowed("already"),
        Ok(Outcome::OptedOut) => allowed("opted-out"),
        Ok(Outcome::NoPods) => allowed("not-a-new-pod"),
        Err(error) => json!({
            "allowed": false,
            "status": {"status": "Failure", "reason": "Invalid", "code": 422,
                "message": format!("pillion: {error}")},
            "auditAnnotations": {"outcome": "refused"},
        }),
    }
}

fn allowed(outcome: &str) -> Value {
    json!({"allowed": true, "auditAnnotations": {"outcome": outcome}})
}

/// The fields of the spec that changed, whole (RFC 6902).
fn patch(before: &Value, after: &Value) -> Vec<Value> {
    let fields = after.as_object().into_iter().flatten();
    let changed = fields.filter(|(field, value)| before[field.as_str()] != **value);
    let operation = |(field, value): (&String, &Value)| {
        let op = if before[field].is_null() { "add" } else { "replace" };
        json!({"op": op, "path": format!("/spec/{field}"), "value": value})
    };
    changed.map(operation).collect()
}

/// Name of the workload that the pod belongs to, as offline injection finds it in the manifest.
fn owner(pod: &Value) -> String {
    let meta = &pod["metadata"];
    let owners = meta["ownerReferences"].as_array().into_iter().flatten();
    let Some(owner) = owners.into_iter().find(|owner| owner["controller"] == true) else {
        let name = meta["name"].as_str().or_else(|| meta["generateName"].as_str());
        return name.unwrap_or_default().trim_end_matches('-').to_owned();
    };
    let name = owner["name"].as_str().unwrap_or_default();
    let without = match owner["kind"].as_str() {
        // A Deployment names its ReplicaSets so.
        Some("ReplicaSet") => meta["labels"]["pod-template-hash"]
            .as_str()
            .and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-')),
        // A CronJob names its Jobs by the minute, counted from 1970.
        Some("Job") => name.rsplit_once('-').and_then(|(job, time)| {
            (time.len() >= 8 && time.bytes().all(|byte| byte.is_ascii_digit())).then_some(job)
        }),
        _ => None,
    };
    without.unwrap_or(name).to_owned()
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
