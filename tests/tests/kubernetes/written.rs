//! What the control plane writes, looked at by the strict schemas of Kubernetes and by those of our own kinds.

use pillion_tests::venv::optional;
use pillion_tests::wait;
use serde_json::{Value, json};

use super::world::{SHOP, World, condition};
use crate::manifests::{pillion, python, script};

const IMAGES: [&str; 5] =
    ["install", "--image", "registry.example/a:1", "--proxy-image", "registry.example/b:1"];

/// As a client would send it: what the API server notes down for itself belongs to it.
fn sent(mut object: Value) -> Value {
    for field in ["managedFields", "generation", "resourceVersion", "creationTimestamp"] {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove(field);
        }
    }
    object
}

#[tokio::test]
async fn what_is_written_is_right_by_the_schemas() -> anyhow::Result<()> {
    let Some(venv) = optional("the schemas of Kubernetes", python())? else { return Ok(()) };
    let installed = pillion(&IMAGES)?;
    let world = World::start().await?;
    let kubernetes = &world.kubernetes;
    let webhook = installed.iter().find(|one| one["kind"] == "MutatingWebhookConfiguration");
    kubernetes.apply(webhook.cloned().unwrap_or_default());
    kubernetes.apply(json!({
        "apiVersion": "pillion.io/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "catalog", "namespace": SHOP},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "catalog"}]},
    }));
    condition(kubernetes, "Accepted", (1, "True")).await?;
    // The leader looks at the webhook once a minute, and at namespaces when there are new ones.
    kubernetes.apply(json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "late", "labels": {"pillion.io/inject": "enabled"}}}));
    let written = |kind: &str| kubernetes.written().into_iter().find(|one| one["kind"] == kind);
    for kind in ["Secret", "ConfigMap", "Lease", "Mesh", "TrafficPolicy", "HTTPRoute"] {
        wait::until(&format!("a {kind} is written"), || async { written(kind) }).await?;
    }

    let own = |one: &Value| one["apiVersion"] == "pillion.io/v1alpha1";
    let gateway = |one: &Value| {
        one["apiVersion"].as_str().is_some_and(|text| text.starts_with("gateway.networking."))
    };
    let all: Vec<Value> = kubernetes.written().into_iter().map(sent).collect();
    let builtin: Vec<Value> =
        all.iter().filter(|one| !own(one) && !gateway(one)).cloned().collect();
    let found = script(&venv, "check.py", &json!({"manifests": builtin}))?;
    for (one, wrong) in builtin.iter().zip(found.as_array().into_iter().flatten()) {
        assert_eq!(*wrong, json!([]), "{:#}", one["metadata"]);
    }
    let schemas: serde_json::Map<String, Value> = installed
        .iter()
        .filter(|one| one["kind"] == "CustomResourceDefinition")
        .filter_map(|one| {
            let schema = &one["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            // What is written is the status; that it stands where the specification is looked for serves the script.
            let status = json!({"properties": {"spec": schema["properties"]["status"]}});
            Some((one["spec"]["names"]["kind"].as_str()?.to_owned(), status))
        })
        .collect();
    let mut said: Vec<Value> = all
        .iter()
        .filter(|one| own(one) && one["status"].is_object())
        .map(|one| json!({"kind": one["kind"], "spec": one["status"]}))
        .collect();
    assert!(said.len() >= 2, "{said:?}");
    let mut odd = said[0].clone();
    odd["spec"]["unheardOf"] = true.into();
    said.push(odd);
    let found = script(&venv, "check.py", &json!({"schemas": schemas, "documents": said}))?;
    for (index, (one, wrong)) in said.iter().zip(found.as_array().into_iter().flatten()).enumerate()
    {
        let fine = wrong.as_array().is_some_and(Vec::is_empty);
        assert_eq!(fine, index + 1 < said.len(), "{wrong}\n{one:#}");
    }
    Ok(())
}
