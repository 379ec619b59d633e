//! CustomResourceDefinitions of our kinds. The schemas say what the decoders of `intent` take; a test gives the same
//! documents to both.

mod authorization_policy;
mod external_service;
mod fields;
mod mesh;
mod process;
mod traffic_policy;
mod workload;

use serde_json::{Value, json};

use crate::source::kubernetes::access::OWN_GROUP;
use fields::{any_text, choice, list, object, text, whole};

/// A kind of ours.
struct Kind {
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short: &'static [&'static str],
    description: &'static str,
    spec: fn() -> Value,
    /// Name, JSON path and type of what `kubectl get` shows besides the name.
    columns: &'static [(&'static str, &'static str, &'static str)],
}

const ACCEPTED: (&str, &str, &str) =
    ("Accepted", ".status.conditions[?(@.type==\"Accepted\")].status", "string");
const AGE: (&str, &str, &str) = ("Age", ".metadata.creationTimestamp", "date");

const KINDS: [Kind; 6] = [
    Kind {
        kind: "AuthorizationPolicy",
        plural: "authorizationpolicies",
        singular: "authorizationpolicy",
        short: &["azpol"],
        description: "Who may ask a service for what.",
        spec: authorization_policy::spec,
        columns: &[
            ("Target", ".spec.targetRefs[0].name", "string"),
            ("Action", ".spec.action", "string"),
            ACCEPTED,
            AGE,
        ],
    },
    Kind {
        kind: "ExternalService",
        plural: "externalservices",
        singular: "externalservice",
        short: &["extsvc"],
        description: "A host outside of the mesh that its workloads may call.",
        spec: external_service::spec,
        columns: &[("Host", ".spec.hosts[0]", "string"), ACCEPTED, AGE],
    },
    Kind {
        kind: "Mesh",
        plural: "meshes",
        singular: "mesh",
        short: &[],
        description: "What holds for the whole mesh. There is one; of several the first by namespace and name counts.",
        spec: mesh::spec,
        columns: &[
            ("Trust Domain", ".spec.trustDomain", "string"),
            ("mTLS", ".spec.mtls", "string"),
            ACCEPTED,
            AGE,
        ],
    },
    Kind {
        kind: "Process",
        plural: "processes",
        singular: "process",
        short: &[],
        description: "A program that `pillion up` runs on one machine. On Kubernetes it has no effect; it is known so that \
                      the same folder can be applied.",
        spec: process::spec,
        columns: &[("Instances", ".spec.instances", "integer"), AGE],
    },
    Kind {
        kind: "TrafficPolicy",
        plural: "trafficpolicies",
        singular: "trafficpolicy",
        short: &["tpol"],
        description: "How a service is called: balancing, limits, outliers, retries, timeouts.",
        spec: traffic_policy::spec,
        columns: &[("Target", ".spec.targetRefs[0].name", "string"), ACCEPTED, AGE],
    },
    Kind {
        kind: "Workload",
        plural: "workloads",
        singular: "workload",
        short: &["wl"],
        description: "One endpoint of a service that is not a pod.",
        spec: workload::spec,
        columns: &[
            ("Address", ".spec.address", "string"),
            ("Service Account", ".spec.serviceAccount", "string"),
            ACCEPTED,
            AGE,
        ],
    },
];

/// The definitions, by name.
#[must_use]
pub fn crds() -> Vec<Value> {
    KINDS.iter().map(definition).collect()
}

fn definition(kind: &Kind) -> Value {
    let column =
        |(name, path, of): &(&str, &str, &str)| json!({"name": name, "jsonPath": path, "type": of});
    let columns: Vec<Value> = kind.columns.iter().map(column).collect();
    let mut names = json!({
        "kind": kind.kind, "listKind": format!("{}List", kind.kind),
        "plural": kind.plural, "singular": kind.singular, "categories": ["pillion"],
    });
    if !kind.short.is_empty() {
        names["shortNames"] = json!(kind.short);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{OWN_GROUP}", kind.plural),
            "labels": {"app.kubernetes.io/part-of": "pillion"},
        },
        "spec": {
            "group": OWN_GROUP,
            "scope": "Namespaced",
            "names": names,
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema(kind)},
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
            }],
        },
    })
}

fn schema(kind: &Kind) -> Value {
    object(
        kind.description,
        &["spec"],
        [
            ("apiVersion", json!({"type": "string"})),
            ("kind", json!({"type": "string"})),
            ("metadata", json!({"type": "object"})),
            ("spec", (kind.spec)()),
            ("status", status()),
        ],
    )
}

/// What the control plane found; it is written by the control plane alone.
fn status() -> Value {
    let mut message = any_text("What is wrong, in words.");
    message["maxLength"] = 32_768.into();
    let mut since = any_text("When the status changed last.");
    since["format"] = "date-time".into();
    let mut generation = whole("The generation that was looked at.", 0, u32::MAX);
    generation.as_object_mut().expect("a schema is a map").remove("maximum");
    let condition = object(
        "metav1.Condition",
        &["type", "status", "lastTransitionTime", "reason", "message"],
        [
            ("type", text("Such as Accepted.")),
            ("status", choice("Whether it holds.", &["True", "False", "Unknown"])),
            ("reason", text("Why, in one word.")),
            ("message", message),
            ("lastTransitionTime", since),
            ("observedGeneration", generation),
        ],
    );
    let mut conditions = list("What the control plane made of it.", 16, condition);
    conditions["x-kubernetes-list-type"] = "map".into();
    conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
    object("What the control plane found.", &[], [("conditions", conditions)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent;

    #[test]
    fn every_kind_of_ours_has_a_definition() {
        let defined: Vec<&str> = KINDS.iter().map(|kind| kind.kind).collect();
        let own: Vec<&str> = intent::own_kinds().collect();
        assert_eq!(own.iter().filter(|kind| !defined.contains(kind)).count(), 0, "{own:?}");
        assert_eq!(defined.len(), own.len());
    }
}
