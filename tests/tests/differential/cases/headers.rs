//! What is added to, taken from and said about a request on its way.

use crate::differential::case::{Case, get, raw};

pub(super) fn cases() -> Vec<Case> {
    [mutations(), forwarded(), hops()].into_iter().flatten().collect()
}

fn mutations() -> Vec<Case> {
    vec![
        Case::new("headers at every level", "{
            request_headers_to_add: [{header: {key: x-level, value: vhost}}],
            response_headers_to_add: [{header: {key: x-level, value: vhost}}],
            request_headers_to_remove: [x-vhost-drops],
            routes: [{name: r, match: {prefix: /}, route: {cluster: a},
                request_headers_to_add: [{header: {key: x-level, value: route}}, {header: {key: x-set, value: new}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}],
                request_headers_to_remove: [x-route-drops],
                response_headers_to_add: [{header: {key: x-level, value: route}}],
                response_headers_to_remove: [x-internal]}]}")
            .ask(get("/").header("x-level", "client").header("x-set", "old").header("x-vhost-drops", "1")
                .header("x-route-drops", "1").header("x-kept", "1")
                .does("header=x-internal:1 header=x-secret:1 header=x-level:backend"), "200 - r a"),
        Case::new("append actions", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a},
            request_headers_to_add: [
                {header: {key: x-append, value: new}, append_action: APPEND_IF_EXISTS_OR_ADD},
                {header: {key: x-absent, value: new}, append_action: ADD_IF_ABSENT},
                {header: {key: x-absent-2, value: new}, append_action: ADD_IF_ABSENT},
                {header: {key: x-over, value: new}, append_action: OVERWRITE_IF_EXISTS_OR_ADD},
                {header: {key: x-exists, value: new}, append_action: OVERWRITE_IF_EXISTS},
                {header: {key: x-exists-2, value: new}, append_action: OVERWRITE_IF_EXISTS}]}]}")
            .ask(get("/").header("x-append", "old").header("x-absent", "old").header("x-over", "old")
                .header("x-exists", "old"), "200 - r a"),
        Case::new("values by format", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a},
            request_headers_to_add: [
                {header: {key: x-method, value: '%REQ(:METHOD)%'}},
                {header: {key: x-path, value: '%REQ(:PATH)%'}},
                {header: {key: x-authority, value: '%REQ(:AUTHORITY)%'}},
                {header: {key: x-peer, value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}},
                {header: {key: x-protocol, value: '%PROTOCOL%'}},
                {header: {key: x-percent, value: '100%%'}}],
            response_headers_to_add: [
                {header: {key: x-code, value: '%RESPONSE_CODE%'}},
                {header: {key: x-cluster, value: '%UPSTREAM_CLUSTER%'}}]}]}")
            .ask(get("/p?q").does("status=201"), "201 - r a"),
        Case::new("headers of a direct response", "{response_headers_to_add: [{header: {key: x-vhost, value: v}}],
            routes: [{name: r, match: {prefix: /}, direct_response: {status: 200, body: {inline_string: hi}},
            response_headers_to_add: [{header: {key: x-route, value: r}}]}]}")
            .ask(get("/"), "200 - r -"),
        Case::new("headers of a failure", "{response_headers_to_add: [{header: {key: x-vhost, value: v}}],
            routes: [{name: r, match: {prefix: /}, route: {cluster: refused}, response_headers_to_add: [{header: {key: x-route, value: r}}]}]}")
            .ask(get("/"), "503 UF r refused"),
        Case::new("attempts are counted", "{include_request_attempt_count: true, include_attempt_count_in_response: true,
            routes: [{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: 5xx, num_retries: 2}}}]}")
            .ask(get("/").does("status=503 times=2"), "200 - r a")
            .ask(get("/"), "200 - r a"),
    ]
}

fn forwarded() -> Vec<Case> {
    vec![
        Case::new(
            "inside the mesh x-forwarded headers are believed",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}",
        )
        .ask(
            get("/").header("x-forwarded-for", "1.2.3.4").header("x-forwarded-proto", "https"),
            "200 - r a",
        )
        .ask(get("/").header("x-request-id", "given-by-the-client"), "200 - r a")
        .ask(get("/"), "200 - r a"),
        Case::plain("at the edge they are not")
            .ask(get("/").on("edge"), "200 - any a")
            .ask(
                get("/")
                    .on("edge")
                    .header("x-forwarded-for", "1.2.3.4")
                    .header("x-forwarded-proto", "https"),
                "200 - any a",
            )
            .ask(
                get("/")
                    .on("edge")
                    .header("x-envoy-internal", "true")
                    .header("x-request-id", "given"),
                "200 - any a",
            )
            .ask(
                get("/").on("second-hop").header("x-forwarded-for", "1.2.3.4, 5.6.7.8"),
                "200 - any a",
            ),
        Case::plain("appending can be off").ask(
            get("/")
                .on("silent")
                .header("x-forwarded-for", "1.2.3.4")
                .does("header=server:backend"),
            "200 - any a",
        ),
        Case::plain("request ids")
            .ask(get("/").on("own-id").header("x-request-id", "given"), "200 - any a")
            .ask(get("/").on("own-id"), "200 - any a")
            .ask(get("/").on("no-id"), "200 - any a"),
        Case::plain("via").ask(get("/").on("via"), "200 - any a").ask(
            get("/").on("via").header("via", "1.1 before").does("header=via:1.1-backend"),
            "200 - any a",
        ),
    ]
}

fn hops() -> Vec<Case> {
    const ALL: &str = "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}";
    vec![
        Case::new("hop by hop headers of the request", ALL)
            .ask(get("/").header("connection", "x-hop").header("x-hop", "1").header("keep-alive", "timeout=5")
                .header("proxy-connection", "keep-alive").header("te", "trailers, deflate"), "200 - r a")
            .ask(get("/").header("te", "trailers"), "200 - r a")
            .ask(get("/").header("proxy-authorization", "Basic abc").header("trailer", "x-end"), "200 - r a"),
        Case::new("hop by hop headers of the answer", ALL)
            .ask(get("/").does("header=connection:x-hop header=x-hop:1 header=keep-alive:timeout=5 header=proxy-authenticate:Basic"), "200 - r a"),
        Case::new("names in any case", ALL).ask(
            raw("GET / HTTP/1.1\r\nhost: {host}\r\nX-CASE: {case}\r\nX-MiXed: Value\r\nConnection: close\r\n\r\n"),
            "200 - r a",
        ),
        Case::new("absolute form", ALL).ask(
            raw("GET http://{host}/path?q HTTP/1.1\r\nhost: elsewhere.test\r\nx-case: {case}\r\nconnection: close\r\n\r\n"),
            "200 - r a",
        ),
        Case::new("no host", ALL).ask(
            raw("GET / HTTP/1.1\r\nx-case: {case}\r\nconnection: close\r\n\r\n"),
            "400 - - -",
        ),
        Case::new("http 1 0", ALL).ask(
            raw("GET / HTTP/1.0\r\nhost: {host}\r\nx-case: {case}\r\n\r\n"),
            "426 unlogged",
        ),
    ]
}
