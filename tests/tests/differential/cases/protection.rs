//! CSRF, CORS, bandwidth limits, buffered requests, local rate limits: with the metrics of each.

use http::Method;

use crate::differential::case::{Case, Request, get, grpc, post, request};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;

const FILTERS: &str = "
- name: cors
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}
- name: csrf
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.csrf.v3.CsrfPolicy,
    filter_enabled: {default_value: {numerator: 100}}}
- name: bandwidth
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.bandwidth_limit.v3.BandwidthLimit, stat_prefix: idle}
- name: buffer
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 100}
- name: limit
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit}";

const ON_PURPOSE: OnPurpose = &[
    (
        "requests-that-are-buffered.7",
        "",
        "a limit is a limit, also for what comes in one HTTP/2 frame; Envoy lets that pass",
    ),
    ("requests-that-are-buffered.12", "", "the same"),
    (
        "requests-that-are-buffered",
        "headers: only envoy {connection: close} | only ours {}",
        "the request was read to its end, so that the connection can go on",
    ),
    (
        "",
        "headers: only envoy {} | only ours {connection: close}",
        "its body was not read: nobody knows how much more would come",
    ),
    ("limits-by-", "body: envoy", "ours names the limit"),
    (
        "limits-by-",
        "headers: only envoy {content-length: 18} | only ours {content-length:",
        "ours names the limit",
    ),
];

#[tokio::test]
async fn protection() -> anyhow::Result<()> {
    same(Part {
        cases: [csrf(), cors(), bandwidth(), buffer(), limits()].into_iter().flatten().collect(),
        filters: FILTERS,
        metrics: &[
            "http.http.csrf",
            "http.http.cors",
            "fast.http_bandwidth_limit.request_enabled",
            "fast.http_bandwidth_limit.request_incoming_total_size",
            "fast.http_bandwidth_limit.request_allowed_total_size",
            "fast.http_bandwidth_limit.response_enabled",
            "fast.http_bandwidth_limit.response_incoming_total_size",
            "fast.http_bandwidth_limit.response_allowed_total_size",
            "limit.http_local_rate_limit",
            "of_host.http_local_rate_limit",
            "of_route.http_local_rate_limit",
            "shadow.http_local_rate_limit",
        ],
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// A virtual host whose settings of a filter are of this type.
fn host(filter: &str, kind: &str, settings: &str) -> &'static str {
    leaked(format!(
        "{{routes: [
            {{name: g, match: {{prefix: /test.Echo}}, route: {{cluster: h2}}}},
            {{name: r, match: {{prefix: /}}, route: {{cluster: a}}}}],
        typed_per_filter_config: {{{filter}: {{
            '@type': type.googleapis.com/envoy.extensions.filters.http.{kind}, {settings}}}}}}}"
    ))
}

fn csrf() -> Vec<Case> {
    let enforced = host(
        "csrf",
        "csrf.v3.CsrfPolicy",
        "filter_enabled: {default_value: {numerator: 100}},
         additional_origins: [{exact: friend.test}, {suffix: .friends.test}]",
    );
    let shadow = host(
        "csrf",
        "csrf.v3.CsrfPolicy",
        "filter_enabled: {default_value: {numerator: 0}}, shadow_enabled: {default_value: {numerator: 100}}",
    );
    let off = host("csrf", "csrf.v3.CsrfPolicy", "filter_enabled: {default_value: {numerator: 0}}");
    let from = |origin: &str| post("/", "x").header("origin", origin);
    let other = |method| request(method, "/").header("origin", "http://evil.test");
    vec![
        Case::new("requests of other sites", enforced)
            .ask(get("/").header("origin", "http://evil.test"), "200 - r a")
            .ask(request(Method::HEAD, "/").header("origin", "http://evil.test"), "200 - r a")
            .ask(other(Method::OPTIONS), "200 - r a")
            .ask(other(Method::DELETE), "403 - r a")
            .ask(other(Method::PUT), "403 - r a")
            .ask(other(Method::PATCH), "403 - r a")
            .ask(from("http://evil.test"), "403 - r a")
            .ask(from("http://requests-of-other-sites.test"), "200 - r a")
            .ask(from("https://requests-of-other-sites.test"), "200 - r a")
            .ask(from("http://requests-of-other-sites.test:8080"), "403 - r a")
            .ask(from("http://friend.test"), "200 - r a")
            .ask(from("http://a.friends.test"), "200 - r a")
            .ask(from("null"), "403 - r a")
            .ask(from("friend.test"), "200 - r a")
            .ask(post("/", "x"), "403 - r a")
            .ask(post("/", "x").header("referer", "http://friend.test/page?q"), "200 - r a")
            .ask(post("/", "x").header("referer", "http://evil.test/friend.test"), "403 - r a")
            .ask(from("http://evil.test").header("referer", "http://friend.test/"), "403 - r a")
            .ask(from("http://evil.test").http2(), "403 - r a")
            .ask(grpc("hello").header("origin", "http://evil.test"), "200 - g h2"),
        Case::new("other sites are only counted", shadow)
            .ask(from("http://evil.test"), "200 - r a")
            .ask(from("http://other-sites-are-only-counted.test"), "200 - r a")
            .ask(post("/", "x"), "200 - r a"),
        Case::new("other sites are not looked at", off).ask(from("http://evil.test"), "200 - r a"),
    ]
}

fn cors() -> Vec<Case> {
    let ask = |method, origin: &str| request(method, "/").header("origin", origin);
    let preflight =
        |origin: &str| ask(Method::OPTIONS, origin).header("access-control-request-method", "PUT");
    vec![
        Case::new(
            "cors with everything",
            host(
                "cors",
                "cors.v3.CorsPolicy",
                "allow_origin_string_match: [{safe_regex: {regex: 'https://[a-z]+\\.shop\\.example'}}, {exact: '*'}],
                 allow_methods: 'GET, PUT', allow_headers: '*', expose_headers: 'x-b, x-c', max_age: '600',
                 allow_credentials: true, allow_private_network_access: true",
            ),
        )
        .ask(ask(Method::GET, "https://www.shop.example"), "200 - r a")
        .ask(ask(Method::POST, "https://www.shop.example").http2(), "200 - r a")
        .ask(ask(Method::GET, "https://www.shop.example.evil"), "200 - r a")
        .ask(ask(Method::OPTIONS, "https://www.shop.example"), "200 - r a")
        .ask(preflight("https://www.shop.example"), "200 - r a")
        .ask(preflight("https://www.shop.example").header("access-control-request-private-network", "true"), "200 - r a")
        .ask(preflight("https://www.shop.example").header("access-control-request-private-network", "1"), "200 - r a")
        .ask(preflight("https://www.shop.example").http2(), "200 - r a")
        .ask(preflight("https://www.shop.example").header("access-control-request-headers", "x-a, x-b"), "200 - r a")
        .ask(preflight("*"), "200 - r a")
        .ask(preflight(""), "200 - r a")
        .ask(get("/"), "200 - r a"),
        Case::new(
            "cors of a route",
            "{routes: [
                {name: mine, match: {prefix: /}, route: {cluster: a}, typed_per_filter_config: {cors: {
                    '@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy,
                    allow_origin_string_match: [{prefix: 'http://mine'}], allow_methods: '*', allow_headers: x-c}}}],
            typed_per_filter_config: {cors: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy,
                allow_origin_string_match: [{prefix: 'http://host'}], allow_methods: GET}}}",
        )
        .ask(preflight("http://mine.test"), "200 - mine a")
        .ask(preflight("http://host.test"), "200 - mine a"),
        Case::new(
            "cors that is off",
            host(
                "cors",
                "cors.v3.CorsPolicy",
                "allow_origin_string_match: [{prefix: http}], filter_enabled: {default_value: {numerator: 0}}",
            ),
        )
        .ask(preflight("http://mine.test"), "200 - r a")
        .ask(ask(Method::GET, "http://mine.test"), "200 - r a"),
        Case::new(
            "cors of an upstream that knows it itself",
            host("cors", "cors.v3.CorsPolicy", "allow_origin_string_match: [{prefix: http}], expose_headers: x-b"),
        )
        .ask(
            ask(Method::GET, "http://mine.test")
                .does("header=access-control-allow-origin:* header=access-control-expose-headers:x-own"),
            "200 - r a",
        ),
    ]
}

fn bandwidth() -> Vec<Case> {
    let fast = |mode: &str| {
        let settings = format!("stat_prefix: fast, limit_kbps: 100000, enable_mode: {mode}");
        host("bandwidth", "bandwidth_limit.v3.BandwidthLimit", &settings)
    };
    vec![
        Case::new("bandwidth both ways", fast("REQUEST_AND_RESPONSE"))
            .ask(post("/", &"content".repeat(100)), "200 - r a")
            .ask(get("/").does("size=5000"), "200 - r a")
            .ask(get("/").does("size=5000 chunked trailers"), "200 - r a")
            .ask(get("/").does("size=0"), "200 - r a")
            .ask(post("/", "content").chunked().http2(), "200 - r a")
            .ask(grpc("hello").does("grpc-trailer=0"), "200 - g h2"),
        Case::new("bandwidth of requests", fast("REQUEST"))
            .ask(post("/", "content").does("size=10"), "200 - r a"),
        Case::new("bandwidth of answers", fast("RESPONSE"))
            .ask(post("/", "content").does("size=10"), "200 - r a"),
        Case::new("bandwidth without limit", fast("DISABLED"))
            .ask(post("/", "content").does("size=10"), "200 - r a"),
    ]
}

fn buffer() -> Vec<Case> {
    let on = "'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}";
    let text = leaked(format!(
        "{{routes: [
            {{name: more, match: {{prefix: /more}}, route: {{cluster: a}}, typed_per_filter_config: {{buffer: {{
                '@type': type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute,
                buffer: {{max_request_bytes: 1000}}}}}}}},
            {{name: free, match: {{prefix: /free}}, route: {{cluster: a}}, typed_per_filter_config: {{buffer: {{
                '@type': type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute, disabled: true}}}}}},
            {{name: g, match: {{prefix: /test.Echo}}, route: {{cluster: h2}}, typed_per_filter_config: {{buffer: {{{on}}}}}}},
            {{name: r, match: {{prefix: /}}, route: {{cluster: a}}, typed_per_filter_config: {{buffer: {{{on}}}}}}}]}}"
    ));
    let long = "x".repeat(101);
    vec![
        Case::new("requests that are buffered", text)
            .ask(get("/"), "200 - r a")
            .ask(post("/", &"x".repeat(100)), "200 - r a")
            .ask(post("/", "short").chunked(), "200 - r a")
            .ask(post("/", "short").chunked().trailer("x-end", "1"), "200 - r a")
            .ask(post("/", "short").http2(), "200 - r a")
            .ask(post("/", &long), "413 - r a")
            .ask(post("/", &long).chunked(), "413 - r a")
            .ask(post("/", &long).http2(), "200 - r a")
            .ask(post("/more", &long), "200 - more a")
            .ask(post("/more", &long.repeat(10)), "413 - more a")
            .ask(post("/free", &long.repeat(10)), "200 - free a")
            .ask(grpc("hello"), "200 - g h2")
            .ask(grpc(&long), "200 - g h2"),
    ]
}

/// As `user`.
fn user(path: &str, name: &str) -> Request {
    get(path).header("x-user", name)
}

fn limits() -> Vec<Case> {
    let on = "filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}";
    let kind = "'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    let one = "token_bucket: {max_tokens: 1, fill_interval: 3600s}";
    let many = "token_bucket: {max_tokens: 100, fill_interval: 3600s}";
    let by_host = leaked(format!(
        "{{routes: [
            {{name: none, match: {{prefix: /none}}, route: {{cluster: a}}}},
            {{name: own, match: {{prefix: /own}}, route: {{cluster: a, rate_limits: [
                {{actions: [{{generic_key: {{descriptor_key: kind, descriptor_value: own}}}}]}}]}}}},
            {{name: both, match: {{prefix: /both}}, route: {{cluster: a, include_vh_rate_limits: true, rate_limits: [
                {{actions: [{{generic_key: {{descriptor_key: kind, descriptor_value: both}}}}]}}]}}}}],
        rate_limits: [{{actions: [{{request_headers: {{header_name: x-user, descriptor_key: user}}}}]}}],
        typed_per_filter_config: {{limit: {{{kind}, stat_prefix: of_host, {many}, {on},
            descriptors: [
                {{entries: [{{key: user, value: amy}}], {one}}},
                {{entries: [{{key: user, value: bob}}], {one}}},
                {{entries: [{{key: kind, value: own}}], {one}}},
                {{entries: [{{key: kind, value: both}}], {many}}}]}}}}}}"
    ));
    let of_route = leaked(format!(
        "{{routes: [
            {{name: r, match: {{prefix: /r}}, route: {{cluster: a}}, typed_per_filter_config: {{limit: {{{kind},
                stat_prefix: of_route, {one}, {on}, enable_x_ratelimit_headers: DRAFT_VERSION_03,
                status: {{code: ServiceUnavailable}}, rate_limited_as_resource_exhausted: true}}}}}},
            {{name: s, match: {{prefix: /s}}, route: {{cluster: a}}, typed_per_filter_config: {{limit: {{{kind},
                stat_prefix: shadow, {one}, filter_enabled: {{default_value: {{numerator: 100}}}}}}}}}},
            {{name: rest, match: {{prefix: /}}, route: {{cluster: h2}}}}],
        typed_per_filter_config: {{limit: {{{kind}, stat_prefix: of_host, {one}, {on}}}}}}}"
    ));
    vec![
        Case::new("limits by rules of the virtual host", by_host)
            .ask(user("/none", "amy"), "200 - none a")
            .ask(user("/none", "amy"), "429 RL none a")
            .ask(user("/none", "zoe"), "200 - none a")
            .ask(get("/none"), "200 - none a")
            .ask(user("/own", "bob"), "200 - own a")
            .ask(user("/own", "bob"), "429 RL own a")
            .ask(user("/both", "bob"), "200 - both a")
            .ask(user("/both", "bob"), "429 RL both a")
            .ask(user("/none", "bob"), "429 RL none a"),
        Case::new("limits by routes", of_route)
            .ask(get("/r"), "200 - r a")
            .ask(get("/r"), "503 RL r a")
            .ask(get("/s"), "200 - s a")
            .ask(get("/s"), "200 - s a")
            .ask(grpc("hello"), "200 - rest h2")
            .ask(grpc("hello"), "200 RL rest h2"),
    ]
}
