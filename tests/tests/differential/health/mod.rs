//! Health, side by side with the real Envoy: endpoints that come and go while they are checked, and
//! checks of the proxy itself.

mod members;
mod own;
mod server;

use serde_json::Value;

/// A health check, as YAML.
const CHECK: &str = "timeout: 100s
interval: 0.05s
no_traffic_interval: 0.05s
unhealthy_threshold: 2
healthy_threshold: 2
http_health_check: {path: /hc}";

/// `0: failed_active_health_check | attempt=3 failure=2 healthy=0 total=1`
fn state(name: &str, clusters: &Value, stats: &Value, metrics: &[(&str, &str)]) -> String {
    let all = clusters["cluster_statuses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let hosts = all.iter().find(|cluster| cluster["name"] == name);
    let hosts = hosts.and_then(|cluster| cluster["host_statuses"].as_array());
    let flags = |host: &Value| {
        let set = host["health_status"].as_object().into_iter().flatten();
        let mut names: Vec<String> =
            set.filter(|(_, value)| **value == true).map(|(name, _)| name.clone()).collect();
        let said = host["health_status"]["eds_health_status"].as_str().unwrap_or("HEALTHY");
        if said != "HEALTHY" {
            names.push(said.to_owned());
        }
        if names.is_empty() { "well".to_owned() } else { names.join("+") }
    };
    let hosts: Vec<String> = hosts.into_iter().flatten().map(flags).collect();
    let stats = stats["stats"].as_array().map(Vec::as_slice).unwrap_or_default();
    let value = |metric: &str| {
        let full = format!("cluster.{name}.{metric}");
        stats.iter().find(|stat| stat["name"] == full).and_then(|stat| stat["value"].as_u64())
    };
    let metrics: Vec<String> = metrics
        .iter()
        .filter_map(|(short, metric)| Some((short, value(metric).filter(|value| *value > 0)?)))
        .map(|(short, value)| format!("{short}={value}"))
        .collect();
    format!("{} | {}", hosts.join(", "), metrics.join(" "))
}
