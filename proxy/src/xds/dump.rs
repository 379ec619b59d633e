//! `/config_dump`: every resource as it came, without secrets (`envoy.admin.v3.ConfigDump`).

use std::time::SystemTime;

use bytes::Bytes;
use pillion_xds::envoy::config::bootstrap::v3::Bootstrap;
use pillion_xds::envoy::config::cluster::v3::Cluster;
use pillion_xds::envoy::config::core::v3::TypedExtensionConfig;
use pillion_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use pillion_xds::envoy::config::listener::v3::Listener;
use pillion_xds::envoy::config::route::v3::RouteConfiguration;
use pillion_xds::json;
use prost::{Message, Name};
use serde_json::{Value, json};

use super::kind::Kind;
use super::status::{Held, Status};
use crate::model::source::plain;
use crate::telemetry::time;

const PREFIX: &str = "type.googleapis.com/envoy.admin.v3.";

/// Envoy's dumps, and ours of the control plane at the end.
pub fn configs(status: &Status, bootstrap: &Bytes, started: SystemTime) -> Vec<Value> {
    // It was made by encoding one.
    let bootstrap = &Bootstrap::decode(bootstrap.as_ref()).unwrap_or_default();
    let since = stamp(started);
    let statics = bootstrap.static_resources.as_ref();
    let clusters = statics.map(|all| all.clusters.as_slice()).unwrap_or_default();
    let listeners = statics.map(|all| all.listeners.as_slice()).unwrap_or_default();
    let fixed = |field: &str, value: Value| json!({field: value, "last_updated": since});
    let kind = |name: &str| format!("{PREFIX}{name}");
    let bootstrap_dump = json!({
        "@type": kind("BootstrapConfigDump"),
        "bootstrap": json::to_redacted_json(bootstrap),
        "last_updated": since,
    });
    let clusters_dump = json!({
        "@type": kind("ClustersConfigDump"),
        "static_clusters": clusters
            .iter()
            .map(|one| fixed("cluster", json::to_redacted_json(one)))
            .collect::<Vec<_>>(),
        "dynamic_active_clusters": each(status, Kind::Cluster, |held| {
            held.wrap("cluster", read::<Cluster>(&held.body))
        }),
    });
    let listeners_dump = json!({
        "@type": kind("ListenersConfigDump"),
        "static_listeners": listeners
            .iter()
            .map(|one| fixed("listener", json::to_redacted_json(one)))
            .collect::<Vec<_>>(),
        "dynamic_listeners": each(status, Kind::Listener, |held| {
            let active = held.wrap("listener", read::<Listener>(&held.body));
            json!({"name": held.name, "active_state": active})
        }),
    });
    let mut all = vec![bootstrap_dump, clusters_dump, listeners_dump];
    all.extend(referred(status));
    all.push(json!({
        "@type": "type.googleapis.com/pillion.v1.ControlPlaneStatus",
        "control_plane": status.to_json(),
    }));
    all
}

/// What clusters and listeners refer to: it is dynamic always.
fn referred(status: &Status) -> [Value; 4] {
    [
        json!({
            "@type": format!("{PREFIX}EndpointsConfigDump"),
            "dynamic_endpoint_configs": each(status, Kind::Endpoints, |held| {
                held.wrap("endpoint_config", read::<ClusterLoadAssignment>(&held.body))
            }),
        }),
        json!({
            "@type": format!("{PREFIX}RoutesConfigDump"),
            "dynamic_route_configs": each(status, Kind::Routes, |held| {
                held.wrap("route_config", read::<RouteConfiguration>(&held.body))
            }),
        }),
        json!({
            "@type": format!("{PREFIX}SecretsConfigDump"),
            "dynamic_active_secrets": each(status, Kind::Secret, |held| {
                let (version, at) = (&held.version, stamp(held.at));
                let name = plain(&held.name);
                json!({"name": name, "version_info": version, "last_updated": at})
            }),
        }),
        json!({
            "@type": format!("{PREFIX}EcdsConfigDump"),
            "ecds_filters": each(status, Kind::Extension, |held| {
                held.wrap("ecds_filter", read::<TypedExtensionConfig>(&held.body))
            }),
        }),
    ]
}

/// What is held of this kind, and then what was refused of it.
fn each(status: &Status, kind: Kind, dump: impl Fn(&Held) -> Value) -> Vec<Value> {
    let mut all: Vec<Value> = status.held(kind).iter().map(dump).collect();
    for (name, reasons) in status.refused(kind) {
        let error = json!({"details": reasons.join("; ")});
        match all.iter_mut().find(|one| names(one, &name)) {
            Some(one) => one["error_state"] = error,
            None => all.push(json!({"name": name, "error_state": error})),
        }
    }
    all
}

fn names(dumped: &Value, name: &str) -> bool {
    let own = |value: &Value| value["name"] == name || value["cluster_name"] == name;
    own(dumped) || dumped.as_object().is_some_and(|fields| fields.values().any(own))
}

impl Held {
    fn wrap(&self, field: &str, resource: Value) -> Value {
        json!({
            "version_info": self.version,
            field: resource,
            "last_updated": stamp(self.at),
        })
    }
}

fn read<M: Message + Default + Name>(body: &Bytes) -> Value {
    // It was accepted once, so it can be decoded.
    M::decode(body.as_ref()).map_or(Value::Null, |message| json::to_redacted_json(&message))
}

fn stamp(at: SystemTime) -> String {
    let mut text = String::new();
    time::write(at, None, &mut text);
    text
}
