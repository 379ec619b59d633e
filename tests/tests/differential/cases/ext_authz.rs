//! External authorization: what the service is asked, and what becomes of its answers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::service::auth::v3 as auth;
use pillion_xds::envoy::service::auth::v3::check_response::HttpResponse;
use pillion_xds::envoy::r#type::v3::HttpStatus;
use pillion_xds::google::rpc::Status;
use prost::Message;

use crate::differential::case::{Case, get, grpc, post};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;
use crate::differential::web;

/// All of them off until a virtual host has settings for them.
const FILTERS: &str = "
- name: plain
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: authz}, timeout: 5s}, clear_route_cache: true}
- name: some
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: authz}, timeout: 5s},
    allowed_headers: {patterns: [{prefix: 'x-'}]}, disallowed_headers: {patterns: [{exact: x-not}]}}
- name: partial
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: authz}, timeout: 5s},
    with_request_body: {max_request_bytes: 10, allow_partial_message: true}}
- name: whole
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: authz}, timeout: 5s},
    with_request_body: {max_request_bytes: 10, pack_as_bytes: true}}
- name: slow
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: authz}, timeout: 0.2s}, status_on_error: {code: ServiceUnavailable}}
- name: lost
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: refused}, timeout: 5s}}
- name: open
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: refused}, timeout: 5s},
    failure_mode_allow: true, failure_mode_allow_header_add: true}
- name: nobody
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: authz}, timeout: 5s},
    filter_enabled: {default_value: {numerator: 0}}}
- name: closed
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: authz}, timeout: 5s},
    filter_enabled: {default_value: {numerator: 0}}, deny_at_disable: {default_value: true, runtime_key: x}}
- name: strict
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: authz}, timeout: 5s}, validate_mutations: true}
- name: web
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, allowed_headers: {patterns: [{exact: x-do-this}]},
    http_service: {server_uri: {uri: 'http://web.test', cluster: web, timeout: 5s}, path_prefix: /check,
      authorization_request: {headers_to_add: [{key: x-asked-by, value: proxy}]},
      authorization_response: {allowed_upstream_headers: {patterns: [{prefix: x-up}]},
        allowed_upstream_headers_to_append: {patterns: [{prefix: x-more}]},
        allowed_client_headers: {patterns: [{prefix: x-client}]},
        allowed_client_headers_on_success: {patterns: [{prefix: x-fine}]}}}}
- name: web-all
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, stat_prefix: other, with_request_body: {max_request_bytes: 100},
    http_service: {server_uri: {uri: 'http://web.test', cluster: web, timeout: 5s},
      authorization_response: {allowed_upstream_headers: {patterns: [{prefix: x-up}]}}}}
- name: web-lost
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, http_service: {server_uri: {uri: 'http://web.test', cluster: refused, timeout: 5s}}}";

const CLUSTERS: &str = "
- name: authz
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: authz, endpoints: [{lb_endpoints: [{endpoint: {address: @authz@}}]}]}
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config: {http2_protocol_options: {}}
- name: web
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: web, endpoints: [{lb_endpoints: [{endpoint: {address: @web@}}]}]}";

const ON_PURPOSE: OnPurpose = &[
    (
        "authz-the-whole-body.2",
        "headers: only envoy {connection: close}",
        "the whole body was read: the connection can be used again",
    ),
    (
        "authz-by-http-with-all.2",
        "headers: only envoy {x-envoy-upstream-service-time",
        "how long the authorization service took is not told as the upstream's time",
    ),
];

#[tokio::test]
async fn external_authorization() -> anyhow::Result<()> {
    same(Part {
        cases: cases(),
        filters: FILTERS,
        clusters: CLUSTERS,
        log: "%RESPONSE_CODE_DETAILS%",
        metrics: &["http.http.ext_authz"],
        texts: true,
        on_purpose: ON_PURPOSE,
        servers: vec![
            ("authz", || Box::pin(web::serve(true, |request| Box::pin(by_grpc(request))))),
            ("web", || Box::pin(web::serve(false, |request| Box::pin(by_http(request))))),
        ],
        ..Part::default()
    })
    .await
}

/// A virtual host with one filter on.
fn with(filter: &str) -> &'static str {
    let text = format!(
        "{{routes: [
            {{name: free, match: {{prefix: /free}}, route: {{cluster: a}}, typed_per_filter_config: {{{filter}: {{
                '@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true}}}}}},
            {{name: told, match: {{prefix: /told}}, route: {{cluster: a}}, typed_per_filter_config: {{{filter}: {{
                '@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute,
                check_settings: {{context_extensions: {{where: route, more: b}}, disable_request_body_buffering: true}}}}}}}},
            {{name: again, match: {{prefix: /, headers: [{{name: x-route, string_match: {{exact: again}}}}]}}, route: {{cluster: b}}}},
            {{name: r, match: {{prefix: /}}, route: {{cluster: a}}}}],
        typed_per_filter_config: {{{filter}: {{
            '@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute,
            check_settings: {{context_extensions: {{where: host, who: a}}}}}}}}}}"
    );
    Box::leak(text.into_boxed_str())
}

#[expect(clippy::too_many_lines, reason = "one entry a request: a list, not logic")]
fn cases() -> Vec<Case> {
    let long = "more than ten bytes";
    vec![
        Case::new("authz by grpc", with("plain"))
            .ask(get("/?q=1"), "200 - r a")
            .ask(post("/", "hello"), "200 - r a")
            .ask(get("/").http2(), "200 - r a")
            .ask(grpc("hello"), "200 - r a")
            .ask(get("/free").header("x-ask", "deny"), "200 - free a")
            .ask(get("/told"), "200 - told a")
            .ask(get("/").header("x-two", "1").header("x-two", "2"), "200 - r a")
            .ask(get("/").header("x-ask", "deny"), "403 UAEX r a")
            .ask(get("/").header("x-ask", "deny-with"), "401 UAEX r a")
            .ask(get("/").header("x-ask", "deny-html"), "418 UAEX r a")
            .ask(grpc("hello").header("x-ask", "deny-with"), "200 UAEX r a")
            .ask(get("/").header("x-ask", "fail"), "403 UAEX r a")
            .ask(get("/").header("x-ask", "fail-with"), "502 UAEX r a")
            .ask(get("/").header("x-ask", "status"), "403 UAEX r a")
            .ask(get("/").header("x-ask", "route"), "200 - again b")
            .ask(get("/?a=1&b=2&c=3").header("x-ask", "query"), "200 - r a")
            .ask(get("/").header("x-ask", "query"), "200 - r a")
            .ask(
                get("/")
                    .header("x-ask", "headers")
                    .header("x-set", "old")
                    .header("x-append", "old")
                    .header("x-action", "old")
                    .header("x-gone", "old"),
                "200 - r a",
            )
            .ask(get("/").header("x-ask", "headers"), "200 - r a")
            .ask(get("/").header("x-ask", "response"), "200 - r a")
            .ask(get("/").header("x-ask", "host-gone"), "200 - r a"),
        Case::new("authz some headers", with("some")).ask(
            get("/").header("x-yes", "1").header("x-not", "1").header("other", "1"),
            "200 - r a",
        ),
        Case::new("authz a part of the body", with("partial"))
            .ask(post("/", "short"), "200 - r a")
            .ask(post("/", long), "200 - r a")
            .ask(post("/", long).chunked(), "200 - r a")
            .ask(get("/"), "200 - r a")
            .ask(post("/told", long), "200 - told a"),
        Case::new("authz the whole body", with("whole"))
            .ask(post("/", "short"), "200 - r a")
            .ask(post("/", "short").chunked(), "200 - r a")
            .ask(post("/", long), "413 - r a")
            .ask(post("/told", long), "200 - told a"),
        Case::new("authz slow", with("slow"))
            .ask(get("/").header("x-ask", "slow"), "503 UAEX r a")
            .ask(get("/"), "200 - r a"),
        Case::new("authz lost", with("lost")).ask(get("/"), "403 UAEX r a"),
        Case::new("authz open", with("open")).ask(get("/"), "200 - r a"),
        Case::new("authz nobody is asked", with("nobody"))
            .ask(get("/").header("x-ask", "deny"), "200 - r a"),
        Case::new("authz closed", with("closed")).ask(get("/"), "403 UAEX r a"),
        Case::new("authz strict", with("strict"))
            .ask(get("/"), "200 - r a")
            .ask(get("/").header("x-ask", "invalid"), "500 UAEX r a"),
        Case::new("authz by http", with("web"))
            .ask(get("/p?q=1"), "200 - r a")
            .ask(post("/p", "body"), "200 - r a")
            .ask(get("/").header("authorization", "me").header("x-other", "1"), "200 - r a")
            .ask(get("/").header("x-do-this", "deny"), "403 UAEX r a")
            .ask(get("/").header("x-do-this", "redirect"), "302 UAEX r a")
            .ask(get("/").header("x-do-this", "500"), "403 UAEX r a")
            .ask(get("/").header("x-do-this", "remove").header("x-gone", "1"), "200 - r a")
            .ask(get("/").header("x-do-this", "201"), "201 UAEX r a"),
        Case::new("authz by http with all", with("web-all"))
            .ask(get("/p?q=1"), "200 - r a")
            .ask(post("/p", "body"), "200 - r a")
            .ask(get("/").header("authorization", "deny"), "403 UAEX r a"),
        Case::new("authz by http lost", with("web-lost")).ask(get("/"), "403 UAEX r a"),
    ]
}

fn option(key: &str, value: &str, append: Option<bool>, action: i32) -> core::HeaderValueOption {
    let header = core::HeaderValue { key: key.into(), value: value.into(), ..Default::default() };
    core::HeaderValueOption {
        header: Some(header),
        append,
        append_action: action,
        ..Default::default()
    }
}

/// Everything that is the same on both sides, in one line.
fn summary(attributes: &auth::AttributeContext) -> String {
    let request = attributes.request.clone().unwrap_or_default();
    let http = request.http.unwrap_or_default();
    // What differs with the run, or is Envoy's own.
    let left_out = ["x-request-id", "x-forwarded-proto", "x-case", ":authority", "user-agent"];
    let mut headers: Vec<String> = http
        .headers
        .iter()
        .filter(|(name, _)| !left_out.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    headers.sort();
    let mut extensions: Vec<String> = attributes
        .context_extensions
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    extensions.sort();
    let source = attributes.source.clone().unwrap_or_default();
    let peer = |peer: &Option<auth::attribute_context::Peer>| {
        peer.as_ref().is_some_and(|peer| peer.address.is_some())
    };
    format!(
        "{} {} {} {} size {} body {:?} raw {} headers [{}] extensions [{}] service {} principal {} \
         addresses {} {} time {} host {}",
        http.method,
        http.path,
        http.scheme,
        http.protocol,
        http.size,
        http.body,
        http.raw_body.len(),
        headers.join(" "),
        extensions.join(" "),
        source.service,
        source.principal,
        peer(&attributes.source),
        peer(&attributes.destination),
        request.time.is_some(),
        http.host,
    )
}

async fn by_grpc(request: Request<Bytes>) -> (Response<Bytes>, HeaderMap) {
    let asked = auth::CheckRequest::decode(&request.body()[5..]).unwrap_or_default();
    let attributes = asked.attributes.unwrap_or_default();
    let headers =
        attributes.request.clone().and_then(|request| request.http).map(|http| http.headers);
    let script = headers.unwrap_or_default().get("x-ask").cloned().unwrap_or_default();
    if script == "slow" {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let status = if script == "status" { "7" } else { "0" };
    let answer = answer(&script, &attributes);
    let encoded = answer.encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(encoded.len()).expect("a short message").to_be_bytes());
    body.extend(encoded);
    let mut response = Response::new(Bytes::from(body));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let trailers = [("grpc-status", status)];
    let trailers = trailers
        .into_iter()
        .filter_map(|(name, value)| Some((name.parse().ok()?, HeaderValue::from_str(value).ok()?)));
    (response, trailers.collect())
}

#[expect(clippy::too_many_lines, reason = "one entry an answer: a list, not logic")]
fn answer(script: &str, attributes: &auth::AttributeContext) -> auth::CheckResponse {
    let denied =
        |code: i32, body: &str, headers: Vec<core::HeaderValueOption>| auth::DeniedHttpResponse {
            status: (code > 0).then_some(HttpStatus { code }),
            headers,
            body: body.into(),
        };
    let mut ok = auth::OkHttpResponse::default();
    let mut code = 0;
    let http_response = match script {
        "deny" => {
            code = 7;
            None
        }
        "deny-with" => {
            code = 16;
            let headers =
                vec![option("x-why", "because", None, 0), option("x-why", "again", None, 0)];
            Some(HttpResponse::DeniedResponse(denied(401, "not you", headers)))
        }
        "deny-html" => {
            code = 7;
            let headers = vec![option("content-type", "text/html", None, 2)];
            Some(HttpResponse::DeniedResponse(denied(418, "<p>no", headers)))
        }
        "fail" => {
            code = 13;
            Some(HttpResponse::ErrorResponse(denied(0, "", Vec::new())))
        }
        "fail-with" => {
            code = 13;
            let headers = vec![option("x-why", "broken", None, 0)];
            Some(HttpResponse::ErrorResponse(denied(502, "broken", headers)))
        }
        "query" => {
            ok.query_parameters_to_set =
                vec![core::QueryParameter { key: "b".into(), value: "9".into() }];
            ok.query_parameters_to_remove = vec!["c".into()];
            Some(HttpResponse::OkResponse(ok))
        }
        "route" => {
            ok.headers = vec![option("x-route", "again", Some(false), 0)];
            Some(HttpResponse::OkResponse(ok))
        }
        "headers" => {
            ok.headers = vec![
                option("x-set", "new", Some(false), 0),
                option("x-append", "new", Some(true), 0),
                option("x-action", "new", None, 0),
                option("x-absent", "new", None, 1),
                option("x-over", "new", None, 2),
                option("x-only", "new", None, 3),
            ];
            ok.headers_to_remove = vec!["x-gone".into()];
            Some(HttpResponse::OkResponse(ok))
        }
        "response" => {
            ok.response_headers_to_add = vec![
                option("x-added", "new", Some(true), 0),
                option("x-kept", "new", None, 1),
                option("x-endpoint", "nobody", None, 1),
                option("x-table-answered", "no", None, 2),
            ];
            Some(HttpResponse::OkResponse(ok))
        }
        "host-gone" => {
            ok.headers_to_remove = vec!["host".into(), ":path".into()];
            Some(HttpResponse::OkResponse(ok))
        }
        "invalid" => {
            ok.headers = vec![option("x-bad", "a\nb", Some(false), 0)];
            Some(HttpResponse::OkResponse(ok))
        }
        _ => {
            ok.headers = vec![option("x-seen", &summary(attributes), Some(false), 0)];
            Some(HttpResponse::OkResponse(ok))
        }
    };
    auth::CheckResponse {
        status: Some(Status { code, ..Default::default() }),
        http_response,
        ..Default::default()
    }
}

async fn by_http(request: Request<Bytes>) -> (Response<Bytes>, HeaderMap) {
    let said = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or("-").to_owned()
    };
    let script = if said("x-do-this") == "-" { said("authorization") } else { said("x-do-this") };
    let seen = format!(
        "{} {} {} by {} other {} authorization {} length {} body {:?} partial {}",
        request.method(),
        request.uri(),
        said("host"),
        said("x-asked-by"),
        said("x-other"),
        said("authorization"),
        said("content-length"),
        request.body(),
        said("x-envoy-auth-partial-body"),
    );
    let (status, body) = match script.as_str() {
        "deny" => (403, "no"),
        "redirect" => (302, ""),
        "500" => (500, "broken"),
        "201" => (201, "made"),
        _ => (200, "unseen"),
    };
    let mut response = Response::new(Bytes::from_static(body.as_bytes()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    let mut say = |name: &'static str, value: &str| {
        response.headers_mut().append(name, HeaderValue::from_str(value).expect("a value"));
    };
    say("x-up", &seen);
    say("x-more", "1");
    say("x-client", "yes");
    say("x-fine", "yes");
    say("x-internal", "secret");
    say("www-authenticate", "Bearer");
    if script == "redirect" {
        say("location", "https://login.test/");
    }
    if script == "remove" {
        say("x-envoy-auth-headers-to-remove", "x-gone, x-not-there");
    }
    (response, HeaderMap::new())
}
