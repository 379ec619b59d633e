//! When the API server asks the webhook.

use serde_json::{Value, json};

use super::{NAME, Settings, WEB_PORT, cluster_metadata};
use crate::source::kubernetes::access::{IN_MESH, NAMESPACE_LABEL, WEBHOOK};

/// Label of pods, by which one is taken in or left out.
const POD_LABEL: &str = "pillion.io/inject";
/// Label of namespaces of the mesh whose pods are taken in only if they ask for it.
const DEFAULT_LABEL: &str = "pillion.io/inject-default";
/// Longest time that the creation of a pod waits for an answer, in seconds.
const TIMEOUT_SECONDS: u8 = 5;

/// A pod is made without a sidecar when nobody answers: a mesh that is down takes nothing else down. What the cluster
/// itself lives on is never asked about. There is no `caBundle`: the control plane puts its root there.
pub(super) fn manifest(settings: &Settings) -> Value {
    let unless =
        |key: &str, value: &str| json!({"key": key, "operator": "NotIn", "values": [value]});
    let only = |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
    let webhooks = [
        ("all", unless(DEFAULT_LABEL, "disabled"), unless(POD_LABEL, "disabled")),
        ("asking", only(DEFAULT_LABEL, "disabled"), only(POD_LABEL, IN_MESH)),
    ];
    let webhook = |(name, namespaces, pods): (&str, Value, Value)| {
        json!({
            "name": format!("{name}.inject.pillion.io"),
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {
                "name": NAME, "namespace": settings.namespace, "port": WEB_PORT, "path": "/inject",
            }},
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
                "operations": ["CREATE"], "scope": "Namespaced",
            }],
            "namespaceSelector": {"matchExpressions": [
                only(NAMESPACE_LABEL, IN_MESH),
                namespaces,
                {
                    "key": "kubernetes.io/metadata.name", "operator": "NotIn",
                    "values": ["kube-system", "kube-node-lease", "kube-public", settings.namespace],
                },
            ]},
            "objectSelector": {"matchExpressions": [pods]},
            "failurePolicy": "Ignore",
            "matchPolicy": "Equivalent",
            "reinvocationPolicy": "IfNeeded",
            "sideEffects": "None",
            "timeoutSeconds": TIMEOUT_SECONDS,
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": cluster_metadata(WEBHOOK),
        "webhooks": webhooks.map(webhook),
    })
}
