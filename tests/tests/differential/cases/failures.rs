//! What a client is told when things break.

use crate::differential::case::{Case, get, grpc, post, raw};

pub(super) fn cases() -> Vec<Case> {
    [upstream(), local(), timeouts(), endpoints(), tcp()].into_iter().flatten().collect()
}

fn upstream() -> Vec<Case> {
    vec![
        Case::new(
            "connection refused",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: refused}}]}",
        )
        .ask(get("/"), "503 UF r refused")
        .ask(get("/").http2(), "503 UF r refused")
        .ask(grpc("x"), "200 UF r refused"),
        Case::new(
            "upstream closes",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}",
        )
        .ask(get("/").does("close"), "503 UC r a")
        .ask(post("/", "x").does("close"), "503 UC r a"),
        Case::new(
            "upstream resets",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}",
        )
        .ask(get("/").does("reset"), "503 UC r a"),
        Case::new(
            "upstream resets a stream",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: h2}}]}",
        )
        .ask(get("/").does("reset"), "503 UR r h2")
        .ask(get("/").does("refuse"), "503 UR r h2"),
        Case::new(
            "upstream cuts the body",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}",
        )
        .ask(get("/").does("partial"), "200 UPE r a")
        .ask(get("/").http2().does("partial"), "200 UPE r a"),
        Case::new(
            "upstream cuts a stream",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: h2}}]}",
        )
        .ask(get("/").does("partial"), "200 UR r h2"),
        Case::new(
            "upstream speaks something else",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: garbage}}]}",
        )
        .ask(get("/"), "502 UPE r garbage"),
        Case::new(
            "errors of the upstream pass",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}",
        )
        .ask(get("/").does("status=500"), "500 - r a")
        .ask(get("/").does("status=503 header=retry-after:7"), "503 - r a")
        .ask(get("/").does("status=404"), "404 - r a"),
    ]
}

fn local() -> Vec<Case> {
    vec![
        Case::new("no route", "{routes: [{name: r, match: {prefix: /only}, route: {cluster: a}}]}")
            .ask(get("/other"), "404 NR - -")
            .ask(get("/other").http2(), "404 NR - -")
            .ask(grpc("x"), "200 NR - -"),
        Case::new("unknown cluster", "{routes: [{name: r, match: {prefix: /}, route: {cluster_header: x-to}}]}")
            .ask(get("/").header("x-to", "nobody"), "503 NC r -")
            .ask(grpc("x").header("x-to", "nobody"), "200 NC r -"),
        Case::new("not found instead of unavailable", "{routes: [{name: r, match: {prefix: /}, route: {cluster_header: x-to, cluster_not_found_response_code: NOT_FOUND}}]}")
            .ask(get("/").header("x-to", "nobody"), "404 NC r -"),
        Case::new("too many requests", "{routes: [{name: r, match: {prefix: /}, route: {cluster: no-requests}}]}")
            .ask(get("/"), "503 UO r no-requests")
            .ask(grpc("x"), "200 UO r no-requests"),
        Case::new("too many pending", "{routes: [{name: r, match: {prefix: /}, route: {cluster: no-pending}}]}")
            .ask(get("/"), "503 UO r no-pending"),
        Case::new("breakers by priority", "{routes: [
            {name: default, match: {prefix: /default}, route: {cluster: high-only}},
            {name: high, match: {prefix: /high}, route: {cluster: high-only, priority: HIGH}}]}")
            .ask(get("/default"), "503 UO default high-only")
            .ask(get("/high"), "200 - high high-only"),
        Case::plain("bad requests")
            .ask(raw("GET / HTTP/1.1\r\nhost: x\r\nx-case: {case}\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n"), "400 unlogged")
            .ask(raw("nonsense\r\n\r\n"), "400 unlogged")
            .ask(raw("GET / HTTP/1.1\r\nhost: x\r\nbad header\r\nconnection: close\r\n\r\n"), "400 unlogged")
            .ask(raw("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\nconnection: close\r\n\r\n"), "400 unlogged"),
    ]
}

fn timeouts() -> Vec<Case> {
    vec![
        Case::new("route timeout", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, timeout: 0.2s}}]}")
            .ask(get("/").does("hang"), "504 UT r a")
            .ask(get("/").http2().does("hang"), "504 UT r a")
            .ask(grpc("x").does("hang"), "200 UT r a")
            .ask(get("/"), "200 - r a"),
        Case::new("timeout by header", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, timeout: 10s}}]}")
            .ask(get("/").header("x-envoy-upstream-rq-timeout-ms", "200").does("delay=400"), "200 - r a"),
        Case::new("timeout by a header of the route", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, timeout: 10s}, request_headers_to_add: [{header: {key: x-envoy-upstream-rq-timeout-ms, value: '200'}}]}]}")
            .ask(get("/").does("delay=400"), "200 - r a"),
        Case::new("timeout of one try", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, timeout: 10s, retry_policy: {retry_on: 5xx, num_retries: 1, per_try_timeout: 0.2s}}}]}")
            .ask(get("/").does("hang"), "504 URX,UT r a")
            .ask(get("/").does("hang times=1"), "200 - r a"),
        Case::new("grpc timeout", "{routes: [{name: r, match: {prefix: /}, route: {cluster: h2, max_stream_duration: {grpc_timeout_header_max: 0s}}}]}")
            .ask(grpc("x").header("grpc-timeout", "200m").does("hang"), "200 - r h2"),
        Case::plain("idle stream").ask(get("/").on("impatient").does("hang"), "504 SI any a"),
        Case::plain("slow request").ask(
            raw("POST / HTTP/1.1\r\nhost: x\r\nx-case: {case}\r\nconnection: close\r\ncontent-length: 9\r\n\r\nhalf").on("hurried"),
            "408 - any a",
        ),
    ]
}

fn endpoints() -> Vec<Case> {
    vec![
        Case::new(
            "no endpoints",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: empty}}]}",
        )
        .ask(get("/"), "503 UH r empty")
        .ask(grpc("x"), "200 UH r empty"),
        Case::new(
            "the next priority takes over",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: failover}}]}",
        )
        .ask(get("/"), "200 - r failover")
        .ask(get("/"), "200 - r failover"),
        Case::new(
            "unhealthy endpoints are left out",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: healthy-b}}]}",
        )
        .ask(get("/"), "200 - r healthy-b")
        .ask(get("/"), "200 - r healthy-b"),
        Case::new(
            "draining endpoints are left out",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: draining-a}}]}",
        )
        .ask(get("/"), "200 - r draining-a")
        .ask(get("/"), "200 - r draining-a"),
        Case::new(
            "degraded endpoints come last",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: degraded}}]}",
        )
        .ask(get("/"), "200 - r degraded")
        .ask(get("/"), "200 - r degraded"),
        Case::new(
            "all unhealthy",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: sick}}]}",
        )
        .ask(get("/"), "503 UH r sick"),
        Case::new(
            "all unhealthy and panic",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: panic}}]}",
        )
        .ask(get("/"), "200 - r panic"),
    ]
}

fn tcp() -> Vec<Case> {
    vec![
        Case::plain("tcp echo").ask(raw("some bytes").on("tcp-echo"), "0 - - tcp"),
        Case::plain("tcp refused").ask(raw("some bytes").on("tcp-refused"), "0 UF,URX - refused"),
        Case::plain("tcp empty").ask(raw("some bytes").on("tcp-empty"), "0 UH - empty"),
        Case::plain("tcp unknown").ask(raw("some bytes").on("tcp-unknown"), "0 NC - -"),
    ]
}
