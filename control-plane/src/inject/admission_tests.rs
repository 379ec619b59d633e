use super::*;
use crate::inject::{CONTAINER, Join};

fn options() -> Options {
    Options {
        image: "registry.example/pillion-proxy:1".to_owned(),
        redirect_image: None,
        control_plane: "pillion.pillion-system.svc:15012".to_owned(),
        join: Join::ServiceAccount,
    }
}

/// A review with the fields that an API server of Kubernetes 1.32 sends.
fn recorded(name: &str) -> Value {
    let text = match name {
        "deployment" => include_str!("testdata/deployment.review.json"),
        "job" => include_str!("testdata/job.review.json"),
        "bare" => include_str!("testdata/bare.review.json"),
        other => panic!("{other}"),
    };
    serde_json::from_str(text).unwrap()
}

fn patch_of(response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch");
    let bytes = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// RFC 6902, as far as it is used.
fn applied(object: &Value, patch: &Value) -> Value {
    let mut object = object.clone();
    for operation in patch.as_array().unwrap() {
        let path = operation["path"].as_str().unwrap();
        let (parent, field) = path.rsplit_once('/').unwrap();
        let there = object.pointer(path).is_some();
        assert_eq!(operation["op"], if there { "replace" } else { "add" }, "{path}");
        object.pointer_mut(parent).unwrap()[field] = operation["value"].clone();
    }
    object
}

#[test]
fn recorded_reviews_give_exactly_these_patches() {
    let mut wrong = String::new();
    for (name, text) in [
        ("deployment", include_str!("testdata/deployment.patch.json")),
        ("job", include_str!("testdata/job.patch.json")),
        ("bare", include_str!("testdata/bare.patch.json")),
    ] {
        let asked = recorded(name);
        let answer = review(&asked, &options()).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        let response = &answer["response"];
        assert_eq!(response["uid"], asked["request"]["uid"]);
        assert_eq!(response["allowed"], true);
        assert_eq!(response["auditAnnotations"]["outcome"], "injected");
        let patch = patch_of(response);
        let expected: Value = serde_json::from_str(text).unwrap();
        if patch != expected {
            let found = serde_json::to_string_pretty(&patch).unwrap();
            wrong.push_str(&format!("=== {name}\n{found}\n"));
        }
    }
    assert!(wrong.is_empty(), "found\n{wrong}");
}

#[test]
fn the_webhook_and_the_file_get_the_same_sidecar() {
    let asked = recorded("deployment");
    let pod = &asked["request"]["object"];
    let by_webhook = applied(pod, &patch_of(&review(&asked, &options()).unwrap()["response"]));
    let mut by_file = pod.clone();
    inject_pod(&mut by_file, "web", &options()).unwrap();
    assert_eq!(by_webhook, by_file);
}

#[test]
fn asked_again_it_changes_nothing() {
    let mut asked = recorded("deployment");
    let patch = patch_of(&review(&asked, &options()).unwrap()["response"]);
    asked["request"]["object"] = applied(&asked["request"]["object"], &patch);
    let answer = review(&asked, &options()).unwrap();
    assert!(answer["response"]["patch"].is_null(), "{answer}");
    assert_eq!(answer["response"]["auditAnnotations"]["outcome"], "already");
}

#[test]
fn only_a_setting_that_is_wrong_refuses_a_pod() {
    let response = |change: &dyn Fn(&mut Value)| {
        let mut asked = recorded("deployment");
        change(&mut asked["request"]);
        review(&asked, &options()).unwrap()["response"].clone()
    };
    let annotated = |name: &'static str, value: &'static str| {
        response(&move |request| request["object"]["metadata"]["annotations"][name] = value.into())
    };
    let refused = annotated("pillion.io/captur", "none");
    assert_eq!(refused["allowed"], false);
    assert_eq!(refused["status"]["code"], 422);
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(message.contains("did you mean `pillion.io/capture`?"), "{message}");
    for (response, outcome, warnings) in [
        (annotated("pillion.io/inject", "disabled"), "opted-out", 0),
        (
            response(&|request| request["object"]["spec"]["hostNetwork"] = true.into()),
            "stays-out",
            1,
        ),
        (
            response(&|request| request["object"]["spec"]["os"]["name"] = "windows".into()),
            "stays-out",
            1,
        ),
        (response(&|request| request["operation"] = "DELETE".into()), "not-a-new-pod", 0),
        (response(&|request| request["kind"]["kind"] = "Node".into()), "not-a-new-pod", 0),
        (response(&|request| request["subResource"] = "status".into()), "not-a-new-pod", 0),
    ] {
        assert_eq!(response["allowed"], true, "{outcome}");
        assert_eq!(response["auditAnnotations"]["outcome"], outcome);
        assert!(response["patch"].is_null());
        assert_eq!(response["warnings"].as_array().map_or(0, Vec::len), warnings, "{outcome}");
    }
}

#[test]
fn what_is_no_review_is_told_what_was_expected() {
    for bad in [
        json!({}),
        json!(null),
        json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": "a"}}),
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {}}),
    ] {
        let error = review(&bad, &options()).unwrap_err();
        assert!(error.contains("expected"), "{error}");
    }
}

#[test]
fn a_pod_is_of_the_workload_that_made_it() {
    let owned = |kind: &str, name: &str| {
        json!({"metadata": {
            "name": "x-y", "generateName": "x-",
            "labels": {"pod-template-hash": "5d4f8c7b9"},
            "ownerReferences": [{"kind": "Node", "name": "n"}, {"kind": kind, "name": name, "controller": true}],
        }})
    };
    for (pod, expected) in [
        (owned("ReplicaSet", "web-5d4f8c7b9"), "web"),
        (owned("ReplicaSet", "odd"), "odd"),
        (owned("StatefulSet", "db"), "db"),
        (owned("Job", "report-29390400"), "report"),
        (owned("Job", "report-3"), "report-3"),
        (json!({"metadata": {"generateName": "alone-"}}), "alone"),
        (json!({"metadata": {"name": "alone-1"}}), "alone-1"),
        (json!({}), ""),
    ] {
        assert_eq!(owner(&pod), expected, "{pod}");
    }
    let asked = recorded("job");
    let patch = patch_of(&review(&asked, &options()).unwrap()["response"]).to_string();
    assert!(
        patch.contains(CONTAINER) && patch.contains(r#""name":"PILLION_SERVICE","value":"report""#),
        "{patch}"
    );
}
