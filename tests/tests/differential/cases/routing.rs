//! Which route a request takes, and where that leads.

use http::Method;

use crate::differential::case::{Case, get, request};

pub(super) fn cases() -> Vec<Case> {
    [domains(), paths(), matchers(), actions()].into_iter().flatten().collect()
}

fn domains() -> Vec<Case> {
    vec![
        Case::new("exact domain", "{domains: [exact.test], routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(get("/").host("exact.test"), "200 - r a")
            .ask(get("/").host("EXACT.Test"), "200 - r a")
            .ask(get("/").host("other-exact.test"), "404 NR - -"),
        Case::new("suffix wildcard", "{domains: ['*.wild.test'], routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(get("/").host("x.wild.test"), "200 - r a")
            .ask(get("/").host("x.y.wild.test"), "200 - r a")
            .ask(get("/").host("wild.test"), "404 NR - -"),
        Case::new("longer suffix wins", "{domains: ['*.deep.wild.test'], routes: [{name: longer, match: {prefix: /}, route: {cluster: b}}]}")
            .ask(get("/").host("x.deep.wild.test"), "200 - longer b"),
        Case::new("prefix wildcard", "{domains: ['front.*'], routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(get("/").host("front.anywhere"), "200 - r a")
            .ask(get("/").host("front.wild.test"), "200 - r a"),
        Case::new("domain with port", "{domains: ['ported.test:8080'], routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(get("/").host("ported.test:8080"), "200 - r a")
            .ask(get("/").host("ported.test"), "404 NR - -")
            .ask(get("/").host("ported.test:9090"), "404 NR - -"),
        Case::plain("any host port is stripped")
            .ask(get("/").host("bare.test:1234").on("no-port"), "200 - bare a"),
    ]
}

fn paths() -> Vec<Case> {
    vec![
        Case::new("prefix and exact path", "{routes: [
            {name: exact, match: {path: /a/b}, route: {cluster: b}},
            {name: prefix, match: {prefix: /a}, route: {cluster: a}}]}")
            .ask(get("/a/b"), "200 - exact b")
            .ask(get("/a/b?x=1"), "200 - exact b")
            .ask(get("/a/b/"), "200 - prefix a")
            .ask(get("/abc"), "200 - prefix a")
            .ask(get("/A"), "404 NR - -"),
        Case::new("path separated prefix", "{routes: [{name: r, match: {path_separated_prefix: /api}, route: {cluster: a}}]}")
            .ask(get("/api"), "200 - r a")
            .ask(get("/api/v1"), "200 - r a")
            .ask(get("/api?x"), "200 - r a")
            .ask(get("/apis"), "404 NR - -"),
        Case::new("regex", "{routes: [{name: r, match: {safe_regex: {regex: '/user/[0-9]+'}}, route: {cluster: a}}]}")
            .ask(get("/user/42"), "200 - r a")
            .ask(get("/user/42?q=/x"), "200 - r a")
            .ask(get("/user/42/more"), "404 NR - -"),
        Case::new("ignoring case", "{routes: [{name: r, match: {prefix: /CamelCase, case_sensitive: false}, route: {cluster: a}}]}")
            .ask(get("/camelcase/x"), "200 - r a")
            .ask(get("/other"), "404 NR - -"),
        Case::plain("paths are normalised")
            .ask(get("/a/../b//c/./d").on("normal"), "200 - any a")
            .ask(get("/%61/%2E%2e/b").on("normal"), "200 - any a")
            .ask(get("/%%32e%%32e/b").on("normal"), "200 - any a")
            .ask(get("/a%4%3144F/%2%35/%%41%zz%").on("normal"), "200 - any a"),
        Case::new("paths are left alone", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(get("/a/../b//c/%2F/./d?x=%20"), "200 - r a"),
    ]
}

fn matchers() -> Vec<Case> {
    vec![
        Case::new("headers", "{routes: [
            {name: exact, match: {prefix: /, headers: [{name: x-exact, string_match: {exact: blue}}]}, route: {cluster: a}},
            {name: prefix, match: {prefix: /, headers: [{name: x-prefix, string_match: {prefix: bl}}]}, route: {cluster: a}},
            {name: suffix, match: {prefix: /, headers: [{name: x-suffix, string_match: {suffix: ue, ignore_case: true}}]}, route: {cluster: a}},
            {name: contains, match: {prefix: /, headers: [{name: x-contains, string_match: {contains: lu}}]}, route: {cluster: a}},
            {name: regex, match: {prefix: /, headers: [{name: x-regex, string_match: {safe_regex: {regex: 'b.+e'}}}]}, route: {cluster: a}},
            {name: present, match: {prefix: /, headers: [{name: x-present, present_match: true}]}, route: {cluster: a}},
            {name: range, match: {prefix: /, headers: [{name: x-range, range_match: {start: 10, end: 20}}]}, route: {cluster: a}},
            {name: absent, match: {prefix: /, headers: [{name: x-not, string_match: {exact: never}, invert_match: true}]}, route: {cluster: b}}]}")
            .ask(get("/").header("x-exact", "blue"), "200 - exact a")
            .ask(get("/").header("x-exact", "Blue"), "404 NR - -")
            .ask(get("/").header("x-prefix", "black"), "200 - prefix a")
            .ask(get("/").header("x-suffix", "BLUE"), "200 - suffix a")
            .ask(get("/").header("x-contains", "blue"), "200 - contains a")
            .ask(get("/").header("x-regex", "bottle"), "200 - regex a")
            .ask(get("/").header("x-regex", "bottles"), "404 NR - -")
            .ask(get("/").header("x-present", ""), "200 - present a")
            .ask(get("/").header("x-range", "10"), "200 - range a")
            .ask(get("/").header("x-range", "20"), "404 NR - -")
            .ask(get("/").header("x-not", "never"), "404 NR - -")
            .ask(get("/").header("x-not", "other"), "200 - absent b"),
        Case::new("header twice", "{routes: [
            {name: joined, match: {prefix: /, headers: [{name: x-two, string_match: {exact: 'one,two'}}]}, route: {cluster: a}},
            {name: spaced, match: {prefix: /, headers: [{name: x-two, string_match: {exact: 'one, two'}}]}, route: {cluster: a}},
            {name: first, match: {prefix: /, headers: [{name: x-two, string_match: {exact: one}}]}, route: {cluster: a}},
            {name: last, match: {prefix: /, headers: [{name: x-two, string_match: {exact: two}}]}, route: {cluster: a}}]}")
            .ask(get("/").header("x-two", "one").header("x-two", "two"), "200 - first a")
            .ask(get("/").header("x-two", "one"), "200 - first a")
            .ask(get("/").header("x-two", "zero").header("x-two", "two"), "200 - last a")
            .ask(get("/").header("x-two", "two").header("x-two", "zero"), "200 - last a")
            .ask(get("/").header("x-two", "one,two"), "200 - joined a"),
        Case::new("header twice and not", "{routes: [{name: r, match: {prefix: /, headers: [{name: x-two, string_match: {exact: one}, invert_match: true}]}, route: {cluster: a}}]}")
            .ask(get("/").header("x-two", "one").header("x-two", "two"), "404 NR - -")
            .ask(get("/").header("x-two", "two").header("x-two", "three"), "200 - r a"),
        Case::new("query parameters", "{routes: [
            {name: exact, match: {prefix: /, query_parameters: [{name: color, string_match: {exact: blue}}]}, route: {cluster: a}},
            {name: present, match: {prefix: /, query_parameters: [{name: debug, present_match: true}]}, route: {cluster: b}}]}")
            .ask(get("/?color=blue"), "200 - exact a")
            .ask(get("/?x=1&color=blue"), "200 - exact a")
            .ask(get("/?debug"), "200 - present b")
            .ask(get("/?color=red"), "404 NR - -"),
        Case::new("method", "{routes: [{name: r, match: {prefix: /, headers: [{name: ':method', string_match: {exact: PUT}}]}, route: {cluster: a}}]}")
            .ask(request(Method::PUT, "/"), "200 - r a")
            .ask(get("/"), "404 NR - -"),
        Case::new("grpc only", "{routes: [{name: r, match: {prefix: /, grpc: {}}, route: {cluster: a}}]}")
            .ask(get("/").header("content-type", "application/grpc"), "200 - r a")
            .ask(get("/"), "404 NR - -"),
    ]
}

fn actions() -> Vec<Case> {
    vec![
        Case::new("weighted clusters", "{routes: [{name: r, match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 0}, {name: b, weight: 100}]}}}]}")
            .ask(get("/"), "200 - r b")
            .ask(get("/"), "200 - r b"),
        Case::new("cluster by header", "{routes: [{name: r, match: {prefix: /}, route: {cluster_header: x-to}}]}")
            .ask(get("/").header("x-to", "b"), "200 - r b")
            .ask(get("/").header("x-to", "nowhere"), "503 NC r -")
            .ask(get("/"), "503 NC r -"),
        Case::new("prefix rewrite", "{routes: [{name: r, match: {prefix: /old/}, route: {cluster: a, prefix_rewrite: /new/}}]}")
            .ask(get("/old/x?y=1"), "200 - r a"),
        Case::new("regex rewrite", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, regex_rewrite: {pattern: {regex: '^/v([0-9]+)/(.*)$'}, substitution: '/\\2/version/\\1'}}}]}")
            .ask(get("/v2/things?q=1"), "200 - r a")
            .ask(get("/things"), "200 - r a"),
        Case::new("host rewrite", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, host_rewrite_literal: inside.test}}]}")
            .ask(get("/"), "200 - r a"),
        Case::new("host rewrite and x-forwarded-host", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, host_rewrite_literal: inside.test, append_x_forwarded_host: true}}]}")
            .ask(get("/"), "200 - r a"),
        Case::new("direct response", "{routes: [
            {name: text, match: {path: /text}, direct_response: {status: 418, body: {inline_string: short and stout}}},
            {name: bare, match: {path: /bare}, direct_response: {status: 204}}]}")
            .ask(get("/text"), "418 - text -")
            .ask(request(Method::HEAD, "/text"), "418 - text -")
            .ask(get("/text").http2(), "418 - text -")
            .ask(get("/bare"), "204 - bare -"),
        Case::new("redirect", "{routes: [
            {name: host, match: {path: /host}, redirect: {host_redirect: else.test}},
            {name: path, match: {path: /path}, redirect: {path_redirect: /there, response_code: FOUND}},
            {name: prefix, match: {prefix: /prefix/}, redirect: {prefix_rewrite: /short/, response_code: SEE_OTHER}},
            {name: https, match: {path: /https}, redirect: {https_redirect: true, response_code: TEMPORARY_REDIRECT}},
            {name: port, match: {path: /port}, redirect: {port_redirect: 8443, scheme_redirect: https, response_code: PERMANENT_REDIRECT}},
            {name: strip, match: {path: /strip}, redirect: {path_redirect: /stripped, strip_query: true}}]}")
            .ask(get("/host?q=1"), "301 - host -")
            .ask(get("/path?q=1"), "302 - path -")
            .ask(get("/prefix/x?q=1"), "303 - prefix -")
            .ask(get("/https?q=1"), "307 - https -")
            .ask(get("/port?q=1"), "308 - port -")
            .ask(get("/strip?q=1"), "301 - strip -"),
        Case::new("https required", "{require_tls: ALL, routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(get("/x?y"), "301 - - -"),
        Case::new("first match wins", "{routes: [
            {name: first, match: {prefix: /}, route: {cluster: a}},
            {name: second, match: {path: /exact}, route: {cluster: b}}]}")
            .ask(get("/exact"), "200 - first a"),
    ]
}
