//! Many nodes, many documents, many changes.

use proptest::prelude::*;

use super::*;
use crate::intent::Document;

const ROUTED: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: "", kind: Service, name: catalog}]
  rules: [{backendRefs: [{name: catalog, port: 80, weight: 9}, {name: catalog-v2, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: q}
spec:
  parentRefs: [{group: "", kind: Service, name: catalog}]
  rules: [{matches: [{path: {value: /q}}], backendRefs: [{name: cart, port: 8080}]}]
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: a}
spec: {targetRefs: [{kind: Service, name: catalog}], timeout: {request: 1s}}
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: b}
spec: {targetRefs: [{kind: Service, name: catalog}], timeout: {request: 2s}}
"#;

fn shared(left: &ResourceSet, right: &ResourceSet, kind: ResourceType, name: &str) -> bool {
    Arc::ptr_eq(left.get(kind, name).unwrap(), right.get(kind, name).unwrap())
}

#[test]
fn a_thousand_sidecars_share_what_they_have_in_common() {
    let world = World::new(intent(ROUTED), workloads([registered("catalog", 1, &[])]));
    let sets: Vec<ResourceSet> = (0..1000)
        .map(|number: u16| {
            let node = with_sidecar(sidecar("cart"), |sidecar| {
                sidecar.inbound = Some(([10, 0, 0, 9].into(), 16_000 + number));
            });
            world.for_node(&node)
        })
        .collect();
    for set in &sets {
        for (kind, name) in [
            (ResourceType::Cluster, "catalog.default:80"),
            (ResourceType::Endpoint, "catalog.default:80"),
            (ResourceType::Route, "outbound"),
        ] {
            assert!(shared(&sets[0], set, kind, name), "{name}");
        }
    }
    let ports: std::collections::BTreeSet<String> =
        sets.iter().map(|set| socket(listener(set, "inbound").address.as_ref().unwrap())).collect();
    assert_eq!(ports.len(), 1000, "each has its own listener");
    let diff = sets[0].diff(&sets[1]);
    assert_eq!(diff.keys().collect::<Vec<_>>(), [&ResourceType::Listener]);
}

#[test]
fn a_changed_workload_changes_one_assignment() {
    let before = World::new(
        intent(ROUTED),
        workloads([registered("catalog", 1, &[]), registered("cart", 2, &[])]),
    );
    let old = before.for_node(&sidecar("cart"));
    let now = workloads([
        registered("catalog", 1, &[]),
        registered("catalog", 3, &[]),
        registered("cart", 2, &[]),
    ]);
    let after = before.update(Arc::clone(before.intent()), now);
    let new = after.for_node(&sidecar("cart"));
    let diff = old.diff(&new);
    assert_eq!(diff.keys().collect::<Vec<_>>(), [&ResourceType::Endpoint]);
    let changed: Vec<&str> =
        diff[&ResourceType::Endpoint].changed.iter().map(|found| &*found.name).collect();
    assert_eq!(changed, ["catalog.default:80"]);
    for (kind, name) in [
        (ResourceType::Cluster, "catalog.default:80"),
        (ResourceType::Route, "outbound"),
        (ResourceType::Endpoint, "cart.default:9000"),
    ] {
        assert!(shared(&old, &new, kind, name), "{name} is taken over");
    }
    assert_eq!(endpoints(&new, "catalog.default:80"), ["10.0.0.1:15006", "10.0.0.3:15006"]);
}

#[test]
fn a_changed_workload_of_a_file_changes_one_assignment_too() {
    let written = |last: u8| {
        let spec = format!("{{address: 10.0.0.{last}, ports: {{pg: 5432}}, sidecarPort: 15006}}");
        intent(&format!(
            "{ROUTED}---\napiVersion: pillion.io/v1alpha1\nkind: Workload\nmetadata: {{name: db-1, labels: {{app: db}}}}\nspec: {spec}\n"
        ))
    };
    let before = World::new(written(7), Map::new());
    let old = before.for_node(&sidecar("cart"));
    let after = before.update(written(8), Map::new());
    let new = after.for_node(&sidecar("cart"));
    assert_eq!(old.diff(&new).keys().collect::<Vec<_>>(), [&ResourceType::Endpoint]);
    for (kind, name) in
        [(ResourceType::Cluster, "db.default:5432"), (ResourceType::Route, "outbound")]
    {
        assert!(shared(&old, &new, kind, name), "{name} is taken over");
    }
    assert_eq!(endpoints(&new, "db.default:5432"), ["10.0.0.8:15006"]);
    assert_eq!(*after.intent(), written(8));
}

#[test]
fn a_changed_weight_changes_the_routes_alone() {
    let before = World::new(intent(ROUTED), workloads([registered("catalog", 1, &[])]));
    let old = before.for_node(&sidecar("cart"));
    let edited = intent(&ROUTED.replace("weight: 9", "weight: 8"));
    let new = before.update(edited, before.registered().clone()).for_node(&sidecar("cart"));
    assert_eq!(old.diff(&new).keys().collect::<Vec<_>>(), [&ResourceType::Route]);
}

#[test]
fn an_update_gives_what_a_new_start_gives() {
    let before = World::new(intent(""), workloads([registered("catalog", 1, &[])]));
    assert!(!before.for_node(&sidecar("cart")).is_empty(), "compiled, and so kept");
    let mut other = registered("catalog", 1, &[]);
    other.service_account = "other".to_owned();
    let now = workloads([other, registered("cart", 2, &[])]);
    let updated = before.update(intent(ROUTED), now.clone());
    let fresh = World::new(intent(ROUTED), now);
    for node in [sidecar("cart"), grpc_client(None), grpc_client(Some("p"))] {
        assert_eq!(updated.for_node(&node), fresh.for_node(&node));
    }
}

#[test]
fn declared_dependencies_narrow_the_view() {
    let frontend = "apiVersion: v1\nkind: Service\nmetadata: {name: front, annotations: {pillion.io/depends-on: \"catalog, pay.bank\"}}\nspec: {ports: [{port: 80}]}\n---\n";
    let world = world(&format!("{frontend}{ROUTED}"));
    let front = world.for_node(&sidecar("front"));
    let clusters: Vec<String> = names(&front, ResourceType::Cluster);
    // catalog and pay are declared; catalog's routes lead to catalog-v2 and cart as well.
    assert_eq!(
        clusters,
        [
            "cart.default:8080",
            "cart.default:9000",
            "catalog-v2.default:80",
            "catalog.default:80",
            "inbound:8080",
            "passthrough",
            "pay.bank:8443"
        ]
    );
    assert_eq!(names(&front, ResourceType::Endpoint).len(), 5);
    assert!(names(&world.for_node(&sidecar("cart")), ResourceType::Cluster).len() > clusters.len());
}

fn compiled(documents: Vec<Document>, reverse: bool) -> (Vec<String>, Vec<ResourceSet>) {
    let parsed = assemble(documents, Vec::new());
    let problems = parsed.problems.iter().map(ToString::to_string).collect();
    let mut all =
        vec![registered("catalog", 1, &[]), registered("catalog", 2, &[("version", "v2")])];
    if reverse {
        all.reverse();
    }
    let world = World::new(Arc::new(parsed.intent), workloads(all));
    let nodes = [sidecar("cart"), grpc_client(None), grpc_client(Some("p"))];
    (problems, nodes.iter().map(|node| world.for_node(node)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The same bytes, and so the same versions, in whatever order documents are read.
    #[test]
    fn the_order_of_documents_does_not_matter(
        order in Just((0..9usize).collect::<Vec<_>>()).prop_shuffle(),
        reverse in any::<bool>(),
    ) {
        let documents = read("t.yaml", &format!("{SERVICES}---\n{ROUTED}")).documents;
        prop_assert_eq!(documents.len(), 9);
        let shuffled = order.iter().map(|index| documents[*index].clone()).collect();
        let (problems, sets) = compiled(documents, false);
        prop_assert_eq!(compiled(shuffled, reverse), (problems, sets));
    }
}
