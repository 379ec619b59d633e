//! gRPC-Web, binary and in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::differential::case::{Case, Request, get, grpc, post};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;

const FILTERS: &str = "
- {name: web, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb}}
- {name: stats, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig,
    stats_for_all_methods: true}}";

const ON_PURPOSE: OnPurpose = &[
    (
        "",
        "metric cluster.h2.grpc.test.Echo.Call.request_message_count",
        "a message that is broken off in base64 is not sent to the upstream at all",
    ),
    (
        "calls-in-base64",
        "headers: only envoy {connection: close} | only ours {}",
        "the request was read to its end, so that the connection can go on",
    ),
    (
        "own-answers-to-grpc-web.0",
        "headers: only envoy {} | only ours {connection: close}",
        "its body was not read: nobody knows how much more would come",
    ),
];

#[tokio::test]
async fn grpc_web() -> anyhow::Result<()> {
    same(Part {
        cases: cases(),
        filters: FILTERS,
        metrics: &["cluster.h2.grpc"],
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}

const ROUTE: &str = "{routes: [{name: r, match: {prefix: /}, route: {cluster: h2}}]}";

/// One message, as a browser sends it.
fn web(kind: &str) -> Request {
    let mut request = post("/test.Echo/Call", "").header("content-type", kind);
    request.ask.body = b"\0\0\0\0\x05hello".to_vec();
    request
}

fn text(body: &[u8]) -> Request {
    let request = web("application/grpc-web-text");
    request.body(body.to_vec()).header("accept", "application/grpc-web-text")
}

fn cases() -> Vec<Case> {
    let hello = STANDARD.encode(b"\0\0\0\0\x05hello");
    vec![
        Case::new("binary calls", ROUTE)
            .ask(web("application/grpc-web"), "200 - r h2")
            .ask(web("application/grpc-web+proto").http2(), "200 - r h2")
            .ask(web("application/grpc-web+proto").does("grpc-trailer=0"), "200 - r h2")
            .ask(web("application/grpc-web+proto").does("grpc-trailer=5"), "200 - r h2")
            .ask(web("application/grpc-web").does("grpc=14"), "200 - r h2")
            .ask(web("application/grpc-web").does("grpc-trailer=0").http2(), "200 - r h2")
            .ask(web("application/grpc-web+json"), "200 - r h2")
            .ask(web("application/grpc-web").header("grpc-accept-encoding", "gzip"), "200 - r h2"),
        Case::new("calls in base64", ROUTE)
            .ask(text(hello.as_bytes()), "200 - r h2")
            .ask(text(hello.as_bytes()).does("grpc-trailer=0"), "200 - r h2")
            .ask(text(hello.as_bytes()).does("grpc=3"), "200 - r h2")
            .ask(text(hello.as_bytes()).does("grpc-trailer=0").http2().chunked(), "200 - r h2")
            .ask(text(b"AAAAAAVoZWxsbw"), "400 - r h2")
            .ask(text(b"????"), "400 - r h2"),
        Case::new("answers that are no gRPC", ROUTE)
            .ask(
                web("application/grpc-web").does("status=503 header=content-type:text/plain"),
                "503 - r h2",
            )
            .ask(
                web("application/grpc-web").does("size=10 header=content-type:text/plain"),
                "200 - r h2",
            )
            .ask(
                text(hello.as_bytes()).does("status=404 size=10 header=content-type:text/html"),
                "404 - r h2",
            ),
        Case::new(
            "own answers to gRPC-Web",
            "{routes: [
                {name: down, match: {prefix: /test.Echo/Call}, route: {cluster: refused}}]}",
        )
        .ask(web("application/grpc-web"), "503 UF down refused")
        .ask(text(hello.as_bytes()), "503 UF down refused"),
        Case::new("others are left alone", ROUTE)
            .ask(get("/"), "200 - r h2")
            .ask(grpc("hello"), "200 - r h2")
            .ask(grpc("hello").does("grpc-trailer=0"), "200 - r h2")
            .ask(
                post("/", "x").header("content-type", "application/grpc-web; charset=utf-8"),
                "200 - r h2",
            ),
    ]
}
