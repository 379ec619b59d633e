use serde_json::{Value, json};

use super::*;

fn options() -> Options {
    Options {
        image: "pillion-proxy:test".to_owned(),
        redirect_image: Some("pillion-redirect:test".to_owned()),
        control_plane: "pillion.pillion-system.svc:15012".to_owned(),
        join: Join::ServiceAccount,
    }
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "catalog"},
        "spec": {"template": {
            "metadata": {"labels": {"app": "catalog", "version": "v1"}},
            "spec": {"containers": [{
                "name": "web", "image": "shop",
                "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"},
                          {"name": "app", "containerPort": 9090}],
                "livenessProbe": {"httpGet": {"path": "/live?$(a)", "port": "http",
                    "httpHeaders": [{"name": "X-A", "value": "b"}]}, "timeoutSeconds": 3, "periodSeconds": 7},
                "readinessProbe": {"grpc": {"port": 9090, "service": "shop"}},
                "startupProbe": {"exec": {"command": ["true"]}},
                "lifecycle": {"preStop": {"httpGet": {"port": 8443, "scheme": "HTTPS"}}},
            }], "initContainers": [{"name": "migrate", "image": "shop"}]},
        }},
    })
}

fn spec(object: &Value) -> &Value {
    object.pointer("/spec/template/spec").unwrap()
}

fn env<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    let mut all = container["env"].as_array()?.iter();
    all.find(|one| one["name"] == name)?["value"].as_str()
}

#[test]
fn a_sidecar_is_there_before_all_and_has_no_rights() {
    let mut object = deployment();
    assert_eq!(inject(&mut object, &options()), Ok(vec![Outcome::Injected]));
    let init = spec(&object)["initContainers"].as_array().unwrap();
    let names: Vec<_> = init.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, [REDIRECT_CONTAINER, CONTAINER, "migrate"]);
    let (redirect, sidecar) = (&init[0], &init[1]);
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert!(redirect["restartPolicy"].is_null(), "the redirect runs once");
    assert_eq!(redirect["image"], "pillion-redirect:test");
    assert_eq!(sidecar["image"], "pillion-proxy:test");
    let rights = &sidecar["securityContext"];
    assert_eq!(rights["runAsUser"], PROXY_UID);
    assert_eq!(rights["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(redirect["securityContext"]["capabilities"]["add"], json!(["NET_ADMIN"]));
    assert_eq!(env(sidecar, "PILLION_SERVICE"), Some("catalog"));
    assert_eq!(env(sidecar, "PILLION_APP_PORT"), Some("http=8080,9090"));
    assert_eq!(sidecar["args"], json!(["--label", "app=catalog", "--label", "version=v1"]));
}

/// Names and values are those that the program itself reads.
#[test]
fn the_sidecar_and_the_redirect_understand_what_they_are_told() {
    use clap::Parser;
    use pillion_proxy::app::flags::{Command, Flags};
    let mut object = deployment();
    object["spec"]["template"]["metadata"]["annotations"] = json!({
        "pillion.io/exclude-inbound-ports": "9000, 9100-9200",
        "pillion.io/exclude-outbound-ports": "3306",
        "pillion.io/exclude-outbound-cidrs": "10.0.0.0/8,fd00::/8",
    });
    inject(&mut object, &options()).unwrap();
    let args = |container: &Value| -> Vec<String> {
        let args = container["args"].as_array().unwrap().iter();
        let args = args.map(|arg| arg.as_str().unwrap().to_owned());
        ["pillion-proxy".to_owned()].into_iter().chain(args).collect()
    };
    let init = spec(&object)["initContainers"].as_array().unwrap().clone();
    let flags = Flags::try_parse_from(args(&init[0])).unwrap();
    let Some(Command::Redirect(redirect)) = flags.command else { panic!("{flags:?}") };
    assert_eq!(redirect.proxy_uid, [PROXY_UID]);
    assert_eq!(redirect.exclude_inbound_ports.len(), 6);
    assert_eq!(redirect.exclude_cidrs.len(), 2);
    assert_eq!(Flags::try_parse_from(args(&init[1])).unwrap().sidecar.labels.len(), 2);
    let known: Vec<String> = {
        use clap::CommandFactory;
        let command = Flags::command();
        let names = command.get_arguments().filter_map(|arg| arg.get_env());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    };
    for variable in init[1]["env"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        assert!(known.iter().any(|one| one == name), "{name} is not one of {known:?}");
    }
    let hook = init[1]["lifecycle"]["preStop"]["exec"]["command"].as_array().unwrap();
    let flags = Flags::try_parse_from(hook.iter().map(|arg| arg.as_str().unwrap())).unwrap();
    assert!(matches!(flags.command, Some(Command::Leave(_))), "{flags:?}");
}

#[test]
fn a_sidecar_joins_by_service_account_or_by_secret() {
    for (join, expected) in [
        (
            Join::ServiceAccount,
            json!({"projected": {"defaultMode": 0o444, "sources": [
                {"serviceAccountToken": {"audience": "pillion", "expirationSeconds": 3600, "path": "token"}},
                {"configMap": {"name": "pillion-ca-root", "items": [{"key": "root.pem", "path": "root.pem"}]}},
            ]}}),
        ),
        (
            Join::Secret("s".to_owned()),
            json!({"secret": {"secretName": "s", "defaultMode": 0o444,
                "items": [{"key": "join-token", "path": "token"}]}}),
        ),
    ] {
        let by_account = join == Join::ServiceAccount;
        let mut object = deployment();
        inject(&mut object, &Options { join, ..options() }).unwrap();
        let mut volume = spec(&object)["volumes"][0].clone();
        assert_eq!(volume.as_object_mut().unwrap().remove("name"), Some("pillion-token".into()));
        assert_eq!(volume, expected);
        let sidecar = &spec(&object)["initContainers"][1];
        assert_eq!(env(sidecar, "PILLION_TOKEN_FILE"), Some("/var/run/secrets/pillion/token"));
        let root = env(sidecar, "PILLION_ROOT_CA_FILE");
        assert_eq!(root, by_account.then_some("/var/run/secrets/pillion/root.pem"));
    }
}

#[test]
fn twice_is_once() {
    let mut once = deployment();
    inject(&mut once, &options()).unwrap();
    let mut twice = once.clone();
    assert_eq!(inject(&mut twice, &options()), Ok(vec![Outcome::Already]));
    assert_eq!(once, twice);
}

#[test]
fn the_kubelets_questions_go_through_the_sidecar() {
    let mut object = deployment();
    inject(&mut object, &options()).unwrap();
    let app = &spec(&object)["containers"][0];
    assert_eq!(
        app["livenessProbe"],
        json!({"httpGet": {"path": "/app-health/web/livez", "port": HEALTH_PORT},
               "timeoutSeconds": 3, "periodSeconds": 7})
    );
    assert_eq!(app["startupProbe"], json!({"exec": {"command": ["true"]}}));
    let sidecar = &spec(&object)["initContainers"][1];
    let probes: Value = serde_json::from_str(env(sidecar, "PILLION_APP_PROBES").unwrap()).unwrap();
    assert_eq!(
        probes,
        json!({
            "web/livez": {"timeoutSeconds": 3, "target": {"httpGet":
                {"port": 8080, "path": "/live?$$(a)", "headers": [["X-A", "b"]]}}},
            "web/readyz": {"timeoutSeconds": 1, "target": {"grpc": {"port": 9090, "service": "shop"}}},
            "web/preStop": {"timeoutSeconds": 30, "target": {"httpGet":
                {"port": 8443, "path": "/", "headers": [], "https": true}}},
        })
    );
}

#[test]
fn without_capture_nothing_needs_rights() {
    let mut object = deployment();
    object["spec"]["template"]["metadata"]["annotations"] = json!({"pillion.io/capture": "none"});
    let before = spec(&object)["containers"][0]["livenessProbe"].clone();
    inject(&mut object, &options()).unwrap();
    assert!(!object.to_string().contains("NET_ADMIN"));
    let app = &spec(&object)["containers"][0];
    assert_eq!(env(app, "HTTP_PROXY"), Some("http://127.0.0.1:15001"));
    assert_eq!(app["livenessProbe"], before);
    let sidecar = &spec(&object)["initContainers"][0];
    assert_eq!(env(sidecar, "PILLION_APP_PORT"), Some("http=8080"));
    assert_eq!(env(sidecar, "PILLION_INTERCEPTION"), Some("none"));
}

#[test]
fn all_kinds_with_pods_get_one_and_others_stay() {
    let template = spec(&deployment()).clone();
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": template});
    let mut pod = template.clone();
    pod["kind"] = "Pod".into();
    let cron = json!({"kind": "CronJob", "metadata": {"name": "c"},
        "spec": {"jobTemplate": {"spec": {"template": template}}}});
    let with = |kind: &str| json!({"kind": kind, "metadata": {"name": "x"}, "spec": {"template": template}});
    let service = json!({"kind": "Service", "metadata": {"name": "x"}});
    let items =
        vec![pod, cron, with("StatefulSet"), with("DaemonSet"), with("Job"), service.clone()];
    let mut list = json!({"kind": "List", "items": items});
    let outcomes = inject(&mut list, &options()).unwrap();
    assert_eq!(outcomes[..5], [Outcome::Injected; 5]);
    assert_eq!(outcomes[5], Outcome::NoPods);
    assert_eq!(list["items"][5], service);
    for item in &list["items"].as_array().unwrap()[..5] {
        assert_eq!(item.to_string().matches("\"restartPolicy\":\"Always\"").count(), 1, "{item}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_and_nothing_changes() {
    let meta = "/spec/template/metadata";
    let pod = "/spec/template/spec";
    for (place, field, value, expected) in [
        (pod, "hostNetwork", json!(true), "spec.hostNetwork"),
        (pod, "os", json!({"name": "windows"}), "spec.os.name"),
        (pod, "containers", json!([]), "spec.containers"),
        (pod, "securityContext", json!({"runAsUser": 1337}), "runAsUser 1337"),
        (
            meta,
            "annotations",
            json!({"pillion.io/captur": "none"}),
            "did you mean `pillion.io/capture`",
        ),
        (
            meta,
            "annotations",
            json!({"pillion.io/capture": "maybe"}),
            "expected `redirect` or `none`",
        ),
        (meta, "annotations", json!({"pillion.io/exclude-inbound-ports": "22,x"}), "`x`"),
        (meta, "labels", json!({"pillion.io/other": "x"}), "metadata.labels: unknown"),
        (
            "/spec/template/spec/containers/0/livenessProbe",
            "httpGet",
            json!({"port": "nope"}),
            "no port named `nope`",
        ),
    ] {
        let mut object = deployment();
        object.pointer_mut(place).unwrap()[field] = value;
        let before = object.clone();
        let error = inject(&mut object, &options()).unwrap_err();
        assert!(error.starts_with("Deployment catalog: ") && error.contains(expected), "{error}");
        assert_eq!(object, before);
    }
}

#[test]
fn a_pod_may_stay_out() {
    for place in ["labels", "annotations"] {
        let mut object = deployment();
        object["spec"]["template"]["metadata"][place]["pillion.io/inject"] = "disabled".into();
        let before = object.clone();
        assert_eq!(inject(&mut object, &options()), Ok(vec![Outcome::OptedOut]));
        assert_eq!(object, before);
    }
}

#[test]
fn what_is_printed_reads_as_what_it_was() {
    let tricky = [
        "yes",
        "on",
        "0x10",
        "1e3",
        "null",
        "",
        "a: b",
        "- x",
        "two\nlines",
        "~",
        "#no",
        "é\u{1}\"\\",
    ];
    let value =
        json!({"a": tricky, "no": {"y": [[1, [2, {"k": []}]], {}], "n": -1.5}, "t": [true, null]});
    let text = emit::yaml(&value);
    assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value, "{text}");
    assert!(text.contains("\"yes\"") && text.contains("\"no\":"), "{text}");
}

#[test]
fn the_example_of_a_gateway_is_one() {
    use pillion_proxy::app::flags::Flags;
    let text = include_str!("../../../examples/kubernetes/gateway.yaml");
    let read = crate::intent::read("gateway.yaml", text);
    let parsed = crate::intent::assemble(read.documents, read.problems);
    assert!(parsed.problems.iter().all(|one| one.message.ends_with("has no effect here")));
    let gateway = parsed.intent.gateways.values().next().unwrap();
    let documents = text.split("\n---\n").map(|one| serde_saphyr::from_str::<Value>(one).unwrap());
    let documents: Vec<Value> = documents.collect();
    let deployment = documents.iter().find(|one| one["kind"] == "Deployment").unwrap();
    let container = &spec(deployment)["containers"][0];
    let args = [&container["command"], &container["args"]].map(|list| list.as_array().unwrap());
    let args = args.into_iter().flatten().map(|arg| arg.as_str().unwrap());
    let flags = <Flags as clap::Parser>::try_parse_from(args).unwrap();
    assert_eq!(flags.sidecar.gateway.as_deref(), Some(gateway.name.name.as_str()));
    // The certificates are mounted where the listeners' references lead.
    let folder = flags.sidecar.certificate_dir.unwrap();
    let mounts: Vec<&str> = container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["mountPath"].as_str().unwrap())
        .collect();
    for secret in gateway.listeners.iter().flat_map(|one| &one.certificates) {
        let path = folder.join(&secret.namespace).join(&secret.name);
        assert!(mounts.iter().any(|mount| path == std::path::Path::new(mount)), "{path:?}");
    }
    let ports: Vec<u64> = container["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["containerPort"].as_u64().unwrap())
        .collect();
    assert!(gateway.listeners.iter().all(|one| ports.contains(&u64::from(one.port))));
    assert!(ports.contains(&u64::from(flags.health_port.unwrap())));
}
