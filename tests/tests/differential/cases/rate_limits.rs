//! Global rate limits, by a service of the test's own; local ones by routes and connections.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;

use pillion_xds::envoy::config::core::v3::HeaderValue as Header;
use pillion_xds::envoy::service::ratelimit::v3 as rls;
use rls::rate_limit_response::rate_limit::Unit;
use rls::rate_limit_response::{Code, DescriptorStatus, RateLimit};

use crate::differential::case::{Case, get, grpc, post};
use crate::differential::part::{OnPurpose, Part, Server};
use crate::differential::same;

const FILTERS: &str = "
- name: envoy.filters.http.ratelimit
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
    domain: test
    timeout: 5s
    enable_x_ratelimit_headers: DRAFT_VERSION_03
    rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: rls}}}
- name: later
  disabled: true
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
    domain: later
    stage: 1
    timeout: 5s
    rate_limited_as_resource_exhausted: true
    rate_limited_status: {code: ServiceUnavailable}
    disable_x_envoy_ratelimited_header: true
    stat_prefix: second
    response_headers_to_add: [{header: {key: x-later, value: 'yes'}}]
    rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: rls}}}
- name: failing
  disabled: true
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
    domain: failing
    timeout: 5s
    failure_mode_deny: true
    rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: refused}}}
- name: lenient
  disabled: true
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
    domain: lenient
    timeout: 5s
    rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: refused}}}
- name: local
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: local}";

const CLUSTERS: &str = "
- name: rls
  type: STATIC
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config: {http2_protocol_options: {}}
  load_assignment: {cluster_name: rls, endpoints: [{lb_endpoints: [{endpoint: {address: '@rls@'}}]}]}";

const ON_PURPOSE: OnPurpose = &[];

#[tokio::test]
async fn rate_limits() -> anyhow::Result<()> {
    let clusters = CLUSTERS.replace("'@rls@'", "@rls@");
    same(Part {
        cases: [global(), descriptors(), failures(), local()].into_iter().flatten().collect(),
        filters: FILTERS,
        clusters: Box::leak(clusters.into_boxed_str()),
        servers: vec![("rls", start)],
        metrics: &["cluster.a.ratelimit", "cluster.b.ratelimit"],
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}

fn start() -> BoxFuture<'static, anyhow::Result<Server>> {
    Box::pin(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address: SocketAddr = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(decide));
                tokio::spawn(serving);
            }
        });
        Ok(Server { address, _keep: Box::new(Arc::new(Ends(accepting))) })
    })
}

struct Ends(tokio::task::JoinHandle<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Frames = futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, hyper::Error>>>;

/// Says no if an entry has the value `no`, and tells what it was asked.
async fn decide(request: Request<Incoming>) -> Result<Response<StreamBody<Frames>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let asked = rls::RateLimitRequest::decode(&body[5..]).unwrap_or_default();
    let answer = answer(&asked).encode_to_vec();
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(answer.len()).unwrap_or_default().to_be_bytes());
    message.extend_from_slice(&answer);
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let frames = vec![Ok(Frame::data(message.into())), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}

fn answer(asked: &rls::RateLimitRequest) -> rls::RateLimitResponse {
    let texts: Vec<String> = asked
        .descriptors
        .iter()
        .map(|descriptor| {
            let entries = descriptor.entries.iter();
            let entries: Vec<_> = entries.map(|e| format!("{}={}", e.key, e.value)).collect();
            let hits = descriptor.hits_addend.map_or_else(String::new, |hits| format!("*{hits}"));
            format!("{}{hits}", entries.join("+"))
        })
        .collect();
    let says = |value: &str| {
        let mut entries = asked.descriptors.iter().flat_map(|descriptor| &descriptor.entries);
        entries.any(|entry| entry.value == value)
    };
    let header = |key: &str, value: &str| Header {
        key: key.to_owned(),
        value: value.to_owned(),
        ..Header::default()
    };
    let refused = says("no") || says("no-json");
    let limit = |requests_per_unit, unit, name: &str, limit_remaining| DescriptorStatus {
        current_limit: Some(RateLimit { requests_per_unit, unit, name: name.to_owned() }),
        limit_remaining,
        duration_until_reset: Some(prost_types::Duration { seconds: 9, nanos: 0 }),
        ..DescriptorStatus::default()
    };
    let asked = format!("{}: {}", asked.domain, texts.join(" & "));
    let mut response_headers = vec![header("x-asked", &asked)];
    if says("no-json") {
        response_headers.push(header("content-type", "application/problem+json"));
    }
    rls::RateLimitResponse {
        overall_code: if refused { Code::OverLimit } else { Code::Ok }.into(),
        statuses: if says("told") || refused {
            vec![limit(10, Unit::Second.into(), "first", 7), limit(100, Unit::Hour.into(), "", 3)]
        } else {
            Vec::new()
        },
        response_headers_to_add: response_headers,
        request_headers_to_add: vec![header("x-granted", "yes")],
        raw_body: if refused { b"too much".to_vec() } else { Vec::new() },
        ..rls::RateLimitResponse::default()
    }
}

fn global() -> Vec<Case> {
    vec![
        Case::new("nothing to ask", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(get("/"), "200 - r a"),
        Case::new(
            "asked by a header",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, rate_limits: [
                {actions: [{request_headers: {header_name: x-say, descriptor_key: say}}]}]}}]}",
        )
        .ask(get("/"), "200 - r a")
        .ask(get("/").header("x-say", "yes"), "200 - r a")
        .ask(get("/").header("x-say", "told"), "200 - r a")
        .ask(get("/").header("x-say", "no"), "429 RL r a")
        .ask(get("/").header("x-say", "no-json").http2(), "429 RL r a")
        .ask(post("/", "body").header("x-say", "yes").header("x-granted", "me"), "200 - r a")
        .ask(grpc("hello").header("x-say", "no"), "200 RL r a")
        .ask(grpc("hello").header("x-say", "yes"), "200 - r a"),
        Case::new(
            "a second stage with another status",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, rate_limits: [
                {stage: 1, actions: [{request_headers: {header_name: x-say, descriptor_key: say}}]}]},
                typed_per_filter_config: {later: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}}]}",
        )
        .ask(get("/").header("x-say", "yes"), "200 - r a")
        .ask(get("/").header("x-say", "no"), "503 RL r a")
        .ask(grpc("hello").header("x-say", "no"), "200 RL r a"),
        Case::new(
            "limits of the virtual host",
            "{routes: [
                {name: own, match: {prefix: /own}, route: {cluster: b, rate_limits: [
                    {actions: [{generic_key: {descriptor_value: route}}]}]}},
                {name: both, match: {prefix: /both}, route: {cluster: b, rate_limits: [
                    {actions: [{generic_key: {descriptor_value: route}}]}]},
                    typed_per_filter_config: {envoy.filters.http.ratelimit: {
                        '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute, vh_rate_limits: INCLUDE}}},
                {name: none, match: {prefix: /none}, route: {cluster: b},
                    typed_per_filter_config: {envoy.filters.http.ratelimit: {
                        '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute, vh_rate_limits: IGNORE}}},
                {name: mine, match: {prefix: /mine}, route: {cluster: b},
                    typed_per_filter_config: {envoy.filters.http.ratelimit: {
                        '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute, domain: other,
                        rate_limits: [{hits_addend: {number: 5}, actions: [{generic_key: {descriptor_value: mine}}]}]}}},
                {name: rest, match: {prefix: /}, route: {cluster: b}}],
            rate_limits: [{actions: [{generic_key: {descriptor_value: host}}]}]}",
        )
        .ask(get("/own"), "200 - own b")
        .ask(get("/both"), "200 - both b")
        .ask(get("/none"), "200 - none b")
        .ask(get("/mine"), "200 - mine b")
        .ask(get("/rest"), "200 - rest b"),
    ]
}

fn descriptors() -> Vec<Case> {
    vec![
        Case::new(
            "every action",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, rate_limits: [
                {actions: [{source_cluster: {}}, {destination_cluster: {}}]},
                {actions: [{generic_key: {descriptor_value: v}}, {generic_key: {descriptor_value: v, descriptor_key: k}}]},
                {actions: [{request_headers: {header_name: x-one, descriptor_key: one}}]},
                {actions: [{request_headers: {header_name: ':path', descriptor_key: path}}]},
                {actions: [{request_headers: {header_name: x-two, descriptor_key: two, skip_if_absent: true}},
                    {generic_key: {descriptor_value: after}}]},
                {actions: [{query_parameters: {query_parameter_name: q, descriptor_key: query}}]},
                {actions: [{header_value_match: {descriptor_value: matched, headers: [{name: x-one, present_match: true}]}}]},
                {actions: [{header_value_match: {descriptor_value: unmatched, expect_match: false,
                    headers: [{name: x-one, present_match: true}]}}]},
                {actions: [{query_parameter_value_match: {descriptor_value: asked,
                    query_parameters: [{name: q, string_match: {prefix: a}}]}}]},
                {actions: [{masked_remote_address: {v4_prefix_mask_len: 8}}]}]}}]}",
        )
        .ask(get("/"), "200 - r a")
        .ask(get("/p?q=abc").header("x-one", "1"), "200 - r a")
        .ask(get("/p?q=bcd").header("x-two", "2"), "200 - r a"),
    ]
}

fn failures() -> Vec<Case> {
    vec![
        Case::new(
            "a service that does not answer",
            "{routes: [
                {name: deny, match: {prefix: /deny}, route: {cluster: a, rate_limits: [
                    {actions: [{generic_key: {descriptor_value: v}}]}]}, typed_per_filter_config: {
                    envoy.filters.http.ratelimit: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true},
                    failing: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}},
                {name: allow, match: {prefix: /allow}, route: {cluster: a, rate_limits: [
                    {actions: [{generic_key: {descriptor_value: v}}]}]}, typed_per_filter_config: {
                    envoy.filters.http.ratelimit: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true},
                    lenient: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}}]}",
        )
        .ask(get("/deny"), "500 RLSE deny a")
        .ask(get("/allow"), "200 - allow a"),
    ]
}

fn local() -> Vec<Case> {
    vec![
        Case::new(
            "local limits by the route's rules",
            "{routes: [
                {name: r, match: {prefix: /r}, route: {cluster: b, rate_limits: [
                    {stage: 2, actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]}]}},
                {name: rest, match: {prefix: /}, route: {cluster: b}}],
            rate_limits: [{stage: 2, actions: [{generic_key: {descriptor_key: user, descriptor_value: root}}]}],
            typed_per_filter_config: {local: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit,
                stat_prefix: routes, stage: 2, token_bucket: {max_tokens: 100, fill_interval: 3600s},
                filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}},
                descriptors: [{entries: [{key: user, value: root}], token_bucket: {max_tokens: 1, fill_interval: 3600s}}]}}}",
        )
        .ask(get("/r").header("x-user", "root"), "200 - r b")
        .ask(get("/r").header("x-user", "root"), "429 RL r b")
        .ask(get("/r").header("x-user", "me"), "200 - r b")
        .ask(get("/other"), "429 RL rest b"),
        Case::new(
            "a bucket of every connection",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: b}}], typed_per_filter_config: {local: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit,
                stat_prefix: connections, local_rate_limit_per_downstream_connection: true,
                token_bucket: {max_tokens: 1, fill_interval: 3600s},
                filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}}}}",
        )
        .ask(get("/"), "200 - r b")
        .ask(get("/"), "200 - r b"),
    ]
}
