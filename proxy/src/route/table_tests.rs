use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::model::matcher::{
    CookieMatcher, HeaderKey, HeaderMatch, HeaderMatcher, StringMatcher, full_regex,
};
use crate::model::route::{Action, ClientMatch, DirectResponse};

pub(in crate::route) fn route(name: &str, path: PathMatch) -> Route {
    Route {
        name: name.into(),
        matches: RouteMatch {
            path,
            headers: vec![],
            query: vec![],
            cookies: vec![],
            client: ClientMatch::default(),
            grpc: false,
            metadata: vec![],
            state: vec![],
            fraction: None,
        },
        action: Action::Direct(DirectResponse {
            status: http::StatusCode::OK,
            body: bytes::Bytes::new(),
            format: None,
        }),
        request_headers: Default::default(),
        response_headers: Default::default(),
        decorator: None,
        tracing: None,
        counted: None,
        filters: Vec::new(),
        tells_request: false,
    }
}

fn host(name: &str, routes: Vec<Route>) -> Arc<VirtualHost> {
    let routes = routes.into_iter().map(Arc::new).collect();
    Arc::new(VirtualHost { name: name.into(), routes, ..VirtualHost::default() })
}

fn any_host(routes: Vec<Route>) -> RouteTable {
    let domains = Domains { any: Some(0), ..Domains::default() };
    RouteTable { hosts: vec![host("all", routes)], domains, ..RouteTable::default() }
}

fn chosen(table: &RouteTable, target: &str, headers: &HeaderMap) -> Option<String> {
    let view =
        RequestView { method: "GET", path: target, authority: Some("a"), scheme: None, headers };
    Some(select(table, &view, Given::default())?.route?.name.to_string())
}

#[test]
fn domains_are_tried_exact_then_suffix_then_prefix_then_any() {
    let mut domains = Domains { any: Some(3), ..Domains::default() };
    domains.exact.insert_mut("www.shop.example".into(), 0);
    for (suffix, index) in [(".example", 4), (".shop.example", 1)] {
        assert!(domains.suffixes.insert(suffix, index));
    }
    assert!(domains.prefixes.insert("www.", 2));
    let hosts = ["exact", "suffix", "prefix", "any", "short suffix"];
    let hosts = hosts.map(|name| host(name, vec![])).to_vec();
    let mut table = RouteTable { hosts, domains, ..RouteTable::default() };
    let headers = HeaderMap::new();
    let mut name = |authority: &str, ignore_port| {
        table.ignore_port_in_host_matching = ignore_port;
        let view = RequestView {
            method: "GET",
            path: "/",
            authority: Some(authority),
            scheme: None,
            headers: &headers,
        };
        select(&table, &view, Given::default()).map(|found| found.host.name.to_string()).unwrap()
    };
    assert_eq!(name("WWW.shop.example", false), "exact");
    assert_eq!(name("api.shop.example", false), "suffix");
    assert_eq!(name("www.other", false), "prefix");
    assert_eq!(name("api.example", false), "short suffix");
    assert_eq!(name(".shop.example", false), "short suffix");
    assert_eq!(name("www.shop.example:80", false), "prefix");
    assert_eq!(name("www.shop.example:80", true), "exact");
    assert_eq!(name("[::1]:80", true), "any");
}

#[test]
fn the_first_route_that_fits_wins() {
    let table = any_host(vec![
        route("exact", PathMatch::Exact("/a".into(), Case::Sensitive)),
        route("separated", PathMatch::SeparatedPrefix("/a/b".into(), Case::Sensitive)),
        route("folded", PathMatch::Prefix("/up".into(), Case::Insensitive)),
        route("regex", PathMatch::Regex(full_regex("/r[0-9]+").unwrap())),
        route("prefix", PathMatch::Prefix("/".into(), Case::Sensitive)),
    ]);
    let headers = HeaderMap::new();
    for (target, want) in [
        ("/a", "exact"),
        ("/a?x=1", "exact"),
        ("/a/b", "separated"),
        ("/a/b/c", "separated"),
        ("/a/bc", "prefix"),
        ("/UPPER", "folded"),
        ("/r42", "regex"),
        ("/r42/", "prefix"),
        ("/A", "prefix"),
    ] {
        assert_eq!(chosen(&table, target, &headers).as_deref(), Some(want), "{target}");
    }
}

#[test]
fn headers_query_and_grpc_narrow_a_route() {
    let all = || PathMatch::Prefix("/".into(), Case::Sensitive);
    let mut by_header = route("header", all());
    by_header.matches.headers = vec![HeaderMatcher {
        name: HeaderKey::Name(HeaderName::from_static("x-tenant")),
        kind: HeaderMatch::Text(StringMatcher::exact("b")),
        invert: false,
        treat_missing_as_empty: false,
    }];
    let mut by_query = route("query", all());
    let value = Some(StringMatcher::exact("b%20c"));
    by_query.matches.query = vec![QueryMatcher { name: "q".into(), value, absent: false }];
    let mut grpc = route("grpc", all());
    grpc.matches.grpc = true;
    let table = any_host(vec![by_header, by_query, grpc]);
    let mut headers = HeaderMap::new();
    assert_eq!(chosen(&table, "/", &headers), None);
    assert_eq!(chosen(&table, "/?x=1&q=b%20c", &headers).as_deref(), Some("query"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc-web"));
    assert_eq!(chosen(&table, "/", &headers), None);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
    assert_eq!(chosen(&table, "/", &headers).as_deref(), Some("grpc"));
    headers.append("x-tenant", HeaderValue::from_static("a"));
    headers.append("x-tenant", HeaderValue::from_static("b"));
    assert_eq!(chosen(&table, "/", &headers).as_deref(), Some("header"));
}

#[test]
fn a_fraction_lets_the_rest_go_on() {
    let mut some = route("some", PathMatch::Prefix("/".into(), Case::Sensitive));
    some.matches.fraction = Some(250_000);
    let table = any_host(vec![some, route("rest", PathMatch::Prefix("/".into(), Case::Sensitive))]);
    let headers = HeaderMap::new();
    let view = RequestView {
        method: "GET",
        path: "/",
        authority: Some("a"),
        scheme: None,
        headers: &headers,
    };
    let name = |random| {
        select(&table, &view, Given { random, ..Given::default() })
            .unwrap()
            .route
            .unwrap()
            .name
            .to_string()
    };
    assert_eq!(name(249_999), "some");
    assert_eq!(name(250_000), "rest");
}

#[test]
fn cookies_and_the_clients_certificate_narrow_a_route() {
    let all = || PathMatch::Prefix("/".into(), Case::Sensitive);
    let mut by_cookie = route("cookie", all());
    let value = StringMatcher::exact("b");
    by_cookie.matches.cookies = vec![CookieMatcher { name: "a".into(), value, invert: false }];
    let mut verified = route("verified", all());
    verified.matches.client = ClientMatch { presented: Some(true), validated: Some(true) };
    let table = any_host(vec![by_cookie, verified, route("rest", all())]);
    let name = |cookie: Option<&'static str>, validated| {
        let cookie = cookie.map(|text| (http::header::COOKIE, HeaderValue::from_static(text)));
        let headers: HeaderMap = cookie.into_iter().collect();
        let headers = &headers;
        let view =
            RequestView { method: "GET", path: "/", authority: Some("a"), scheme: None, headers };
        let given = Given { presented: true, validated, ..Given::default() };
        select(&table, &view, given).unwrap().route.unwrap().name.to_string()
    };
    assert_eq!(name(Some("x=1; a=b"), false), "cookie");
    assert_eq!(name(Some("a=\"b\""), false), "cookie");
    assert_eq!(name(Some("a=c; a=b"), false), "rest");
    assert_eq!(name(None, true), "verified");
    assert_eq!(name(None, false), "rest");
}

#[test]
fn path_parameters_count_unless_the_table_ignores_them() {
    let mut table = any_host(vec![
        route("exact", PathMatch::Exact("/a".into(), Case::Sensitive)),
        route("rest", PathMatch::Prefix("/".into(), Case::Sensitive)),
    ]);
    let headers = HeaderMap::new();
    assert_eq!(chosen(&table, "/a;b=c?d", &headers).as_deref(), Some("rest"));
    table.ignore_path_parameters = true;
    assert_eq!(chosen(&table, "/a;b=c?d", &headers).as_deref(), Some("exact"));
}
