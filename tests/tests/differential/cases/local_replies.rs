//! What becomes of answers that the proxy makes itself.

use crate::differential::case::{Case, get, grpc, post, request};
use crate::differential::part::Part;

const MAPPED: &str = "
local_reply_config:
  mappers:
  - filter: {header_filter: {header: {name: x-mapper, string_match: {exact: body}}}}
    body: {inline_string: 'said otherwise'}
  - filter: {header_filter: {header: {name: x-mapper, string_match: {exact: status}}}}
    status_code: 418
  - filter: {header_filter: {header: {name: x-mapper, string_match: {exact: empty}}}}
    body: {inline_string: ''}
    body_format_override: {text_format_source: {inline_string: '%LOCAL_REPLY_BODY%'}}
  - filter: {header_filter: {header: {name: x-mapper, string_match: {exact: type}}}}
    body_format_override: {text_format_source: {inline_string: '<h1>%RESPONSE_CODE%</h1>'}, content_type: 'text/html; charset=UTF-8'}
  - filter: {header_filter: {header: {name: x-mapper, string_match: {exact: headers}}}}
    headers_to_add:
    - {header: {key: x-mapped, value: '%REQ(X-MAPPER)% %RESPONSE_CODE% %RESPONSE_FLAGS%'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
    - {header: {key: content-type, value: application/problem+json}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
    body: {inline_string: '{}'}
  - filter: {and_filter: {filters: [
      {status_code_filter: {comparison: {op: EQ, value: {default_value: 403, runtime_key: none}}}},
      {header_filter: {header: {name: x-mapper, string_match: {exact: json}}}}]}}
    status_code: 401
    body: {inline_string: 'who are you'}
    body_format_override: {json_format: {status: '%RESPONSE_CODE%', message: '%LOCAL_REPLY_BODY%', path: '%REQ(:PATH)%', flags: '%RESPONSE_FLAGS%', inner: {route: '%ROUTE_NAME%', none: '%REQ(X-NONE)%', five: 5}}}
  - filter: {response_flag_filter: {flags: [NR]}}
    body: {inline_string: 'there is no such place'}
";

const FORMATTED: &str = "
- name: all
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: all
        http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
        local_reply_config:
          body_format: {text_format_source: {inline_string: \"%RESPONSE_CODE% %REQ(:METHOD)% %REQ(X-NONE)% [%LOCAL_REPLY_BODY%]\\n\"}}
        route_config: {
          name: all,
          virtual_hosts: [{name: all, domains: ['*'], routes: [
            {name: said, match: {prefix: /said}, direct_response: {status: 200, body: {inline_string: hello}}},
            {name: quiet, match: {prefix: /quiet}, direct_response: {status: 204}},
            {name: away, match: {prefix: /away}, redirect: {path_redirect: /there}},
            {name: up, match: {prefix: /up}, route: {cluster: a}}]}]}
- name: json
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: json
        http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
        local_reply_config:
          body_format: {json_format: {code: '%RESPONSE_CODE%', text: '%LOCAL_REPLY_BODY%'}}
        route_config: {
          name: json,
          virtual_hosts: [{name: all, domains: ['*'], routes: [
            {name: said, match: {prefix: /said}, response_headers_to_add: [{header: {key: content-type, value: text/own}}], direct_response: {status: 200, body: {inline_string: 'say \"hello\"'}}},
            {name: plain, match: {prefix: /plain}, direct_response: {status: 503, body: {inline_string: nope}}}]}]}
";

fn mapped() -> Vec<Case> {
    let by = |mapper: &str| get("/direct").header("x-mapper", mapper);
    vec![
        Case::new("mapped replies", "{routes: [
            {name: direct, match: {prefix: /direct}, direct_response: {status: 403, body: {inline_string: nope}}, response_headers_to_add: [{header: {key: x-of-route, value: '%RESPONSE_CODE%'}}]},
            {name: typed, match: {prefix: /typed}, direct_response: {status: 403, body: {inline_string: nope}}, response_headers_to_add: [{header: {key: content-type, value: text/special}}]},
            {name: away, match: {prefix: /away}, redirect: {path_redirect: /there}},
            {name: refused, match: {prefix: /refused}, route: {cluster: refused}},
            {name: up, match: {prefix: /up}, route: {cluster: a}}]}")
            .ask(by("none"), "403 - direct -")
            .ask(by("body"), "403 - direct -")
            .ask(by("status"), "418 - direct -")
            .ask(by("empty"), "403 - direct -")
            .ask(by("type"), "403 - direct -")
            .ask(by("headers"), "403 - direct -")
            .ask(by("json"), "401 - direct -")
            .ask(get("/typed").header("x-mapper", "body"), "403 - typed -")
            .ask(get("/typed").header("x-mapper", "status"), "418 - typed -")
            .ask(get("/typed").header("x-mapper", "headers"), "403 - typed -")
            .ask(get("/away").header("x-mapper", "body"), "301 - away -")
            .ask(get("/away").header("x-mapper", "status"), "418 - away -")
            .ask(get("/nowhere"), "404 NR - -")
            .ask(get("/refused").header("x-mapper", "type"), "503 UF refused refused")
            .ask(get("/up").header("x-mapper", "body").does("status=503"), "503 - up a")
            .ask(request(http::Method::HEAD, "/direct").header("x-mapper", "body"), "403 - direct -")
            .ask(post("/direct", "x").header("x-mapper", "json"), "401 - direct -"),
        Case::new("mapped grpc replies", "{routes: [{name: direct, match: {prefix: /}, direct_response: {status: 403, body: {inline_string: nope}}}]}")
            .ask(grpc("x"), "200 - direct -")
            .ask(grpc("x").header("x-mapper", "body"), "200 - direct -")
            .ask(grpc("x").header("x-mapper", "status"), "200 - direct -")
            .ask(grpc("x").header("x-mapper", "headers"), "200 - direct -"),
        Case::new("direct response with a format", "{routes: [
            {name: json, match: {prefix: /json}, direct_response: {status: 200, body: {inline_string: hello}, body_format: {json_format: {path: '%REQ(:PATH)%', code: '%RESPONSE_CODE%'}}}},
            {name: text, match: {prefix: /text}, direct_response: {status: 200, body_format: {text_format_source: {inline_string: '%REQ(X-A)% by %ROUTE_NAME%'}, content_type: text/odd}}}]}")
            .ask(get("/json").header("x-a", "1"), "200 - json -")
            .ask(get("/text").header("x-a", "1"), "200 - text -"),
    ]
}

#[tokio::test]
async fn local_replies() -> anyhow::Result<()> {
    let mut cases = mapped();
    cases.push(
        Case::plain("formatted replies")
            .ask(get("/said").on("all"), "200 unlogged")
            .ask(get("/quiet").on("all"), "204 unlogged")
            .ask(get("/away").on("all"), "301 unlogged")
            .ask(get("/up").on("all"), "200 unlogged")
            .ask(grpc("x").on("all"), "200 unlogged")
            .ask(get("/said").on("json"), "200 unlogged")
            .ask(get("/plain").on("json"), "503 unlogged"),
    );
    super::super::same(Part {
        cases,
        manager: MAPPED,
        listeners: FORMATTED,
        texts: true,
        on_purpose: &[(
            "formatted-replies.4",
            "headers",
            "the text of a refusal of our own says more",
        )],
        ..Part::default()
    })
    .await
}
