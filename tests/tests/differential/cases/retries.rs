//! When a request is tried again.

use crate::differential::case::{Case, get, grpc, post};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("retry on 5xx", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: 5xx, num_retries: 2}}}]}")
            .ask(get("/").does("status=500 times=1"), "200 - r a")
            .ask(get("/").does("status=503 times=2"), "200 - r a")
            .ask(get("/").does("status=500 times=9"), "500 URX r a")
            .ask(get("/").does("close times=1"), "200 - r a")
            .ask(get("/").does("status=404 times=1"), "404 - r a")
            .ask(post("/", "the body is sent again").does("status=500 times=1"), "200 - r a"),
        Case::new("retry on gateway errors", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: gateway-error}}}]}")
            .ask(get("/").does("status=502 times=1"), "200 - r a")
            .ask(get("/").does("status=504 times=1"), "200 - r a")
            .ask(get("/").does("status=500 times=1"), "500 - r a"),
        Case::new("retry on connect failure", "{routes: [{name: r, match: {prefix: /}, route: {cluster: refused, retry_policy: {retry_on: connect-failure, num_retries: 1}}}]}")
            .ask(get("/"), "503 UF,URX r refused"),
        Case::new("retry elsewhere", "{routes: [{name: r, match: {prefix: /}, route: {cluster: refused-or-b, retry_policy: {
            retry_on: connect-failure, num_retries: 1, host_selection_retry_max_attempts: 5,
            retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]}}}]}")
            .ask(get("/"), "200 - r refused-or-b")
            .ask(get("/"), "200 - r refused-or-b")
            .ask(get("/"), "200 - r refused-or-b"),
        Case::new("retry on reset", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: reset, num_retries: 1}}}]}")
            .ask(get("/").does("reset times=1"), "200 - r a")
            .ask(get("/").does("close"), "503 UC,URX r a")
            .ask(get("/").does("status=503 times=1"), "503 - r a"),
        Case::new("retry on refused stream", "{routes: [{name: r, match: {prefix: /}, route: {cluster: h2, retry_policy: {retry_on: refused-stream, num_retries: 1}}}]}")
            .ask(get("/").does("refuse times=1"), "200 - r h2")
            .ask(get("/").does("reset times=1"), "503 UR r h2"),
        Case::new("no retry once an answer began", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: 'reset,5xx', num_retries: 1}}}]}")
            .ask(get("/").does("partial times=1"), "200 UPE r a"),
        Case::new("retry on listed codes", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: retriable-status-codes, retriable_status_codes: [409]}}}]}")
            .ask(get("/").does("status=409 times=1"), "200 - r a")
            .ask(get("/").does("status=500 times=1"), "500 - r a"),
        Case::new("retry on 4xx", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: retriable-4xx}}}]}")
            .ask(get("/").does("status=409 times=1"), "200 - r a")
            .ask(get("/").does("status=404 times=1"), "404 - r a"),
        Case::new("retry on headers", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: retriable-headers, retriable_headers: [{name: x-again, present_match: true}]}}}]}")
            .ask(get("/").does("status=200 header=x-again:1 times=1"), "200 - r a")
            .ask(get("/").does("status=503 times=1"), "503 - r a"),
        Case::new("retry as the client asks", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(get("/").header("x-envoy-retry-on", "5xx").does("status=500 times=1"), "500 - r a")
            .ask(get("/").header("x-envoy-retry-on", "5xx").header("x-forwarded-for", "10.0.0.1").does("status=500 times=1"), "500 - r a"),
        Case::new("retry as a header of the route asks", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}, request_headers_to_add: [
            {header: {key: x-envoy-retry-on, value: 5xx}}, {header: {key: x-envoy-max-retries, value: '2'}}]}]}")
            .ask(get("/").does("status=500 times=2"), "200 - r a")
            .ask(get("/").does("status=500 times=3"), "500 URX r a"),
        Case::new("retry policy of the host", "{retry_policy: {retry_on: 5xx}, routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(get("/").does("status=500 times=1"), "200 - r a"),
        Case::new("retries are limited by the breaker", "{routes: [{name: r, match: {prefix: /}, route: {cluster: no-retries, retry_policy: {retry_on: 5xx}}}]}")
            .ask(get("/").does("status=500 times=1"), "500 UO r no-retries"),
        Case::new("retry on grpc codes", "{routes: [{name: r, match: {prefix: /}, route: {cluster: h2, retry_policy: {retry_on: 'unavailable,resource-exhausted', num_retries: 1}}}]}")
            .ask(grpc("x").does("grpc=14 times=1"), "200 - r h2")
            .ask(grpc("x").does("grpc=8 times=1"), "200 - r h2")
            .ask(grpc("x").does("grpc=5 times=1"), "200 - r h2")
            .ask(grpc("x").does("grpc=14 times=2"), "200 URX r h2")
            .ask(grpc("x").does("grpc-trailer=14 times=1"), "200 - r h2"),
        Case::new("retry as a grpc client asks", "{routes: [{name: r, match: {prefix: /}, route: {cluster: h2}}]}")
            .ask(grpc("x").header("x-envoy-retry-grpc-on", "unavailable").does("grpc=14 times=1"), "200 - r h2"),
    ]
}
