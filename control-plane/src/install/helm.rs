//! The same manifests as a Helm chart: settings become values, and nothing else is different.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Settings, crds, namespaced, service_monitor};
use crate::inject::emit;

const REPLICAS: &str = "{{ .Values.replicas }}";

/// Files of the chart: path in its folder, and text.
#[must_use]
pub fn chart() -> BTreeMap<String, String> {
    let settings = Settings {
        namespace: "{{ .Release.Namespace }}".to_owned(),
        image: "{{ required `image: expected the image of the control plane` .Values.image }}"
            .to_owned(),
        proxy_image:
            "{{ required `proxyImage: expected the image of the sidecars` .Values.proxyImage }}"
                .to_owned(),
        redirect_image: "{{ .Values.redirectImage }}".to_owned(),
        replicas: REPLICAS.into(),
    };
    let mut files = BTreeMap::from([
        ("Chart.yaml".to_owned(), about()),
        ("values.yaml".to_owned(), VALUES.to_owned()),
    ]);
    for crd in crds() {
        let name = crd["spec"]["names"]["plural"].as_str().unwrap_or_default();
        files.insert(format!("crds/{name}.yaml"), emit::yaml(&crd));
    }
    let all: Vec<String> = namespaced(&settings).iter().map(emit::yaml).collect();
    let all = all.join("---\n").replace(&format!("\"{REPLICAS}\""), REPLICAS);
    files.insert("templates/control-plane.yaml".to_owned(), all);
    let monitor = emit::yaml(&service_monitor(&settings));
    files.insert(
        "templates/service-monitor.yaml".to_owned(),
        format!("{{{{- if .Values.serviceMonitor }}}}\n{monitor}{{{{- end }}}}\n"),
    );
    files
}

fn about() -> String {
    emit::yaml(&json!({
        "apiVersion": "v2",
        "name": "pillion",
        "description": env!("CARGO_PKG_DESCRIPTION"),
        "type": "application",
        "version": env!("CARGO_PKG_VERSION"),
        "appVersion": env!("CARGO_PKG_VERSION"),
        "kubeVersion": ">=1.29.0-0",
    }))
}

const VALUES: &str = "\
# Image of the control plane, as `pillion image` makes it. Needed.
image: \"\"
# Image of the sidecars, likewise. Needed.
proxyImage: \"\"
# Image of the containers that redirect connections: that of the sidecars, with `nft`. Empty: the same image.
redirectImage: \"\"
# How many control planes.
replicas: 2
# Metrics for the Prometheus Operator.
serviceMonitor: false
";
