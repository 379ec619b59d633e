use std::time::Duration;

use super::*;
use crate::intent::Name;

fn route(parents: Value, status: Value) -> Subject {
    Subject {
        kind: Kind::HttpRoute,
        name: Name::new("shop", "catalog"),
        namespaced: true,
        place: "httproutes/shop/catalog".to_owned(),
        resource_version: "7".to_owned(),
        generation: 3,
        rejected: false,
        parents: parents.as_array().unwrap().clone(),
        status,
    }
}

fn error(field: &str, message: &str) -> Problem {
    Problem {
        field: field.to_owned(),
        ..Problem::of_file(Severity::Error, "httproutes/shop/catalog", message)
    }
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
    subject.kind = Kind::TrafficPolicy;
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
