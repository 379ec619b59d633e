use std::time::Duration;

use super::*;
use crate::intent::Name;

fn route(parents: Value, status: Value) -> Subject {
    Subject {
        resource: Resource::HttpRoutes,
        api_version: "gateway.networking.k8s.io/v1".to_owned(),
        name: Name::new("shop", "catalog"),
        namespaced: true,
        place: "httproutes/shop/catalog".to_owned(),
        resource_version: "7".to_owned(),
        generation: 3,
        rejected: false,
        parents: parents.as_array().unwrap().clone(),
        addresses: Vec::new(),
        listeners: Vec::new(),
        status,
    }
}

fn error(field: &str, message: &str) -> Problem {
    Problem {
        field: field.to_owned(),
        ..Problem::of_file(Severity::Error, "httproutes/shop/catalog", message)
    }
}

/// With nothing in force that matters, and no proxy that says anything.
fn wanted(subject: &Subject, problems: &[Problem], now: SystemTime) -> Option<Value> {
    let known = Known { intent: &Intent::default(), problems, feedback: &Feedback::default() };
    super::wanted(subject, known, now)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn condition<'a>(status: &'a Value, parent: usize, kind: &str) -> &'a Value {
    let conditions = status["parents"][parent]["conditions"].as_array().unwrap();
    conditions.iter().find(|one| one["type"] == kind).unwrap()
}

#[test]
fn a_good_route_is_accepted_once_and_then_left_alone() {
    let parents = json!([{"group": "", "kind": "Service", "name": "catalog"}]);
    let mut subject = route(parents.clone(), Value::Null);
    let status = wanted(&subject, &[], at(0)).unwrap();
    let entry = &status["parents"][0];
    assert_eq!((&entry["parentRef"], &entry["controllerName"]), (&parents[0], &json!(CONTROLLER)));
    assert_eq!(condition(&status, 0, "Accepted")["status"], "True");
    assert_eq!(condition(&status, 0, "Accepted")["observedGeneration"], 3);
    assert_eq!(condition(&status, 0, "ResolvedRefs")["reason"], "ResolvedRefs");
    subject.status = status.clone();
    assert_eq!(wanted(&subject, &[], at(9)), None, "nothing changed");
    subject.generation = 4;
    let newer = wanted(&subject, &[], at(9)).unwrap();
    assert_eq!(condition(&newer, 0, "Accepted")["observedGeneration"], 4);
    assert_eq!(condition(&newer, 0, "Accepted")["lastTransitionTime"], "1970-01-01T00:00:00Z");
    let missing = error("spec.rules[0].backendRefs[0].name", "there is no Service shop/x");
    let turned = wanted(&subject, &[missing], at(9)).unwrap();
    assert_eq!(condition(&turned, 0, "Accepted")["status"], "True");
    let resolved = condition(&turned, 0, "ResolvedRefs");
    assert_eq!(
        (&resolved["status"], &resolved["reason"]),
        (&json!("False"), &json!("BackendNotFound"))
    );
    assert_eq!(resolved["lastTransitionTime"], "1970-01-01T00:00:09Z");
}

#[test]
fn entries_of_other_controllers_stay_as_they_are() {
    let foreign = json!({"controllerName": "example.com/gateway", "parentRef": {"name": "gw"}, "conditions": []});
    let stale = json!({"controllerName": CONTROLLER, "parentRef": {"kind": "Service", "name": "old"}, "conditions": []});
    let parents = json!([{"name": "gw"}, {"kind": "Service", "name": "catalog"}]);
    let subject = route(parents, json!({"parents": [foreign, stale]}));
    let status = wanted(&subject, &[], at(0)).unwrap();
    let entries = status["parents"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "{status}");
    assert_eq!(entries[0], foreign);
    assert_eq!(entries[1]["parentRef"]["name"], "catalog");
    let gateway_only = route(json!([{"name": "gw"}]), Value::Null);
    assert_eq!(wanted(&gateway_only, &[], at(0)), None, "not ours");
}

#[test]
fn what_is_wrong_stands_in_the_condition() {
    let parents = json!([{"kind": "Service", "name": "a"}, {"kind": "Service", "name": "b"}]);
    let mut subject = route(parents, Value::Null);
    let missing = error("spec.parentRefs[1].name", "there is no Service shop/b");
    let status = wanted(&subject, std::slice::from_ref(&missing), at(0)).unwrap();
    assert_eq!(condition(&status, 0, "Accepted")["status"], "True");
    let second = condition(&status, 1, "Accepted");
    assert_eq!(
        (&second["status"], &second["reason"]),
        (&json!("False"), &json!("NoMatchingParent"))
    );
    subject.rejected = true;
    let mut bad = error("spec.rules[0].backendRefs[0].weight", "found the string \"ten\"");
    bad.expected = Some("a whole number".to_owned());
    let other = Problem { file: "httproutes/shop/other".into(), ..bad.clone() };
    let status = wanted(&subject, &[other, bad], at(0)).unwrap();
    let accepted = condition(&status, 0, "Accepted");
    assert_eq!(accepted["reason"], "UnsupportedValue");
    assert_eq!(
        accepted["message"],
        "spec.rules[0].backendRefs[0].weight: found the string \"ten\"; expected a whole number"
    );
}

#[test]
fn our_own_kinds_have_one_condition() {
    let mut subject = route(json!([]), json!({"conditions": [{"type": "Else", "status": "True"}]}));
    subject.resource = Resource::TrafficPolicies;
    subject.place = "trafficpolicies/shop/catalog".to_owned();
    let bad =
        Problem { file: "trafficpolicies/shop/catalog".into(), ..error("spec.timeout", "no") };
    let status = wanted(&subject, &[bad], at(0)).unwrap();
    let conditions = status["conditions"].as_array().unwrap();
    assert_eq!(conditions[0]["type"], "Else", "somebody else's");
    assert_eq!(
        (&conditions[1]["status"], &conditions[1]["reason"]),
        (&json!("False"), &json!("Invalid"))
    );
    assert_eq!(conditions[1]["message"], "spec.timeout: no");
}

fn intent(text: &str) -> crate::intent::Parsed {
    let read = crate::intent::read("mesh.yaml", text);
    crate::intent::assemble(read.documents, read.problems)
}

const FRONT: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: shop}
spec:
  gatewayClassName: pillion
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: db, port: 5432, protocol: TCP, allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: HTTPRoute}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: catalog, namespace: shop}
spec:
  parentRefs: [{name: front, sectionName: http}]
  rules: [{}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: theirs, namespace: shop}
spec: {gatewayClassName: other}
";

fn gateway() -> Subject {
    Subject {
        resource: Resource::Gateways,
        name: Name::new("shop", "front"),
        place: "gateways/shop/front".to_owned(),
        addresses: Vec::new(),
        listeners: vec!["http".to_owned(), "db".to_owned()],
        ..route(json!([]), Value::Null)
    }
}

#[test]
fn a_gateway_counts_its_routes_and_waits_for_a_proxy() {
    let parsed = intent(FRONT);
    let mut feedback = Feedback::default();
    let say = |feedback: &Feedback, problems: &[Problem]| {
        let known = Known { intent: &parsed.intent, problems, feedback };
        super::wanted(&gateway(), known, at(0)).unwrap()
    };
    let of = |list: &Value, kind: &str| {
        let list = list.as_array().unwrap();
        let found = list.iter().find(|one| one["type"] == kind).unwrap();
        format!("{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
    };
    let status = say(&feedback, &[]);
    assert_eq!(of(&status["conditions"], "Accepted"), "True Accepted");
    assert_eq!(of(&status["conditions"], "Programmed"), "False Pending");
    feedback.gateways.insert("shop/front".to_owned(), 2);
    let status = say(&feedback, &[]);
    assert_eq!(of(&status["conditions"], "Programmed"), "True Programmed");
    let [http, db] = [&status["listeners"][0], &status["listeners"][1]];
    assert_eq!((&http["attachedRoutes"], &db["attachedRoutes"]), (&json!(1), &json!(0)));
    assert_eq!(of(&http["conditions"], "ResolvedRefs"), "True ResolvedRefs");
    assert_eq!(of(&db["conditions"], "ResolvedRefs"), "False InvalidRouteKinds");
    let only = json!([{"group": "gateway.networking.k8s.io", "kind": "TCPRoute"}]);
    assert_eq!(db["supportedKinds"], only);

    let certificate = Problem {
        file: "gateways/shop/front".into(),
        cause: Cause::NotPermitted,
        ..error("spec.listeners[0].tls.certificateRefs[0].name", "not permitted")
    };
    let status = say(&feedback, &[certificate]);
    assert_eq!(of(&status["conditions"], "Accepted"), "True ListenersNotValid");
    let http = &status["listeners"][0]["conditions"];
    assert_eq!(of(http, "ResolvedRefs"), "False RefNotPermitted");
    let id = ObjectId { kind: crate::intent::Kind::Gateway, name: Name::new("shop", "front") };
    feedback.refuse(&id, "gateway~1", "port 80: permission denied");
    let status = say(&feedback, &[]);
    assert_eq!(of(&status["conditions"], "Programmed"), "False Invalid");
    assert!(status.to_string().contains("the proxy gateway~1 refuses it: port 80"), "{status}");
}

#[test]
fn parents_are_told_by_who_they_are() {
    let parents = json!([
        {"name": "front", "sectionName": "http"}, {"name": "theirs"}, {"name": "nobodys"},
        {"kind": "Service", "group": "", "name": "catalog"},
    ]);
    let parsed = intent(FRONT);
    let subject = route(parents, Value::Null);
    let mut feedback = Feedback::default();
    let id = subject.id().unwrap();
    feedback.refuse(&id, "b", "no");
    feedback.merge(
        serde_json::from_value(json!({"refused": {id.to_string(): {"a": "never"}}})).unwrap(),
    );
    let problem = Problem { cause: Cause::NotAllowed, ..error("spec.parentRefs[0].name", "no") };
    let known = Known { intent: &parsed.intent, problems: &[problem], feedback: &feedback };
    let status = super::wanted(&subject, known, at(0)).unwrap();
    let controllers: Vec<&Value> =
        status["parents"].as_array().unwrap().iter().map(|one| &one["controllerName"]).collect();
    assert_eq!(controllers, [GATEWAY_CONTROLLER, CONTROLLER]);
    assert_eq!(condition(&status, 0, "Accepted")["reason"], "NotAllowedByListeners");
    assert_eq!(condition(&status, 1, "Accepted")["reason"], "Accepted");
    let applied = condition(&status, 1, APPLIED);
    assert_eq!(applied["reason"], "RefusedByProxy");
    assert_eq!(applied["message"], "2 proxies refuse it, such as a: never");
}
