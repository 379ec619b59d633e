//! Good documents give the data that was meant; bad ones name the place and what was expected.

use std::time::Duration;

use super::*;

const SHOP: &str = r#"
apiVersion: pillion.io/v1alpha1
kind: Mesh
metadata: {name: shop}
spec:
  trustDomain: shop.local
  mtls: Permissive
  outbound: RegistryOnly
  tracing: {otlp: "http://127.0.0.1:4317", samplingPercent: 1}
---
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: default}
spec:
  selector: {app: catalog}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
---
apiVersion: v1
kind: Service
metadata:
  name: catalog-v2
  annotations: {pillion.io/depends-on: "catalog"}
spec:
  selector: {app: catalog, version: v2}
  ports: [{port: 80}, {port: 9090, name: grpc-api}, {port: 53, protocol: UDP}, {port: 5432, appProtocol: postgres}]
---
apiVersion: pillion.io/v1alpha1
kind: Workload
metadata: {name: catalog-v2-a, labels: {app: catalog, version: v2}}
spec: {address: 10.0.0.7, ports: {http: 8080}, serviceAccount: catalog, locality: {region: eu, zone: eu-1}, weight: 1}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: catalog}
spec:
  parentRefs: [{group: "", kind: Service, name: catalog, port: 80}]
  rules:
  - matches:
    - path: {type: PathPrefix, value: /api/}
      headers: [{name: X-User, value: kim}]
      queryParams: [{name: beta, type: RegularExpression, value: "1|yes"}]
      method: GET
    filters:
    - type: URLRewrite
      urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}
    backendRefs: [{name: catalog, port: 80, weight: 90}, {name: catalog-v2, port: 80, weight: 10}]
    timeouts: {request: 10s, backendRequest: 500ms}
    retry: {codes: [503], attempts: 3, backoff: 25ms}
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: catalog}
spec:
  targetRefs: [{group: "", kind: Service, name: catalog}]
  loadBalancer: {type: LeastRequest}
  circuitBreaker: {maxConnections: 100, maxPendingRequests: 50, maxRequests: 200, maxRetries: 3}
  outlierDetection: {consecutive5xx: 5, interval: 10s, baseEjectionTime: 30s, maxEjectionPercent: 50}
  retry: {on: [connect-failure, refused-stream, reset-before-request], attempts: 2, perTryTimeout: 250ms, budget: {percent: 20, minPerSecond: 10}}
  timeout: {request: 5s, idle: 60s}
"#;

fn parse(text: &str) -> Parsed {
    let found = read("shop.yaml", text);
    assemble(found.documents, found.problems)
}

fn name(name: &str) -> Name {
    Name::new("default", name)
}

#[test]
fn the_taste_of_the_design_is_understood() {
    let parsed = parse(SHOP);
    // The UDP port is the one thing worth a word.
    assert_eq!(parsed.problems.len(), 1, "{:#?}", parsed.problems);
    let warning = &parsed.problems[0];
    assert_eq!((warning.severity, warning.line), (Severity::Warning, 25));
    assert_eq!(warning.field, "spec.ports[2].protocol");

    let intent = &parsed.intent;
    assert_eq!(intent.mesh.trust_domain, "shop.local");
    assert_eq!(intent.mesh.mtls, Mtls::Permissive);
    let tracing = intent.mesh.tracing.as_ref().unwrap();
    assert_eq!((tracing.host.as_str(), tracing.port), ("127.0.0.1", 4317));

    let ports = &intent.services[&name("catalog-v2")].ports;
    let protocols: Vec<_> = ports.iter().map(|port| (port.port, port.protocol)).collect();
    assert_eq!(
        protocols,
        [(80, AppProtocol::Http), (9090, AppProtocol::Grpc), (5432, AppProtocol::Tcp)]
    );
    assert_eq!(intent.services[&name("catalog-v2")].depends_on, Some(vec![name("catalog")]));

    let workload = &intent.workloads[&name("catalog-v2-a")];
    assert!(intent.services[&name("catalog-v2")].selects(workload));
    assert_eq!(workload.locality.zone, "eu-1");

    let route = &intent.routes[&(RouteKind::Http, name("catalog"))];
    let rule = &route.rules[0];
    assert_eq!(rule.matches[0].path, PathMatch::Prefix("/api".to_owned()));
    assert_eq!(rule.matches[0].headers[0].name, "x-user");
    assert_eq!(rule.timeouts.backend_request, Some(Duration::from_millis(500)));
    assert_eq!(rule.retry.as_ref().unwrap().codes, [503]);
    assert_eq!(rule.backends[1].weight, 10);

    let policy = &intent.policies[&Target::Service(name("catalog"))];
    assert_eq!(policy.timeout.idle, Some(Duration::from_secs(60)));
    assert_eq!(policy.retry.as_ref().unwrap().per_try_timeout, Some(Duration::from_millis(250)));
    assert_eq!(policy.circuit_breaker.unwrap().max_retries, Some(3));
}

#[test]
fn a_grpc_route_becomes_paths() {
    let parsed = parse(
        r#"
apiVersion: v1
kind: Service
metadata: {name: cart}
spec: {ports: [{name: grpc, port: 9000}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart}
spec:
  parentRefs: [{group: "", kind: Service, name: cart}]
  rules:
  - matches:
    - method: {service: shop.v1.Cart, method: Add}
    - method: {service: shop.v1.Cart}
    - method: {method: Get.All}
    backendRefs: [{name: cart, port: 9000}]
"#,
    );
    assert_eq!(parsed.problems, []);
    let route = &parsed.intent.routes[&(RouteKind::Grpc, name("cart"))];
    let paths: Vec<_> = route.rules[0].matches.iter().map(|found| &found.path).collect();
    assert_eq!(
        paths,
        [
            &PathMatch::Exact("/shop.v1.Cart/Add".to_owned()),
            &PathMatch::Prefix("/shop.v1.Cart".to_owned()),
            &PathMatch::Regex("/[^/]+/Get\\.All".to_owned()),
        ]
    );
}

/// The shop with the first line that contains `marker` replaced, and that line's number.
fn with_line(marker: &str, text: &str) -> (Parsed, u32) {
    let mut lines: Vec<&str> = SHOP.lines().collect();
    let index = lines.iter().position(|line| line.contains(marker)).expect("a line of the shop");
    lines[index] = text;
    (parse(&lines.join("\n")), u32::try_from(index).unwrap() + 1)
}

/// What to write in place of which line of the shop; column, field and parts of the message and expectation.
type Row = (&'static str, &'static str, u32, &'static str, &'static str, &'static str);

const MESH_AND_WORKLOAD: &[Row] = &[
    ("trustDomain", "  trustDomain: 5", 16, "spec.trustDomain", "found the number 5", "quotes"),
    ("mtls", "  mtls: strict", 9, "spec.mtls", "did you mean `Strict`", "`Permissive`"),
    ("outbound", "  outbond: x", 3, "spec.outbond", "did you mean `outbound`", "`tracing`"),
    ("tracing", "  tracing: {otlp: ftp://x}", 19, "spec.tracing.otlp", "found the string", "OTLP"),
    (
        "tracing",
        "  tracing: {otlp: \"http://x\", tail: {failed: false}}",
        37,
        "spec.tracing.tail",
        "keeps nothing",
        "",
    ),
    (
        "tracing",
        "  tracing: {otlp: \"http://x\", tail: {perSecond: 0}}",
        49,
        "spec.tracing.tail.perSecond",
        "found the number 0",
        "1 to 100000",
    ),
    (
        "tracing",
        "  tracing: {otlp: \"http://x\", tail: {slowerThan: 1}}",
        50,
        "spec.tracing.tail.slowerThan",
        "found the number 1",
        "250ms",
    ),
    ("{name: catalog, n", "metadata: {name: Cat}", 18, "metadata.name", "\"Cat\"", "DNS label"),
    ("targetPort", "  ports: [{port: 70000}]", 18, "spec.ports[0].port", "70000", "1 to 65535"),
    ("10.0.0.7", "spec: {address: catalog}", 17, "spec.address", "\"catalog\"", "IPv4"),
    ("10.0.0.7", "spec: {ports: {a: 1}}", 7, "spec.address", "`address` is missing", ""),
];

const ROUTE_AND_POLICY: &[Row] = &[
    (
        "headers:",
        "      headers: [{name: x user, value: a}]",
        24,
        "spec.rules[0].matches[0].headers[0].name",
        "\"x user\"",
        "HTTP header",
    ),
    (
        "queryParams:",
        "      queryParams: [{name: a, type: RegularExpression, value: \"(\"}]",
        63,
        "spec.rules[0].matches[0].queryParams[0].value",
        "unclosed group",
        "",
    ),
    (
        "method:",
        "      method: get",
        15,
        "spec.rules[0].matches[0].method",
        "did you mean `GET`",
        "`POST`",
    ),
    (
        "timeouts:",
        "    timeouts: {request: 10}",
        25,
        "spec.rules[0].timeouts.request",
        "found the number 10",
        "`250ms`",
    ),
    (
        "backendRefs:",
        "    backendRefs: [{name: catalog, wieght: 90}]",
        35,
        "spec.rules[0].backendRefs[0].wieght",
        "unknown field `wieght`, did you mean `weight`?",
        "",
    ),
    (
        "loadBalancer:",
        "  loadBalancer: {type: LeastRequests}",
        24,
        "spec.loadBalancer.type",
        "did you mean `LeastRequest`",
        "`Maglev`",
    ),
    (
        "outlierDetection:",
        "  outlierDetection: {maxEjectionPercent: 101}",
        42,
        "spec.outlierDetection.maxEjectionPercent",
        "101",
        "0 to 100",
    ),
    (
        "perTryTimeout",
        "  retry: {on: [conect-failure]}",
        16,
        "spec.retry.on[0]",
        "did you mean `connect-failure`",
        "",
    ),
    ("idle:", "  timeout: {request: 5 s}", 22, "spec.timeout.request", "unit is missing", "`10s`"),
];

#[test]
fn every_error_names_place_field_and_expectation() {
    for (marker, text, column, field, message, expected) in
        MESH_AND_WORKLOAD.iter().chain(ROUTE_AND_POLICY)
    {
        let (parsed, line) = with_line(marker, text);
        let found = parsed.problems.iter().find(|problem| problem.field == *field);
        let found = found.unwrap_or_else(|| panic!("{text}: {:#?}", parsed.problems));
        assert_eq!((found.line, found.column), (line, *column), "{text}: {found}");
        assert!(found.message.contains(message), "{text}: {found}");
        let said = found.expected.as_deref().unwrap_or_default();
        assert!(said.contains(expected), "{text}: {found}");
        // What the Gateway API does not know today it may know tomorrow.
        let lenient = message.contains("wieght");
        assert_eq!(found.severity == Severity::Warning, lenient, "{text}: {found}");
        assert_eq!(&*found.file, "shop.yaml");
    }
}

#[test]
fn a_rules_parts_must_fit_each_other() {
    let table = [
        (
            "timeouts:",
            "    timeouts: {request: 1s, backendRequest: 2s}",
            "longer than timeouts.request",
        ),
        (
            "path: {type",
            "    - path: {type: Exact, value: /api}",
            "needs matches of type PathPrefix",
        ),
        (
            "type: URLRewrite",
            "    - {type: RequestRedirect, requestRedirect: {port: 1}}\n    - type: URLRewrite",
            "not both",
        ),
        ("backendRefs:", "    backendRefs: [{name: catalog, weight: 0}]", "add up to 0"),
        ("backendRefs:", "    backendRefs: []", "has no backendRefs"),
    ];
    for (marker, text, message) in table {
        let (parsed, _) = with_line(marker, text);
        let found = parsed.problems.iter().find(|problem| problem.message.contains(message));
        let found = found.unwrap_or_else(|| panic!("{text}: {:#?}", parsed.problems));
        assert_eq!(found.field, "spec.rules[0]", "{found}");
    }
}

#[test]
fn references_to_nothing_are_errors_that_take_nothing_with_them() {
    let table = [
        (
            "parentRefs",
            "  parentRefs: [{group: \"\", kind: Service, name: katalog}]",
            49,
            "`catalog`?",
        ),
        (
            "parentRefs",
            "  parentRefs: [{group: \"\", kind: Service, name: catalog, port: 81}]",
            49,
            "no port 81",
        ),
        (
            "backendRefs",
            "    backendRefs: [{name: catalog-v3, port: 80}]",
            26,
            "did you mean `catalog",
        ),
        (
            "backendRefs",
            "    backendRefs: [{name: catalog-v2}, {name: catalog, port: 8}]",
            46,
            "no port 8",
        ),
        (
            "targetRefs",
            "  targetRefs: [{group: \"\", kind: Service, name: cart}]",
            49,
            "no Service default/cart",
        ),
        (
            "depends-on",
            "  annotations: {pillion.io/depends-on: \"orders\"}",
            40,
            "no Service default/orders",
        ),
    ];
    for (marker, text, column, message) in table {
        let (parsed, line) = with_line(marker, text);
        let errors: Vec<_> =
            parsed.problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{text}: {errors:#?}");
        assert_eq!((errors[0].line, errors[0].column), (line, column), "{text}: {}", errors[0]);
        assert!(errors[0].message.contains(message), "{text}: {}", errors[0]);
        assert_eq!(parsed.intent.routes.len(), 1, "the route stays in force");
    }
}

#[test]
fn unknown_fields_of_the_gateway_api_are_warnings_and_the_rest_is_applied() {
    let (parsed, line) = with_line("method: GET", "      method: GET\n      sorcery: true");
    let problem = parsed.problems.iter().find(|problem| problem.field.contains("sorcery")).unwrap();
    assert_eq!(problem.severity, Severity::Warning);
    assert_eq!(problem.line, line + 1);
    assert_eq!(parsed.intent.routes.len(), 1);
}

#[test]
fn filters_that_cannot_be_applied_are_not_skipped() {
    let (parsed, _) = with_line("- type: URLRewrite", "    - type: ExtensionRef");
    let route = &parsed.intent.routes[&(RouteKind::Http, name("catalog"))];
    assert_eq!(route.rules[0].filters, [Filter::Unsupported("ExtensionRef".to_owned())]);
    assert!(parsed.problems.iter().any(|problem| problem.message.contains("get a 500")));
}

#[test]
fn a_bad_document_takes_no_other_with_it() {
    let text = "kind: [\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: no}\n";
    let found = read("a.yaml", text);
    assert_eq!(found.documents.len(), 1);
    assert_eq!(found.documents[0].id.to_string(), "Service default/a");
    let b = ObjectId { kind: Kind::Service, name: name("b") };
    assert_eq!(found.rejected, [None, Some(b)]);
    let errors = found.problems.iter().filter(|problem| problem.severity == Severity::Error);
    assert_eq!(errors.map(|problem| problem.document).collect::<Vec<_>>(), [1, 3]);
    assert!(found.problems[0].message.contains("not YAML"), "{}", found.problems[0]);
}

#[test]
fn duplicates_name_both_places() {
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
    let mut documents = read("b.yaml", service).documents;
    documents.extend(read("a.yaml", &format!("# one\n{service}")).documents);
    let parsed = assemble(documents, Vec::new());
    assert_eq!(parsed.problems.len(), 1);
    assert_eq!(&*parsed.problems[0].file, "b.yaml");
    assert!(
        parsed.problems[0].message.contains("already defined at a.yaml:2"),
        "{}",
        parsed.problems[0]
    );
}

#[test]
fn of_two_policies_on_one_target_the_older_one_wins() {
    let policy = |name: &str, created: &str| {
        format!(
            "apiVersion: pillion.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}{created}}}\nspec: {{targetRefs: [{{kind: Service, name: catalog}}]}}\n---\n"
        )
    };
    let services = SHOP.split("---").nth(1).unwrap();
    let (b, c) = (policy("b", ""), policy("c", ""));
    let old = policy("z", ", creationTimestamp: \"2024-01-01T00:00:00Z\"");
    let target = Target::Service(name("catalog"));
    let first = parse(&format!("{c}{b}{services}"));
    assert_eq!(first.intent.policies[&target].name, name("b"));
    assert_eq!(first.problems[0].severity, Severity::Warning);
    assert!(first.problems[0].object.ends_with("default/c"));
    let second = parse(&format!("{c}{b}{old}---\n{services}"));
    assert_eq!(second.intent.policies[&target].name, name("z"));
}

#[test]
fn other_peoples_kinds_are_left_alone_and_slips_are_not() {
    let one = |api: &str, kind: &str| {
        read(
            "x.yaml",
            &format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n"),
        )
        .problems
    };
    assert_eq!(one("apps/v1", "Deployment")[0].severity, Severity::Warning);
    let slip = &one("gateway.networking.k8s.io/v1", "HttpRoute")[0];
    assert!(slip.message.contains("did you mean `HTTPRoute`"), "{slip}");
    assert_eq!((slip.severity, slip.line, slip.column), (Severity::Error, 2, 7));
    let version = &one("pillion.io/v1", "Mesh")[0];
    assert!(version.to_string().contains("expected `pillion.io/v1alpha1`"), "{version}");
    assert_eq!(one("pillion.io/v1alpha1", "Rollout")[0].severity, Severity::Error);
}
