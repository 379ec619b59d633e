//! HTTP filters before the router, configured by virtual hosts and routes.

use http::Method;

use crate::differential::case::{Case, get, grpc, post, request};
use crate::differential::part::Part;
use crate::differential::same;

/// Filters that do nothing until a virtual host or a route has settings for them.
const FILTERS: &str = "
- {name: cors, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}
- {name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}}
- {name: fault, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}
- {name: limit, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit}}";

#[tokio::test]
async fn filters_that_were_first() -> anyhow::Result<()> {
    same(Part {
        cases: [rbac(), fault(), cors(), limits()].into_iter().flatten().collect(),
        filters: FILTERS,
        metrics: &["http.http.rbac", "http.http.fault", "http.http.cors"],
        ..Part::default()
    })
    .await
}

fn rbac() -> Vec<Case> {
    vec![
        Case::new("only what a policy allows", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
            typed_per_filter_config: {rbac: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute,
                rbac: {rules: {action: ALLOW, policies: {
                    reads: {
                        permissions: [{and_rules: {rules: [
                            {header: {name: ':method', string_match: {exact: GET}}},
                            {url_path: {path: {prefix: /open}}}]}}],
                        principals: [{any: true}]},
                    admins: {
                        permissions: [{any: true}],
                        principals: [{header: {name: x-user, string_match: {exact: root}}}]}}}}}}}")
            .ask(get("/open/1?x"), "200 - r a")
            .ask(get("/closed?/open"), "403 - r a")
            .ask(post("/open", "x"), "403 - r a")
            .ask(post("/closed", "x").header("x-user", "root"), "200 - r a")
            .ask(grpc("hello"), "200 - r a"),
        Case::new("whatever a policy denies", "{routes: [
                {name: free, match: {prefix: /free}, route: {cluster: a}, typed_per_filter_config: {rbac: {
                    '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute}}},
                {name: without, match: {prefix: /without}, route: {cluster: a}, typed_per_filter_config: {rbac: {
                    '@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}},
                {name: r, match: {prefix: /found}, route: {cluster: a}}],
            typed_per_filter_config: {rbac: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute,
                rbac: {rules: {action: DENY, policies: {
                    local: {permissions: [{not_rule: {header: {name: x-pass, present_match: true}}}],
                        principals: [{direct_remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}]}}}}}}}")
            .ask(get("/found"), "403 - r a")
            .ask(get("/found").header("x-pass", "1"), "200 - r a")
            .ask(get("/not-found"), "404 NR - -")
            .ask(post("/not-found", "x"), "404 NR - -")
            .ask(get("/free"), "200 - free a")
            .ask(get("/without"), "200 - without a"),
        Case::new("a certificate is asked for", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
            typed_per_filter_config: {rbac: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute,
                rbac: {rules: {policies: {known: {permissions: [{any: true}], principals: [{authenticated: {}}]}}}}}}}")
            .ask(get("/"), "403 - r a"),
        Case::new("shadow rules refuse nothing", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
            typed_per_filter_config: {rbac: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute,
                rbac: {shadow_rules: {action: DENY, policies: {all: {permissions: [{any: true}], principals: [{any: true}]}}}}}}}")
            .ask(get("/"), "200 - r a"),
    ]
}

fn fault() -> Vec<Case> {
    vec![
        Case::new("an abort", "{routes: [
                {name: grpc, match: {prefix: /test.Echo}, route: {cluster: h2}, typed_per_filter_config: {fault: {
                    '@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault,
                    abort: {grpc_status: 14, percentage: {numerator: 100}}}}},
                {name: r, match: {prefix: /}, route: {cluster: a}}],
            typed_per_filter_config: {fault: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault,
                headers: [{name: x-break, present_match: true}],
                abort: {http_status: 418, percentage: {numerator: 100}}}}}")
            .ask(get("/"), "200 - r a")
            .ask(get("/").header("x-break", "1"), "418 FI r a")
            .ask(grpc("hello"), "200 FI grpc h2"),
        Case::new("a delay, and faults by header", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
            typed_per_filter_config: {fault: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault,
                delay: {header_delay: {}, percentage: {numerator: 100}},
                abort: {header_abort: {}, percentage: {numerator: 100}}}}}")
            .ask(get("/"), "200 - r a")
            .ask(get("/").header("x-envoy-fault-delay-request", "20"), "200 DI r a")
            .ask(get("/").header("x-envoy-fault-abort-request", "503"), "503 FI r a")
            .ask(get("/").header("x-envoy-fault-abort-request", "503").header("x-envoy-fault-abort-request-percentage", "0"), "200 - r a"),
        Case::new("nobody is drawn", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
            typed_per_filter_config: {fault: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault,
                abort: {http_status: 500}}}}")
            .ask(get("/"), "200 - r a"),
    ]
}

fn cors() -> Vec<Case> {
    let preflight = |origin: &str| {
        request(Method::OPTIONS, "/")
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
    };
    vec![
        Case::new(
            "origins that are allowed",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
            typed_per_filter_config: {cors: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy,
                allow_origin_string_match: [{exact: 'https://shop.example'}, {suffix: '.test'}],
                allow_methods: 'GET, PUT', allow_headers: x-a, expose_headers: x-b, max_age: '600',
                allow_credentials: true}}}",
        )
        .ask(get("/"), "200 - r a")
        .ask(get("/").header("origin", "https://shop.example"), "200 - r a")
        .ask(get("/").header("origin", "https://other.example"), "200 - r a")
        .ask(preflight("https://x.test"), "200 - r a")
        .ask(preflight("https://other.example"), "200 - r a"),
        Case::new(
            "preflights of others stay here",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
            typed_per_filter_config: {cors: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy,
                allow_origin_string_match: [{exact: 'https://shop.example'}],
                forward_not_matching_preflights: false}}}",
        )
        .ask(preflight("https://other.example"), "200 - r a"),
    ]
}

fn limits() -> Vec<Case> {
    vec![
        Case::new("two requests and no more", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
            typed_per_filter_config: {limit: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit,
                stat_prefix: two, token_bucket: {max_tokens: 2, fill_interval: 3600s},
                filter_enabled: {default_value: {numerator: 100}},
                filter_enforced: {default_value: {numerator: 100}},
                response_headers_to_add: [{header: {key: x-limited, value: 'yes'}}]}}}")
            .ask(get("/"), "200 - r a")
            .ask(get("/"), "200 - r a")
            .ask(get("/"), "429 RL r a")
            .ask(grpc("hello"), "200 RL r a"),
        Case::new("counted but not enforced", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
            typed_per_filter_config: {limit: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit,
                stat_prefix: shadow, token_bucket: {max_tokens: 1, fill_interval: 3600s},
                filter_enabled: {default_value: {numerator: 100}},
                request_headers_to_add_when_not_enforced: [{header: {key: x-over, value: 'yes'}}]}}}")
            .ask(get("/"), "200 - r a")
            .ask(get("/"), "200 - r a"),
        Case::new("every user has a bucket", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
            typed_per_filter_config: {limit: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit,
                stat_prefix: users, token_bucket: {max_tokens: 100, fill_interval: 3600s},
                filter_enabled: {default_value: {numerator: 100}},
                filter_enforced: {default_value: {numerator: 100}},
                status: {code: ServiceUnavailable},
                rate_limits: [{actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]}],
                descriptors: [
                    {entries: [{key: user, value: root}], token_bucket: {max_tokens: 1, fill_interval: 3600s}},
                    {entries: [{key: user}], token_bucket: {max_tokens: 1, fill_interval: 3600s}}]}}}")
            .ask(get("/"), "200 - r a")
            .ask(get("/").header("x-user", "one"), "200 - r a")
            .ask(get("/").header("x-user", "one"), "503 RL r a")
            .ask(get("/").header("x-user", "two"), "200 - r a"),
    ]
}
