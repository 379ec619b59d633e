//! Fault injection: delays, aborts, slow answers, and faults that a request asks for by headers.

use crate::differential::case::{Case, Request, get, grpc, post};
use crate::differential::part::Part;
use crate::differential::same;

const FILTERS: &str = "
- {name: fault, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}";

#[tokio::test]
async fn faults() -> anyhow::Result<()> {
    same(Part {
        cases: [delays(), aborts(), slow(), whom()].into_iter().flatten().collect(),
        filters: FILTERS,
        metrics: &["http.http.fault"],
        texts: true,
        ..Part::default()
    })
    .await
}

/// A virtual host with this `HTTPFault`.
fn host(fault: &str) -> &'static str {
    let text = format!(
        "{{routes: [
            {{name: g, match: {{prefix: /test.Echo}}, route: {{cluster: h2}}}},
            {{name: r, match: {{prefix: /}}, route: {{cluster: a}}}}],
        typed_per_filter_config: {{fault: {{
            '@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, {fault}}}}}}}"
    );
    Box::leak(text.into_boxed_str())
}

const ALL: &str = "percentage: {numerator: 100}";

fn asks(headers: &[(&str, &str)]) -> Request {
    headers.iter().fold(get("/"), |request, (name, value)| {
        request.header(&format!("x-envoy-fault-{name}"), value)
    })
}

fn delays() -> Vec<Case> {
    let fixed = host(&format!("delay: {{fixed_delay: 0.02s, {ALL}}}"));
    let both =
        host(&format!("delay: {{fixed_delay: 0.02s, {ALL}}}, abort: {{http_status: 503, {ALL}}}"));
    let by_header = host(&format!("delay: {{header_delay: {{}}, {ALL}}}"));
    let half = host("delay: {header_delay: {}, percentage: {numerator: 0}}");
    vec![
        Case::new("every request is delayed", fixed)
            .ask(get("/"), "200 DI r a")
            .ask(post("/", "content").http2(), "200 DI r a")
            .ask(grpc("hello"), "200 DI g h2")
            .ask(get("/").does("status=500"), "500 DI r a"),
        Case::new("a delay before an abort", both)
            .ask(get("/"), "503 DI,FI r a")
            .ask(grpc("hello"), "200 DI,FI g h2"),
        Case::new("a delay that a request asks for", by_header)
            .ask(asks(&[("delay-request", "5")]), "200 DI r a")
            .ask(asks(&[("delay-request", "0")]), "200 - r a")
            .ask(asks(&[("delay-request", "-5")]), "200 - r a")
            .ask(asks(&[("delay-request", "soon")]), "200 - r a")
            .ask(asks(&[("delay-request", "5"), ("delay-request-percentage", "0")]), "200 - r a")
            .ask(asks(&[("delay-request", "5"), ("delay-request-percentage", "100")]), "200 DI r a")
            .ask(asks(&[("delay-request", "5"), ("delay-request-percentage", "x")]), "200 DI r a")
            .ask(get("/"), "200 - r a"),
        Case::new("nobody may ask for a delay", half)
            .ask(asks(&[("delay-request", "5"), ("delay-request-percentage", "100")]), "200 - r a"),
    ]
}

fn aborts() -> Vec<Case> {
    let http = host(&format!("abort: {{http_status: 429, {ALL}}}"));
    let of_grpc = host(&format!("abort: {{grpc_status: 5, {ALL}}}"));
    let by_header = host(&format!("abort: {{header_abort: {{}}, {ALL}}}"));
    vec![
        Case::new("aborts by HTTP status", http)
            .ask(get("/"), "429 FI r a")
            .ask(post("/", "content"), "429 FI r a")
            .ask(get("/").http2(), "429 FI r a")
            .ask(grpc("hello"), "200 FI g h2"),
        Case::new("aborts by gRPC status", of_grpc)
            .ask(get("/"), "200 FI r a")
            .ask(grpc("hello"), "200 FI g h2"),
        Case::new("aborts that a request asks for", by_header)
            .ask(asks(&[("abort-request", "404")]), "404 FI r a")
            .ask(asks(&[("abort-request", "199")]), "200 - r a")
            .ask(asks(&[("abort-request", "600")]), "200 - r a")
            .ask(asks(&[("abort-request", "no")]), "200 - r a")
            .ask(asks(&[("abort-grpc-request", "5")]), "200 FI r a")
            .ask(asks(&[("abort-request", "418"), ("abort-grpc-request", "5")]), "418 FI r a")
            .ask(asks(&[("abort-request", "418"), ("abort-request-percentage", "0")]), "200 - r a")
            .ask(grpc("hello").header("x-envoy-fault-abort-grpc-request", "5"), "200 FI g h2")
            .ask(grpc("hello").header("x-envoy-fault-abort-request", "429"), "200 FI g h2"),
    ]
}

fn slow() -> Vec<Case> {
    let fixed = host(&format!("response_rate_limit: {{fixed_limit: {{limit_kbps: 100}}, {ALL}}}"));
    let by_header = host(&format!("response_rate_limit: {{header_limit: {{}}, {ALL}}}"));
    vec![
        Case::new("answers that are slow", fixed)
            .ask(get("/").does("size=2000"), "200 - r a")
            .ask(get("/").does("size=2000 chunked trailers"), "200 - r a")
            .ask(get("/").does("size=0"), "200 - r a"),
        Case::new("answers that a request wants slow", by_header)
            .ask(asks(&[("throughput-response", "100")]).does("size=2000"), "200 - r a")
            .ask(asks(&[("throughput-response", "0")]).does("size=2000"), "200 - r a")
            .ask(
                asks(&[("throughput-response", "9"), ("throughput-response-percentage", "0")]),
                "200 - r a",
            )
            .ask(get("/"), "200 - r a"),
    ]
}

fn whom() -> Vec<Case> {
    let abort = format!("abort: {{http_status: 418, {ALL}}}");
    let cluster = host(&format!("{abort}, upstream_cluster: a"));
    let nodes = host(&format!("{abort}, downstream_nodes: [one, two]"));
    let headers = host(&format!(
        "{abort}, headers: [{{name: x-a, string_match: {{exact: '1'}}}}, {{name: x-b, present_match: true}}]"
    ));
    let none = host(&format!("{abort}, max_active_faults: 0"));
    let node = |name: &str| get("/").header("x-envoy-downstream-service-node", name);
    vec![
        Case::new("faults towards one cluster", cluster)
            .ask(get("/"), "418 FI r a")
            .ask(grpc("hello"), "200 - g h2"),
        Case::new("faults of some nodes", nodes)
            .ask(node("two"), "418 FI r a")
            .ask(node("three"), "200 - r a")
            .ask(get("/"), "200 - r a"),
        Case::new("faults of requests with headers", headers)
            .ask(get("/").header("x-a", "1").header("x-b", ""), "418 FI r a")
            .ask(get("/").header("x-a", "2").header("x-b", "1"), "200 - r a")
            .ask(get("/").header("x-a", "1"), "200 - r a"),
        Case::new("too many faults at a time", none).ask(get("/"), "200 - r a"),
        Case::new(
            "faults by route",
            "{routes: [
                {name: quiet, match: {prefix: /quiet}, route: {cluster: a}, typed_per_filter_config: {fault: {
                    '@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}},
                {name: other, match: {prefix: /other}, route: {cluster: a}, typed_per_filter_config: {fault: {
                    '@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault,
                    abort: {http_status: 451, percentage: {numerator: 100}}}}},
                {name: r, match: {prefix: /}, route: {cluster: a}}],
            typed_per_filter_config: {fault: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault,
                abort: {http_status: 418, percentage: {numerator: 1000000, denominator: MILLION}}}}}",
        )
        .ask(get("/quiet"), "200 - quiet a")
        .ask(get("/other"), "451 FI other a")
        .ask(get("/"), "418 FI r a"),
    ]
}
