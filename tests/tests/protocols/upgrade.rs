//! WebSocket and other upgrades, in HTTP/1 and as extended CONNECT, from each to each.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use h2::ext::Protocol;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::{head, hear, hear_all, plain, say};
use super::world::{HTTP2, Serve, Setup, TO_UP, World, same};

/// Agrees to every upgrade and echoes; `/no` is refused with a body.
fn http1(stream: TcpStream) -> BoxFuture<'static, anyhow::Result<()>> {
    serve_http1(stream).boxed()
}

pub(super) async fn serve_http1(mut stream: TcpStream) -> anyhow::Result<()> {
    loop {
        let asked = hear(&mut stream, "\r\n\r\n").await?;
        if asked.is_empty() {
            return Ok(());
        }
        let seen = head(&asked);
        if seen.contains(" /no ") || !seen.contains("upgrade=") {
            let text = format!("refused: {seen}");
            let length = text.len();
            let answer =
                format!("HTTP/1.1 426 Upgrade Required\r\ncontent-length: {length}\r\n\r\n{text}");
            say(&mut stream, &answer).await?;
            continue;
        }
        say(
            &mut stream,
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        )
        .await?;
        say(&mut stream, &format!("{seen}\n")).await?;
        if seen.contains(" /close ") {
            return Ok(stream.shutdown().await?);
        }
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok(stream.shutdown().await?);
            }
            stream.write_all(&buffer[..count]).await?;
        }
    }
}

/// The same over HTTP/2.
fn http2(stream: TcpStream) -> BoxFuture<'static, anyhow::Result<()>> {
    serve_http2(stream).boxed()
}

async fn serve_http2(stream: TcpStream) -> anyhow::Result<()> {
    let mut builder = h2::server::Builder::new();
    let mut connection = builder.enable_connect_protocol().handshake::<_, Bytes>(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        tokio::spawn(async move {
            let protocol = request.extensions().get::<Protocol>().cloned();
            let seen = format!(
                "{} {} {} {}\n",
                request.method(),
                request.uri().path(),
                protocol.as_ref().map_or("-", Protocol::as_str),
                names(request.headers()),
            );
            let status =
                if request.uri().path() == "/no" { StatusCode::FORBIDDEN } else { StatusCode::OK };
            let response = Response::builder().status(status).body(())?;
            let mut send = respond.send_response(response, false)?;
            send.send_data(seen.into(), status != StatusCode::OK)?;
            if status != StatusCode::OK {
                return Ok(());
            }
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                send.send_data(data, false)?;
            }
            send.send_data(Bytes::new(), true)?;
            Ok::<_, anyhow::Error>(())
        });
    }
    Ok(())
}

fn names(headers: &HeaderMap) -> String {
    let mut names: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    names.join(" ")
}

const ASK: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const LOG: &str =
    "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT%";
const WEBSOCKET: &str = "upgrade_configs: [{upgrade_type: websocket}]
http2_protocol_options: {allow_connect: true}";
const STATS: [&str; 3] = [
    "http.http.downstream_cx_upgrades_active",
    "http.http.downstream_cx_upgrades_total",
    "http.http.downstream_rq_ws_on_non_ws_route",
];
const TO_H1: Setup = Setup {
    manager: WEBSOCKET,
    routes: TO_UP,
    clusters: "",
    servers: &[("up", http1 as Serve)],
    log: LOG,
    on_purpose: CLEAN,
};

/// A stream of bytes that both sides ended well is no failure here, and one side may end before the
/// other: Envoy cuts both directions and blames whoever was first.
const CLEAN: &[(&str, &str, &str)] = &[
    ("GET /chat 101 DC 5 70", "GET /chat 101 - 5 70", "ended well"),
    ("GET /chat 101 DC 5 96", "GET /chat 101 - 5 96", "ended well"),
    ("GET /chat 101 UT 5 95", "GET /chat 101 - 5 95", "ended well, and at once"),
    ("GET /close 101 UC 0 66", "GET /close 101 - 0 66", "ended well"),
    ("CONNECT - 200 UC 5 49", "CONNECT - 200 - 5 49", "ended well"),
    ("HTTP/1.1 101 Switching Protocols", "HTTP/1.1 502 Bad Gateway", "nobody asked for it"),
];

/// To an endpoint that was asked in HTTP/2.
const ACCEPTED: &[(&str, &str, &str)] = &[
    CLEAN[1],
    (
        "HTTP/1.1 101 Switching Protocols | connection=upgrade server upgrade=websocket",
        "HTTP/1.1 101 Switching Protocols | connection=upgrade sec-websocket-accept=s3pPLMBiTxaQ9kYGzzhZRbK+xOo= server upgrade=websocket",
        "a client of HTTP/1 waits for this",
    ),
];

/// A conversation after an upgrade; the client leaves first.
async fn talk_http1(world: &World) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    let mut client = world.connect().await?;
    say(&mut client, &format!("GET /chat HTTP/1.1\r\nhost: x\r\n{ASK}")).await?;
    notes.push(head(&hear(&mut client, "\r\n\r\n").await?));
    notes.push(hear(&mut client, "\n").await?);
    notes.extend(world.stats_when(1, &STATS).await?);
    say(&mut client, "ping\n").await?;
    notes.push(hear(&mut client, "\n").await?);
    client.shutdown().await?;
    notes.push(hear_all(&mut client).await?);
    notes.extend(world.log(1).await?);
    notes.extend(world.stats_when(0, &STATS).await?);
    Ok(notes)
}

#[tokio::test]
async fn from_http1_to_http1() -> anyhow::Result<()> {
    same(TO_H1, talk_http1).await
}

#[tokio::test]
async fn from_http1_to_http2() -> anyhow::Result<()> {
    let setup = Setup {
        clusters: HTTP2,
        servers: &[("up", http2 as Serve)],
        on_purpose: ACCEPTED,
        ..TO_H1
    };
    same(setup, talk_http1).await
}

/// The endpoint refuses, and the connection serves on.
#[tokio::test]
async fn an_upgrade_may_be_refused_with_a_body() -> anyhow::Result<()> {
    same(TO_H1, async |world: &World| {
        let mut client = world.connect().await?;
        let mut notes = Vec::new();
        say(&mut client, &format!("GET /no HTTP/1.1\r\nhost: x\r\n{ASK}")).await?;
        let answer = hear(&mut client, "\r\n\r\n").await?;
        notes.push(head(&answer));
        notes.extend(world.log(1).await?);
        notes.extend(world.stats(&STATS).await?);
        Ok(notes)
    })
    .await
}

#[tokio::test]
async fn the_endpoint_may_leave_first() -> anyhow::Result<()> {
    same(TO_H1, async |world: &World| {
        let mut client = world.connect().await?;
        say(&mut client, &format!("GET /close HTTP/1.1\r\nhost: x\r\n{ASK}")).await?;
        let mut notes = vec![head(&hear(&mut client, "\r\n\r\n").await?)];
        notes.push(hear_all(&mut client).await?);
        drop(client);
        notes.extend(world.log(1).await?);
        Ok(notes)
    })
    .await
}

const CHOOSY: &str = "[
  {match: {prefix: /off}, route: {cluster: up, upgrade_configs: [{upgrade_type: WebSocket, enabled: false}]}},
  {match: {prefix: /spdy}, route: {cluster: up, upgrade_configs: [{upgrade_type: spdy}]}},
  {match: {prefix: /redirect}, redirect: {path_redirect: /there}},
  {match: {prefix: /direct}, direct_response: {status: 200, body: {inline_string: here}}},
  {match: {prefix: /yes}, route: {cluster: up}}]";

/// What is not taken, by the route or by the connection manager.
#[tokio::test]
async fn a_route_decides_before_the_connection_manager() -> anyhow::Result<()> {
    let play = async |world: &World| {
        let mut notes = Vec::new();
        for (path, kind) in [
            ("/off", "websocket"),
            ("/spdy", "SPDY"),
            ("/yes", "spdy"),
            ("/yes", "h2c"),
            ("/none", "websocket"),
            ("/none", "spdy"),
            ("/redirect", "websocket"),
            ("/direct", "spdy"),
            ("/direct", "websocket"),
        ] {
            let mut client = world.connect().await?;
            let ask = format!(
                "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: {kind}\r\n\r\n"
            );
            say(&mut client, &ask).await?;
            notes.push(format!("{path} {kind}"));
            notes.push(head(&hear(&mut client, "\r\n\r\n").await?));
        }
        notes.extend(world.stats(&STATS[2..]).await?);
        Ok(notes)
    };
    same(
        Setup {
            routes: CHOOSY,
            on_purpose: &[
                (
                    "HTTP/1.1 403 Forbidden | connection=close server",
                    "HTTP/1.1 403 Forbidden | connection=close content-type=text/plain server",
                    "our refusals say why",
                ),
                (
                    "HTTP/1.1 404 Not Found | connection=close server",
                    "HTTP/1.1 404 Not Found | connection=close content-type=text/plain server",
                    "our refusals say why",
                ),
            ],
            ..TO_H1
        },
        play,
    )
    .await
}

/// A client's connection with extended CONNECT, and the bytes of one stream of it.
async fn websocket_http2(world: &World, path: &str) -> anyhow::Result<Vec<String>> {
    let builder = h2::client::Builder::new();
    let (mut client, connection) = builder.handshake::<_, Bytes>(world.connect().await?).await?;
    let driver = tokio::spawn(connection);
    let settled = || {
        let enabled = client.is_extended_connect_protocol_enabled();
        async move { enabled.then_some(()) }
    };
    pillion_tests::wait::until("SETTINGS", settled).await?;
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = format!("http://x{path}").parse()?;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    // Only HTTP/1 wants them; ours makes them where they are missing.
    let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
    request.headers_mut().insert("sec-websocket-key", key);
    request.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("13"));
    let (response, mut send) = client.send_request(request, false)?;
    let response = response.await?;
    let mut notes = vec![format!("{} {}", response.status(), names(response.headers()))];
    let mut body = response.into_body();
    let mut heard = Vec::new();
    if notes[0].starts_with("200") {
        // The endpoint says what it saw first.
        if let Some(data) = body.data().await {
            heard.extend_from_slice(&data?);
        }
        send.send_data(Bytes::from_static(b"ping\n"), true)?;
    }
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len())?;
        heard.extend_from_slice(&data);
    }
    if notes[0].starts_with("200") {
        notes.push(String::from_utf8_lossy(&heard).into_owned());
    }
    notes.extend(world.log(1).await?);
    drop(client);
    driver.abort();
    Ok(notes)
}

#[tokio::test]
async fn from_http2_to_http1() -> anyhow::Result<()> {
    same(TO_H1, async |world: &World| websocket_http2(world, "/chat").await).await
}

#[tokio::test]
async fn from_http2_to_http1_refused() -> anyhow::Result<()> {
    same(TO_H1, async |world: &World| websocket_http2(world, "/no").await).await
}

#[tokio::test]
async fn from_http2_to_http2() -> anyhow::Result<()> {
    let setup = Setup { clusters: HTTP2, servers: &[("up", http2 as Serve)], ..TO_H1 };
    same(setup, async |world: &World| websocket_http2(world, "/chat").await).await
}

/// CONNECT without `connect_config` is passed on as CONNECT.
#[tokio::test]
async fn connect_is_passed_on() -> anyhow::Result<()> {
    fn serve(mut stream: TcpStream) -> BoxFuture<'static, anyhow::Result<()>> {
        async move {
            let asked = hear(&mut stream, "\r\n\r\n").await?;
            say(&mut stream, "HTTP/1.1 200 OK\r\n\r\n").await?;
            say(&mut stream, &format!("{}\n", head(&asked))).await?;
            let said = hear(&mut stream, "\n").await?;
            say(&mut stream, &said).await?;
            Ok(stream.shutdown().await?)
        }
        .boxed()
    }
    let setup = Setup {
        manager: "upgrade_configs: [{upgrade_type: CONNECT}]",
        routes: "[{match: {connect_matcher: {}}, route: {cluster: up}}]",
        servers: &[("up", serve as Serve)],
        ..TO_H1
    };
    same(setup, async |world: &World| {
        let mut client = world.connect().await?;
        say(&mut client, "CONNECT there:443 HTTP/1.1\r\nhost: there:443\r\n\r\n").await?;
        let mut notes = vec![head(&hear(&mut client, "\r\n\r\n").await?)];
        notes.push(hear(&mut client, "\n").await?);
        say(&mut client, "ping\n").await?;
        notes.push(hear_all(&mut client).await?);
        drop(client);
        notes.extend(world.log(1).await?);
        Ok(notes)
    })
    .await
}

/// An idle stream is cut; one that is used is not.
#[tokio::test]
async fn an_idle_websocket_is_cut() -> anyhow::Result<()> {
    let manager = "upgrade_configs: [{upgrade_type: websocket}]
stream_idle_timeout: 0.5s";
    same(Setup { manager, ..TO_H1 }, async |world: &World| {
        let mut client = world.connect().await?;
        say(&mut client, &format!("GET /chat HTTP/1.1\r\nhost: x\r\n{ASK}")).await?;
        let mut notes = vec![head(&hear(&mut client, "\r\n\r\n").await?)];
        notes.push(hear_all(&mut client).await?);
        drop(client);
        notes.extend(world.log(1).await?);
        Ok(notes)
    })
    .await
}

/// Where a mesh would route it elsewhere, an answer that nobody asked for is an error.
#[tokio::test]
async fn nobody_switches_unasked() -> anyhow::Result<()> {
    fn serve(mut stream: TcpStream) -> BoxFuture<'static, anyhow::Result<()>> {
        async move {
            hear(&mut stream, "\r\n\r\n").await?;
            say(
                &mut stream,
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            )
            .await
        }
        .boxed()
    }
    same(Setup { servers: &[("up", serve as Serve)], ..TO_H1 }, async |world: &World| {
        let mut client = world.connect().await?;
        say(&mut client, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
        let answer = hear_all(&mut client).await?;
        Ok(vec![plain(&answer).split(" | ").next().unwrap_or_default().to_owned()])
    })
    .await
}
