//! What runs Pillion on Kubernetes, as manifests: `pillion install` prints them, or writes a Helm chart of the same.

mod control_plane;
mod crd;
pub mod helm;
mod rbac;
mod webhook;

use serde_json::{Map, Value, json};

pub use crd::crds;

/// Name of the control plane's Service, Deployment, and all else in its namespace.
const NAME: &str = "pillion";
/// Port of xDS over TLS.
const XDS_PORT: u16 = 15012;
/// Port of the webhook, health and metrics.
const WEB_PORT: u16 = 15017;

/// What differs from one installation to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Namespace of the control plane.
    pub namespace: String,
    /// Image of the control plane: `/pillion`, as `pillion image` makes it.
    pub image: String,
    /// Image of the sidecars, likewise.
    pub proxy_image: String,
    /// Image of the containers that redirect connections: that of the sidecars, with `nft`. Empty: the same image.
    pub redirect_image: String,
    /// How many control planes; a number, or the text that a template has in its place.
    pub replicas: Value,
}

/// Everything but the [`service_monitor`], in the order in which it can be applied.
#[must_use]
pub fn manifests(settings: &Settings) -> Vec<Value> {
    let mut all = vec![control_plane::namespace(settings)];
    all.extend(crds());
    all.extend(namespaced(settings));
    all
}

/// What a chart has as templates: all but the namespace and the definitions.
fn namespaced(settings: &Settings) -> Vec<Value> {
    let mut all = rbac::manifests(settings);
    all.extend(control_plane::manifests(settings));
    all.push(webhook::manifest(settings));
    all
}

/// Metrics for the Prometheus Operator, where its kinds are known.
#[must_use]
pub fn service_monitor(settings: &Settings) -> Value {
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata(settings, NAME),
        "spec": {
            "selector": {"matchLabels": selector()},
            "endpoints": [{
                "port": "https-web",
                "path": "/metrics",
                "scheme": "https",
                "tlsConfig": {
                    "serverName": format!("{NAME}.{}.svc", settings.namespace),
                    "ca": {"secret": {
                        "name": crate::source::kubernetes::access::CA_SECRET,
                        "key": crate::source::kubernetes::access::ROOT_KEY,
                    }},
                },
            }],
        },
    })
}

/// What the pods of the control plane are found by.
fn selector() -> Value {
    json!({"app.kubernetes.io/name": "pillion", "app.kubernetes.io/component": "control-plane"})
}

/// Labels of everything that belongs to an installation.
fn labels() -> Value {
    let mut labels: Map<String, Value> = selector().as_object().cloned().unwrap_or_default();
    labels.insert("app.kubernetes.io/part-of".to_owned(), "pillion".into());
    labels.insert("app.kubernetes.io/version".to_owned(), env!("CARGO_PKG_VERSION").into());
    Value::Object(labels)
}

/// `metadata` of something in the namespace.
fn metadata(settings: &Settings, name: &str) -> Value {
    json!({"name": name, "namespace": settings.namespace, "labels": labels()})
}

/// `metadata` of something that is in no namespace.
fn cluster_metadata(name: &str) -> Value {
    json!({"name": name, "labels": labels()})
}

#[cfg(test)]
mod tests;
