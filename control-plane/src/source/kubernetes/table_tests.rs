use serde_json::json;

use super::*;
use crate::intent::Parsed;

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn namespace(name: &str, label: Option<&str>) -> DynamicObject {
    let labels = label.map(|value| json!({NAMESPACE_LABEL: value}));
    object(json!({"metadata": {"name": name, "labels": labels}}))
}

fn service(namespace: &str, name: &str, spec: Value) -> DynamicObject {
    object(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": "1", "managedFields": []},
        "spec": spec, "status": {"loadBalancer": {}},
    }))
}

fn route(weight: Value, version: &str) -> DynamicObject {
    object(json!({
        "metadata": {"name": "catalog", "namespace": "shop", "resourceVersion": version, "generation": 2},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "catalog"}],
            "rules": [{"backendRefs": [{"name": "catalog", "port": 80, "weight": weight}]}],
        },
    }))
}

fn pod(namespace: &str, name: &str, spec: Value) -> DynamicObject {
    object(json!({
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "catalog"}},
        "spec": spec,
        "status": {"phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

fn put(table: &mut Table, resource: Resource, object: DynamicObject) {
    table.apply(resource, Update::Put(Box::new(object)));
}

fn shop() -> Table {
    let mut table = Table::default();
    put(&mut table, Resource::Namespaces, namespace("shop", Some(IN_MESH)));
    let spec = json!({"selector": {"app": "catalog"}, "ports": [{"port": 80, "targetPort": 8080}]});
    put(&mut table, Resource::Services, service("shop", "catalog", spec));
    table
}

fn parsed(table: &mut Table) -> Parsed {
    table.view().documents.assemble()
}

#[test]
fn only_namespaces_of_the_mesh_count() {
    let mut table = shop();
    let spec = json!({"ports": [{"port": 53, "protocol": "UDP"}]});
    put(&mut table, Resource::Services, service("kube-system", "dns", spec));
    let outside = json!({"type": "ExternalName", "externalName": "example.com"});
    put(&mut table, Resource::Services, service("shop", "outside", outside));
    put(&mut table, Resource::Pods, pod("kube-system", "dns-1", json!({})));
    let found = parsed(&mut table);
    assert_eq!(found.problems, []);
    let names: Vec<String> = found.intent.services.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["shop/catalog"]);
    assert!(table.workloads().is_empty());

    // A pod may have its sidecar by itself.
    let spec = json!({"containers": [{"name": "pillion-proxy"}]});
    put(&mut table, Resource::Pods, pod("kube-system", "dns-1", spec));
    assert_eq!(parsed(&mut table).intent.services.len(), 2);
    assert_eq!(table.workloads().len(), 1);
    put(&mut table, Resource::Namespaces, namespace("shop", None));
    assert_eq!(parsed(&mut table).intent.services.len(), 1);
}

#[test]
fn a_bad_object_leaves_its_last_good_version_in_force() {
    let mut table = shop();
    put(&mut table, Resource::HttpRoutes, route(json!(3), "5"));
    let weight = |parsed: &Parsed| {
        parsed.intent.routes.values().next().map(|route| route.rules[0].backends[0].weight)
    };
    let good = parsed(&mut table);
    assert_eq!((weight(&good), good.problems.len()), (Some(3), 0));
    put(&mut table, Resource::HttpRoutes, route(json!("ten"), "6"));
    let bad = parsed(&mut table);
    assert_eq!(weight(&bad), Some(3));
    let error = bad.problems[0].to_string();
    assert!(
        error.starts_with(
            "error: httproutes/shop/catalog: HTTPRoute shop/catalog: spec.rules[0].backendRefs[0].weight: "
        ),
        "{error}"
    );
    let view = table.view();
    assert!(view.subjects[0].rejected);
    assert_eq!(view.subjects[0].resource_version, "6");
    put(&mut table, Resource::HttpRoutes, route(json!(4), "7"));
    let repaired = parsed(&mut table);
    assert_eq!((weight(&repaired), repaired.problems.len()), (Some(4), 0));
    table.apply(Resource::HttpRoutes, Update::Reset(Vec::new()));
    assert_eq!(weight(&parsed(&mut table)), None, "deleted while nobody was watching");
}

#[test]
fn a_new_status_alone_changes_no_document() {
    let mut table = shop();
    put(&mut table, Resource::HttpRoutes, route(json!(3), "5"));
    let before = table.view();
    let mut written = route(json!(3), "6");
    written.data["status"] = json!({"parents": []});
    put(&mut table, Resource::HttpRoutes, written);
    let after = table.view();
    assert!(before.documents.sheets == after.documents.sheets);
    assert_eq!(after.subjects[0].resource_version, "6");
    put(&mut table, Resource::HttpRoutes, route(json!(4), "7"));
    assert!(before.documents.sheets != table.view().documents.sheets);
}

#[test]
fn pods_have_the_zone_of_their_node_or_of_their_slice() {
    let mut table = shop();
    put(&mut table, Resource::Pods, pod("shop", "a", json!({"nodeName": "n1"})));
    let slice = object(json!({
        "metadata": {"name": "catalog-x", "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "catalog"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.0.0.7"], "zone": "z1", "targetRef": {"kind": "Pod", "name": "a"}},
            {"addresses": ["10.1.0.9"], "zone": "z2", "conditions": {"ready": true}},
            {"addresses": ["10.1.0.10"], "conditions": {"ready": false}},
        ],
    }));
    put(&mut table, Resource::EndpointSlices, slice);
    let found = table.workloads();
    let of = |name: &str| &found[&Name::new("shop", name)];
    assert_eq!((of("a").locality.zone.as_str(), &of("a").service), ("z1", &None));
    let other = of("catalog-x-10.1.0.9");
    assert_eq!((other.service.as_deref(), other.app_port), (Some("catalog"), Some(8080)));
    assert!(other.ready && !of("catalog-x-10.1.0.10").ready);
    let node = json!({"metadata": {"name": "n1", "labels": {REGION: "eu", ZONE: "eu-1"}}});
    put(&mut table, Resource::Nodes, object(node));
    let found = table.workloads();
    let locality = &found[&Name::new("shop", "a")].locality;
    assert_eq!((locality.region.as_str(), locality.zone.as_str()), ("eu", "eu-1"));
}

#[test]
fn a_service_without_a_selector_has_the_pods_that_its_slices_name() {
    let mut table = shop();
    put(
        &mut table,
        Resource::Services,
        service("shop", "chosen", json!({"ports": [{"port": 80}]})),
    );
    put(&mut table, Resource::Pods, pod("shop", "a", json!({})));
    let slice = object(json!({
        "metadata": {"name": "chosen-x", "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "chosen"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.7"], "targetRef": {"kind": "Pod", "name": "a"}}],
    }));
    put(&mut table, Resource::EndpointSlices, slice);
    let found = table.workloads();
    assert_eq!(found.len(), 1);
    assert_eq!(found[&Name::new("shop", "a")].service.as_deref(), Some("chosen"));
}

fn gateway(name: &str, class: &str) -> DynamicObject {
    object(json!({
        "metadata": {"name": name, "namespace": "edge", "resourceVersion": "1", "generation": 1},
        "spec": {"gatewayClassName": class, "listeners": [
            {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}]},
    }))
}

fn class(name: &str, controller: &str) -> DynamicObject {
    object(json!({
        "metadata": {"name": name, "resourceVersion": "1"}, "spec": {"controllerName": controller},
    }))
}

fn with_parents(namespace: &str, parents: Value) -> DynamicObject {
    object(json!({
        "metadata": {"name": "in", "namespace": namespace, "resourceVersion": "1"},
        "spec": {"parentRefs": parents, "rules": [{"backendRefs": [{"name": "catalog", "port": 80}]}]},
    }))
}

fn places(table: &mut Table) -> Vec<String> {
    table.view().subjects.iter().map(|subject| subject.place.clone()).collect()
}

#[test]
fn a_gateway_is_ours_by_its_class() {
    let mut table = shop();
    put(&mut table, Resource::Gateways, gateway("front", "pillion"));
    put(&mut table, Resource::Gateways, gateway("theirs", "other"));
    let parents = json!([
        {"group": "", "kind": "Service", "name": "catalog"},
        {"name": "front", "namespace": "edge"}, {"name": "theirs", "namespace": "edge"},
    ]);
    put(&mut table, Resource::HttpRoutes, with_parents("shop", parents));
    let found = parsed(&mut table);
    assert_eq!(found.problems, []);
    let ours =
        |parsed: &Parsed, name: &str| parsed.intent.gateways[&Name::new("edge", name)].is_ours();
    assert!(ours(&found, "front") && !ours(&found, "theirs"));
    assert_eq!(places(&mut table), ["gateways/edge/front", "httproutes/shop/in"]);

    put(
        &mut table,
        Resource::GatewayClasses,
        class("other", super::super::status::GATEWAY_CONTROLLER),
    );
    put(&mut table, Resource::GatewayClasses, class("pillion", "example.com/else"));
    let found = parsed(&mut table);
    assert!(!ours(&found, "front") && ours(&found, "theirs"));
    assert_eq!(found.problems, []);
    assert_eq!(
        places(&mut table),
        ["gateways/edge/theirs", "httproutes/shop/in", "gatewayclasses/other"]
    );
    table.apply(Resource::GatewayClasses, Update::Reset(Vec::new()));
    assert!(ours(&parsed(&mut table), "front"));
}

#[test]
fn a_route_counts_through_its_gateway_wherever_it_is() {
    let mut table = shop();
    let parents = json!([{"name": "front", "namespace": "edge"}]);
    put(&mut table, Resource::HttpRoutes, with_parents("outside", parents.clone()));
    assert_eq!(places(&mut table), [""; 0]);
    put(&mut table, Resource::Gateways, gateway("front", "pillion"));
    assert_eq!(places(&mut table), ["gateways/edge/front", "httproutes/outside/in"]);
    let mut tls = with_parents("outside", parents);
    tls.data["spec"]["hostnames"] = json!(["a.example.com"]);
    tls.types = Some(kube::api::TypeMeta {
        api_version: "gateway.networking.k8s.io/v1alpha2".to_owned(),
        kind: "TLSRoute".to_owned(),
    });
    put(&mut table, Resource::TlsRoutes, tls);
    assert_eq!(table.view().subjects[2].api_version, "gateway.networking.k8s.io/v1alpha2");
    assert_eq!(parsed(&mut table).intent.l4_routes.len(), 1);
}

#[test]
fn where_gateways_cannot_be_read_none_is_missed() {
    let mut table = shop();
    let parents = json!([
        {"group": "", "kind": "Service", "name": "catalog"}, {"name": "front", "namespace": "edge"},
    ]);
    put(&mut table, Resource::HttpRoutes, with_parents("shop", parents));
    let found = parsed(&mut table);
    let warning = found.problems[0].to_string();
    assert!(
        warning.starts_with("warning: ") && warning.contains("no Gateway edge/front"),
        "{warning}"
    );
    table.without(Resource::Gateways);
    assert_eq!(parsed(&mut table).problems, []);
    table.apply(Resource::Gateways, Update::Reset(vec![gateway("front", "pillion")]));
    assert_eq!(parsed(&mut table).problems, []);
    table.apply(Resource::Gateways, Update::Reset(Vec::new()));
    assert_eq!(parsed(&mut table).problems.len(), 1);
}
