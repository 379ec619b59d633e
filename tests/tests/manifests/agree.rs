//! The definitions that the API server has of our kinds say what the control plane itself says: each document is given
//! to both, and so are thousands that differ from it in one place.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::Context;
use pillion_tests::venv::{optional, program};
use serde_json::{Map, Value, json};

use super::{documents, pillion, python, repository, script};

/// One of each kind with every field that there is.
pub(super) const FULL: &str = r#"
apiVersion: pillion.io/v1alpha1
kind: Mesh
metadata: {name: full}
spec:
  trustDomain: shop.local
  mtls: Permissive
  outbound: RegistryOnly
  tracing: {otlp: "http://127.0.0.1:4317", samplingPercent: 1.5,
    tail: {slowerThan: 500ms, failed: false, perSecond: 50}}
  accessLog: {file: /dev/stdout, format: Json}
---
apiVersion: pillion.io/v1alpha1
kind: Workload
metadata: {name: full, labels: {app: a}}
spec:
  address: 10.0.0.7
  ports: {http: 8080}
  service: a
  serviceAccount: catalog
  locality: {region: eu, zone: eu-1, subZone: rack-2}
  weight: 1
  sidecarPort: 15006
---
apiVersion: pillion.io/v1alpha1
kind: Process
metadata: {name: full}
spec:
  command: [program, ""]
  service: a
  serviceAccount: a
  env: {A: ""}
  workingDir: /srv
  instances: 2
  listens: true
  healthCheck: {path: /healthz}
  restart: OnFailure
  terminationGracePeriod: 5s
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: full}
spec:
  targetRefs:
  - {group: "", kind: Service, name: a}
  - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: a}
  loadBalancer: {type: RingHash, hashOn: {cookie: {name: c, ttl: 1h}}}
  circuitBreaker: {maxConnections: 1, maxPendingRequests: 2, maxRequests: 3, maxRetries: 4}
  outlierDetection: {consecutive5xx: 1, consecutiveGatewayErrors: 2, consecutiveLocalOriginFailures: 3, interval: 1s,
    baseEjectionTime: 10s, maxEjectionTime: 1h, maxEjectionPercent: 50}
  healthCheck: {http: {path: /healthz, host: a.test}, interval: 5s, timeout: 1s, unhealthyThreshold: 3, healthyThreshold: 2}
  retry: {on: [reset, 5xx], codes: [503], attempts: 2, perTryTimeout: 250ms, backoff: 25ms,
    budget: {percent: 20, minPerSecond: 10}}
  timeout: {request: 5s, idle: 60s, connect: 1s}
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: by-header}
spec:
  targetRefs: [{kind: Service, name: a}]
  loadBalancer: {type: Maglev, hashOn: {header: X-User}}
  healthCheck: {grpc: {service: a}}
  retry: {attempts: 0}
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: by-address}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: a}]
  loadBalancer: {type: Maglev, hashOn: {sourceIp: true}}
  healthCheck: {tcp: {}}
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: limits}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a}]
  rateLimit: {requests: 10, per: 1s, burst: 20, by: {header: X-User}, maxClients: 100}
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: limits-by-address}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: a}]
  rateLimit: {requests: 10, by: {clientAddress: true}}
  timeout: {request: 5s}
---
apiVersion: pillion.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: full}
spec:
  targetRefs: [{group: "", kind: Service, name: a}]
  action: Allow
  rules:
  - {from: {serviceAccounts: [web, shop/web], namespaces: [ops]}, to: {methods: [GET], paths: [/a, "/b/*"], ports: [8080]}}
---
apiVersion: pillion.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: deny}
spec:
  action: Deny
  rules: [{from: {namespaces: [guests]}}, {to: {paths: [/internal]}}]
---
apiVersion: pillion.io/v1alpha1
kind: ExternalService
metadata: {name: full}
spec:
  hosts: [Api.example.com, example.com]
  addresses: [192.0.2.1, "2001:db8::1", api.example.com]
  ports:
  - {name: web, port: 443, targetPort: 8443, appProtocol: http,
      tls: {sni: api.example.com, caFile: /etc/roots.pem, subjectAltNames: [api.example.com]}}
  - {port: 80}
  via: {gateway: a, namespace: egress}
---
apiVersion: pillion.io/v1alpha1
kind: ExternalService
metadata: {name: database}
spec:
  hosts: [db.example.com]
  ports: [{port: 5432, appProtocol: postgres}]
"#;

#[rustfmt::skip]
const TEXTS: &[&str] = &[
    "", "a", "A_b", "x.y", "-a", "a-", "a..b", "10s", "0s", "1h30m", "1d", "0h0ms", "100000s", "1s1s1s1s1s", "s",
    "10.0.0.1", "010.0.0.1", "::1", "::g", "http://a", "http://a:1/", "http://", "http://[::1]:4317", "https://a",
    "http://a@b", "http://a/b", "Strict", "strict", "LeastRequest", "Json", "Always", "Service", "HTTPRoute",
    "gateway.networking.k8s.io", "reset", "unavailable", "GET /", "X-User", "X User", "15006",
];
#[rustfmt::skip]
const NUMBERS: &[i64] = &[
    -1, 0, 1, 99, 100, 101, 399, 400, 599, 600, 65_535, 65_536, 1_000_000, 1_000_001, 4_294_967_295, 4_294_967_296,
];

/// What stands in place of each value in turn.
fn values() -> Vec<Value> {
    let (x, y) = ("x".repeat(63), "y".repeat(63));
    let long =
        [format!("{x}x"), format!("{x}.{y}"), vec!["abc"; 63].join("."), vec!["abc"; 64].join(".")];
    let others = [
        json!(true),
        json!(false),
        json!([]),
        json!({}),
        json!(["a"]),
        json!([503]),
        json!({"a": "b"}),
        json!({"a": 1}),
        json!(0.5),
        json!(x),
    ];
    let texts = TEXTS.iter().map(|text| json!(text));
    let numbers = NUMBERS.iter().map(|number| json!(number));
    texts.chain(numbers).chain(long.map(Value::from)).chain(others).collect()
}

/// Pointers to everything in a value, itself included.
fn places(value: &Value, pointer: &str, all: &mut Vec<String>) {
    all.push(pointer.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                places(inner, &format!("{pointer}/{key}"), all);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                places(inner, &format!("{pointer}/{index}"), all);
            }
        }
        _ => {}
    }
}

fn variants(document: &Value) -> Vec<Value> {
    let mut all = vec![document.clone()];
    let mut found = Vec::new();
    places(&document["spec"], "/spec", &mut found);
    for place in found {
        let with = |value: Value| {
            let mut changed = document.clone();
            if let Some(slot) = changed.pointer_mut(&place) {
                *slot = value;
            }
            changed
        };
        all.extend(values().into_iter().map(with));
        let mut without = document.clone();
        let (parent, field) = place.rsplit_once('/').unwrap_or_default();
        let gone = match without.pointer_mut(parent) {
            Some(Value::Object(fields)) => fields.remove(field).is_some(),
            Some(Value::Array(items)) => field.parse().is_ok_and(|at: usize| {
                items.remove(at);
                true
            }),
            _ => false,
        };
        assert!(gone, "{place}");
        all.push(without);
        let mut more = document.clone();
        if let Some(Value::Object(fields)) = more.pointer_mut(&place) {
            fields.insert("unheardOf".to_owned(), 1.into());
            all.push(more);
        }
    }
    all
}

fn own_documents() -> anyhow::Result<Vec<Value>> {
    let mut all = documents(FULL)?;
    for entry in fs::read_dir(repository().join("examples"))? {
        let folder = entry?.path().join("mesh");
        if !folder.is_dir() {
            continue;
        }
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            let text = fs::read_to_string(&path)?;
            all.extend(documents(&text).with_context(|| path.display().to_string())?);
        }
    }
    all.retain(|one| one["apiVersion"] == "pillion.io/v1alpha1");
    Ok(all)
}

/// What the control plane says of each, apart from what it says of objects that are not there and objects that are there
/// twice: no schema can know these.
fn by_parser(all: &[Value]) -> anyhow::Result<Vec<Vec<String>>> {
    let dir = tempfile::tempdir()?;
    let mut text = String::new();
    for (index, document) in all.iter().enumerate() {
        let mut document = document.clone();
        document["metadata"]["name"] = format!("v{index}").into();
        text.push_str(&format!("---\n{document}\n"));
    }
    fs::write(dir.path().join("all.yaml"), text)?;
    let output = Command::new(program("pillion")?)
        .args(["check", "--output", "json"])
        .arg(dir.path())
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let mut found = vec![Vec::new(); all.len()];
    for problem in report["problems"].as_array().into_iter().flatten() {
        let text = |field: &str| problem[field].as_str().unwrap_or_default();
        let of_others = ["there is no ", "there is one Mesh already"];
        if text("severity") != "error"
            || of_others.iter().any(|one| text("message").starts_with(one))
        {
            continue;
        }
        let number = problem["document"].as_u64().context("a problem has a document")?;
        let index = usize::try_from(number)?.checked_sub(1).context("documents count from 1")?;
        found[index].push(format!("{}: {}", text("field"), text("message")));
    }
    Ok(found)
}

#[test]
fn the_definitions_and_the_control_plane_agree() -> anyhow::Result<()> {
    let Some(venv) = optional("the validator of schemas", python())? else { return Ok(()) };
    let schemas: Map<String, Value> = pillion(&["install", "--crds-only"])?
        .into_iter()
        .map(|crd| {
            let schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            (crd["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned(), schema)
        })
        .collect();
    let own = own_documents()?;
    let all: Vec<Value> = own.iter().flat_map(variants).collect();
    let by_parser = by_parser(&all)?;
    let answer = script(&venv, "check.py", &json!({"schemas": schemas, "documents": all}))?;
    let by_schema: Vec<Vec<String>> = serde_json::from_value(answer)?;
    assert_eq!(by_schema.len(), all.len());
    let mut differ = Vec::new();
    let mut counts: BTreeMap<bool, usize> = BTreeMap::new();
    for ((document, parser), schema) in all.iter().zip(&by_parser).zip(&by_schema) {
        *counts.entry(schema.is_empty()).or_default() += 1;
        if parser.is_empty() != schema.is_empty() {
            differ.push(format!("{document}\n  parser: {parser:?}\n  schema: {schema:?}"));
        }
    }
    assert!(differ.is_empty(), "{} of {}:\n{}", differ.len(), all.len(), differ.join("\n"));
    assert!(counts.values().all(|count| *count > 500), "good and bad: {counts:?}");
    for document in &own {
        let index =
            all.iter().position(|one| one == document).context("it is one of its variants")?;
        assert!(by_schema[index].is_empty(), "{document}: {:?}", by_schema[index]);
    }
    Ok(())
}
