//! Command operators of access logs: all in one line, in many situations.

use http::Method;

use crate::differential::case::{Case, Client, get, grpc, post, request};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;

/// Without ports, times and random ids, which differ between two proxies.
const LOG: &str = "%PROTOCOL% %UPSTREAM_PROTOCOL% %BYTES_RECEIVED% %BYTES_SENT% %REQ(:METHOD)% \
    %REQ(:PATH)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(:AUTHORITY)% %REQ(HOST)% %REQ(:SCHEME)% \
    %REQ(X-NO?X-A):3% %REQ(X-A)% %REQ(X-ADDED)% %RESP(X-ENDPOINT)% %RESP(:STATUS)% \
    %RESP(CONTENT-TYPE)% %RESP(X-ADDED)% %TRAILER(X-TRAILER)% %TRAILER(GRPC-STATUS)% %PATH% \
    %PATH(NQ)% %PATH(WQ:ORIG)% %PATH(NQ:PATH)% %PATH(WQ:ORIG_OR_PATH):4% %QUERY_PARAM(a)% \
    %QUERY_PARAM(b):2% %QUERY_PARAMS(ORIG)% %GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% \
    %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER% %UPSTREAM_REQUEST_ATTEMPT_COUNT% \
    %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% \
    %UPSTREAM_CLUSTER_RAW% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% \
    %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% \
    %DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_SESSION_ID% %DOWNSTREAM_PEER_SUBJECT% \
    %DOWNSTREAM_PEER_ISSUER% %DOWNSTREAM_PEER_SERIAL% %DOWNSTREAM_PEER_URI_SAN% \
    %DOWNSTREAM_PEER_DNS_SAN% %DOWNSTREAM_PEER_IP_SAN% %DOWNSTREAM_PEER_EMAIL_SAN% \
    %DOWNSTREAM_PEER_FINGERPRINT_256% %DOWNSTREAM_PEER_FINGERPRINT_1% \
    %DOWNSTREAM_PEER_CERT_V_START% %DOWNSTREAM_PEER_CERT_V_END(%d/%b/%Y)% %DOWNSTREAM_PEER_CERT% \
    %DOWNSTREAM_LOCAL_URI_SAN% %DOWNSTREAM_LOCAL_SUBJECT% %DOWNSTREAM_LOCAL_DNS_SAN% \
    %UPSTREAM_PEER_SUBJECT% %UPSTREAM_PEER_URI_SAN% %UPSTREAM_PEER_ISSUER% \
    %UPSTREAM_PEER_CERT_V_END% %UPSTREAM_LOCAL_URI_SAN% %UPSTREAM_SERVER_NAME%";

const WHY: &str = "a refusal of ours has a text, which has a length and a type";

const ON_PURPOSE: OnPurpose = &[
    ("an-ordinary-request.4", "access log, the part's operators", WHY),
    ("answers-of-our-own.3", "access log, the part's operators", WHY),
    ("what-went-wrong.0", "access log, the part's operators", WHY),
    ("what-went-wrong.1", "access log, the part's operators", WHY),
];

#[tokio::test]
async fn operators_of_access_logs() -> anyhow::Result<()> {
    same(Part {
        cases: [plain(), rewritten(), calls(), failures(), tls()].into_iter().flatten().collect(),
        log: LOG,
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}

fn plain() -> Vec<Case> {
    vec![
        Case::new(
            "an ordinary request",
            "routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]",
        )
        .ask(get("/p/q?a=1&b=xyz"), "200 - r a")
        .ask(get("/p?a=1%202&a=3&c"), "200 - r a")
        .ask(get("/p?a=&b=%41%42%43"), "200 - r a")
        .ask(get("/"), "200 - r a")
        .ask(get("/x").header("x-a", "long value").host("other.test:80"), "404 NR - -")
        .ask(post("/x", "twelve bytes").header("x-a", "1").header("x-a", "2"), "200 - r a")
        .ask(post("/x", "chunks").chunked(), "200 - r a")
        .ask(get("/x").http2(), "200 - r a")
        .ask(post("/x", "y").http2(), "200 - r a")
        .ask(request(Method::HEAD, "/x"), "200 - r a")
        .ask(request(Method::DELETE, "/x").does("status=204"), "204 - r a")
        .ask(get("/x").does("size=70000"), "200 - r a")
        .ask(get("/x").does("chunked size=70000"), "200 - r a")
        .ask(get("/x").does("status=404 header=x-b:c"), "404 - r a")
        .ask(get("/x").does("trailers chunked").header("te", "trailers"), "200 - r a"),
        Case::new(
            "headers that the route adds",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
            request_headers_to_add: [{header: {key: x-added, value: up}}],
            response_headers_to_add: [{header: {key: x-added, value: down}}],
            request_headers_to_remove: [x-a]}",
        )
        .ask(get("/").header("x-a", "gone"), "200 - r a")
        .ask(get("/").header("x-a", "").header("x-no", ""), "200 - r a"),
        Case::new(
            "operators in header values",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
            request_headers_to_add: [
                {header: {key: x-empty, value: '[%REQ(X-NO)%]'}},
                {header: {key: x-nothing, value: '%REQ(X-NO)%'}},
                {header: {key: x-path, value: '%PATH(NQ)%|%QUERY_PARAM(a)%|%PROTOCOL%'}},
                {header: {key: x-cut, value: '%REQ(X-A):2%'}}],
            response_headers_to_add: [
                {header: {key: x-code, value: '%RESPONSE_CODE%/%RESPONSE_FLAGS%/%ROUTE_NAME%'}},
                {header: {key: x-upstream, value: '%UPSTREAM_CLUSTER%-%UPSTREAM_PROTOCOL%'}}]}",
        )
        .ask(get("/p?a=b").header("x-a", "value"), "200 - r a"),
    ]
}

fn rewritten() -> Vec<Case> {
    vec![
        Case::new("a rewritten path", "routes: [
            {name: r, match: {prefix: /old}, route: {cluster: a, prefix_rewrite: /new}},
            {name: h, match: {prefix: /host}, route: {cluster: a, host_rewrite_literal: else.test}},
            {name: x, match: {prefix: /re}, route: {cluster: a, regex_rewrite: {
                pattern: {regex: '/re/(.*)'}, substitution: '/\\1/er'}}}]")
            .ask(get("/old/x?a=1"), "200 - r a")
            .ask(get("/host"), "200 - h a")
            .ask(get("/re/ad?b=2"), "200 - x a"),
        Case::new("answers of our own", "routes: [
            {name: d, match: {prefix: /direct}, direct_response: {status: 418, body: {inline_string: tea}}},
            {name: m, match: {prefix: /moved}, redirect: {path_redirect: /there}}]")
            .ask(get("/direct"), "418 - d -")
            .ask(post("/direct?a=1", "x"), "418 - d -")
            .ask(get("/moved"), "301 - m -")
            .ask(get("/not"), "404 NR - -"),
    ]
}

fn calls() -> Vec<Case> {
    vec![
        Case::new("calls and their status", "routes: [
            {name: d, match: {prefix: /test.Echo, headers: [{name: x-refuse, present_match: true}]}, direct_response: {status: 403}},
            {name: g, match: {prefix: /test.Echo}, route: {cluster: h2}},
            {name: r, match: {prefix: /}, route: {cluster: a}}]")
            .ask(grpc("hello"), "200 - g h2")
            .ask(grpc("hello").does("grpc=5"), "200 - g h2")
            .ask(grpc("hello").does("grpc-trailer=14"), "200 - g h2")
            .ask(grpc("hello").does("grpc-trailer=0"), "200 - g h2")
            .ask(grpc("hello").does("grpc=16"), "200 - g h2")
            .ask(get("/plain").does("grpc=5"), "200 - r a"),
    ]
}

fn failures() -> Vec<Case> {
    vec![
        Case::new("what went wrong", "routes: [
            {name: refused, match: {prefix: /refused}, route: {cluster: refused}},
            {name: empty, match: {prefix: /empty}, route: {cluster: empty}},
            {name: late, match: {prefix: /late}, route: {cluster: a, timeout: 0.2s}},
            {name: again, match: {prefix: /again}, route: {cluster: a, retry_policy: {retry_on: 5xx, num_retries: 2}}},
            {name: r, match: {prefix: /}, route: {cluster: a}}]")
            .ask(get("/empty?a=1"), "503 UH empty empty")
            .ask(get("/late").does("hang"), "504 UT late a")
            .ask(get("/again").does("status=503 times=1"), "200 - again a")
            .ask(get("/again").does("status=503"), "503 URX again a"),
    ]
}

fn tls() -> Vec<Case> {
    vec![
        Case::new(
            "tls to the endpoint",
            "routes: [
            {name: two, match: {prefix: /h2}, route: {cluster: tls-h2}},
            {name: mutual, match: {prefix: /mutual}, route: {cluster: tls-mutual}},
            {name: one, match: {prefix: /}, route: {cluster: tls}}]",
        )
        .ask(get("/"), "200 - one tls")
        .ask(get("/h2"), "200 - two tls-h2")
        .ask(get("/mutual"), "200 - mutual tls-mutual"),
        Case::plain("a client with a certificate")
            .ask(get("/x?a=1").by(Client::Right), "200 - any a")
            .ask(get("/x").by(Client::Right).http2(), "200 - any a"),
    ]
}
