//! The same against a real kube-apiserver and etcd, where there are any.

use std::process::Command;

use pillion_tests::mesh::Mesh;
use pillion_tests::wait;
use serde_json::{Value, json};

use super::world::SHOP;
use crate::manifests::api_server::{ApiServer, TOKEN};
use crate::manifests::{pillion, python, script};

fn get(server: &ApiServer, path: &str) -> Option<Value> {
    let output = Command::new("curl")
        .args(["-sk", "-H", &format!("authorization: Bearer {TOKEN}")])
        .arg(format!("{}{path}", server.address))
        .output()
        .ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

#[tokio::test]
async fn a_real_api_server_is_read_and_written() -> anyhow::Result<()> {
    let Some(server) = ApiServer::find()? else { return Ok(()) };
    let image = [
        "install",
        "--image",
        "registry.example/pillion:1",
        "--proxy-image",
        "registry.example/proxy:1",
    ];
    let mut made = pillion(&image)?;
    made.retain(|one| one["kind"] == "Namespace" || one["kind"] == "CustomResourceDefinition");
    made.push(json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": SHOP, "labels": {"pillion.io/inject": "enabled"}}}));
    made.push(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "catalog", "namespace": SHOP},
        "spec": {"selector": {"app": "catalog"}, "ports": [{"name": "http", "port": 80}]}}));
    for (name, target) in [("good", "catalog"), ("bad", "nobody")] {
        made.push(json!({"apiVersion": "pillion.io/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": name, "namespace": SHOP},
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": target}],
                "timeout": {"request": "5s"}}}));
    }
    let asked = json!({
        "server": server.address, "token": TOKEN, "made": made, "taken": [], "refused": [],
    });
    assert_eq!(script(&python()?, "apply.py", &asked)?, json!([]), "{}", server.log());

    let kubeconfig = server.dir.path().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        // Made a moment ago, on loopback, by its own.
        "clusters": [{"name": "test", "cluster":
            {"server": server.address, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "test", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context":
            {"cluster": "test", "user": "test", "namespace": "pillion-system"}}],
    });
    std::fs::write(&kubeconfig, config.to_string())?;
    let mesh = Mesh::in_cluster(kubeconfig).await?;
    for (name, status) in [("good", "True"), ("bad", "False")] {
        let path = format!("/apis/pillion.io/v1alpha1/namespaces/{SHOP}/trafficpolicies/{name}");
        wait::until(&format!("{name} is Accepted: {status}"), || async {
            let policy = get(&server, &path)?;
            let conditions = policy["status"]["conditions"].as_array()?;
            let accepted = conditions.iter().find(|one| one["type"] == "Accepted")?;
            (accepted["status"] == status).then_some(())
        })
        .await?;
    }
    let path = format!("/api/v1/namespaces/{SHOP}/configmaps/pillion-ca-root");
    wait::until("the root is there", || async {
        get(&server, &path)?["data"]["root.pem"].as_str().map(drop)
    })
    .await?;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/pillion-system/leases/pillion-leader";
    assert!(get(&server, lease).is_some_and(|lease| lease["spec"]["holderIdentity"].is_string()));
    drop(mesh);
    Ok(())
}
