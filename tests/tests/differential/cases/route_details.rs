//! What routes match beside paths and headers, what they are counted by, and where copies go.

use crate::differential::case::{Case, Client, get, post, pretends};
use crate::differential::part::Part;

const LISTENERS: &str = "
- name: parameters
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: parameters
        http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
        route_config:
          name: parameters
          ignore_path_parameters_in_path_matching: true
          virtual_hosts: [{name: all, domains: ['*'], routes: [
            {name: exact, match: {path: /a}, direct_response: {status: 203}},
            {name: regex, match: {safe_regex: {regex: '/r[0-9]'}}, direct_response: {status: 206}},
            {name: rest, match: {prefix: /}, direct_response: {status: 404}}]}]
";

fn matched() -> Vec<Case> {
    let cookie = |path: &str, value: &str| get(path).header("cookie", value);
    vec![
        Case::new("cookies", "{routes: [
            {name: exact, match: {prefix: /, cookies: [{name: a, string_match: {exact: b}}]}, route: {cluster: a}},
            {name: prefix, match: {prefix: /, cookies: [{name: c, string_match: {prefix: d}}, {name: e, string_match: {exact: f}, invert_match: true}]}, route: {cluster: a}},
            {name: not, match: {prefix: /not, cookies: [{name: g, string_match: {exact: h}, invert_match: true}]}, route: {cluster: a}},
            {name: rest, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(get("/"), "200 - rest a")
            .ask(cookie("/", "a=b"), "200 - exact a")
            .ask(cookie("/", "x=y; a=b"), "200 - exact a")
            .ask(cookie("/", "x=y;a=b"), "200 - exact a")
            .ask(cookie("/", "a=\"b\""), "200 - exact a")
            .ask(cookie("/", "a=c; a=b"), "200 - rest a")
            .ask(cookie("/", "a=b; a=c"), "200 - exact a")
            .ask(cookie("/", "A=b"), "200 - rest a")
            .ask(cookie("/", "x=1").header("cookie", "a=b"), "200 - exact a")
            .ask(cookie("/", "c=dd"), "200 - prefix a")
            .ask(cookie("/", "c=dd; e=f"), "200 - rest a")
            .ask(cookie("/", "c=dd; e=g"), "200 - prefix a")
            .ask(get("/not"), "200 - not a")
            .ask(cookie("/not", "g=h"), "200 - rest a")
            .ask(cookie("/not", "g=i"), "200 - not a"),
        Case::new("certificates in plain text", "{routes: [
            {name: presented, match: {prefix: /presented, tls_context: {presented: true}}, route: {cluster: a}},
            {name: validated, match: {prefix: /validated, tls_context: {validated: true}}, route: {cluster: a}},
            {name: none, match: {prefix: /none, tls_context: {presented: false, validated: false}}, route: {cluster: a}},
            {name: empty, match: {prefix: /empty, tls_context: {}}, route: {cluster: a}},
            {name: rest, match: {prefix: /}, route: {cluster: b}}]}")
            .ask(get("/presented"), "200 - rest b")
            .ask(get("/validated"), "200 - rest b")
            .ask(get("/none"), "200 - none a")
            .ask(get("/empty"), "200 - empty a"),
        Case::new("uri templates", "{routes: [
            {name: swap, match: {path_match_policy: {name: envoy.path.match.uri_template.uri_template_matcher, typed_config: {'@type': type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '/swap/{a}/{b=x/**}'}}},
              route: {cluster: a, path_rewrite_policy: {name: envoy.path.rewrite.uri_template.uri_template_rewriter, typed_config: {'@type': type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig, path_template_rewrite: '/{b}/and/{a}'}}}},
            {name: one, match: {path_match_policy: {name: envoy.path.match.uri_template.uri_template_matcher, typed_config: {'@type': type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '/one/*/end'}}}, route: {cluster: a}},
            {name: media, match: {path_match_policy: {name: envoy.path.match.uri_template.uri_template_matcher, typed_config: {'@type': type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '/media/**.mpd'}}}, route: {cluster: a}}]}")
            .ask(get("/swap/1/x/2/3?q=1"), "200 - swap a")
            .ask(get("/swap/1/y/2"), "404 NR - -")
            .ask(get("/swap/1/x/"), "200 - swap a")
            .ask(get("/one/a%20b/end"), "200 - one a")
            .ask(get("/one//end"), "404 NR - -")
            .ask(get("/one/a/b/end"), "404 NR - -")
            .ask(get("/media/a/b.mpd"), "200 - media a")
            .ask(get("/media/.mpd"), "200 - media a")
            .ask(get("/media/a/b.mp4"), "404 NR - -"),
        Case::plain("path parameters that are ignored")
            .ask(get("/a").on("parameters"), "203 unlogged")
            .ask(get("/a;b=c?d=e").on("parameters"), "203 unlogged")
            .ask(get("/r1;x").on("parameters"), "206 unlogged")
            .ask(get("/b;x").on("parameters"), "404 unlogged"),
    ]
}

fn counted() -> Vec<Case> {
    vec![
        Case::new("virtual clusters", "{virtual_clusters: [
            {name: writes, headers: [{name: ':method', string_match: {exact: POST}}]},
            {name: shop, headers: [{name: ':path', string_match: {prefix: /shop}}, {name: x-a, present_match: true}]}],
          routes: [
            {name: slow, match: {prefix: /slow}, route: {cluster: a, timeout: 0.2s}},
            {name: refused, match: {prefix: /refused}, route: {cluster: refused}},
            {name: direct, match: {prefix: /direct}, direct_response: {status: 200}},
            {name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: 5xx}}}]}")
            .ask(get("/"), "200 - r a")
            .ask(get("/shop"), "200 - r a")
            .ask(get("/shop").header("x-a", "1"), "200 - r a")
            .ask(get("/shop").header("x-a", "1").does("status=503 times=1"), "200 - r a")
            .ask(get("/shop").header("x-a", "1").does("status=503"), "503 URX r a")
            .ask(post("/shop", "x").header("x-a", "1").does("status=404"), "404 - r a")
            .ask(get("/slow").does("hang"), "504 UT slow a")
            .ask(get("/refused"), "503 UF refused refused")
            .ask(get("/direct"), "200 - direct -"),
        Case::new("counted routes", "{routes: [
            {name: one, match: {prefix: /one}, stat_prefix: first, route: {cluster: a, retry_policy: {retry_on: 5xx}}},
            {name: two, match: {prefix: /two}, stat_prefix: 'se:cond', route: {cluster: no-retries, timeout: 0.2s, retry_policy: {retry_on: 5xx}}},
            {name: direct, match: {prefix: /direct}, stat_prefix: third, direct_response: {status: 200}}]}")
            .ask(get("/one"), "200 - one a")
            .ask(get("/one").does("status=500 times=1"), "200 - one a")
            .ask(get("/one").does("status=500"), "500 URX one a")
            .ask(get("/two").does("status=500 times=1"), "500 UO two no-retries")
            .ask(get("/two").does("hang"), "504 UT two no-retries")
            .ask(get("/direct"), "200 - direct -"),
        Case::new("who pretends to be inside, behind the edge", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(pretends("/"), "200 - r a")
            .ask(pretends("/").header("x-forwarded-for", "10.0.0.1"), "200 - r a"),
        Case::new("weighted by header", "{routes: [{name: r, match: {prefix: /}, route: {weighted_clusters: {clusters: [{cluster_header: x-to, weight: 1}]}}}]}")
            .ask(get("/").header("x-to", "a"), "200 - r a")
            .ask(get("/").header("x-to", "b"), "200 - r b")
            .ask(get("/").header("x-to", "nowhere"), "503 NC r -"),
        Case::new("small buffers", "{per_request_buffer_limit_bytes: 5, routes: [
            {name: own, match: {prefix: /own}, request_body_buffer_limit: 100, route: {cluster: a, retry_policy: {retry_on: 5xx}}},
            {name: old, match: {prefix: /old}, per_request_buffer_limit_bytes: 100, route: {cluster: a, retry_policy: {retry_on: 5xx}}},
            {name: host, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: 5xx}}}]}")
            .ask(post("/", "1234").does("status=503 times=1"), "200 - host a")
            .ask(post("/", "more than five").does("status=503 times=1"), "503 - host a")
            .ask(post("/own", "more than five").does("status=503 times=1"), "200 - own a")
            .ask(post("/old", "more than five").does("status=503 times=1"), "200 - old a"),
        Case::new("redirects by the older fields", "{routes: [
            {name: from, match: {prefix: /from}, route: {cluster: a, internal_redirect_action: HANDLE_INTERNAL_REDIRECT, max_internal_redirects: 2}},
            {name: to, match: {prefix: /}, route: {cluster: b}}]}")
            .ask(get("/from").does("status=302 header=location:http://redirects-by-the-older-fields.test/to times=1"), "200 - to b"),
    ]
}

#[tokio::test]
async fn details_of_routes() -> anyhow::Result<()> {
    let mut cases: Vec<Case> = [matched(), counted()].into_iter().flatten().collect();
    cases.push(
        Case::plain("certificates that are verified")
            .ask(get("/").by(Client::Right), "200 - any a"),
    );
    super::super::same(Part {
        cases,
        listeners: LISTENERS,
        log: "%VIRTUAL_CLUSTER_NAME%",
        metrics: &["vhost."],
        on_purpose: &[
            (
                "cookies.8",
                "upstream saw headers: only envoy {cookie: x=1, a=b}",
                "lines of cookies are one line towards HTTP/1 (RFC 9113 section 8.2.3)",
            ),
            (
                "redirects-by-the-older-fields.0",
                "upstream saw headers: only envoy {x-table: seen, seen}",
                "a redirected request begins anew; Envoy changes its headers once more",
            ),
        ],
        ..Part::default()
    })
    .await
}
