//! Traces: who is sampled, what the other side is told, and contexts that are broken. Spans themselves are compared
//! in `tests/tests/telemetry/spans.rs`.

use http::{HeaderMap, Response};

use crate::differential::case::{Case, Request, get};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;
use crate::differential::web;

const MANAGER: &str = "
use_remote_address: true
internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}
tracing: &tracing
  provider: {name: o, typed_config: {
    '@type': type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: shop,
    grpc_service: {envoy_grpc: {cluster_name: collector}}}}
";

/// What goes out, where the names of spans travel the other way round.
const LISTENERS: &str = "
- name: out
  traffic_direction: OUTBOUND
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: out
        use_remote_address: true
        internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}
        tracing:
          provider: {name: o, typed_config: {
            '@type': type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: shop,
            grpc_service: {envoy_grpc: {cluster_name: collector}}}}
        http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
        route_config:
          virtual_hosts: [{name: all, domains: ['*'], routes: [
            {name: named, match: {prefix: /named}, route: {cluster: a}, decorator: {operation: buy}},
            {name: secret, match: {prefix: /secret}, route: {cluster: a}, decorator: {operation: buy, propagate: false}},
            {name: direct, match: {prefix: /direct}, direct_response: {status: 200}, decorator: {operation: buy}},
            {name: rest, match: {prefix: /}, route: {cluster: a}}]}]
";

const CLUSTERS: &str = "
- name: collector
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: collector, endpoints: [{lb_endpoints: [{endpoint: {address: @collector@}}]}]}
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config: {http2_protocol_options: {}}
";

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

const ON_PURPOSE: OnPurpose = &[
    (
        "",
        "upstream saw headers: only envoy {tracestate: } | only ours {}",
        "an empty list says nothing, and is not sent",
    ),
    (
        "sampling-by-the-route",
        "upstream saw headers: only envoy {traceparent: 00-0af7651916cd43dd8448eb211c80319c-span-00; tracestate: } | \
         only ours {traceparent: 00-0af7651916cd43dd8448eb211c80319c-span-01}",
        "a sampled caller is followed: an application that passes on `traceparent`, and not `x-request-id`, would \
         have its traces broken at every hop",
    ),
    (
        "broken-contexts",
        "upstream saw headers: ",
        "a broken context is replaced by a new one (W3C Trace Context, section 4.3); Envoy passes it on as it is",
    ),
    (
        "letter-of-the-context",
        "upstream saw headers: ",
        "later versions, forbidden ones, upper case, two contexts and broken lists are treated as W3C Trace Context \
         says (sections 3.2 and 3.3); `telemetry/trace/context.rs` has the table",
    ),
];

#[tokio::test]
async fn tracing() -> anyhow::Result<()> {
    same(Part {
        cases: [sampling(), decorators(), contexts()].into_iter().flatten().collect(),
        manager: MANAGER,
        listeners: LISTENERS,
        clusters: CLUSTERS,
        metrics: &["http.http.tracing.", "http.out.tracing."],
        on_purpose: ON_PURPOSE,
        servers: vec![("collector", || {
            Box::pin(web::serve(true, |_| {
                Box::pin(async { (Response::default(), HeaderMap::new()) })
            }))
        })],
        ..Part::default()
    })
    .await
}

fn by(request: Request, context: &str) -> Request {
    request.header("traceparent", context)
}

fn sampling() -> Vec<Case> {
    let mut case = Case::new("sampling by the route", "{routes: [
        {name: none, match: {prefix: /none}, route: {cluster: a}, tracing: {client_sampling: {numerator: 0}, random_sampling: {numerator: 0}}},
        {name: client, match: {prefix: /client}, route: {cluster: a}, tracing: {random_sampling: {numerator: 0}}},
        {name: random, match: {prefix: /random}, route: {cluster: a}, tracing: {client_sampling: {numerator: 0}, random_sampling: {numerator: 1000000, denominator: MILLION}}},
        {name: never, match: {prefix: /never}, route: {cluster: a}, tracing: {overall_sampling: {numerator: 0}}},
        {name: all, match: {prefix: /all}, route: {cluster: a}, tracing: {}},
        {name: rest, match: {prefix: /}, route: {cluster: a}}]}");
    let paths = [
        ("/none", "200 - none a"),
        ("/client", "200 - client a"),
        ("/random", "200 - random a"),
        ("/never", "200 - never a"),
        ("/all", "200 - all a"),
        ("/rest", "200 - rest a"),
    ];
    for (path, expected) in paths {
        case = case
            .ask(get(path), expected)
            .ask(get(path).header("x-client-trace-id", "mine"), expected)
            .ask(get(path).header("x-envoy-force-trace", "1"), expected)
            .ask(by(get(path), SAMPLED), expected)
            .ask(by(get(path), NOT_SAMPLED), expected);
    }
    vec![case]
}

fn decorators() -> Vec<Case> {
    const TOLD: &str = "x-envoy-decorator-operation";
    let answers = "header=x-envoy-decorator-operation:theirs";
    vec![
        Case::new("decorators of what comes in", "{routes: [
            {name: named, match: {prefix: /named}, route: {cluster: a}, decorator: {operation: buy}},
            {name: secret, match: {prefix: /secret}, route: {cluster: a}, decorator: {operation: buy, propagate: false}},
            {name: direct, match: {prefix: /direct}, direct_response: {status: 200}, decorator: {operation: buy}},
            {name: rest, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(get("/named"), "200 - named a")
            .ask(get("/named").header(TOLD, "theirs"), "200 - named a")
            .ask(get("/named").header(TOLD, ""), "200 - named a")
            .ask(get("/named").does(answers), "200 - named a")
            .ask(get("/secret"), "200 - secret a")
            .ask(get("/secret").header(TOLD, "theirs"), "200 - secret a")
            .ask(get("/direct"), "200 - direct -")
            .ask(get("/rest"), "200 - rest a")
            .ask(get("/rest").header(TOLD, "theirs"), "200 - rest a")
            .ask(get("/rest").does(answers), "200 - rest a"),
        Case::plain("decorators of what goes out")
            .ask(get("/named").on("out"), "200 unlogged")
            .ask(get("/named").on("out").header(TOLD, "mine"), "200 unlogged")
            .ask(get("/named").on("out").does(answers), "200 unlogged")
            .ask(get("/secret").on("out"), "200 unlogged")
            .ask(get("/secret").on("out").header(TOLD, "mine"), "200 unlogged")
            .ask(get("/direct").on("out"), "200 unlogged")
            .ask(get("/rest").on("out").header(TOLD, "mine"), "200 unlogged")
            .ask(get("/rest").on("out").does(answers), "200 unlogged"),
    ]
}

/// Contexts by the letter of W3C Trace Context, and others.
fn contexts() -> Vec<Case> {
    let mut bad = Case::new(
        "broken contexts",
        "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}, tracing: {random_sampling: {numerator: 0}}}]}",
    );
    for context in [
        "",
        "junk",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c8031xx-b7ad6b7169203331-01",
        "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
    ] {
        bad = bad.ask(by(get("/"), context), "200 - r a");
    }
    let fine =
        Case::new("contexts", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(by(get("/"), SAMPLED).header("tracestate", "a=1,b=2"), "200 - r a")
            .ask(
                by(get("/"), SAMPLED).header("tracestate", "a=1").header("tracestate", "b=2"),
                "200 - r a",
            )
            .ask(get("/").header("tracestate", "a=1"), "200 - r a")
            .ask(
                by(get("/"), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"),
                "200 - r a",
            );
    let letter = Case::new(
        "letter of the context",
        "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}",
    )
    .ask(by(get("/"), "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), "200 - r a")
    .ask(by(get("/"), "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"), "200 - r a")
    .ask(by(get("/"), "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), "200 - r a")
    .ask(by(get("/"), "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01"), "200 - r a")
    .ask(by(by(get("/"), SAMPLED), SAMPLED), "200 - r a")
    .ask(by(get("/"), SAMPLED).header("tracestate", "a=1,a=2"), "200 - r a")
    .ask(by(get("/"), SAMPLED).header("tracestate", "A=1"), "200 - r a");
    vec![bad, fine, letter]
}
