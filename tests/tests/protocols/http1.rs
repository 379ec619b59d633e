//! HTTP/1.1 by the letter, and against it.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::wire::{head, hear, hear_all, plain, say};
use super::world::{Serve, Setup, World, same};

/// Says what it saw. Some paths are answered in other ways.
fn echo(stream: TcpStream) -> BoxFuture<'static, anyhow::Result<()>> {
    serve(stream).boxed()
}

async fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    loop {
        let asked = hear(&mut stream, "\r\n\r\n").await?;
        if asked.is_empty() {
            return Ok(());
        }
        let body = body(&mut stream, &asked).await?;
        let path = asked.split(' ').nth(1).unwrap_or_default();
        if let Some((_, answer)) = ANSWERS.iter().find(|(wanted, _)| *wanted == path) {
            say(&mut stream, answer).await?;
            return Ok(stream.shutdown().await?);
        }
        let seen = format!("{} || {body}", head(&asked));
        let length = seen.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nX-CamelCase: Kept\r\ncontent-length: {length}\r\n\r\n{seen}"
        );
        say(&mut stream, &answer).await?;
    }
}

/// A body as it came, chunks and all.
async fn body(stream: &mut TcpStream, asked: &str) -> anyhow::Result<String> {
    let lower = asked.to_ascii_lowercase();
    if lower.contains("\r\ntransfer-encoding: chunked\r\n") {
        let mut body = String::new();
        loop {
            let line = hear(stream, "\r\n").await?;
            body.push_str(&line);
            if line.is_empty() || line == "0\r\n" {
                break;
            }
            body.push_str(&hear(stream, "\r\n").await?);
        }
        loop {
            let line = hear(stream, "\r\n").await?;
            body.push_str(&line);
            if line.is_empty() || line == "\r\n" {
                return Ok(body.escape_debug().to_string());
            }
        }
    }
    let length =
        lower.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let mut bytes = vec![0; length.and_then(|text| text.parse().ok()).unwrap_or(0)];
    tokio::io::AsyncReadExt::read_exact(stream, &mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What endpoints may answer.
const ANSWERS: &[(&str, &str)] = &[
    ("/until-close", "HTTP/1.1 200 OK\r\n\r\nto the en"),
    ("/http10", "HTTP/1.0 200 OK\r\n\r\nto the en"),
    ("/204", "HTTP/1.1 204 No Content\r\n\r\n"),
    ("/304", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
    (
        "/trailers",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n3\r\nabc\r\n0\r\nx-end: 1\r\n\r\n",
    ),
    (
        "/both",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    ("/bad-chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"),
    ("/two-lengths", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
    ("/bad-length", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nabcd"),
    ("/bad-status", "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n"),
    ("/fold", "HTTP/1.1 200 OK\r\nx-a: 1\r\n  2\r\ncontent-length: 0\r\n\r\n"),
    (
        "/early",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ),
    ("/continue", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    ("/unknown-status", "HTTP/1.1 299 Odd But Fine\r\ncontent-length: 2\r\n\r\nok"),
    ("/short", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"),
    (
        "/gzip-te",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "/hops",
        "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-mine\r\nkeep-alive: timeout=9\r\nproxy-connection: x\r\nx-mine: 1\r\ncontent-length: 2\r\n\r\nok",
    ),
];

const UP: Setup = Setup {
    manager: "",
    routes: "",
    clusters: "",
    servers: &[("up", echo as Serve)],
    log: "",
    on_purpose: STRICTER,
};

/// Where ours is stricter, or by the letter where Envoy is not.
const STRICTER: &[(&str, &str, &str)] = &[
    ("GET / HTTP/1.1 | host: x | host: y |", "", "two hosts are refused (RFC 9112 section 3.2)"),
    ("GET / HTTP/1.1 | host: x | host: x |", "", "two hosts are refused (RFC 9112 section 3.2)"),
    (
        "POST / HTTP/1.1 | host: x | transfer-encoding: chunked | connection: close |  | 3 | abcd |",
        "",
        "a chunk that is longer than it says",
    ),
    (
        "GET / HTTP/1.1 | host: x | x-a: 1 |   2 |",
        "",
        "folded lines are refused (RFC 9112 section 5.2)",
    ),
    ("get / ", "", "methods are open-ended (RFC 9110 section 9.1)"),
    ("BREW / ", "", "methods are open-ended (RFC 9110 section 9.1)"),
    ("GET  / ", "", "one space (RFC 9112 section 3)"),
    (
        "GET / HTTP/1.1 | host: x | x-a: 1 | X-A: 2 | cookie: a=1",
        "",
        "cookies are joined in one line",
    ),
    ("PRI * ", "", "refused with an answer"),
    ("/bad-chunk ", "", "an answer that breaks off at once is not begun"),
    ("/bad-status ", "", "a status has three digits"),
    ("/fold ", "", "folded lines are refused"),
    ("/unknown-status ", "", "the upstream's words are kept"),
    ("/hops ", "", "what `connection` names stays on its hop (RFC 9110 section 7.6.1)"),
    ("GET / HTTP/1.0", "", "closing goes without saying in HTTP/1.0"),
    ("POST / HTTP/1.0", "", "closing goes without saying in HTTP/1.0"),
    ("GET /until-close HTTP/1.0", "", "closing goes without saying in HTTP/1.0"),
    ("GET /trailers HTTP/1.", "", "trailers that the client asked for reach it"),
];

/// Each on a connection of its own that is read to its end.
async fn each(world: &World, texts: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    for text in texts {
        let mut client = world.connect().await?;
        say(&mut client, text).await?;
        let (asked, answer) = (text.replace("\r\n", " | "), hear_all(&mut client).await?);
        notes.push(format!("{asked} -> {}", brief(&answer)));
    }
    Ok(notes)
}

/// Without the text of a failure, which differs.
fn brief(text: &str) -> String {
    let text = plain(text);
    match text.split_once(" || ") {
        Some((head, _)) if !head.starts_with("HTTP/1.1 2") && !head.starts_with("HTTP/1.1 304") => {
            head.replace(" content-type=text/plain", "")
        }
        _ => text,
    }
}

/// What a parser has to refuse, or to understand.
const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: user@x\r\nconnection: close\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\nconnection: close\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc",
    "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3, 3\r\nconnection: close\r\n\r\nabc",
    "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: abc\r\nconnection: close\r\n\r\nabc",
    "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +3\r\nconnection: close\r\n\r\nabc",
    "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\nconnection: close\r\n\r\nabc",
    "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: identity\r\nconnection: close\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\nconnection: close\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: Chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\nx-a: 1\r\n  2\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost : x\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\nx-a : 1\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\nx-a: 1\u{1}2\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\nx-a: ü\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\nx(a: 1\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\n: 1\r\nconnection: close\r\n\r\n",
    "get / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "BREW / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "G@T / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET http://other/p?q HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET https://other/p HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET http://other HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET p HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET /a#b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET /ä HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET /a b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET /a|b{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET  / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\nhost: x\nconnection: close\n\n",
    "GET / HTTP/1.2\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET / HTTP/2.0\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET / HTTP/9\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.0\r\nhost: x\r\n\r\n",
    "GET /\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: te, close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\nte: gzip, trailers;q=0.5\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\nte: gzip\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\nkeep-alive: 5\r\nproxy-connection: close\r\nconnection: close, x-mine\r\nx-mine: 1\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: x\r\nexpect: something\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc",
    "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\nx-end: 1\r\n\r\n",
    "HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc",
    "GET / HTTP/1.1\r\nhost: x\r\nx-a: 1\r\nX-A: 2\r\ncookie: a=1\r\ncookie: b=2\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\nx-empty:\r\nx-pad:    v   \r\nconnection: close\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
];

#[tokio::test]
async fn requests_good_and_bad() -> anyhow::Result<()> {
    same(UP, async |world: &World| each(world, REQUESTS).await).await
}

#[tokio::test]
async fn answers_good_and_bad() -> anyhow::Result<()> {
    same(UP, async |world: &World| {
        let mut notes = Vec::new();
        for (path, _) in ANSWERS {
            let mut client = world.connect().await?;
            say(
                &mut client,
                &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
            )
            .await?;
            notes.push(format!("{path} -> {}", brief(&hear_all(&mut client).await?)));
        }
        Ok(notes)
    })
    .await
}

#[tokio::test]
async fn what_can_be_turned_on() -> anyhow::Result<()> {
    let manager = "http_protocol_options: {accept_http_10: true, default_host_for_http_10: default.test, enable_trailers: true, allow_chunked_length: true}";
    same(Setup { manager, ..UP }, async |world: &World| {
        each(world, &[
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.0\r\nhost: x\r\n\r\n",
            "GET / HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.0\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc",
            "GET /until-close HTTP/1.0\r\nhost: x\r\n\r\n",
            "GET /trailers HTTP/1.0\r\nhost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\nx-end: 1\r\n\r\n",
            "GET /trailers HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close\r\n\r\n",
        ])
        .await
    })
    .await
}
