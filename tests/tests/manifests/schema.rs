//! The strict schemas of Kubernetes.

use std::fs;

use pillion_tests::venv::optional;
use serde_json::{Value, json};

use super::{documents, pillion, python, repository, script};

const INSTALL: [&str; 5] = [
    "install",
    "--image",
    "registry.example/pillion:1",
    "--proxy-image",
    "registry.example/proxy:1",
];

/// Every workload kind, with what an injected pod can have.
fn workloads() -> Vec<Value> {
    let pod = json!({
        "metadata": {"labels": {"app": "a"}},
        "spec": {
            "restartPolicy": "OnFailure",
            "containers": [{
                "name": "a", "image": "a:1",
                "ports": [{"name": "http", "containerPort": 8080}],
                "livenessProbe": {"httpGet": {"port": "http", "path": "/live", "scheme": "HTTPS"}},
                "readinessProbe": {"grpc": {"port": 8080}},
                "startupProbe": {"tcpSocket": {"port": "http"}},
                "lifecycle": {"preStop": {"httpGet": {"port": 8080, "path": "/bye"}}},
            }],
        },
    });
    let mut named = pod.clone();
    named["metadata"]["annotations"] = json!({"pillion.io/capture": "none"});
    let mut alone = pod.clone();
    alone["apiVersion"] = "v1".into();
    alone["kind"] = "Pod".into();
    alone["metadata"]["name"] = "a".into();
    let labels = json!({"matchLabels": {"app": "a"}});
    let of = |version: &str, kind: &str, spec: Value| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": spec});
    let mut always = named.clone();
    always["spec"]["restartPolicy"] = "Always".into();
    vec![
        alone,
        of("apps/v1", "Deployment", json!({"selector": labels, "template": always})),
        of("apps/v1", "DaemonSet", json!({"selector": labels, "template": always})),
        of(
            "apps/v1",
            "StatefulSet",
            json!({"selector": labels, "serviceName": "a", "template": always}),
        ),
        of("batch/v1", "Job", json!({"template": pod})),
        of(
            "batch/v1",
            "CronJob",
            json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": named}}}),
        ),
    ]
}

fn everything() -> anyhow::Result<Vec<Value>> {
    let mut all = pillion(&INSTALL)?;
    all.extend(pillion(&["install", "--crds-only"])?);
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("workloads.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": workloads()});
    fs::write(&file, list.to_string())?;
    let (file, example) =
        (file.display().to_string(), repository().join("examples/kubernetes/shop.yaml"));
    let example = example.display().to_string();
    for secret in [&["--token-secret", "a"][..], &[]] {
        for file in [&file, &example] {
            let mut args = vec!["inject", "--image", "registry.example/proxy:1", "-f", file];
            args.extend(secret);
            for printed in pillion(&args)? {
                match printed["items"].as_array() {
                    Some(items) => all.extend(items.iter().cloned()),
                    None => all.push(printed),
                }
            }
        }
    }
    for entry in fs::read_dir(repository().join("examples/kubernetes"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "yaml") {
            all.extend(documents(&fs::read_to_string(&path)?)?);
        }
    }
    // These have definitions that are not Kubernetes' own; other tests are for them.
    all.retain(|one| {
        let version = one["apiVersion"].as_str().unwrap_or_default();
        version != "pillion.io/v1alpha1" && !version.starts_with("gateway.networking.k8s.io/")
    });
    Ok(all)
}

#[test]
fn every_manifest_is_right_for_every_version_of_kubernetes() -> anyhow::Result<()> {
    let Some(venv) = optional("the schemas of Kubernetes", python())? else { return Ok(()) };
    let mut all = everything()?;
    let count = all.len();
    assert!(count > 30, "only {count} manifests");
    // Two that are wrong, so that it is known that this would be seen.
    let mut typo = all.iter().find(|one| one["kind"] == "Deployment").cloned().unwrap_or_default();
    typo["spec"]["template"]["spec"]["containers"][0]["imagePulPolicy"] = "Always".into();
    let mut number = all.iter().find(|one| one["kind"] == "Service").cloned().unwrap_or_default();
    number["spec"]["ports"][0]["port"] = "many".into();
    all.extend([typo, number]);
    let found = script(&venv, "check.py", &json!({"manifests": all}))?;
    for (index, (one, wrong)) in all.iter().zip(found.as_array().into_iter().flatten()).enumerate()
    {
        let fine = wrong.as_array().is_some_and(Vec::is_empty);
        let text = serde_json::to_string_pretty(one)?;
        assert_eq!(fine, index < count, "{wrong}\n{text}");
    }
    Ok(())
}

/// There is no schema of it here; its fields are few.
#[test]
fn the_service_monitor_asks_the_service() -> anyhow::Result<()> {
    let args: Vec<&str> = INSTALL.into_iter().chain(["--service-monitor"]).collect();
    let all = pillion(&args)?;
    let one = |kind: &str| all.iter().find(|one| one["kind"] == kind).cloned().unwrap_or_default();
    let (monitor, service) = (one("ServiceMonitor"), one("Service"));
    let port = &monitor["spec"]["endpoints"][0]["port"];
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    assert!(ports.iter().any(|known| known["name"] == *port), "{port} is no port of {ports:?}");
    let wanted = &monitor["spec"]["selector"]["matchLabels"];
    for (label, value) in wanted.as_object().into_iter().flatten() {
        assert_eq!(&service["metadata"]["labels"][label], value, "{label}");
    }
    assert_eq!(monitor["spec"]["endpoints"][0]["scheme"], "https");
    Ok(())
}
