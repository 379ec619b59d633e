//! What the proxy itself would say: intent is compiled for one sidecar of each service and for each
//! gateway, and every resource goes through the very code that a proxy takes it with.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use pillion_proxy::xds::translate::{self, Refused};

use super::gateway::kind_of;
use crate::compile::{Certificates, GatewayProxy, Node, NodeKind, Sidecar, World};
use crate::intent::{Intent, Parsed, Problem, Severity};
use crate::map::Map;

/// The usual ports of a sidecar, which is enough to compile for one.
const INBOUND: u16 = 15006;
const OUTBOUND: u16 = 15001;

/// What compiling finds, and what a proxy would refuse.
pub(super) fn problems(parsed: &Parsed) -> Vec<Problem> {
    let world = World::new(Arc::new(parsed.intent.clone()), Map::new());
    let mut all = world.problems().to_vec();
    let mut seen = HashSet::new();
    for node in nodes(&parsed.intent) {
        for resource in world.for_node(&node).iter() {
            if !seen.insert((resource.kind, resource.version)) {
                continue;
            }
            let kind = kind_of(resource.kind);
            if let (_, Err(refused)) = translate::resource(kind, &resource.body) {
                let text = format!("a proxy refuses {kind} `{}`: {}", resource.name, why(&refused));
                all.push(Problem::of_file(Severity::Error, "", text));
            }
        }
    }
    all
}

fn why(refused: &[Refused]) -> String {
    refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn nodes(intent: &Intent) -> Vec<Node> {
    let sidecars = intent.services.iter().map(|(name, service)| {
        let port = service.ports.first().map_or(8080, |port| port.port);
        let sidecar = Sidecar {
            inbound: Some((IpAddr::V4(Ipv4Addr::LOCALHOST), INBOUND)),
            app_port: Some(port),
            outbound_port: Some(OUTBOUND),
            ..Sidecar::alone(Certificates::Own)
        };
        Node {
            id: format!("check-{name}"),
            namespace: name.namespace.clone(),
            service: Some(name.name.clone()),
            service_account: None,
            instance: None,
            labels: BTreeMap::new(),
            kind: NodeKind::Sidecar(Box::new(sidecar)),
        }
    });
    let gateways = intent.gateways.keys().map(|name| {
        Node::of_gateway(GatewayProxy {
            gateway: Some(name.clone()),
            proxy: Sidecar::alone(Certificates::Own),
            certificate_dir: None,
            is_here: false,
            inbound: None,
        })
    });
    sidecars.chain(gateways).collect()
}
