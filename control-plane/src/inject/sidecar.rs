//! The containers and volumes that are added.

use serde_json::{Value, json};

use super::settings::Settings;
use super::{CONTAINER, HEALTH_PORT, Join, OUTBOUND_PORT, Options, PROXY_UID, REDIRECT_CONTAINER};
use crate::source::kubernetes::access::{ROOT_CONFIG_MAP, ROOT_KEY, TOKEN_AUDIENCE};

/// Where an image has the program.
const PROGRAM: &str = "/pillion-proxy";
const TOKEN_VOLUME: &str = "pillion-token";
const TOKEN_DIR: &str = "/var/run/secrets/pillion";
const TOKEN_FILE: &str = "/var/run/secrets/pillion/token";
/// Life of a service-account token; the kubelet replaces it in time.
const TOKEN_SECONDS: u64 = 3600;
const DATA_VOLUME: &str = "pillion-data";
const DATA_DIR: &str = "/var/lib/pillion";
/// What the redirect leaves alone by itself: SSH, metrics and health of the sidecar.
const NOT_INBOUND: &str = "22,15020,15021,15090";

/// Adds them: before all other init containers, so that those are in the mesh too.
pub(super) fn add(pod: &mut Value, settings: &Settings, probes: Option<Value>, options: &Options) {
    let sidecar = sidecar(pod, settings, probes, options);
    let spec = &mut pod["spec"];
    let redirect = settings.redirect.then(|| redirect(settings, options));
    let mut first: Vec<Value> = redirect.into_iter().chain([sidecar]).collect();
    first.append(list(spec, "initContainers"));
    spec["initContainers"] = first.into();
    list(spec, "volumes").extend([
        token_volume(&options.join),
        json!({"name": DATA_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
    ]);
    if !settings.redirect {
        for container in list(spec, "containers") {
            name_proxy(container);
        }
    }
}

fn token_volume(join: &Join) -> Value {
    match join {
        Join::Secret(name) => json!({"name": TOKEN_VOLUME, "secret": {
            "secretName": name,
            "items": [{"key": "join-token", "path": "token"}],
            "defaultMode": 0o444,
        }}),
        Join::ServiceAccount => json!({"name": TOKEN_VOLUME, "projected": {
            "sources": [
                {"serviceAccountToken":
                    {"audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap":
                    {"name": ROOT_CONFIG_MAP, "items": [{"key": ROOT_KEY, "path": ROOT_KEY}]}},
            ],
            "defaultMode": 0o444,
        }}),
    }
}

fn sidecar(pod: &Value, settings: &Settings, probes: Option<Value>, options: &Options) -> Value {
    let health = |path: &str| json!({"path": path, "port": HEALTH_PORT});
    let mut args = Vec::new();
    for (key, value) in pod["metadata"]["labels"].as_object().into_iter().flatten() {
        args.push("--label".to_owned());
        args.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    json!({
        "name": CONTAINER,
        "image": options.image,
        "restartPolicy": "Always",
        "command": [PROGRAM],
        "args": args,
        "env": environment(&pod["spec"], settings, probes, options),
        "ports": [{"name": "pillion-health", "containerPort": HEALTH_PORT, "protocol": "TCP"}],
        "startupProbe": {"httpGet": health("/healthz/ready"), "periodSeconds": 1, "failureThreshold": 600},
        "readinessProbe": {"httpGet": health("/healthz/ready"), "periodSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {"httpGet": health("/healthz/live"), "periodSeconds": 10, "failureThreshold": 3},
        // The kubelet calls it as soon as the pod is to go, though it stops the sidecar itself last.
        "lifecycle": {"preStop": {"exec": {"command": [PROGRAM, "leave"]}}},
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": PROXY_UID,
            "runAsGroup": PROXY_UID,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_DIR, "readOnly": true},
            {"name": DATA_VOLUME, "mountPath": DATA_DIR},
        ],
    })
}

fn environment(
    spec: &Value,
    settings: &Settings,
    probes: Option<Value>,
    options: &Options,
) -> Vec<Value> {
    let from = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let is = |name: &str, value: String| json!({"name": name, "value": value});
    let mut all = vec![
        from("PILLION_ADDRESS", "status.podIP"),
        from("PILLION_INSTANCE", "metadata.name"),
        from("PILLION_NAMESPACE", "metadata.namespace"),
        from("PILLION_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        is("PILLION_SERVICE", settings.service.clone()),
        is("PILLION_CONTROL_PLANE", options.control_plane.clone()),
        is("PILLION_TOKEN_FILE", TOKEN_FILE.to_owned()),
        is("PILLION_DATA_DIR", DATA_DIR.to_owned()),
        is("PILLION_HEALTH_PORT", HEALTH_PORT.to_string()),
        is("PILLION_INTERCEPTION", if settings.redirect { "redirect" } else { "none" }.to_owned()),
    ];
    if options.join == Join::ServiceAccount {
        all.push(is("PILLION_ROOT_CA_FILE", format!("{TOKEN_DIR}/{ROOT_KEY}")));
    }
    let mut ports = ports(spec);
    if !settings.redirect {
        // Without capture a sidecar serves one port.
        ports.truncate(1);
    }
    if !ports.is_empty() {
        all.push(is("PILLION_APP_PORT", ports.join(",")));
    }
    // Kubernetes expands $(NAME) in values, and takes $$ for a dollar.
    let text = |probes: Value| probes.to_string().replace('$', "$$");
    all.extend(probes.map(|probes| is("PILLION_APP_PROBES", text(probes))));
    all
}

/// TCP ports of the application, as `NAME=PORT` or `PORT`; the main one first.
fn ports(spec: &Value) -> Vec<String> {
    let containers = spec["containers"].as_array().into_iter().flatten();
    let ports = containers.flat_map(|one| one["ports"].as_array().into_iter().flatten());
    let tcp = ports.filter(|port| port["protocol"].as_str().is_none_or(|kind| kind == "TCP"));
    let text = |port: &Value| {
        let number = port["containerPort"].as_u64()?;
        Some(match port["name"].as_str() {
            // A workload's registration uses these two names itself.
            None | Some("app" | "inbound") => number.to_string(),
            Some(name) => format!("{name}={number}"),
        })
    };
    tcp.filter_map(text).collect()
}

fn redirect(settings: &Settings, options: &Options) -> Value {
    let inbound = match &settings.exclude_inbound_ports {
        Some(more) => format!("{NOT_INBOUND},{more}"),
        None => NOT_INBOUND.to_owned(),
    };
    let uid = PROXY_UID.to_string();
    let mut args = vec!["redirect", "--proxy-uid", &uid, "--exclude-inbound-ports", &inbound];
    if let Some(ports) = &settings.exclude_outbound_ports {
        args.extend(["--exclude-outbound-ports", ports]);
    }
    if let Some(networks) = &settings.exclude_outbound_cidrs {
        args.extend(["--exclude-cidrs", networks]);
    }
    json!({
        "name": REDIRECT_CONTAINER,
        "image": options.redirect_image.as_ref().unwrap_or(&options.image),
        "command": [PROGRAM],
        "args": args,
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"memory": "64Mi"},
        },
        "securityContext": {
            "runAsNonRoot": false,
            "runAsUser": 0,
            "runAsGroup": 0,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

/// Tells an application where its proxy is, unless it says that itself, in capital letters or small ones.
fn name_proxy(container: &mut Value) {
    let proxy = format!("http://127.0.0.1:{OUTBOUND_PORT}");
    let none = "localhost,127.0.0.1,::1";
    let env = list(container, "env");
    let own: Vec<String> =
        env.iter().filter_map(|one| one["name"].as_str()).map(str::to_ascii_lowercase).collect();
    for (name, value) in [
        ("HTTP_PROXY", proxy.as_str()),
        ("http_proxy", &proxy),
        ("NO_PROXY", none),
        ("no_proxy", none),
    ] {
        if !own.contains(&name.to_ascii_lowercase()) {
            env.push(json!({"name": name, "value": value}));
        }
    }
}

/// The list in this field, made if it is not there.
fn list<'a>(object: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    let value = &mut object[field];
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().expect("made a list above")
}
