//! A pod as a workload.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::api::DynamicObject;
use serde::Deserialize;
use serde_json::Value;

use crate::intent::{Locality, Name, Workload};

/// Name of the container that is our sidecar.
const SIDECAR: &str = "pillion-proxy";
/// Where a sidecar takes connections, unless its arguments say otherwise.
const INBOUND_PORT: u16 = 15006;

/// The pod's annotation for ports that are not redirected to its sidecar, as the webhook reads it.
const NOT_IN: &str = "pillion.io/exclude-inbound-ports";

/// What is kept of a pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pod {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) address: Option<IpAddr>,
    pub(super) service_account: String,
    pub(super) node: Option<String>,
    pub(super) ports: BTreeMap<String, u16>,
    pub(super) ready: bool,
    /// It has run to its end.
    pub(super) finished: bool,
    pub(super) sidecar: Option<Sidecar>,
    /// Ports that are not brought to the sidecar.
    pub(super) open_ports: Vec<(u16, u16)>,
}

/// What is known of a pod's sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sidecar {
    pub(super) port: u16,
    pub(super) captured: bool,
}

impl Pod {
    /// # Errors
    /// It is not what a pod looks like.
    pub(super) fn read(object: DynamicObject) -> Result<Self, serde_json::Error> {
        let leaving = object.metadata.deletion_timestamp.is_some();
        let annotations = object.metadata.annotations.unwrap_or_default();
        let open = annotations.get(NOT_IN).map(|text| ranges(text)).unwrap_or_default();
        let raw: Raw = serde_json::from_value(object.data)?;
        let ready = raw.status.conditions.iter().any(|one| one.kind == "Ready" && one.is_true());
        let phase = raw.status.phase.as_str();
        Ok(Self {
            labels: object.metadata.labels.unwrap_or_default(),
            address: raw.status.pod_ip.and_then(|address| address.parse().ok()),
            ports: ports(&raw.spec.containers),
            sidecar: sidecar(&raw.spec),
            open_ports: open,
            service_account: raw.spec.service_account_name.unwrap_or_else(|| "default".to_owned()),
            node: raw.spec.node_name,
            ready: ready && phase == "Running" && !leaving,
            finished: matches!(phase, "Succeeded" | "Failed"),
        })
    }

    /// `None` while it has no address, and when it has ended. `service` is one that names the pod without selecting
    /// it by label.
    pub(super) fn workload(
        &self,
        name: &Name,
        service: Option<&String>,
        locality: Locality,
    ) -> Option<Workload> {
        let address = self.address.filter(|_| !self.finished)?;
        Some(Workload {
            name: name.clone(),
            labels: self.labels.clone(),
            service: service.cloned(),
            address,
            ports: self.ports.clone(),
            app_port: None,
            service_account: self.service_account.clone(),
            locality,
            weight: 1,
            ready: self.ready,
            sidecar_port: self.sidecar.map(|sidecar| sidecar.port),
            captured: self.sidecar.is_some_and(|sidecar| sidecar.captured),
            open_ports: self.open_ports.clone(),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    spec: RawSpec,
    status: RawStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    node_name: Option<String>,
    service_account_name: Option<String>,
    init_containers: Vec<RawContainer>,
    containers: Vec<RawContainer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawContainer {
    name: String,
    command: Vec<String>,
    args: Vec<String>,
    env: Vec<RawVariable>,
    ports: Vec<RawPort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawVariable {
    name: String,
    value: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPort {
    name: Option<String>,
    container_port: u16,
    protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Vec<RawCondition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: Value,
}

impl RawCondition {
    fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// `9000,9100-9200`; what cannot be read, no webhook would have let pass.
fn ranges(text: &str) -> Vec<(u16, u16)> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    text.split(',').filter_map(range).collect()
}

/// TCP ports of the application, by name; those without one by number.
fn ports(containers: &[RawContainer]) -> BTreeMap<String, u16> {
    let all = containers.iter().filter(|one| one.name != SIDECAR).flat_map(|one| &one.ports);
    let tcp = all.filter(|port| port.protocol.as_deref().is_none_or(|kind| kind == "TCP"));
    let named = tcp.map(|port| {
        let name = port.name.clone();
        (name.unwrap_or_else(|| format!("port-{}", port.container_port)), port.container_port)
    });
    named.collect()
}

fn sidecar(spec: &RawSpec) -> Option<Sidecar> {
    let mut containers = spec.init_containers.iter().chain(&spec.containers);
    let container = containers.find(|container| container.name == SIDECAR)?;
    let flag = |name: &str| {
        let words: Vec<&String> = container.command.iter().chain(&container.args).collect();
        words.iter().enumerate().find_map(|(at, word)| {
            let rest = word.strip_prefix(name)?;
            match rest.strip_prefix('=') {
                Some(value) => Some(value.to_owned()),
                None if rest.is_empty() => words.get(at + 1).map(|value| (*value).clone()),
                None => None,
            }
        })
    };
    let variable = |name: &str| {
        container.env.iter().find(|one| one.name == name).and_then(|one| one.value.clone())
    };
    let interception = flag("--interception").or_else(|| variable("PILLION_INTERCEPTION"));
    let port = flag("--inbound-port").and_then(|port| port.parse().ok());
    Some(Sidecar {
        port: port.unwrap_or(INBOUND_PORT),
        captured: interception.is_some_and(|how| how != "none"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: Value, status: Value) -> Pod {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "shop", "labels": {"app": "a"}},
            "spec": spec, "status": status,
        });
        Pod::read(serde_json::from_value(object).unwrap()).unwrap()
    }

    fn ready() -> Value {
        json!({"phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]})
    }

    #[test]
    fn a_pod_with_a_sidecar_is_a_workload() {
        let spec = json!({
            "nodeName": "n", "serviceAccountName": "catalog",
            "initContainers": [{"name": "pillion-proxy", "env": [
                {"name": "PILLION_ADDRESS", "valueFrom": {}},
                {"name": "PILLION_INTERCEPTION", "value": "redirect"},
            ]}],
            "containers": [{"name": "app", "ports": [
                {"name": "http", "containerPort": 8080}, {"containerPort": 9000},
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            ]}],
        });
        let found = pod(spec, ready());
        let workload = found.workload(&Name::new("shop", "a"), None, Locality::default()).unwrap();
        assert_eq!(workload.sidecar_port, Some(15006));
        assert!(workload.captured && workload.ready);
        assert_eq!(workload.ports, [("http".into(), 8080), ("port-9000".into(), 9000)].into());
        assert_eq!(workload.service_account, "catalog");
    }

    #[test]
    fn ports_may_lead_past_the_sidecar() {
        let mut object: DynamicObject = serde_json::from_value(json!({
            "metadata": {"name": "a", "annotations": {NOT_IN: "9000, 9100-9200"}},
            "spec": {"containers": [{"name": "pillion-proxy", "env": [
                {"name": "PILLION_INTERCEPTION", "value": "redirect"}]}]},
            "status": ready(),
        }))
        .unwrap();
        let workload = |object: &DynamicObject| {
            let pod = Pod::read(object.clone()).unwrap();
            pod.workload(&Name::new("shop", "a"), None, Locality::default()).unwrap()
        };
        let open = workload(&object);
        let ports = [8999, 9000, 9001, 9100, 9200, 9201].map(|port| open.is_open(port));
        assert_eq!(ports, [false, true, false, true, true, false]);
        // Without capture nothing leads to the sidecar but what names it.
        object.data["spec"]["containers"][0]["env"] = json!([]);
        assert!(!workload(&object).is_open(9000));
    }

    #[test]
    fn the_sidecars_own_arguments_count() {
        let container =
            |args: Value| json!({"containers": [{"name": "pillion-proxy", "args": args}]});
        let port = |args| pod(container(args), ready()).sidecar.unwrap().port;
        assert_eq!(port(json!(["--inbound-port", "7000"])), 7000);
        assert_eq!(port(json!(["--label", "a=b", "--inbound-port=7001"])), 7001);
        assert_eq!(port(json!(["--inbound-portal", "1"])), 15006);
    }

    #[test]
    fn pods_that_wait_leave_or_ended_take_no_traffic() {
        let name = Name::new("shop", "a");
        let waiting = pod(json!({}), json!({"phase": "Pending"}));
        assert_eq!(waiting.workload(&name, None, Locality::default()), None);
        let mut status = ready();
        status["conditions"][0]["status"] = json!("False");
        assert!(!pod(json!({}), status.clone()).ready);
        status["phase"] = json!("Succeeded");
        let ended = pod(json!({}), status);
        assert_eq!(ended.workload(&name, None, Locality::default()), None);
        let mut object: DynamicObject = serde_json::from_value(json!({
            "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": ready(),
        }))
        .unwrap();
        assert!(!Pod::read(object.clone()).unwrap().ready);
        object.metadata.deletion_timestamp = None;
        assert!(Pod::read(object).unwrap().ready);
    }
}
