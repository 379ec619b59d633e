//! Who the control plane is on Kubernetes, and exactly what it may do: the list that its own code is written by.

use serde_json::{Value, json};

use super::{NAME, Settings, cluster_metadata, metadata};
use crate::source::kubernetes::access::{ACCESS, Access, Scope};

const GROUP: &str = "rbac.authorization.k8s.io";
const ROLE: &str = "pillion-control-plane";

pub(super) fn manifests(settings: &Settings) -> Vec<Value> {
    let subject = json!({"kind": "ServiceAccount", "name": NAME, "namespace": settings.namespace});
    let role = |kind: &str| json!({"apiGroup": GROUP, "kind": kind, "name": ROLE});
    let version = format!("{GROUP}/v1");
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(settings, NAME)}),
        json!({
            "apiVersion": version, "kind": "ClusterRole",
            "metadata": cluster_metadata(ROLE), "rules": rules(Scope::Cluster),
        }),
        json!({
            "apiVersion": version, "kind": "ClusterRoleBinding",
            "metadata": cluster_metadata(ROLE),
            "roleRef": role("ClusterRole"), "subjects": [subject],
        }),
        json!({
            "apiVersion": version, "kind": "Role",
            "metadata": metadata(settings, ROLE), "rules": rules(Scope::Own),
        }),
        json!({
            "apiVersion": version, "kind": "RoleBinding",
            "metadata": metadata(settings, ROLE),
            "roleRef": role("Role"), "subjects": [subject],
        }),
    ]
}

fn rules(scope: Scope) -> Vec<Value> {
    ACCESS.iter().filter(|access| access.scope == scope).map(rule).collect()
}

fn rule(access: &Access) -> Value {
    let mut rule = json!({
        "apiGroups": [access.group], "resources": access.resources, "verbs": access.verbs,
    });
    if !access.names.is_empty() {
        rule["resourceNames"] = json!(access.names);
    }
    rule
}
