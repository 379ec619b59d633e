//! Which objects of people's a proxy speaks of when it refuses a resource, or when a resource is held back because it
//! would be refused.

use std::collections::BTreeSet;

use crate::compile::{self, NodeKind};
use crate::intent::{Intent, Kind, Name, ObjectId, RouteKind, Target};
use crate::snapshot::{ResourceSet, ResourceType};
use crate::source::kubernetes::feedback::Feedback;
use crate::xds::StreamView;

/// Adds what a stream says.
pub(crate) fn add(world: &compile::World, stream: &StreamView, found: &mut Feedback) {
    let Some(node) = stream.node.as_deref().and_then(|node| compile::Node::parse(node).ok()) else {
        return;
    };
    let intent = world.intent();
    if let NodeKind::Gateway(proxy) = &node.kind {
        let run = intent.gateways.values().filter(|gateway| {
            gateway.is_ours() && proxy.gateway.as_ref().is_none_or(|name| *name == gateway.name)
        });
        for gateway in run {
            *found.gateways.entry(gateway.name.to_string()).or_default() += 1;
        }
    }
    let refused = stream.types.iter().filter_map(|of| Some((of.kind, of.error.as_deref()?)));
    let refused: Vec<(ResourceType, &str)> = refused.collect();
    if refused.is_empty() && stream.refusals.is_empty() {
        return;
    }
    let set = world.for_node(&node);
    let mut note = |kind, name: &str, text: &str| {
        for object in objects(intent, (&set, kind), name, text) {
            found.refuse(&object, stream.node_id(), text);
        }
    };
    for (kind, text) in refused {
        for name in named(&set, kind, text) {
            note(kind, &name, text);
        }
    }
    for refusal in &stream.refusals {
        note(refusal.kind, &refusal.name, &refusal.reason);
    }
}

/// The resources that a refusal speaks of: those that it names, or all of the type where it names none.
fn named(set: &ResourceSet, kind: ResourceType, text: &str) -> Vec<String> {
    let all = set.iter().filter(|one| one.kind == kind).map(|one| one.name.to_string());
    let (named, others): (Vec<_>, Vec<_>) = all.partition(|name| text.contains(name.as_str()));
    if named.is_empty() { others } else { named }
}

/// What a resource was made of.
fn objects(
    intent: &Intent,
    (set, kind): (&ResourceSet, ResourceType),
    name: &str,
    text: &str,
) -> Vec<ObjectId> {
    match kind {
        ResourceType::Listener => gateway(intent, name).into_iter().collect(),
        ResourceType::Route => {
            let resource = set.get(kind, name);
            let names = resource.map(|one| compile::route_names(&one.body)).unwrap_or_default();
            let found = of_routes(intent, &names, text);
            if found.is_empty() { gateway(intent, name).into_iter().collect() } else { found }
        }
        ResourceType::Cluster => of_cluster(intent, name).into_iter().collect(),
        ResourceType::Secret => of_certificate(intent, name),
        ResourceType::Endpoint => Vec::new(),
    }
}

/// `gateway|NAMESPACE/NAME|…`
fn gateway(intent: &Intent, resource: &str) -> Option<ObjectId> {
    let name = resource.strip_prefix("gateway|")?.split('|').next()?;
    let (namespace, name) = name.split_once('/')?;
    let name = Name::new(namespace, name);
    intent.gateways.contains_key(&name).then_some(ObjectId { kind: Kind::Gateway, name })
}

/// The routes that the text points at (`virtual_hosts[1].routes[0]`) or names; all, if it does neither.
fn of_routes(intent: &Intent, hosts: &[Vec<String>], text: &str) -> Vec<ObjectId> {
    let mut all = BTreeSet::new();
    let mut meant = BTreeSet::new();
    for (at, host) in hosts.iter().enumerate() {
        for (index, route) in host.iter().enumerate() {
            let Some(id) = of_route(intent, route) else { continue };
            let path = format!("virtual_hosts[{at}].routes[{index}]");
            if text.contains(&path) || text.contains(route.as_str()) {
                meant.insert(id.clone());
            }
            all.insert(id);
        }
    }
    if meant.is_empty() { all } else { meant }.into_iter().collect()
}

/// Routes are named `NAMESPACE/NAME/RULE`.
fn of_route(intent: &Intent, route: &str) -> Option<ObjectId> {
    let mut parts = route.splitn(3, '/');
    let name = Name::new(parts.next()?, parts.next()?);
    parts.next()?;
    [RouteKind::Http, RouteKind::Grpc].into_iter().find_map(|kind| {
        let exists = intent.routes.contains_key(&(kind, name.clone()));
        exists.then(|| ObjectId { kind: kind.kind(), name: name.clone() })
    })
}

/// The policy on the service that a cluster is of: what else could be wrong with it, people did not write.
fn of_cluster(intent: &Intent, cluster: &str) -> Option<ObjectId> {
    let (host, _) = cluster.rsplit_once(':')?;
    let (service, namespace) = host.rsplit_once('.')?;
    let policy = intent.policies.get(&Target::Service(Name::new(namespace, service)))?;
    Some(ObjectId { kind: Kind::TrafficPolicy, name: policy.name.clone() })
}

/// The gateways with a listener that shows this certificate (`certificate|NAMESPACE/NAME`).
fn of_certificate(intent: &Intent, secret: &str) -> Vec<ObjectId> {
    let Some(wanted) = secret.strip_prefix("certificate|") else { return Vec::new() };
    let users = intent.gateways.values().filter(|gateway| {
        let mut used = gateway.listeners.iter().flat_map(|one| &one.certificates);
        used.any(|name| name.to_string() == wanted)
    });
    users.map(|one| ObjectId { kind: Kind::Gateway, name: one.name.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::compile::World;
    use crate::intent::{assemble, read};
    use crate::map::Map;
    use crate::snapshot::Version;
    use crate::xds::Node;
    use crate::xds::session::{Dialect, TypeStatus};

    const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: catalog}
spec: {ports: [{port: 80, appProtocol: http}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: one}
spec:
  parentRefs: [{group: '', kind: Service, name: catalog}]
  rules: [{matches: [{path: {value: /one}}], backendRefs: [{name: catalog, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: two}
spec:
  parentRefs: [{group: '', kind: Service, name: catalog}]
  rules: [{matches: [{path: {value: /two}}], backendRefs: [{name: catalog, port: 80}]}]
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: calm}
spec:
  targetRefs: [{kind: Service, name: catalog}]
  timeout: {request: 5s}
";

    fn said(kind: ResourceType, text: &str) -> Feedback {
        use prost_types::{Struct, Value, value};
        let string = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
        let fields = [("PROXY", "pillion"), ("SERVICE", "shopper"), ("NAMESPACE", "default")];
        let fields = fields.map(|(key, text)| (key.to_owned(), string(text))).into();
        let node = Node {
            id: "sidecar~10.0.0.1~shopper.default~default.svc.cluster.local".to_owned(),
            metadata: Some(Struct { fields }),
            ..Node::default()
        };
        let status = TypeStatus {
            kind,
            wildcard: true,
            names: 0,
            resources: 1,
            sent: None::<Version>,
            acked: None,
            error: Some(text.to_owned()),
            nacks: 1,
        };
        let stream = StreamView {
            id: 1,
            node: Some(Arc::new(node)),
            dialect: Dialect::Delta,
            address: None,
            identity: None,
            since: SystemTime::now(),
            types: vec![status],
            refusals: Vec::new(),
        };
        let read = read("mesh.yaml", MESH);
        let parsed = assemble(read.documents, read.problems);
        assert_eq!(parsed.problems, []);
        let world = World::new(Arc::new(parsed.intent), Map::new());
        let mut found = Feedback::default();
        add(&world, &stream, &mut found);
        found
    }

    fn who(feedback: &Feedback) -> Vec<&str> {
        feedback.refused.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_refusal_is_that_of_the_route_that_it_points_at() {
        let all = said(ResourceType::Route, "outbound: no");
        assert_eq!(who(&all), ["HTTPRoute default/one", "HTTPRoute default/two"]);
        let named = said(ResourceType::Route, "outbound: the route default/two/0 has no wings");
        assert_eq!(who(&named), ["HTTPRoute default/two"]);
        let pointed = said(ResourceType::Route, "outbound: virtual_hosts[0].routes[1]: no");
        assert_eq!(who(&pointed).len(), 1, "{pointed:?}");
        let text = pointed.refused.values().next().unwrap().values().next().unwrap();
        assert_eq!(text, "outbound: virtual_hosts[0].routes[1]: no");
    }

    #[test]
    fn a_refused_cluster_is_its_policys_and_endpoints_are_nobodys() {
        let found = said(ResourceType::Cluster, "catalog.default:80: too many");
        assert_eq!(who(&found), ["TrafficPolicy default/calm"]);
        assert!(said(ResourceType::Endpoint, "catalog.default:80: no").is_empty());
    }
}
