//! Spans that are kept for what came of their exchange.

use opentelemetry_proto::tonic::trace::v1::Span;
use pillion_tests::proxy::Kind;
use serde_json::Value;

use super::World;
use super::logs::attributes;
use super::spans::spans;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn sampler(tail: &str, tag: &str) -> String {
    format!(
        "{{stat_prefix: http, tracing: {{custom_tags: [{tag}], provider: {{name: o, typed_config: {{
            '@type': type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: shop,
            grpc_service: {{envoy_grpc: {{cluster_name: collector}}}},
            sampler: {{name: t, typed_config: {{
                '@type': type.googleapis.com/pillion.trace.v1.TailSampler, {tail}}}}}}}}}}}}}"
    )
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    match attributes(&span.attributes).get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}

/// Spans up to that of `/end`, which fails, without it.
async fn up_to_the_end(world: &World) -> anyhow::Result<Vec<Span>> {
    world.get("/end", &[("x-do", "status=500"), ("traceparent", PARENT)]).await?;
    let is_end = |span: &Span| attribute(span, "http.url").is_some_and(|url| url.ends_with("/end"));
    let found = world.collected("TraceService/Export", |messages| {
        let all = spans(messages);
        all.iter().any(is_end).then_some(all)
    });
    Ok(found.await?.into_iter().filter(|span| !is_end(span)).collect())
}

#[tokio::test]
async fn failed_and_slow_exchanges_are_sent_though_they_are_not_sampled() -> anyhow::Result<()> {
    let lean = "{tag: user, request_header: {name: x-user}}";
    // Tags that want to know more of the answer: then everything is kept.
    let whole =
        "{tag: user, request_header: {name: x-user}}, {tag: said, value: '%RESP(X-ENDPOINT)%'}";
    for (tags, said) in [(lean, None), (whole, Some("a"))] {
        let world =
            World::start(Kind::Pillion, &sampler("slower_than: 0.4s, failed: true", tags)).await?;
        let asked: [(&str, &str, Option<&str>); 6] = [
            ("/fine", "status=200", None),
            ("/gone", "status=404", None),
            ("/failed", "status=503", Some("failed")),
            ("/slow", "delay=900", Some("slow")),
            ("/cut", "partial", Some("failed")),
            ("/closed", "close", Some("failed")),
        ];
        for (path, does, _) in asked {
            let headers = [
                ("x-do", does),
                ("traceparent", PARENT),
                ("x-user", "joe"),
                ("user-agent", "tester"),
            ];
            // One of them is cut off in the middle.
            let answer = world.get(path, &headers).await;
            if path == "/fine" {
                let told = String::from_utf8(answer?.body)?;
                // The decision at the head is what others are told.
                assert!(told.contains("00-0af7651916cd43dd8448eb211c80319c-"), "{told}");
                assert!(!told.contains("b7ad6b7169203331") && told.contains("-00"), "{told}");
            }
        }
        let found = up_to_the_end(&world).await?;
        let wanted = asked.iter().filter(|(_, _, why)| why.is_some());
        assert_eq!(found.len(), wanted.clone().count(), "{found:#?}");
        for (path, _, why) in wanted {
            let ends =
                |span: &&Span| attribute(span, "http.url").is_some_and(|url| url.ends_with(path));
            let span =
                found.iter().find(ends).ok_or_else(|| anyhow::anyhow!("no span of {path}"))?;
            let told = |name: &str| attribute(span, name);
            assert_eq!(told("pillion.tail").as_deref(), *why, "{path}");
            assert_eq!(told("user").as_deref(), Some("joe"), "{path}");
            assert_eq!(told("user_agent").as_deref(), Some("tester"), "{path}");
            assert_eq!(told("http.method").as_deref(), Some("GET"), "{path}");
            assert!(told("guid:x-request-id").is_some(), "{path}");
            assert_eq!(
                span.parent_span_id,
                [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31],
                "{path}"
            );
            if *path == "/slow" {
                assert_eq!(told("said").as_deref(), said);
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_outage_does_not_flood_the_collector() -> anyhow::Result<()> {
    let world = World::start(Kind::Pillion, &sampler("failed: true, per_second: 1", "")).await?;
    for _ in 0..50 {
        world.get("/", &[("x-do", "status=503"), ("traceparent", PARENT)]).await?;
    }
    let counted = async |name: &str| -> anyhow::Result<usize> {
        let path = format!("/stats?filter={name}");
        let stats = pillion_tests::client::get(world.proxy.admin, &path).await?;
        let text = String::from_utf8(stats.body)?;
        Ok(text.trim().rsplit(' ').next().unwrap_or_default().parse()?)
    };
    let (kept, left_out) = (counted("tail_kept").await?, counted("tail_over_limit").await?);
    assert_eq!(kept + left_out, 50);
    assert!(kept >= 1 && left_out >= 1, "{kept} kept, {left_out} left out");
    let found = world.collected("TraceService/Export", |messages| {
        let all = spans(messages);
        (all.len() >= kept).then_some(all)
    });
    assert_eq!(found.await?.len(), kept);
    Ok(())
}
