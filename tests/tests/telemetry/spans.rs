//! Spans, as a collector gets them.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use pillion_tests::collector::Message;
use prost::Message as _;
use serde_json::{Value, json};

use super::logs::attributes;
use super::{World, kinds, same};

/// What a span tells that does not depend on ports and ids; ours says more than Envoy's, so only what
/// Envoy knows is taken.
const KNOWN: &[&str] = &[
    "node_id",
    "http.url",
    "http.method",
    "downstream_cluster",
    "user_agent",
    "http.protocol",
    "guid:x-client-trace-id",
    "request_size",
    "component",
    "upstream_cluster",
    "upstream_cluster.name",
    "http.status_code",
    "response_flags",
    "error",
    "literal",
    "header",
    "default",
    "gone",
    "of_route",
];

fn tracing(more: &str) -> String {
    format!(
        "{{{more}, tracing: {{custom_tags: [
            {{tag: literal, literal: {{value: x}}}}, {{tag: header, request_header: {{name: x-a}}}},
            {{tag: default, request_header: {{name: x-no, default_value: d}}}},
            {{tag: gone, request_header: {{name: x-no}}}}], max_path_tag_length: 12,
            provider: {{name: o, typed_config: {{
                '@type': type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: shop,
                grpc_service: {{envoy_grpc: {{cluster_name: collector}}}}}}}}}}}}"
    )
}

pub(super) fn spans(messages: &[Message]) -> Vec<Span> {
    let requests = messages
        .iter()
        .filter_map(|message| ExportTraceServiceRequest::decode(message.bytes.clone()).ok());
    let resources = requests.flat_map(|request| request.resource_spans);
    let scopes = resources.flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// A span in words, or null if it has not arrived.
fn told(span: &Span) -> Value {
    let Value::Object(all) = attributes(&span.attributes) else { return Value::Null };
    let known: serde_json::Map<String, Value> =
        all.into_iter().filter(|(key, _)| KNOWN.contains(&key.as_str())).collect();
    json!({
        "name": span.name,
        "kind": span.kind,
        "root": span.parent_span_id.is_empty(),
        "failed": span.status.as_ref().map_or(0, |status| status.code),
        "attributes": known,
    })
}

/// Names and tags of routes.
const ROUTES: &str = "route_config: {virtual_hosts: [{name: v, domains: ['*'], routes: [
    {name: named, match: {prefix: /named}, route: {cluster: a}, decorator: {operation: buy}},
    {name: tagged, match: {prefix: /tagged}, route: {cluster: a}, tracing: {custom_tags: [
        {tag: of_route, literal: {value: mine}}, {tag: literal, literal: {value: other}},
        {tag: default, request_header: {name: x-b, default_value: e}}]}},
    {name: never, match: {prefix: /never}, route: {cluster: a}, tracing: {overall_sampling: {numerator: 0}}},
    {name: r, match: {prefix: /}, route: {cluster: a}}]}]}";

#[tokio::test]
async fn routes_name_and_tag_their_spans() -> anyhow::Result<()> {
    let mut said = Vec::new();
    for kind in kinds()? {
        let world = World::start(kind, &tracing(&format!("stat_prefix: http, {ROUTES}"))).await?;
        world.get("/a/named", &[("x-envoy-decorator-operation", "theirs")]).await?;
        world.get("/never", &[]).await?;
        world.get("/named", &[]).await?;
        world.get("/tagged", &[("x-b", "b")]).await?;
        said.push(arrived(&world, 3).await?);
    }
    same(&said)
}

/// Spans of these requests, in the order of their URLs and names.
async fn arrived(world: &World, count: usize) -> anyhow::Result<Value> {
    let all = world.collected("TraceService/Export", |messages| {
        let all = spans(messages);
        (all.len() >= count).then_some(all)
    });
    let mut all: Vec<Value> = all.await?.iter().map(told).collect();
    all.sort_by_key(|span| format!("{}{}", span["attributes"]["http.url"], span["name"]));
    Ok(Value::Array(all))
}

#[tokio::test]
async fn spans_say_what_envoys_say() -> anyhow::Result<()> {
    let mut said = Vec::new();
    for kind in kinds()? {
        let world = World::start(kind, &tracing("stat_prefix: http")).await?;
        world.get("/a?q=1", &[("x-a", "1"), ("user-agent", "tester")]).await?;
        world.get("/long/path/that/is/cut", &[("x-client-trace-id", "mine")]).await?;
        world.get("/teapot", &[]).await?;
        world.get("/fails", &[("x-do", "status=503")]).await?;
        said.push(arrived(&world, 4).await?);
    }
    same(&said)
}

#[tokio::test]
async fn a_try_has_a_span_of_its_own_where_that_is_wanted() -> anyhow::Result<()> {
    let mut said = Vec::new();
    for kind in kinds()? {
        let manager = tracing("stat_prefix: http").replacen(
            "custom_tags:",
            "spawn_upstream_span: true, custom_tags:",
            1,
        );
        let world = World::start(kind, &manager).await?;
        world.get("/a", &[]).await?;
        said.push(arrived(&world, 2).await?);
        let all = spans(&world.collector.messages("TraceService/Export"));
        let root = all.iter().find(|span| span.parent_span_id.is_empty());
        let child = all.iter().find(|span| !span.parent_span_id.is_empty());
        assert_eq!(
            child.map(|child| &child.parent_span_id),
            root.map(|root| &root.span_id),
            "{kind:?}"
        );
    }
    same(&said)
}
