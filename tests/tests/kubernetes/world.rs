//! A cluster with a little shop in it.

use std::path::PathBuf;

use anyhow::Context;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::kubernetes::Kubernetes;
use pillion_tests::mesh::{Beside, Mesh, Sidecar};
use pillion_tests::wait;
use serde_json::{Value, json};

/// The namespace of everything.
pub(super) const SHOP: &str = "shop";

/// A cluster, a control plane that reads it, and `catalog` in two versions.
pub(super) struct World {
    pub(super) kubernetes: Kubernetes,
    pub(super) mesh: Mesh,
    pub(super) pods: Vec<Pod>,
}

/// A pod: the application, its sidecar, and the object.
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) sidecar: Sidecar,
    pub(super) app: Backend,
}

impl World {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let kubernetes = cluster().await?;
        let mesh = Mesh::in_cluster(kubernetes.kubeconfig()).await?;
        let mut world = Self { kubernetes, mesh, pods: Vec::new() };
        for version in ["v1", "v2"] {
            let pod = pod(&world.kubernetes, &world.mesh, version).await?;
            world.pods.push(pod);
        }
        Ok(world)
    }

    /// One that asks.
    pub(super) async fn client(&self) -> anyhow::Result<Sidecar> {
        let mut beside = Beside::client("shopper");
        beside.proof = Some(proof(&self.kubernetes, "shopper").await?);
        beside.more = vec!["--namespace".to_owned(), SHOP.to_owned()];
        self.mesh.sidecar(&beside).await
    }
}

/// The objects of the shop, without pods.
pub(super) async fn cluster() -> anyhow::Result<Kubernetes> {
    let kubernetes = Kubernetes::start().await?;
    for (name, labels) in
        [(SHOP, json!({"pillion.io/inject": "enabled"})), ("kube-system", json!({}))]
    {
        kubernetes.apply(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        }));
    }
    kubernetes.apply(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node", "labels": {
            "topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": "eu-1"}},
    }));
    kubernetes.apply(json!({
        "apiVersion": "pillion.io/v1alpha1", "kind": "Mesh",
        "metadata": {"name": "mesh", "namespace": "pillion-system"},
        "spec": {"trustDomain": "test.local", "mtls": "Strict", "outbound": "RegistryOnly"},
    }));
    kubernetes.apply(service("catalog", json!({"app": "catalog"})));
    for version in ["v1", "v2"] {
        let selector = json!({"app": "catalog", "version": version});
        kubernetes.apply(service(&format!("catalog-{version}"), selector));
    }
    kubernetes.apply(route(json!(1), json!(0)));
    Ok(kubernetes)
}

fn service(name: &str, selector: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": SHOP},
        "spec": {
            "type": "ClusterIP", "selector": selector, "clusterIP": "None", "ipFamilies": ["IPv4"],
            "ports": [{"name": "main", "port": 80, "targetPort": "main", "protocol": "TCP", "appProtocol": "http"}],
        },
    })
}

/// How requests for `catalog` are shared between its versions.
pub(super) fn route(v1: Value, v2: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "catalog", "namespace": SHOP},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "catalog", "port": 80}],
            "rules": [{"backendRefs": [
                {"group": "", "kind": "Service", "name": "catalog-v1", "port": 80, "weight": v1},
                {"group": "", "kind": "Service", "name": "catalog-v2", "port": 80, "weight": v2},
            ]}],
        },
    })
}

/// Starts the processes of a pod, and writes its object as the webhook and the kubelet would.
pub(super) async fn pod(
    kubernetes: &Kubernetes,
    mesh: &Mesh,
    version: &str,
) -> anyhow::Result<Pod> {
    let name = format!("catalog-{version}");
    let app = Backend::start(&name, Speaks::Http1).await?;
    let mut beside = Beside::new("catalog", version, app.address);
    beside.proof = Some(proof(kubernetes, "catalog").await?);
    beside.more = vec!["--namespace".to_owned(), SHOP.to_owned()];
    let sidecar = mesh.sidecar(&beside).await?;
    let pod = Pod { name, sidecar, app };
    kubernetes.apply(pod.object(version));
    pod.ready(kubernetes, true);
    Ok(pod)
}

impl Pod {
    fn object(&self, version: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name, "namespace": SHOP,
                "labels": {"app": "catalog", "version": version}},
            "spec": {
                "nodeName": "node", "serviceAccountName": "catalog",
                "initContainers": [{"name": "pillion-proxy", "restartPolicy": "Always",
                    "args": ["--inbound-port", self.sidecar.inbound.port().to_string()]}],
                "containers": [{"name": "app", "ports":
                    [{"name": "main", "containerPort": self.app.address.port(), "protocol": "TCP"}]}],
            },
        })
    }

    /// Says what the kubelet says of it.
    pub(super) fn ready(&self, kubernetes: &Kubernetes, ready: bool) {
        let is = if ready { "True" } else { "False" };
        kubernetes.set_status(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name, "namespace": SHOP},
            "status": {"phase": "Running", "podIP": "127.0.0.1",
                "conditions": [{"type": "Ready", "status": is}]},
        }));
    }
}

/// What the kubelet mounts into a pod of this service account: a token, and the root that the control plane left in
/// the namespace.
pub(super) async fn proof(
    kubernetes: &Kubernetes,
    account: &str,
) -> anyhow::Result<(PathBuf, PathBuf)> {
    let text = format!("eyJhbGciOiJub25lIn0.{account}.c2lnbmF0dXJl");
    kubernetes.token(&text, SHOP, account, &["pillion"]);
    let root = wait::until("the root is in the namespace", || async {
        let map = kubernetes.get("configmaps", SHOP, "pillion-ca-root")?;
        map["data"]["root.pem"].as_str().map(str::to_owned)
    });
    let root = root.await?;
    let paths = ["token", "root"].map(|what| kubernetes.dir().join(format!("{account}.{what}")));
    let [token, file] = paths;
    std::fs::write(&token, text)?;
    std::fs::write(&file, root)?;
    Ok((token, file))
}

/// Waits until a condition of the route says `status` of this generation; gives its message.
pub(super) async fn condition(
    kubernetes: &Kubernetes,
    kind: &str,
    (generation, status): (u64, &str),
) -> anyhow::Result<String> {
    let find = || async {
        let route = kubernetes.get("httproutes", SHOP, "catalog")?;
        let parents = route["status"]["parents"].as_array()?;
        let ours =
            parents.iter().find(|one| one["controllerName"] == "pillion.io/mesh-controller")?;
        let found = ours["conditions"].as_array()?.iter().find(|one| one["type"] == kind)?;
        let same = found["observedGeneration"] == generation && found["status"] == status;
        same.then(|| found["message"].as_str().unwrap_or_default().to_owned())
    };
    wait::until(&format!("{kind} is {status} for generation {generation}"), find)
        .await
        .with_context(|| {
            format!("{:#}", kubernetes.get("httproutes", SHOP, "catalog").unwrap_or_default())
        })
}
