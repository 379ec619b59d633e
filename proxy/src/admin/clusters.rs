//! `/clusters` and `/listeners`.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::source::{ClusterView, HostView, ListenerView, Thresholds};
use crate::model::endpoint::Health;
use crate::model::listener::Address;

/// `cluster::host::stat::value` lines.
pub(super) fn text(clusters: &[ClusterView]) -> String {
    let mut out = String::new();
    for cluster in clusters {
        let name = &cluster.name;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name}::observability_name::{}", cluster.observability_name);
        for (key, value) in outliers(cluster) {
            let _ = writeln!(out, "{name}::outlier::{key}::{value}");
        }
        for (priority, limits) in
            [("default", &cluster.default_priority), ("high", &cluster.high_priority)]
        {
            for (limit, value) in limits.named() {
                let _ = writeln!(out, "{name}::{priority}_priority::{limit}::{value}");
            }
        }
        let _ = writeln!(out, "{name}::added_via_api::{}", cluster.added_via_api);
        if let Some(service) = &cluster.eds_service_name {
            let _ = writeln!(out, "{name}::eds_service_name::{service}");
        }
        for host in &cluster.hosts {
            host_text(&mut out, name, host);
        }
    }
    out
}

/// What outlier detection computed last; -1: nothing.
fn outliers(cluster: &ClusterView) -> Vec<(&'static str, f64)> {
    let Some([external, local]) = cluster.outliers else { return Vec::new() };
    let (mean, threshold) = external.unwrap_or((-1.0, -1.0));
    let (local_mean, local_threshold) = local.unwrap_or((-1.0, -1.0));
    vec![
        ("success_rate_average", mean),
        ("success_rate_ejection_threshold", threshold),
        ("local_origin_success_rate_average", local_mean),
        ("local_origin_success_rate_ejection_threshold", local_threshold),
    ]
}

/// `envoy.admin.v3.Clusters`
pub(super) fn json(clusters: &[ClusterView]) -> Value {
    let statuses: Vec<Value> = clusters.iter().map(cluster_json).collect();
    json!({ "cluster_statuses": statuses })
}

/// `name::address` lines.
pub(super) fn listeners_text(listeners: &[ListenerView]) -> String {
    listeners.iter().fold(String::new(), |mut out, listener| {
        let _ = writeln!(out, "{}::{}", listener.name, listener.address);
        out
    })
}

/// `envoy.admin.v3.Listeners`
pub(super) fn listeners_json(listeners: &[ListenerView]) -> Value {
    let mut statuses: Vec<Value> = Vec::new();
    for listener in listeners {
        let address = address_json(&listener.address);
        match statuses.iter_mut().find(|status| status["name"] == listener.name) {
            None => statuses.push(json!({"name": listener.name, "local_address": address})),
            Some(status) => match status["additional_local_addresses"].as_array_mut() {
                Some(more) => more.push(address),
                None => status["additional_local_addresses"] = json!([address]),
            },
        }
    }
    json!({ "listener_statuses": statuses })
}

impl Thresholds {
    fn named(&self) -> [(&'static str, u32); 4] {
        [
            ("max_connections", self.max_connections),
            ("max_pending_requests", self.max_pending_requests),
            ("max_requests", self.max_requests),
            ("max_retries", self.max_retries),
        ]
    }
}

fn host_text(out: &mut String, cluster: &str, host: &HostView) {
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{cluster}::{}::{key}::{value}", host.address);
    };
    for (key, _, value) in host.stats() {
        line(key, &value);
    }
    line("hostname", &host.hostname);
    line("health_flags", &health_flags(host));
    line("weight", &host.weight);
    line("region", &host.locality.region);
    line("zone", &host.locality.zone);
    line("sub_zone", &host.locality.sub_zone);
    line("canary", &host.canary);
    line("priority", &host.priority);
    line("success_rate", &host.success_rate.unwrap_or(-1.0));
    line("local_origin_success_rate", &host.local_origin_success_rate.unwrap_or(-1.0));
}

fn health_flags(host: &HostView) -> String {
    let (found, said) = (host.found, host.health);
    let flags = [
        (found.failed_active, "/failed_active_hc"),
        (found.ejected, "/failed_outlier_check"),
        (said == Health::Unhealthy, "/failed_eds_health"),
        (found.degraded_active, "/degraded_active_hc"),
        (said == Health::Degraded, "/degraded_eds_health"),
        (found.pending_removal, "/pending_dynamic_removal"),
        (found.pending_active, "/pending_active_hc"),
        (found.excluded, "/excluded_via_immediate_hc_fail"),
        (found.timed_out, "/active_hc_timeout"),
        (said == Health::Draining, "/eds_status_draining"),
    ];
    let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    if flags.is_empty() { "healthy".into() } else { flags }
}

/// Fields that say what they say anyhow are left out, as the JSON of protocol buffers has it.
fn without_defaults(mut fields: Value) -> Value {
    if let Value::Object(fields) = &mut fields {
        let says_nothing =
            |value: &Value| *value == json!(0) || *value == json!("") || *value == json!(false);
        fields.retain(|_, value| !says_nothing(value));
    }
    fields
}

fn cluster_json(cluster: &ClusterView) -> Value {
    let thresholds = |priority: &str, limits: &Thresholds| {
        let mut map = Map::new();
        if priority != "DEFAULT" {
            map.insert("priority".into(), priority.into());
        }
        map.extend(limits.named().map(|(name, value)| (name.into(), value.into())));
        Value::Object(map)
    };
    let mut status = without_defaults(json!({
        "name": cluster.name,
        "added_via_api": cluster.added_via_api,
        "observability_name": cluster.observability_name,
        "eds_service_name": cluster.eds_service_name.as_deref().unwrap_or_default(),
        "circuit_breakers": {"thresholds": [
            thresholds("DEFAULT", &cluster.default_priority),
            thresholds("HIGH", &cluster.high_priority),
        ]},
    }));
    if !cluster.hosts.is_empty() {
        status["host_statuses"] = cluster.hosts.iter().map(host_json).collect();
    }
    for (name, average) in [
        ("success_rate_ejection_threshold", cluster.outliers.and_then(|both| both[0])),
        ("local_origin_success_rate_ejection_threshold", cluster.outliers.and_then(|both| both[1])),
    ] {
        if let Some((_, threshold)) = average {
            status[name] = json!({ "value": threshold });
        }
    }
    status
}

fn host_json(host: &HostView) -> Value {
    let stat = |(name, gauge, value): &(&str, bool, u64)| {
        let mut stat = json!({"name": name});
        // 64-bit numbers are strings in the JSON of protocol buffers.
        if *value != 0 {
            stat["value"] = value.to_string().into();
        }
        if *gauge {
            stat["type"] = "GAUGE".into();
        }
        stat
    };
    let said = match host.health {
        Health::Healthy => "HEALTHY",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
        Health::Degraded => "DEGRADED",
    };
    let found = host.found;
    let health = without_defaults(json!({
        "eds_health_status": said,
        "failed_active_health_check": found.failed_active,
        "failed_outlier_check": found.ejected,
        "failed_active_degraded_check": found.degraded_active,
        "pending_dynamic_removal": found.pending_removal,
        "pending_active_hc": found.pending_active,
        "excluded_via_immediate_hc_fail": found.excluded,
        "active_hc_timeout": found.timed_out,
    }));
    let mut status = without_defaults(json!({
        "address": address_json(&host.address),
        "stats": host.stats().iter().map(stat).collect::<Vec<_>>(),
        "health_status": health,
        "weight": host.weight,
        "priority": host.priority,
        "hostname": host.hostname,
        "locality": without_defaults(json!({
            "region": host.locality.region,
            "zone": host.locality.zone,
            "sub_zone": host.locality.sub_zone,
        })),
    }));
    if let Some(rate) = host.success_rate {
        status["success_rate"] = json!({ "value": rate });
    }
    if let Some(rate) = host.local_origin_success_rate {
        status["local_origin_success_rate"] = json!({ "value": rate });
    }
    status
}

fn address_json(address: &Address) -> Value {
    match address {
        Address::Socket(socket) => json!({
            "socket_address": {"address": socket.ip().to_string(), "port_value": socket.port()}
        }),
        Address::Pipe(path) => json!({"pipe": {"path": path.display().to_string()}}),
    }
}
