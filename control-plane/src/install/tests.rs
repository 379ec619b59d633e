use std::collections::BTreeSet;

use super::*;
use crate::inject::emit;

fn settings() -> Settings {
    Settings {
        namespace: "mesh-system".to_owned(),
        image: "registry.example/pillion:1".to_owned(),
        proxy_image: "registry.example/pillion-proxy:1".to_owned(),
        redirect_image: "registry.example/pillion-redirect:1".to_owned(),
        replicas: 2.into(),
    }
}

fn of_kind<'a>(all: &'a [Value], kind: &str) -> &'a Value {
    let mut found = all.iter().filter(|one| one["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "several {kind}");
    one
}

/// What Helm makes of a template with these values; it knows what our templates use and no more.
fn rendered(template: &str, settings: &Settings, monitor: bool) -> Vec<Value> {
    let body = match template.strip_prefix("{{- if .Values.serviceMonitor }}\n") {
        Some(_) if !monitor => return Vec::new(),
        Some(rest) => rest.strip_suffix("{{- end }}\n").unwrap(),
        None => template,
    };
    let mut text = String::new();
    let mut rest = body;
    while let Some((before, after)) = rest.split_once("{{ ") {
        let (action, after) = after.split_once(" }}").unwrap();
        text.push_str(before);
        let value = action.rsplit(' ').next().unwrap();
        match value {
            ".Release.Namespace" => text.push_str(&settings.namespace),
            ".Values.image" => text.push_str(&settings.image),
            ".Values.proxyImage" => text.push_str(&settings.proxy_image),
            ".Values.redirectImage" => text.push_str(&settings.redirect_image),
            ".Values.replicas" => text.push_str(&settings.replicas.to_string()),
            other => panic!("{other} is not a value"),
        }
        rest = after;
    }
    text.push_str(rest);
    serde_saphyr::from_multiple(&text).unwrap()
}

#[test]
fn the_chart_is_the_same_as_what_is_printed() {
    let settings = settings();
    let files = helm::chart();
    let mut from_chart: Vec<Value> = Vec::new();
    for (name, text) in &files {
        match name.split_once('/') {
            Some(("crds", _)) => from_chart.push(serde_saphyr::from_str(text).unwrap()),
            Some(("templates", _)) => from_chart.extend(rendered(text, &settings, true)),
            _ => {}
        }
    }
    let mut printed = manifests(&settings);
    printed.push(service_monitor(&settings));
    printed.retain(|one| one["kind"] != "Namespace");
    let text = |all: &[Value]| all.iter().map(Value::to_string).collect::<BTreeSet<_>>();
    assert_eq!(text(&from_chart), text(&printed));
    assert!(rendered(&files["templates/service-monitor.yaml"], &settings, false).is_empty());
    let values: Value = serde_saphyr::from_str(&files["values.yaml"]).unwrap();
    assert_eq!(
        values,
        json!({"image": "", "proxyImage": "", "redirectImage": "", "replicas": 2, "serviceMonitor": false})
    );
}

#[test]
fn nothing_is_written_that_no_reader_reads_the_same() {
    for one in manifests(&settings()) {
        let read: Value = serde_saphyr::from_str(&emit::yaml(&one)).unwrap();
        assert_eq!(read, one);
    }
}

#[test]
fn the_webhook_cannot_take_the_cluster_down() {
    let all = manifests(&settings());
    let configuration = of_kind(&all, "MutatingWebhookConfiguration");
    let webhooks = configuration["webhooks"].as_array().unwrap();
    assert_eq!(webhooks.len(), 2);
    for webhook in webhooks {
        assert_eq!(webhook["failurePolicy"], "Ignore");
        assert_eq!(webhook["sideEffects"], "None");
        assert!(webhook["timeoutSeconds"].as_u64().unwrap() <= 5);
        let namespaces = webhook["namespaceSelector"]["matchExpressions"].as_array().unwrap();
        assert!(namespaces.contains(
            &json!({"key": "pillion.io/inject", "operator": "In", "values": ["enabled"]})
        ));
        let never = namespaces.iter().find(|one| one["key"] == "kubernetes.io/metadata.name");
        let never = &never.unwrap()["values"];
        for name in ["kube-system", "mesh-system"] {
            assert!(never.as_array().unwrap().contains(&name.into()), "{never}");
        }
        let service = &webhook["clientConfig"]["service"];
        let port = of_kind(&all, "Service")["spec"]["ports"][1]["port"].clone();
        assert_eq!((&service["namespace"], &service["port"]), (&"mesh-system".into(), &port));
    }
}

#[test]
fn the_roles_are_what_the_control_plane_does() {
    use crate::source::kubernetes::access::{ACCESS, Scope};
    let all = manifests(&settings());
    for (kind, scope) in [("ClusterRole", Scope::Cluster), ("Role", Scope::Own)] {
        let rules = of_kind(&all, kind)["rules"].as_array().unwrap();
        assert_eq!(rules.len(), ACCESS.iter().filter(|one| one.scope == scope).count());
        for rule in rules {
            let text = rule.to_string();
            assert!(!text.contains('*'), "{text}");
            let writes = ["patch", "update", "delete"].iter().any(|verb| text.contains(verb));
            // The Leases of our own namespace are all ours.
            let ours = scope == Scope::Own && rule["resources"] == serde_json::json!(["leases"]);
            let named = rule["resourceNames"].is_array() || text.contains("/status") || ours;
            assert!(!writes || named, "{text}");
        }
    }
}

#[test]
fn what_is_selected_is_what_there_is() {
    let all = manifests(&settings());
    let labels = &of_kind(&all, "Deployment")["spec"]["template"]["metadata"]["labels"];
    for place in [
        &of_kind(&all, "Deployment")["spec"]["selector"]["matchLabels"],
        &of_kind(&all, "Service")["spec"]["selector"],
        &of_kind(&all, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        &of_kind(&all, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ] {
        for (key, value) in place.as_object().unwrap() {
            assert_eq!(&labels[key], value, "{key}");
        }
    }
}
