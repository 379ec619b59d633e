//! The control plane itself.

use serde_json::{Value, json};

use super::{NAME, Settings, WEB_PORT, XDS_PORT, cluster_metadata, labels, metadata, selector};

const DATA_DIR: &str = "/var/lib/pillion";
/// User id of the control plane.
const UID: u32 = 1337;

/// The namespace. Its pods keep to the strictest of the Pod Security Standards.
pub(super) fn namespace(settings: &Settings) -> Value {
    let mut metadata = cluster_metadata(&settings.namespace);
    metadata["labels"]["pod-security.kubernetes.io/enforce"] = "restricted".into();
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
}

pub(super) fn manifests(settings: &Settings) -> Vec<Value> {
    vec![deployment(settings), service(settings), disruptions(settings), network(settings)]
}

fn service(settings: &Settings) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(settings, NAME),
        "spec": {
            "selector": selector(),
            "ports": [
                {"name": "grpc-xds", "port": XDS_PORT, "targetPort": "grpc-xds", "protocol": "TCP"},
                {"name": "https-web", "port": WEB_PORT, "targetPort": "https-web", "protocol": "TCP"},
            ],
        },
    })
}

fn disruptions(settings: &Settings) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(settings, NAME),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector()}},
    })
}

/// Sidecars are everywhere, and the API server and the kubelet have addresses that no selector names: the two ports are
/// open, and nothing else is.
fn network(settings: &Settings) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(settings, NAME),
        "spec": {
            "podSelector": {"matchLabels": selector()},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [
                {"port": XDS_PORT, "protocol": "TCP"},
                {"port": WEB_PORT, "protocol": "TCP"},
            ]}],
        },
    })
}

fn deployment(settings: &Settings) -> Value {
    let apart = json!({
        "weight": 100,
        "podAffinityTerm": {
            "labelSelector": {"matchLabels": selector()},
            "topologyKey": "kubernetes.io/hostname",
        },
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(settings, NAME),
        "spec": {
            "replicas": settings.replicas,
            "selector": {"matchLabels": selector()},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": labels()},
                "spec": {
                    "serviceAccountName": NAME,
                    "affinity": {"podAntiAffinity":
                        {"preferredDuringSchedulingIgnoredDuringExecution": [apart]}},
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container(settings)],
                    "volumes": [{"name": "data", "emptyDir": {"sizeLimit": "256Mi"}}],
                },
            },
        },
    })
}

fn container(settings: &Settings) -> Value {
    // The kubelet does not look at the certificate.
    let ask = |path: &str| json!({"path": path, "port": "https-web", "scheme": "HTTPS"});
    let from = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    json!({
        "name": "control-plane",
        "image": settings.image,
        "command": ["/pillion"],
        "args": arguments(settings),
        "env": [from("POD_NAME", "metadata.name"), from("POD_NAMESPACE", "metadata.namespace")],
        "ports": [
            {"name": "grpc-xds", "containerPort": XDS_PORT, "protocol": "TCP"},
            {"name": "https-web", "containerPort": WEB_PORT, "protocol": "TCP"},
        ],
        "startupProbe": {"httpGet": ask("/healthz"), "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {"httpGet": ask("/readyz"), "periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {"httpGet": ask("/healthz"), "periodSeconds": 10, "failureThreshold": 3},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "data", "mountPath": DATA_DIR}],
    })
}

/// The command line of a control plane on Kubernetes.
pub(super) fn arguments(settings: &Settings) -> Vec<String> {
    let host = format!("{NAME}.{}.svc", settings.namespace);
    let own = [
        "control-plane".to_owned(),
        "--kubernetes".to_owned(),
        "--address=0.0.0.0".to_owned(),
        format!("--data-dir={DATA_DIR}"),
        format!("--server-name={host}"),
        format!("--server-name={host}.cluster.local"),
        format!("--webhook-port={WEB_PORT}"),
        format!("--proxy-image={}", settings.proxy_image),
        format!("--redirect-image={}", settings.redirect_image),
        format!("--advertise={host}:{XDS_PORT}"),
        "--log-format=json".to_owned(),
    ];
    own.into()
}
