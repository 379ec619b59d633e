//! The kubelet has no certificate, and so cannot ask an application behind a strict sidecar. Its questions go to the
//! sidecar's health port, which passes them on.

use serde_json::{Map, Value, json};

use super::HEALTH_PORT;

const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")];
/// The kubelet's own default.
const TIMEOUT_SECONDS: u64 = 1;
/// A hook has no time limit of its own but the pod's grace period; this is as long as that is by default.
const HOOK_TIMEOUT_SECONDS: u64 = 30;

/// Turns the probes of all containers to the health port. Returns what it shall ask, if anything.
pub(super) fn rewrite(spec: &mut Value) -> Result<Option<Value>, String> {
    let mut found = Map::new();
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            let ports = container["ports"].clone();
            for (field, short) in PROBES {
                let Some(probe) = container.get_mut(field) else { continue };
                let seconds = probe["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS).max(1);
                turn(probe, &format!("{name}/{short}"), &ports, seconds, &mut found)
                    .map_err(|error| format!("container {name}: {field}: {error}"))?;
            }
            for hook in ["postStart", "preStop"] {
                let Some(handler) = container.pointer_mut(&format!("/lifecycle/{hook}")) else {
                    continue;
                };
                turn(handler, &format!("{name}/{hook}"), &ports, HOOK_TIMEOUT_SECONDS, &mut found)
                    .map_err(|error| format!("container {name}: lifecycle.{hook}: {error}"))?;
            }
        }
    }
    Ok((!found.is_empty()).then_some(Value::Object(found)))
}

fn turn(
    probe: &mut Value,
    path: &str,
    ports: &Value,
    seconds: u64,
    found: &mut Map<String, Value>,
) -> Result<(), String> {
    let Some(fields) = probe.as_object_mut() else { return Ok(()) };
    let kind = ["httpGet", "tcpSocket", "grpc"].into_iter().find(|kind| fields.contains_key(*kind));
    let Some(kind) = kind else { return Ok(()) };
    let asked = &fields[kind];
    // Somebody else is asked, and that stays so.
    if asked["host"].as_str().is_some_and(|host| !host.is_empty()) {
        return Ok(());
    }
    let port = number(&asked["port"], ports)?;
    let target = match kind {
        "httpGet" => {
            let https = asked["scheme"].as_str().is_some_and(|s| s.eq_ignore_ascii_case("HTTPS"));
            let headers: Vec<[&Value; 2]> = asked["httpHeaders"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|header| [&header["name"], &header["value"]])
                .collect();
            let path = match asked["path"].as_str() {
                Some(path) if path.starts_with('/') => path.to_owned(),
                path => format!("/{}", path.unwrap_or_default()),
            };
            let mut target = json!({"port": port, "path": path, "headers": headers});
            if https {
                target["https"] = true.into();
            }
            json!({"httpGet": target})
        }
        "grpc" => {
            let service = asked["service"].as_str().unwrap_or_default();
            json!({"grpc": {"port": port, "service": service}})
        }
        _ => json!({"tcpSocket": {"port": port}}),
    };
    found.insert(path.to_owned(), json!({"timeoutSeconds": seconds, "target": target}));
    fields.remove(kind);
    let path = format!("/app-health/{path}");
    fields.insert("httpGet".to_owned(), json!({"path": path, "port": HEALTH_PORT}));
    Ok(())
}

fn number(port: &Value, ports: &Value) -> Result<u16, String> {
    let port = match port.as_str() {
        None => port,
        Some(name) => {
            let mut ports = ports.as_array().into_iter().flatten();
            let found = ports.find(|port| port["name"] == name);
            &found.ok_or_else(|| format!("port: the container has no port named `{name}`"))?["containerPort"]
        }
    };
    let number = port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    number
        .ok_or_else(|| "port: expected a number from 1 to 65535, or the name of a port".to_owned())
}
