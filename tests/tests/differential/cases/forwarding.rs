//! Internal redirects, rewrites of the host, deadlines of gRPC.

use crate::differential::case::{Case, get, grpc, post};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;

const ON_PURPOSE: OnPurpose = &[
    (
        "internal-redirects",
        "upstream saw headers: only envoy {x-table: seen, seen",
        "the second request is made of the client's, not of the first: nothing is added twice",
    ),
    ("some-redirects", "upstream saw headers: only envoy {x-table: seen, seen", "the same"),
    (
        "internal-redirects.11",
        "access log: envoy 302 - - - | ours 302 - r a",
        "the log names the route that answered, not the one that was not taken",
    ),
    ("some-redirects", "access log: envoy 302 - other b | ours 302 -", "the same"),
];

#[tokio::test]
async fn redirects_hosts_and_deadlines() -> anyhow::Result<()> {
    same(Part {
        cases: [redirects(), predicates(), hosts(), deadlines(), configured()]
            .into_iter()
            .flatten()
            .collect(),
        metrics: &[
            "http.http.passthrough_internal_redirect",
            "cluster.a.upstream_internal_redirect",
        ],
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}

/// Answered with a redirect the first time.
const TO_OTHER: &str =
    "status=302 times=1 header=location:http://internal-redirects.test/there?x=1";

fn redirects() -> Vec<Case> {
    vec![
        Case::new("internal redirects", "{routes: [
            {name: there, match: {prefix: /there}, route: {cluster: b}},
            {name: nowhere, match: {prefix: /direct}, direct_response: {status: 200, body: {inline_string: here}}},
            {name: r, match: {prefix: /r}, route: {cluster: a, internal_redirect_policy: {
                redirect_response_codes: [302, 303, 307], response_headers_to_copy: [x-token]}}},
            {name: cross, match: {prefix: /cross}, route: {cluster: a, internal_redirect_policy: {allow_cross_scheme_redirect: true}}},
            {name: twice, match: {prefix: /twice}, route: {cluster: a, internal_redirect_policy: {max_internal_redirects: 2}}},
            {name: passed, match: {prefix: /off}, route: {cluster: a}}]}")
            .ask(get("/r").does(TO_OTHER), "200 - there b")
            .ask(get("/r").does("status=302 times=1 header=location:http://internal-redirects.test/there header=x-token:42"), "200 - there b")
            .ask(get("/off").does(TO_OTHER), "302 - passed a")
            .ask(get("/r").does("status=301 times=1 header=location:http://internal-redirects.test/there"), "301 - r a")
            .ask(post("/r", "content").does("status=307 times=1 header=location:http://internal-redirects.test/there"), "200 - there b")
            .ask(post("/r", "content").does("status=303 times=1 header=location:http://internal-redirects.test/there"), "200 - there b")
            .ask(get("/r").does("status=302 times=1 header=location:https://internal-redirects.test/there"), "302 - r a")
            .ask(get("/cross").does("status=302 times=1 header=location:https://internal-redirects.test/there"), "200 - there b")
            .ask(get("/r").does("status=302 times=1 header=location:/there"), "302 - r a")
            .ask(get("/r").does("status=302 times=1 header=location:ftp://x/"), "302 - r a")
            .ask(get("/r").does("status=302 times=1"), "302 - r a")
            .ask(get("/r").does("status=302 times=1 header=location:http://internal-redirects.test/none"), "302 - - -")
            .ask(get("/r").does("status=302 times=1 header=location:http://internal-redirects.test/direct"), "200 - nowhere -")
            .ask(get("/r").does("status=302 header=location:http://internal-redirects.test/r"), "302 - r a")
            .ask(get("/twice").does("status=302 header=location:http://internal-redirects.test/twice"), "302 - twice a")
            .ask(get("/r").http2().does(TO_OTHER), "200 - there b"),
    ]
}

fn predicates() -> Vec<Case> {
    vec![
        Case::new("some redirects", "{routes: [
            {name: listed, match: {prefix: /listed}, route: {cluster: b}},
            {name: other, match: {prefix: /other}, route: {cluster: b}},
            {name: r, match: {prefix: /r}, route: {cluster: a, internal_redirect_policy: {predicates: [{name: x, typed_config: {
                '@type': type.googleapis.com/envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig,
                allowed_route_names: [listed]}}]}}},
            {name: safe, match: {prefix: /safe}, route: {cluster: a, internal_redirect_policy: {allow_cross_scheme_redirect: true, predicates: [{name: x, typed_config: {
                '@type': type.googleapis.com/envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig}}]}}},
            {name: loop, match: {prefix: /loop}, route: {cluster: a, internal_redirect_policy: {max_internal_redirects: 5, predicates: [{name: x, typed_config: {
                '@type': type.googleapis.com/envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig}}]}}}]}")
            .ask(get("/r").does("status=302 times=1 header=location:http://some-redirects.test/listed"), "200 - listed b")
            .ask(get("/r").does("status=302 times=1 header=location:http://some-redirects.test/other"), "302 - other b")
            .ask(get("/safe").does("status=302 times=1 header=location:https://some-redirects.test/other"), "302 - other b")
            .ask(get("/safe").does("status=302 times=1 header=location:http://some-redirects.test/other"), "200 - other b")
            .ask(get("/loop").does("status=302 header=location:http://some-redirects.test/loop"), "302 - loop a"),
    ]
}

fn hosts() -> Vec<Case> {
    vec![
        Case::new("host of the path", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a,
            host_rewrite_path_regex: {pattern: {regex: '^/([^/]+).*$'}, substitution: '\\1.example'}}}]}")
            .ask(get("/shop/cart?x=/y"), "200 - r a")
            .ask(get("/a"), "200 - r a"),
        Case::new("host of the path and prefix", "{routes: [{name: r, match: {prefix: /v1}, route: {cluster: a, prefix_rewrite: /v2, append_x_forwarded_host: true,
            host_rewrite_path_regex: {pattern: {regex: '^/([^/]+).*$'}, substitution: '\\1.example'}}}]}")
            .ask(get("/v1/cart"), "200 - r a")
            .ask(get("/v1/cart").http2(), "200 - r a"),
    ]
}

fn deadlines() -> Vec<Case> {
    vec![
        Case::new("grpc deadline", "{routes: [{name: r, match: {prefix: /}, route: {cluster: h2, timeout: 0s,
            max_stream_duration: {grpc_timeout_header_max: 0.3s}}}]}")
            .ask(grpc("hello").header("grpc-timeout", "10S").does("delay=2000"), "200 - r h2")
            .ask(grpc("hello").header("grpc-timeout", "100m").does("delay=2000"), "200 - r h2")
            .ask(grpc("hello").header("grpc-timeout", "5S"), "200 - r h2"),
        Case::new("grpc deadline, offset", "{routes: [{name: r, match: {prefix: /}, route: {cluster: h2, timeout: 0s,
            max_stream_duration: {grpc_timeout_header_max: 0s, grpc_timeout_header_offset: 0.2s}}}]}")
            .ask(grpc("hello").header("grpc-timeout", "400m").does("delay=2000"), "200 - r h2")
            .ask(grpc("hello").header("grpc-timeout", "5S"), "200 - r h2"),
        Case::new("grpc deadline, the old way", "{routes: [{name: r, match: {prefix: /}, route: {cluster: h2, max_grpc_timeout: 0.4s, grpc_timeout_offset: 0.1s}}]}")
            .ask(grpc("hello").header("grpc-timeout", "300m").does("delay=2000"), "200 UT r h2")
            .ask(grpc("hello").header("grpc-timeout", "10S").does("delay=2000"), "200 UT r h2")
            .ask(grpc("hello").does("delay=2000"), "200 UT r h2")
            .ask(grpc("hello").header("grpc-timeout", "5S"), "200 - r h2"),
    ]
}

fn configured() -> Vec<Case> {
    vec![
        Case::new("answers to grpc", "{routes: [
            {name: fine, match: {prefix: /fine}, direct_response: {status: 200, body: {inline_string: 'it is fine'}}},
            {name: gone, match: {prefix: /gone}, direct_response: {status: 404, body: {inline_string: 'it is gone'}}},
            {name: empty, match: {prefix: /empty}, direct_response: {status: 503}},
            {name: moved, match: {prefix: /moved}, redirect: {path_redirect: /}}]}")
            .ask(get("/fine").header("content-type", "application/grpc"), "200 - fine -")
            .ask(get("/gone").header("content-type", "application/grpc"), "200 - gone -")
            .ask(get("/empty").header("content-type", "application/grpc"), "200 - empty -")
            .ask(get("/moved").header("content-type", "application/grpc"), "200 - moved -")
            .ask(get("/gone").header("content-type", "application/grpc-web"), "404 - gone -"),
    ]
}
