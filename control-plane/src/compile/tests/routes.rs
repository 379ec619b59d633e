//! Routes: order, splits, rewrites, retries, and what becomes of mistakes.

use pillion_xds::envoy::config::core::v3::data_source::Specifier;
use pillion_xds::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use pillion_xds::envoy::config::route::v3::route::Action;
use pillion_xds::envoy::config::route::v3::route_action::ClusterSpecifier;
use pillion_xds::envoy::config::route::v3::route_match::PathSpecifier;
use pillion_xds::envoy::config::route::v3::{DirectResponseAction, RouteAction, RouteMatch};

use super::*;

fn route(rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n  parentRefs: [{{group: \"\", kind: Service, name: catalog}}]\n  rules:\n{rules}\n---\n"
    )
}

fn catalog_routes(more: &str) -> Vec<Route> {
    let set = world(more).for_node(&sidecar("cart"));
    host_routes(&set, "outbound", "catalog.default:80")
}

fn action(route: &Route) -> &RouteAction {
    match &route.action {
        Some(Action::Route(action)) => action,
        other => panic!("a route action, not {other:?}"),
    }
}

fn answer(route: &Route) -> &DirectResponseAction {
    match &route.action {
        Some(Action::DirectResponse(answer)) => answer,
        other => panic!("an answer, not {other:?}"),
    }
}

fn body(route: &Route) -> &str {
    match &answer(route).body.as_ref().unwrap().specifier {
        Some(Specifier::InlineString(text)) => text,
        _ => panic!("an inline text"),
    }
}

fn matched(route: &Route) -> &RouteMatch {
    route.r#match.as_ref().unwrap()
}

/// `path` and whether the route is for methods that may be repeated.
fn summary(route: &Route) -> (String, bool) {
    let path = match matched(route).path_specifier.as_ref().unwrap() {
        PathSpecifier::Path(path) => format!("={path}"),
        PathSpecifier::Prefix(prefix) => format!("{prefix}*"),
        PathSpecifier::PathSeparatedPrefix(prefix) => format!("{prefix}/*"),
        PathSpecifier::SafeRegex(regex) => format!("~{}", regex.regex),
        other => panic!("{other:?}"),
    };
    let safe = matched(route).headers.iter().any(|header| {
        header.name == ":method" && format!("{header:?}").contains("GET|HEAD|OPTIONS|TRACE")
    });
    (path, safe)
}

#[test]
fn without_a_route_everything_goes_to_the_service_with_safe_retries() {
    let routes = catalog_routes("");
    assert_eq!(
        routes.iter().map(summary).collect::<Vec<_>>(),
        [("/*".into(), true), ("/*".into(), false)]
    );
    for route in &routes {
        let cluster = ClusterSpecifier::Cluster("catalog.default:80".to_owned());
        assert_eq!(action(route).cluster_specifier, Some(cluster));
        assert_eq!(action(route).timeout.as_ref().unwrap().seconds, 0, "no limit unless asked for");
    }
    let safe = action(&routes[0]).retry_policy.as_ref().unwrap();
    assert_eq!(safe.retry_on, "connect-failure,refused-stream,reset,retriable-headers");
    let other = action(&routes[1]).retry_policy.as_ref().unwrap();
    assert_eq!(
        other.retry_on,
        "connect-failure,refused-stream,reset-before-request,retriable-headers"
    );
    assert_eq!(other.num_retries, Some(2));
    assert_eq!(other.retriable_headers[0].name, "x-pillion-retriable");
    assert_eq!(
        other.retriable_headers[0].header_match_specifier,
        Some(HeaderMatchSpecifier::PresentMatch(true))
    );
    assert_eq!(other.retry_host_predicate.len(), 1);
    assert_eq!(other.host_selection_retry_max_attempts, 40);
}

#[test]
fn the_most_specific_match_comes_first() {
    let rules = r#"
  - matches:
    - {path: {value: /}}
    - {path: {value: /api}}
    - {path: {value: /api}, headers: [{name: a, value: "1"}]}
    - {path: {value: /api}, headers: [{name: a, value: "1"}, {name: b, value: "2"}]}
    - {path: {value: /api}, queryParams: [{name: q, value: "1"}]}
    - {path: {value: /api}, method: POST}
    - {path: {value: /api/v1}}
    - {path: {type: RegularExpression, value: "/x/.*"}}
    - {path: {type: Exact, value: /api}}
    backendRefs: [{name: catalog, port: 80}]
"#;
    let seen: Vec<(String, usize, usize)> = catalog_routes(&route(rules))
        .iter()
        .filter(|route| !summary(route).1)
        .map(|route| {
            (summary(route).0, matched(route).headers.len(), matched(route).query_parameters.len())
        })
        .collect();
    let expected = [
        ("=/api", 0, 0),
        ("~/x/.*", 0, 0),
        ("/api/v1/*", 0, 0),
        ("/api/*", 1, 0), // the method
        ("/api/*", 2, 0),
        ("/api/*", 1, 0),
        ("/api/*", 0, 1),
        ("/api/*", 0, 0),
        ("/*", 0, 0),
    ];
    let expected: Vec<_> = expected.map(|(path, h, q)| (path.to_owned(), h, q)).into();
    assert_eq!(seen, expected);
}

#[test]
fn weights_and_header_changes_of_backends() {
    let rules = r#"
  - filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: "100%"}], remove: [x-b]}}
    backendRefs:
    - {name: catalog, port: 80, weight: 90}
    - name: catalog-v2
      port: 80
      weight: 10
      filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x-v, value: "2"}]}}]
    - {name: cart, port: 8080, weight: 0}
"#;
    let routes = catalog_routes(&route(rules));
    assert_eq!(routes.len(), 2);
    assert_eq!(routes[0].name, "default/r/0");
    let Some(ClusterSpecifier::WeightedClusters(split)) = &action(&routes[0]).cluster_specifier
    else {
        panic!("weighted clusters")
    };
    let weights: Vec<_> =
        split.clusters.iter().map(|part| (part.name.as_str(), part.weight.unwrap())).collect();
    assert_eq!(weights, [("catalog.default:80", 90), ("catalog-v2.default:80", 10)]);
    assert_eq!(split.clusters[1].response_headers_to_add.len(), 1);
    let added = routes[0].request_headers_to_add[0].header.as_ref().unwrap();
    assert_eq!((added.key.as_str(), added.value.as_str()), ("x-a", "100%%"), "no operator");
    assert_eq!(routes[0].request_headers_to_remove, ["x-b"]);
}

#[test]
fn a_backend_that_does_not_exist_costs_its_share_only() {
    let rules = "  - backendRefs: [{name: catalog, port: 80, weight: 3}, {name: gone, port: 80, weight: 1}]";
    let found = read("t.yaml", &format!("{SERVICES}---\n{}", route(rules)));
    let parsed = assemble(found.documents, found.problems);
    assert_eq!(parsed.problems.len(), 1, "{:?}", parsed.problems);
    let set = World::new(Arc::new(parsed.intent), Map::new()).for_node(&sidecar("cart"));
    let routes = host_routes(&set, "outbound", "catalog.default:80");
    assert_eq!(routes.len(), 3);
    assert_eq!(answer(&routes[0]).status, 500);
    assert!(body(&routes[0]).contains("there is no Service default/gone"));
    let share =
        matched(&routes[0]).runtime_fraction.as_ref().unwrap().default_value.as_ref().unwrap();
    assert_eq!(share.numerator, 250_000, "a quarter, in millionths");
    let rest = ClusterSpecifier::Cluster("catalog.default:80".to_owned());
    assert_eq!(action(&routes[1]).cluster_specifier, Some(rest));
}

#[test]
fn rules_that_lead_nowhere_say_why() {
    for (rule, why) in [
        ("  - backendRefs: []", "no backendRefs"),
        ("  - backendRefs: [{name: catalog, port: 80, weight: 0}]", "add up to 0"),
        (
            "  - {filters: [{type: CORS}], backendRefs: [{name: catalog, port: 80}]}",
            "CORS is not supported",
        ),
    ] {
        let routes = catalog_routes(&route(rule));
        assert_eq!(routes.len(), 1, "{rule}");
        assert_eq!(answer(&routes[0]).status, 500);
        let body = body(&routes[0]);
        assert!(body.contains(why) && body.contains("HTTPRoute default/r/0"), "{body}");
    }
}

/// The rewrite of a prefix `from` to `to`: prefix_rewrite, or regular expression and substitution.
fn rewritten(from: &str, to: &str) -> (String, String, String) {
    let rules = format!(
        "  - matches: [{{path: {{value: {from}}}}}]\n    filters: [{{type: URLRewrite, urlRewrite: {{hostname: new.host, path: {{type: ReplacePrefixMatch, replacePrefixMatch: {to}}}}}}}]\n    backendRefs: [{{name: catalog, port: 80}}]"
    );
    let routes = catalog_routes(&route(&rules));
    let action = action(&routes[0]);
    let (pattern, substitution) =
        action.regex_rewrite.as_ref().map_or_else(Default::default, |found| {
            (found.pattern.as_ref().unwrap().regex.clone(), found.substitution.clone())
        });
    assert!(format!("{:?}", action.host_rewrite_specifier).contains("new.host"));
    (action.prefix_rewrite.clone(), pattern, substitution)
}

#[test]
fn prefixes_are_replaced_without_double_slashes() {
    let text =
        |found: (&str, &str, &str)| (found.0.to_owned(), found.1.to_owned(), found.2.to_owned());
    assert_eq!(rewritten("/old", "/new"), text(("/new", "", "")));
    assert_eq!(rewritten("/old/", "/new/"), text(("/new", "", "")));
    assert_eq!(rewritten("/", "/new"), text(("/new/", "", "")));
    assert_eq!(rewritten("/", "/"), text(("/", "", "")));
    assert_eq!(rewritten("/o.d", "/"), text(("", "^/o\\.d/?", "/")));
}

#[test]
fn redirects_keep_what_is_not_written() {
    let rules = "  - filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: a.b, port: 8443, statusCode: 301, path: {type: ReplaceFullPath, replaceFullPath: /x}}}]";
    let routes = catalog_routes(&route(rules));
    assert_eq!(routes.len(), 1);
    let Some(Action::Redirect(redirect)) = &routes[0].action else { panic!("a redirect") };
    assert_eq!((redirect.host_redirect.as_str(), redirect.port_redirect), ("a.b", 8443));
    assert_eq!(redirect.response_code, 0, "301");
    assert!(format!("{redirect:?}").contains("PathRedirect(\"/x\")"), "{redirect:?}");
    let bare = "  - filters: [{type: RequestRedirect, requestRedirect: {hostname: a.b}}]";
    let Some(Action::Redirect(redirect)) = &catalog_routes(&route(bare))[0].action.clone() else {
        panic!("a redirect")
    };
    assert_eq!((redirect.response_code, redirect.port_redirect), (1, 0), "302 by default");
}

#[test]
fn settings_of_rule_route_and_service_in_this_order() {
    let policy = |name: &str, target: &str, spec: &str| {
        format!(
            "apiVersion: pillion.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}}}\nspec: {{targetRefs: [{target}], {spec}}}\n---\n"
        )
    };
    let on_service = policy(
        "s",
        "{kind: Service, name: catalog}",
        "timeout: {request: 9s, idle: 8s}, retry: {on: [5xx], attempts: 4, perTryTimeout: 1s, codes: [429]}",
    );
    let plain = "  - backendRefs: [{name: catalog, port: 80}]";
    let routes = catalog_routes(&format!("{}{on_service}", route(plain)));
    assert_eq!(routes.len(), 1, "an explicit policy holds for every method");
    let seconds = |time: &Option<prost_types::Duration>| time.as_ref().map(|time| time.seconds);
    let found = action(&routes[0]);
    assert_eq!((seconds(&found.timeout), seconds(&found.idle_timeout)), (Some(9), Some(8)));
    let retry = found.retry_policy.as_ref().unwrap();
    assert_eq!(retry.retry_on, "5xx,retriable-headers,retriable-status-codes");
    assert_eq!((retry.num_retries, seconds(&retry.per_try_timeout)), (Some(4), Some(1)));
    assert_eq!(retry.retriable_status_codes, [429]);

    let on_route = policy(
        "r",
        "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}",
        "timeout: {request: 7s}, retry: {attempts: 0}",
    );
    let routes = catalog_routes(&format!("{}{on_service}{on_route}", route(plain)));
    let found = action(&routes[0]);
    assert_eq!((seconds(&found.timeout), seconds(&found.idle_timeout)), (Some(7), Some(8)));
    assert_eq!(found.retry_policy.as_ref().unwrap().num_retries, Some(0), "turned off");

    let rule = "  - backendRefs: [{name: catalog, port: 80}]\n    timeouts: {request: 6s, backendRequest: 2s}\n    retry: {codes: [503], attempts: 5, backoff: 1s}";
    let routes = catalog_routes(&format!("{}{on_service}{on_route}", route(rule)));
    let found = action(&routes[0]);
    let retry = found.retry_policy.as_ref().unwrap();
    assert_eq!((seconds(&found.timeout), seconds(&retry.per_try_timeout)), (Some(6), Some(2)));
    assert_eq!((retry.num_retries, retry.retriable_status_codes.as_slice()), (Some(5), &[503][..]));
    assert_eq!(seconds(&retry.retry_back_off.as_ref().unwrap().max_interval), Some(10));
}

#[test]
fn grpc_is_all_posts_and_keeps_the_clients_deadline() {
    let set = world("").for_node(&sidecar("catalog"));
    let routes = host_routes(&set, "outbound", "cart.default:9000");
    assert_eq!(routes.len(), 1);
    let found = action(&routes[0]);
    assert!(found.max_stream_duration.as_ref().unwrap().grpc_timeout_header_max.is_some());
    assert!(found.retry_policy.as_ref().unwrap().retry_on.contains("reset-before-request"));
}

#[test]
fn grpc_clients_get_routes_that_they_do_not_skip() {
    let more = format!(
        "{}apiVersion: pillion.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: s}}\nspec: {{targetRefs: [{{kind: Service, name: catalog}}], timeout: {{request: 3s}}, retry: {{on: [unavailable, reset], attempts: 2}}}}\n",
        route(
            "  - matches: [{path: {value: /shop.v1.Catalog}}]\n    backendRefs: [{name: catalog, port: 80}]"
        )
    );
    let set = world(&more).for_node(&grpc_client(None));
    let routes = host_routes(&set, "catalog.default:80", "catalog.default:80");
    let paths: Vec<_> = routes.iter().map(|route| summary(route).0).collect();
    assert_eq!(paths, ["=/shop.v1.Catalog", "/shop.v1.Catalog/*"]);
    let found = action(&routes[0]);
    assert_eq!(found.retry_policy.as_ref().unwrap().retry_on, "unavailable");
    let limit = found.max_stream_duration.as_ref().unwrap().max_stream_duration.as_ref().unwrap();
    assert_eq!(limit.seconds, 3);
    assert_eq!(found.timeout, None);
}

#[test]
fn host_names_depend_on_where_one_stands() {
    let domains = |node: &Node, host: &str| -> Vec<String> {
        let set = world("").for_node(node);
        let found: RouteConfiguration = decode(&set, ResourceType::Route, "outbound");
        found.virtual_hosts.into_iter().find(|known| known.name == host).unwrap().domains
    };
    let here = sidecar("cart");
    assert_eq!(
        domains(&here, "catalog.default:80"),
        [
            "catalog",
            "catalog.default",
            "catalog.default.svc",
            "catalog.default.svc.cluster.local",
            "catalog:80",
            "catalog.default:80",
            "catalog.default.svc:80",
            "catalog.default.svc.cluster.local:80",
        ]
    );
    // Two ports, none of them 80: the port must be said.
    assert!(domains(&here, "cart.default:9000").iter().all(|domain| domain.ends_with(":9000")));
    assert!(!domains(&here, "pay.bank:8443").contains(&"pay".to_owned()));
    let mut there = sidecar("pay");
    there.namespace = "bank".to_owned();
    assert!(domains(&there, "pay.bank:8443").contains(&"pay".to_owned()));
}

#[test]
fn a_consumers_route_holds_in_its_namespace_only() {
    let consumer = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: mine, namespace: bank}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: catalog, namespace: default}]\n  rules: [{backendRefs: [{name: catalog-v2, namespace: default, port: 80}]}]\n---\n";
    let grant = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: bank}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: bank}]\n  to: [{group: \"\", kind: Service}]\n---\n";
    let more =
        format!("{consumer}{grant}{}", route("  - backendRefs: [{name: catalog, port: 80}]"));
    let world = world(&more);
    let target = |node: &Node| {
        let routes = host_routes(&world.for_node(node), "outbound", "catalog.default:80");
        action(&routes[0]).cluster_specifier.clone().unwrap()
    };
    assert_eq!(
        target(&sidecar("cart")),
        ClusterSpecifier::Cluster("catalog.default:80".to_owned())
    );
    let mut there = sidecar("pay");
    there.namespace = "bank".to_owned();
    assert_eq!(target(&there), ClusterSpecifier::Cluster("catalog-v2.default:80".to_owned()));
}

#[test]
fn a_route_may_hold_for_one_port() {
    let more = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: cart, sectionName: http}]\n  rules: [{backendRefs: [{name: catalog, port: 80}]}]\n";
    let set = world(more).for_node(&sidecar("catalog"));
    let cluster = |host: &str| {
        let routes = host_routes(&set, "outbound", host);
        action(&routes[0]).cluster_specifier.clone().unwrap()
    };
    assert_eq!(
        cluster("cart.default:8080"),
        ClusterSpecifier::Cluster("catalog.default:80".to_owned())
    );
    assert_eq!(
        cluster("cart.default:9000"),
        ClusterSpecifier::Cluster("cart.default:9000".to_owned())
    );
}
