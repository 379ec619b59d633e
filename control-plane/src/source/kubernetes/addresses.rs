//! Where a Gateway can be reached (Gateway API, `GatewayStatus.addresses`). Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kube::api::DynamicObject;
use serde::Deserialize;
use serde_json::{Value, json};

use super::pods::Pod;
use crate::intent::{GATEWAY_LABEL, Name};

/// Most addresses that a status may have (Gateway API, `GatewayStatus.addresses`).
const MAX_ADDRESSES: usize = 16;

/// What a Service says about where it can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Front {
    spec: Spec,
    status: Status,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    r#type: String,
    selector: Option<BTreeMap<String, String>>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    load_balancer: LoadBalancer,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Ingress {
    ip: Option<String>,
    hostname: Option<String>,
}

impl Front {
    /// One that cannot be read says nothing: that it is wrong is told where its ports are read.
    pub(super) fn read(object: &DynamicObject) -> Self {
        Self::deserialize(&object.data).unwrap_or_default()
    }

    fn selects(&self, pod: &Pod) -> bool {
        let selector = self.spec.selector.as_ref().filter(|selector| !selector.is_empty());
        selector
            .is_some_and(|all| all.iter().all(|(key, value)| pod.labels.get(key) == Some(value)))
    }

    /// Outside addresses, where it is to have some; else those inside.
    fn addresses(&self) -> Vec<String> {
        let ingress = self.status.load_balancer.ingress.iter().flatten();
        let outside = ingress.filter_map(|one| one.ip.clone().or_else(|| one.hostname.clone()));
        let external = self.spec.external_ips.iter().flatten().cloned();
        let outside: Vec<String> = outside.chain(external).collect();
        if self.spec.r#type == "LoadBalancer" || !outside.is_empty() {
            return outside;
        }
        let inside = match &self.spec.cluster_ips {
            Some(all) => all.clone(),
            None => self.spec.cluster_ip.iter().cloned().collect(),
        };
        inside.into_iter().filter(|one| one.parse::<IpAddr>().is_ok()).collect()
    }
}

/// The addresses of the Services in front of a Gateway's pods; or, if there is none with an address, of its ready pods.
pub(super) fn of(
    gateway: &Name,
    pods: &BTreeMap<Name, Pod>,
    fronts: &BTreeMap<Name, Front>,
) -> Vec<Value> {
    let is_here = |name: &Name| name.namespace == gateway.namespace;
    let own: Vec<&Pod> = pods
        .iter()
        .filter(|(name, pod)| is_here(name) && pod.labels.get(GATEWAY_LABEL) == Some(&gateway.name))
        .map(|(_, pod)| pod)
        .collect();
    let services: Vec<&Front> = fronts
        .iter()
        .filter(|(name, front)| is_here(name) && own.iter().any(|pod| front.selects(pod)))
        .map(|(_, front)| front)
        .collect();
    let headless =
        |front: &&Front| front.spec.r#type != "LoadBalancer" && front.addresses().is_empty();
    let of_pods = || own.iter().filter(|pod| pod.ready).filter_map(|pod| pod.address);
    let found: BTreeSet<String> = if services.iter().all(headless) {
        of_pods().map(|address| address.to_string()).collect()
    } else {
        services.iter().flat_map(|front| front.addresses()).collect()
    };
    found.into_iter().take(MAX_ADDRESSES).map(address).collect()
}

fn address(text: String) -> Value {
    let kind = if text.parse::<IpAddr>().is_ok() { "IPAddress" } else { "Hostname" };
    json!({"type": kind, "value": text})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ready: &str, address: &str) -> Pod {
        let object = json!({
            "metadata": {"name": "p", "labels": {"app": "front", GATEWAY_LABEL: "front"}},
            "status": {"phase": "Running", "podIP": address,
                "conditions": [{"type": "Ready", "status": ready}]},
        });
        Pod::read(serde_json::from_value(object).unwrap()).unwrap()
    }

    fn found(services: &[Value]) -> Vec<Value> {
        let pods =
            [("a", "True", "10.0.0.1"), ("b", "True", "fd00::2"), ("c", "False", "10.0.0.3")];
        let pods = pods.map(|(name, ready, ip)| (Name::new("edge", name), pod(ready, ip)));
        let front = |(index, service): (usize, &Value)| {
            let object: DynamicObject = serde_json::from_value(service.clone()).unwrap();
            (Name::new("edge", format!("s{index}")), Front::read(&object))
        };
        let fronts = services.iter().enumerate().map(front).collect();
        of(&Name::new("edge", "front"), &pods.into(), &fronts)
    }

    fn service(spec: Value, ingress: Value) -> Value {
        let mut spec = spec;
        spec["selector"] = json!({"app": "front"});
        json!({"metadata": {"name": "s"}, "spec": spec, "status": {"loadBalancer": ingress}})
    }

    #[test]
    fn the_addresses_of_the_services_in_front_count_first() {
        let balancer =
            |ingress| service(json!({"type": "LoadBalancer", "clusterIP": "10.96.0.1"}), ingress);
        let outside = balancer(json!({"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.test"}]}));
        let both = [
            json!({"type": "IPAddress", "value": "192.0.2.1"}),
            json!({"type": "Hostname", "value": "lb.test"}),
        ];
        assert_eq!(found(&[outside]), both);
        // Its address inside would be of no use to those outside.
        assert_eq!(found(&[balancer(json!({}))]), [Value::Null; 0]);
        let inside = service(
            json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.1", "fd00::1"]}),
            json!({}),
        );
        assert_eq!(found(&[inside])[1], json!({"type": "IPAddress", "value": "fd00::1"}));
        let other = json!({"metadata": {"name": "s"}, "spec":
            {"selector": {"app": "other"}, "clusterIP": "10.96.0.9"}});
        let of_pods = [
            json!({"type": "IPAddress", "value": "10.0.0.1"}),
            json!({"type": "IPAddress", "value": "fd00::2"}),
        ];
        assert_eq!(found(&[other]), of_pods);
        let headless = service(json!({"clusterIP": "None"}), json!({}));
        assert_eq!(found(&[headless]), of_pods);
    }
}
