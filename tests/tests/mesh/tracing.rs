//! Traces of a mesh, as `examples/tracing` has them: what failed is kept by every sidecar on its way.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::client::{self, Ask};
use pillion_tests::collector::Collector;
use pillion_tests::mesh::{Beside, Mesh};
use pillion_tests::wait;
use prost::Message as _;

const EXAMPLE: &str = include_str!("../../../examples/tracing/mesh/tracing.yaml");

/// Spans by the service that sent them.
fn spans(collector: &Collector) -> BTreeMap<String, Vec<Span>> {
    let mut all: BTreeMap<String, Vec<Span>> = BTreeMap::new();
    for message in collector.messages("TraceService/Export") {
        let Ok(request) = ExportTraceServiceRequest::decode(message.bytes) else { continue };
        for one in request.resource_spans {
            let service = format!("{:?}", one.resource);
            let name =
                ["web.default", "catalog.default"].into_iter().find(|name| service.contains(name));
            let spans = one.scope_spans.into_iter().flat_map(|scope| scope.spans);
            all.entry(name.unwrap_or_default().to_owned()).or_default().extend(spans);
        }
    }
    all
}

#[tokio::test]
async fn what_fails_is_traced_through_every_sidecar() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    // By chance nothing is traced, so that what arrives was kept for its end.
    let mesh = EXAMPLE
        .replace("http://127.0.0.1:4317", &format!("http://{}", collector.address))
        .replace("samplingPercent: 1", "samplingPercent: 0");
    assert_ne!(mesh, EXAMPLE);
    let mesh = Mesh::start(&[("mesh.yaml", &mesh)]).await?;
    let app = Backend::start("app", Speaks::Http1).await?;
    let _catalog = mesh.sidecar(&Beside::new("catalog", "v1", app.address)).await?;
    let web = mesh.sidecar(&Beside::client("web")).await?;
    web.reaches("catalog.default", "app").await?;
    let ask = |path: &str, does: &str| {
        let mut ask = Ask::new(http::Method::POST, path);
        ask.host = "catalog.default".to_owned();
        ask.headers.push(("x-do".to_owned(), does.to_owned()));
        ask
    };
    let answer = client::send(web.outbound, &ask("/fine", "status=200")).await?;
    assert_eq!(answer.status, 200);
    let answer = client::send(web.outbound, &ask("/fails", "status=500")).await?;
    assert_eq!(answer.status, 500);

    let of_fails = |spans: &[Span]| {
        spans.iter().find(|span| format!("{:?}", span.attributes).contains("/fails")).cloned()
    };
    let both = wait::until("both sidecars have sent their span", || async {
        let all = spans(&collector);
        Some((of_fails(all.get("web.default")?)?, of_fails(all.get("catalog.default")?)?))
    });
    let (from, to) = both.await?;
    assert_eq!(from.trace_id, to.trace_id);
    assert_eq!(to.parent_span_id, from.span_id);
    let all = format!("{:?}", spans(&collector));
    assert!(!all.contains("/fine"), "{all}");
    Ok(())
}
