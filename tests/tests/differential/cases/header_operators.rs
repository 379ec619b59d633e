//! Command operators in headers of answers, where nobody else wants to know about the request.

use crate::differential::case::{Case, get, grpc, post};
use crate::differential::part::Part;

/// Many operators, as `response_headers_to_add`.
macro_rules! told {
    () => {
        "response_headers_to_add: [
  {header: {key: x-req, value: '%REQ(X-A)%'}},
  {header: {key: x-req-cut, value: '%REQ(X-A):3%'}},
  {header: {key: x-req-other, value: '%REQ(X-NONE?X-A)%'}},
  {header: {key: x-req-none, value: '%REQ(X-NONE)%'}},
  {header: {key: x-req-around, value: '<%REQ(X-NONE)%>'}},
  {header: {key: x-req-none-kept, value: '%REQ(X-NONE)%'}, keep_empty_value: true},
  {header: {key: x-method, value: '%REQ(:METHOD)%'}},
  {header: {key: x-path, value: '%REQ(:PATH)%'}},
  {header: {key: x-path-original, value: '%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%'}},
  {header: {key: x-path-bare, value: '%PATH(NQ)%'}},
  {header: {key: x-authority, value: '%REQ(:AUTHORITY)%'}},
  {header: {key: x-query, value: '%QUERY_PARAM(q)%'}},
  {header: {key: x-resp, value: '%RESP(X-ENDPOINT)%'}},
  {header: {key: x-status, value: '%RESP(:STATUS)%'}},
  {header: {key: x-code, value: '%RESPONSE_CODE%'}},
  {header: {key: x-details, value: '%RESPONSE_CODE_DETAILS%'}},
  {header: {key: x-flags, value: '%RESPONSE_FLAGS%'}},
  {header: {key: x-protocol, value: '%PROTOCOL%'}},
  {header: {key: x-upstream-protocol, value: '%UPSTREAM_PROTOCOL%'}},
  {header: {key: x-upstream-server-name, value: '%UPSTREAM_SERVER_NAME%'}},
  {header: {key: x-route, value: '%ROUTE_NAME%'}},
  {header: {key: x-cluster, value: '%UPSTREAM_CLUSTER%'}},
  {header: {key: x-tries, value: '%UPSTREAM_REQUEST_ATTEMPT_COUNT%'}},
  {header: {key: x-received, value: '%BYTES_RECEIVED%'}},
  {header: {key: x-remote, value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}},
  {header: {key: x-local, value: '%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%'}},
  {header: {key: x-upstream-ip, value: '%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}},
  {header: {key: x-upstream-local-ip, value: '%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%'}},
  {header: {key: x-tls, value: '%DOWNSTREAM_TLS_VERSION%'}},
  {header: {key: x-percent, value: '100%%'}}]
"
    };
}

const LISTENERS: &str = concat!(
    "- name: bare
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: bare
        http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
        route_config: {
          name: bare,
          virtual_hosts: [
            {name: told, domains: [told.test], ", told!(), ", routes: [
              {name: rewritten, match: {prefix: /from}, route: {cluster: a, prefix_rewrite: /to}},
              {name: direct, match: {prefix: /direct}, direct_response: {status: 403, body: {inline_string: nope}}},
              {name: away, match: {prefix: /away}, redirect: {path_redirect: /there}},
              {name: nobody, match: {prefix: /nobody}, route: {cluster: refused}},
              {name: h2, match: {prefix: /test.Echo}, route: {cluster: h2}},
              {name: any, match: {prefix: /}, route: {cluster: a}}]},
            {name: quiet, domains: [quiet.test], routes: [
              {name: weighted, match: {prefix: /weighted}, route: {weighted_clusters: {clusters: [
                {name: a, weight: 1, response_headers_to_add: [{header: {key: x-req, value: '%REQ(X-A)%'}}]}]}}},
              {name: route, match: {prefix: /route}, route: {cluster: a}, response_headers_to_add: [{header: {key: x-req, value: '%REQ(X-A)%'}}]},
              {name: plain, match: {prefix: /}, route: {cluster: a}}]}]}
"
);

#[tokio::test]
async fn operators_of_answers() -> anyhow::Result<()> {
    let told = |request: crate::differential::case::Request| request.host("told.test").on("bare");
    let quiet = |path: &str| get(path).header("x-a", "abcdef").host("quiet.test").on("bare");
    super::super::same(Part {
        cases: vec![
            Case::plain("operators without a log")
                .ask(told(get("/x?q=a%20b&r=2").header("x-a", "abcdef")), "200 unlogged")
                .ask(told(get("/from/x?q=1").header("x-a", "ä")), "200 unlogged")
                .ask(told(post("/x", "four")), "200 unlogged")
                .ask(told(get("/x").does("status=404")), "404 unlogged")
                .ask(told(get("/x").http2().header("x-a", "1").header("x-a", "2")), "200 unlogged")
                .ask(told(grpc("x").header("x-a", "abcdef")), "200 unlogged"),
            Case::plain("operators of own answers without a log")
                .ask(told(get("/direct?q=1").header("x-a", "abcdef")), "403 unlogged")
                .ask(told(get("/away?q=1").header("x-a", "abcdef")), "301 unlogged")
                .ask(told(get("/nobody?q=1").header("x-a", "abcdef")), "503 unlogged"),
            Case::plain("operators of one level without a log")
                .ask(quiet("/weighted"), "200 unlogged")
                .ask(quiet("/route"), "200 unlogged")
                .ask(quiet("/plain"), "200 unlogged"),
            Case::new(
                "operators with a log",
                concat!(
                    "{routes: [{name: any, match: {prefix: /}, route: {cluster: a}}], ",
                    told!(),
                    "}"
                ),
            )
            .ask(get("/x?q=a%20b&r=2").header("x-a", "abcdef"), "200 - any a"),
        ],
        listeners: LISTENERS,
        on_purpose: &[(
            "operators-of-own-answers-without-a-log.2",
            "headers: only envoy {x-details: upstream_reset_before_response_started{",
            "Envoy puts the words of the operating system into the details",
        )],
        ..Part::default()
    })
    .await
}
