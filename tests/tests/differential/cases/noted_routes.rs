//! Routes by what filters noted (metadata, filter state), and small things of routes: locations of direct responses,
//! weights by hash, headers that only insiders may send, certificates of clients.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::service::auth::v3 as auth;
use pillion_xds::envoy::service::auth::v3::check_response::HttpResponse;
use pillion_xds::google::rpc::Status;
use prost::Message;
use prost_types::{Struct, Value, value::Kind};

use crate::differential::case::{Case, Client, get, pretends};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;
use crate::differential::web;

const FILTERS: &str = "
- name: notes
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config
    request_rules: [{header: x-user, on_header_present: {metadata_namespace: who, key: user}}]
- name: state
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
    on_request_headers: [{object_key: my.key, factory_key: envoy.string, format_string: {text_format_source: {inline_string: '%REQ(x-state)%'}}}]
- name: authz
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
    transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: authz}, timeout: 5s}, clear_route_cache: true}
- name: deaf
  disabled: true
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz, stat_prefix: deaf,
    transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: authz}, timeout: 5s}, clear_route_cache: true,
    enable_dynamic_metadata_ingestion: false}";

const CLUSTERS: &str = "
- name: authz
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: authz, endpoints: [{lb_endpoints: [{endpoint: {address: @authz@}}]}]}
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config: {http2_protocol_options: {}}
";

/// A certificate is asked for, and not wanted at any price.
const LISTENERS: &str = "
- name: optional
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: optional
        http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
        route_config:
          virtual_hosts: [{name: all, domains: ['*'], routes: [
            {name: presented, match: {prefix: /presented, tls_context: {presented: true}}, direct_response: {status: 203}},
            {name: absent, match: {prefix: /presented, tls_context: {presented: false}}, direct_response: {status: 206}},
            {name: validated, match: {prefix: /validated, tls_context: {validated: true}}, direct_response: {status: 203}},
            {name: invalid, match: {prefix: /validated, tls_context: {validated: false}}, direct_response: {status: 206}},
            {name: both, match: {prefix: /both, tls_context: {presented: true, validated: true}}, direct_response: {status: 203}},
            {name: rest, match: {prefix: /}, direct_response: {status: 404}}]}]
    transport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext,
      common_tls_context: {tls_certificates: [{certificate_chain: {filename: '@server.chain@'}, private_key: {filename: '@server.key@'}}],
        validation_context: {trusted_ca: {filename: '@roots@'}}}}}
";

const MANAGER: &str = "
use_remote_address: true
internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}
route_config: {internal_only_headers: [x-secret, x-other-secret]}
";

const ON_PURPOSE: OnPurpose = &[];

#[tokio::test]
async fn noted_routes() -> anyhow::Result<()> {
    same(Part {
        cases: [noted(), small()].into_iter().flatten().collect(),
        filters: FILTERS,
        clusters: CLUSTERS,
        listeners: LISTENERS,
        manager: MANAGER,
        log: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:who)%|%RESPONSE_CODE_DETAILS%",
        metrics: &["http.http.ext_authz"],
        on_purpose: ON_PURPOSE,
        servers: vec![("authz", || {
            Box::pin(web::serve(true, |request| Box::pin(answer(request))))
        })],
        ..Part::default()
    })
    .await
}

const ROUTES: &str = "routes: [
    {name: amy, match: {prefix: /, dynamic_metadata: [{filter: who, path: [{key: user}], value: {string_match: {exact: amy}}}]}, route: {cluster: a}},
    {name: open, match: {prefix: /, filter_state: [{key: my.key, string_match: {prefix: open}}]}, route: {cluster: a}},
    {name: timed, match: {prefix: /timed, dynamic_metadata: [{filter: envoy.filters.http.ext_authz, path: [{key: ext_authz_duration}], value: {double_match: {range: {start: 0, end: 100000}}}}]}, route: {cluster: a}},
    {name: said, match: {prefix: /, dynamic_metadata: [{filter: envoy.filters.http.ext_authz, path: [{key: who}], value: {string_match: {exact: bob}}},
      {filter: who, path: [{key: user}], value: {present_match: true}, invert: true}]}, route: {cluster: b}},
    {name: nobody, match: {prefix: /nobody, dynamic_metadata: [{filter: who, path: [{key: user}], value: {present_match: true}, invert: true}]}, route: {cluster: a}},
    {name: rest, match: {prefix: /}, route: {cluster: a}}]";

fn with(filter: &str) -> &'static str {
    let on = format!(
        "{{{ROUTES}, typed_per_filter_config: {{{filter}: {{
            '@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, check_settings: {{}}}}}}}}"
    );
    on.leak()
}

fn noted() -> Vec<Case> {
    let without: &'static str = format!("{{{ROUTES}}}").leak();
    let by = |path: &str, script: &str| get(path).header("x-ask", script);
    vec![
        Case::new("noted routes that are not chosen again", without)
            .ask(get("/"), "200 - rest a")
            .ask(get("/").header("x-user", "amy"), "200 - rest a")
            .ask(get("/nobody"), "200 - nobody a")
            .ask(get("/").header("x-state", "open"), "200 - rest a"),
        Case::new("noted routes", with("authz"))
            .ask(by("/", "header"), "200 - rest a")
            .ask(by("/", "header").header("x-user", "amy"), "200 - amy a")
            .ask(by("/", "header").header("x-user", "eve"), "200 - rest a")
            .ask(by("/", "quiet").header("x-user", "amy"), "200 - rest a")
            .ask(by("/", "header").header("x-state", "open"), "200 - open a")
            .ask(by("/", "header").header("x-state", "opened"), "200 - open a")
            .ask(by("/", "header").header("x-state", "closed"), "200 - rest a")
            .ask(by("/nobody", "header"), "200 - nobody a")
            .ask(by("/nobody", "header").header("x-user", "eve"), "200 - rest a")
            .ask(by("/", "note"), "200 - said b")
            .ask(by("/", "note").header("x-user", "eve"), "200 - rest a")
            .ask(by("/", "note-older"), "200 - said b")
            .ask(by("/", "note-both"), "200 - said b")
            .ask(by("/timed", "note"), "200 - timed a")
            .ask(by("/timed", "header"), "200 - rest a")
            .ask(by("/timed", "note-quiet"), "200 - rest a")
            .ask(by("/", "deny"), "403 UAEX rest a")
            .ask(by("/", "deny-bare"), "403 UAEX rest a")
            .ask(by("/", "fail"), "403 UAEX rest a"),
        Case::new("noted by nobody", with("deaf"))
            .ask(by("/", "note"), "200 - rest a")
            .ask(by("/", "deny"), "403 UAEX rest a"),
    ]
}

fn small() -> Vec<Case> {
    let mut weighted = Case::new("weights by hash", "{routes: [
        {name: w, match: {prefix: /}, route: {
          weighted_clusters: {clusters: [{name: a, weight: 30}, {name: b, weight: 70}], use_hash_policy: true},
          hash_policy: [{header: {header_name: x-key}}, {cookie: {name: session}}, {query_parameter: {name: k}}]}}]}");
    let by_a = ["0", "1", "6"];
    for key in ["0", "1", "2", "3", "4", "5", "6", "7"] {
        let expected = if by_a.contains(&key) { "200 - w a" } else { "200 - w b" };
        weighted = weighted.ask(get("/").header("x-key", key), expected);
    }
    let secrets = |path: &str| get(path).header("x-secret", "1").header("x-other-secret", "2");
    let tls = |path: &str, client: Client| get(path).by(client).on("optional");
    vec![
        weighted,
        Case::new("locations of direct responses", "{routes: [
            {name: made, match: {prefix: /201}, direct_response: {status: 201}},
            {name: moved, match: {prefix: /301}, direct_response: {status: 301, body: {inline_string: moved}}},
            {name: same, match: {prefix: /304}, direct_response: {status: 304}},
            {name: own, match: {prefix: /308}, direct_response: {status: 308}, response_headers_to_add: [{header: {key: location, value: /here}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]},
            {name: beside, match: {prefix: /303}, direct_response: {status: 303}, response_headers_to_remove: [location]},
            {name: fine, match: {prefix: /}, direct_response: {status: 200}}]}")
            .ask(get("/201/a?b=c"), "201 - made -")
            .ask(get("/201").http2(), "201 - made -")
            .ask(get("/301/x"), "301 - moved -")
            .ask(get("/304"), "304 - same -")
            .ask(get("/308"), "308 - own -")
            .ask(get("/303"), "303 - beside -")
            .ask(get("/200"), "200 - fine -"),
        Case::new("headers of insiders", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(secrets("/"), "200 - r a")
            .ask(secrets("/").header("x-forwarded-for", "1.2.3.4"), "200 - r a"),
        Case::new("who pretends to be inside", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(pretends("/"), "200 - r a")
            .ask(pretends("/").header("x-forwarded-for", "1.2.3.4"), "200 - r a"),
        Case::plain("certificates of clients")
            .ask(tls("/presented", Client::Right), "203 unlogged")
            .ask(tls("/presented", Client::Nobody), "206 unlogged")
            .ask(tls("/validated", Client::Right), "203 unlogged")
            .ask(tls("/validated", Client::Nobody), "206 unlogged")
            .ask(tls("/both", Client::Right), "203 unlogged")
            .ask(tls("/both", Client::Nobody), "404 unlogged"),
    ]
}

fn noting(who: &str) -> Option<Struct> {
    let value = Value { kind: Some(Kind::StringValue(who.to_owned())) };
    Some(Struct { fields: [("who".to_owned(), value)].into() })
}

async fn answer(request: Request<Bytes>) -> (Response<Bytes>, HeaderMap) {
    let asked = auth::CheckRequest::decode(&request.body()[5..]).unwrap_or_default();
    let http = asked.attributes.and_then(|all| all.request).and_then(|request| request.http);
    let script = http.and_then(|http| http.headers.get("x-ask").cloned()).unwrap_or_default();
    let encoded = said(&script).encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(encoded.len()).expect("a short message").to_be_bytes());
    body.extend(encoded);
    let mut response = Response::new(Bytes::from(body));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    (response, trailers)
}

fn said(script: &str) -> auth::CheckResponse {
    let header =
        core::HeaderValue { key: "x-checked".into(), value: "1".into(), ..Default::default() };
    let headers = vec![core::HeaderValueOption { header: Some(header), ..Default::default() }];
    let ok = auth::OkHttpResponse { headers, ..Default::default() };
    let allowed = |ok| Some(HttpResponse::OkResponse(ok));
    let (code, metadata, http_response) = match script {
        "header" => (0, None, allowed(ok)),
        "note" => (0, noting("bob"), allowed(ok)),
        "note-quiet" => (0, noting("bob"), None),
        "note-older" => {
            (0, None, allowed(auth::OkHttpResponse { dynamic_metadata: noting("bob"), ..ok }))
        }
        "note-both" => (
            0,
            noting("eve"),
            allowed(auth::OkHttpResponse { dynamic_metadata: noting("bob"), ..ok }),
        ),
        "deny" => (
            7,
            noting("denied"),
            Some(HttpResponse::DeniedResponse(auth::DeniedHttpResponse::default())),
        ),
        "deny-bare" => (7, noting("bare"), None),
        "fail" => (
            13,
            noting("failed"),
            Some(HttpResponse::ErrorResponse(auth::DeniedHttpResponse::default())),
        ),
        _ => (0, None, None),
    };
    auth::CheckResponse {
        status: Some(Status { code, ..Default::default() }),
        dynamic_metadata: metadata,
        http_response,
    }
}
