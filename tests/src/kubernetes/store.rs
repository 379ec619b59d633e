//! The objects of a pretended cluster, and what happened to them: as kube-apiserver keeps them, as far as a
//! controller can tell.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::rules::wrong_status;

/// The kinds that the cluster has: group, version, kind, plural name, whether it has namespaces.
pub(super) const KINDS: &[(&str, &str, &str, &str, bool)] = &[
    ("", "v1", "Namespace", "namespaces", false),
    ("", "v1", "Node", "nodes", false),
    ("", "v1", "Pod", "pods", true),
    ("", "v1", "Service", "services", true),
    ("", "v1", "Secret", "secrets", true),
    ("", "v1", "ConfigMap", "configmaps", true),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true),
    ("coordination.k8s.io", "v1", "Lease", "leases", true),
    (
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        false,
    ),
    ("gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses", false),
    ("gateway.networking.k8s.io", "v1", "Gateway", "gateways", true),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", true),
    ("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes", true),
    // In the versions of the Gateway API's experimental channel, as far as they are not stable yet.
    ("gateway.networking.k8s.io", "v1alpha2", "TCPRoute", "tcproutes", true),
    ("gateway.networking.k8s.io", "v1beta1", "ReferenceGrant", "referencegrants", true),
    ("pillion.io", "v1alpha1", "Mesh", "meshes", true),
    ("pillion.io", "v1alpha1", "AuthorizationPolicy", "authorizationpolicies", true),
    ("pillion.io", "v1alpha1", "TrafficPolicy", "trafficpolicies", true),
];

/// Groups whose kinds are defined by definitions that somebody installs.
const DEFINED: [&str; 2] = ["gateway.networking.k8s.io", "pillion.io"];

/// Why a request is refused: HTTP status and reason, as `metav1.Status` has them.
pub(super) type Refused = (u16, &'static str);

/// Which object: plural name, namespace (empty for none), name.
pub(super) type Key = (String, String, String);

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Store {
    version: u64,
    objects: BTreeMap<Key, Value>,
    /// Version, plural name, type of event, object.
    events: Vec<(u64, String, &'static str, Value)>,
    /// Events up to this version are forgotten.
    forgotten: u64,
}

impl Store {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    pub(super) fn list(&self, plural: &str, namespace: &str) -> Vec<Value> {
        let here = |key: &Key| key.0 == plural && (namespace.is_empty() || key.1 == namespace);
        self.objects.iter().filter(|(key, _)| here(key)).map(|(_, object)| object.clone()).collect()
    }

    /// Events after this version, or `None` if some of them are forgotten (410 Gone).
    pub(super) fn since(&self, version: u64, plural: &str) -> Option<Vec<(u64, Value)>> {
        if version < self.forgotten {
            return None;
        }
        let news = self.events.iter().filter(|(at, of, ..)| *at > version && of == plural);
        let event = |(at, _, kind, object): &(u64, String, &str, Value)| {
            (*at, json!({"type": kind, "object": object}))
        };
        Some(news.map(event).collect())
    }

    pub(super) fn create(&mut self, key: Key, mut object: Value) -> Result<Value, Refused> {
        if self.objects.contains_key(&key) {
            return Err((409, "AlreadyExists"));
        }
        let metadata = &mut object["metadata"];
        metadata["name"] = key.2.as_str().into();
        if !key.1.is_empty() {
            metadata["namespace"] = key.1.as_str().into();
        }
        metadata["generation"] = 1.into();
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        metadata["managedFields"] = json!([{"manager": "test"}]);
        Ok(self.put(key, object, "ADDED"))
    }

    /// `status`: only the status is taken, else everything but the status.
    pub(super) fn replace(
        &mut self,
        key: Key,
        mut object: Value,
        status: bool,
    ) -> Result<Value, Refused> {
        let known = self.objects.get(&key).ok_or((404, "NotFound"))?;
        // Pods and Services have conditions of their own.
        let defined = KINDS.iter().any(|kind| kind.3 == key.0 && DEFINED.contains(&kind.0));
        if let Some(wrong) = wrong_status(&object).filter(|_| defined) {
            eprintln!("refuses the status of {key:?}: {wrong}");
            return Err((422, "Invalid"));
        }
        let wanted = &object["metadata"]["resourceVersion"];
        if !wanted.is_null() && *wanted != known["metadata"]["resourceVersion"] {
            return Err((409, "Conflict"));
        }
        if status {
            let status = object["status"].take();
            object = known.clone();
            object["status"] = status;
        } else {
            for field in ["creationTimestamp", "generation", "namespace", "managedFields"] {
                object["metadata"][field] = known["metadata"][field].clone();
            }
            if !known["status"].is_null() {
                object["status"] = known["status"].clone();
            }
            if object["spec"] != known["spec"] {
                let generation = known["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
                object["metadata"]["generation"] = generation.into();
            }
        }
        Ok(self.put(key, object, "MODIFIED"))
    }

    /// A JSON merge patch (RFC 7386), which server-side apply comes to for one who owns all its fields.
    pub(super) fn patch(
        &mut self,
        key: Key,
        patch: &Value,
        status: bool,
    ) -> Result<Value, Refused> {
        let mut object = self.objects.get(&key).cloned().ok_or((404, "NotFound"))?;
        merge(&mut object, patch);
        if patch["metadata"]["resourceVersion"].is_null() {
            object["metadata"]["resourceVersion"] = Value::Null;
        }
        self.replace(key, object, status)
    }

    pub(super) fn delete(&mut self, key: &Key) {
        if let Some(mut object) = self.objects.remove(key) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.events.push((self.version, key.0.clone(), "DELETED", object));
        }
    }

    /// Forgets what happened so far, as etcd's compaction does.
    pub(super) fn compact(&mut self) {
        self.version += 1;
        self.forgotten = self.version;
        self.events.clear();
    }

    fn put(&mut self, key: Key, mut object: Value, event: &'static str) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.events.push((self.version, key.0.clone(), event, object.clone()));
        self.objects.insert(key, object.clone());
        object
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            if let Some(target) = target.as_object_mut() {
                target.remove(name);
            }
        } else {
            merge(&mut target[name], value);
        }
    }
}
