//! From one version of HTTP to another, and what has to survive it.

use http::Method;

use crate::differential::case::{Case, get, grpc, post, raw, request};

const TO_H1: &str = "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}";
const TO_H2: &str = "{routes: [{name: r, match: {prefix: /}, route: {cluster: h2}}]}";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("h1 to h1", TO_H1)
            .ask(post("/p?q=1", "content"), "200 - r a")
            .ask(post("/", "content").chunked(), "200 - r a")
            .ask(post("/", ""), "200 - r a")
            .ask(request(Method::HEAD, "/"), "200 - r a")
            .ask(request(Method::OPTIONS, "/"), "200 - r a")
            .ask(request(Method::DELETE, "/"), "200 - r a")
            .ask(get("/").does("chunked"), "200 - r a")
            .ask(get("/").does("status=204"), "204 - r a")
            .ask(get("/").does("status=304 header=etag:x"), "304 - r a"),
        Case::new("h1 to h2", TO_H2)
            .ask(post("/p?q=1", "content"), "200 - r h2")
            .ask(post("/", "content").chunked(), "200 - r h2")
            .ask(request(Method::HEAD, "/"), "200 - r h2")
            .ask(get("/").does("chunked"), "200 - r h2"),
        Case::new("h2 to h1", TO_H1)
            .ask(post("/p?q=1", "content").http2(), "200 - r a")
            .ask(post("/", "content").chunked().http2(), "200 - r a")
            .ask(request(Method::HEAD, "/").http2(), "200 - r a")
            .ask(get("/").http2().does("chunked"), "200 - r a")
            .ask(get("/").http2().header("cookie", "a=1").header("cookie", "b=2"), "200 - r a"),
        Case::new("h2 to h2", TO_H2)
            .ask(post("/p?q=1", "content").http2(), "200 - r h2")
            .ask(post("/", "content").http2().chunked().trailer("x-end", "1"), "200 - r h2")
            .ask(get("/").http2().does("trailers"), "200 - r h2"),
        Case::new("grpc", TO_H2)
            .ask(grpc("hello"), "200 - r h2")
            .ask(grpc("hello").does("grpc=5"), "200 - r h2")
            .ask(grpc("hello").does("grpc-trailer=13"), "200 - r h2")
            .ask(grpc("hello").does("reset"), "200 UR r h2"),
        Case::new("large bodies", TO_H1)
            .ask(post("/", "").body(vec![b'y'; 300_000]), "200 - r a")
            .ask(get("/").does("size=3000000"), "200 - r a")
            .ask(get("/").http2().does("size=3000000 chunked"), "200 - r a"),
        Case::new("large bodies over h2", TO_H2)
            .ask(post("/", "").body(vec![b'y'; 300_000]), "200 - r h2")
            .ask(get("/").does("size=3000000"), "200 - r h2"),
        Case::new("expect continue", TO_H1).ask(
            raw("POST / HTTP/1.1\r\nhost: {host}\r\nx-case: {case}\r\nexpect: 100-continue\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody"),
            "200 - r a",
        ),
        Case::new("chunks with extensions", TO_H1).ask(
            raw("POST / HTTP/1.1\r\nhost: {host}\r\nx-case: {case}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n4;ext=1\r\nbody\r\n0\r\n\r\n"),
            "200 - r a",
        ),
        Case::new("the client asks to close", TO_H1).ask(
            raw("GET / HTTP/1.1\r\nhost: {host}\r\nx-case: {case}\r\nconnection: close\r\n\r\n"),
            "200 - r a",
        ),
        Case::plain("http 1 0 if it is allowed").ask(
            raw("GET / HTTP/1.0\r\nhost: x\r\nx-case: {case}\r\n\r\n").on("http10"),
            "200 - any a",
        ),
    ]
}
