//! Answers that are too large for any buffer, and clients that do not wait for their end.

use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pillion_tests::wait::LIMIT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::frames::{DATA, HEADERS, RST_STREAM, Raw, block, get};
use super::wire::{hear, hear_all, say};
use super::world::{Serve, Setup, World, same};

const LOG: &str = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS%";

const UP: Setup = Setup {
    manager: "stream_idle_timeout: 1s",
    routes: "",
    clusters: "",
    servers: &[("up", serve as Serve)],
    log: LOG,
    on_purpose: &[],
};

/// What stands at a place of an answer.
fn byte(at: usize) -> u8 {
    b'a' + (at % 23) as u8
}

/// `/NAME/PROMISED/SENT`: so many bytes are promised, and so many sent. Then the connection goes on if that is all of them,
/// stays silent if the name is `silent`, and closes otherwise.
fn serve(mut stream: TcpStream) -> BoxFuture<'static, anyhow::Result<()>> {
    async move {
        loop {
            let asked = hear(&mut stream, "\r\n\r\n").await?;
            let path = asked.split(' ').nth(1).unwrap_or_default();
            if path == "/never" {
                hear(&mut stream, "no more").await?;
            }
            let [_, name, promised, sent] = path.split('/').collect::<Vec<_>>()[..] else {
                return Ok(());
            };
            let sent: usize = sent.parse()?;
            say(&mut stream, &format!("HTTP/1.1 200 OK\r\ncontent-length: {promised}\r\n\r\n"))
                .await?;
            let body: Vec<u8> = (0..sent).map(byte).collect();
            stream.write_all(&body).await?;
            if name == "silent" {
                // Until it is left.
                let _ = stream.read_u8().await;
            }
            if promised != sent.to_string() {
                return Ok(());
            }
        }
    }
    .boxed()
}

async fn ask(client: &mut TcpStream, path: &str) -> anyhow::Result<()> {
    say(client, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await?;
    hear(client, "\r\n\r\n").await?;
    Ok(())
}

/// How many bytes of a body come, at most so many; each is the one that belongs there.
async fn take(client: &mut TcpStream, most: usize) -> anyhow::Result<usize> {
    let mut body = Vec::new();
    let mut limited = client.take(most as u64);
    let reading = limited.read_to_end(&mut body);
    // What is cut off ends with an end, or with a reset.
    let _ = timeout(LIMIT, reading).await.context("a body that does not end")?;
    anyhow::ensure!(body.iter().enumerate().all(|(at, got)| *got == byte(at)), "mixed up");
    Ok(body.len())
}

#[tokio::test]
async fn whole_answers_follow_each_other() -> anyhow::Result<()> {
    same(UP, async |world: &World| {
        let mut client = world.connect().await?;
        let mut notes = Vec::new();
        for size in [5_000_000, 100, 131_072, 1_000_000, 0, 300_000] {
            ask(&mut client, &format!("/whole/{size}/{size}")).await?;
            notes.push(format!("{} bytes", take(&mut client, size).await?));
        }
        notes.extend(world.log(6).await?);
        let names = [
            "cluster.up.upstream_cx_rx_bytes_total",
            "cluster.up.upstream_cx_total",
            "cluster.up.upstream_rq_completed",
        ];
        notes.extend(world.stats_when(6_431_424, &names).await?);
        Ok(notes)
    })
    .await
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() -> anyhow::Result<()> {
    same(UP, async |world: &World| {
        let mut client = world.connect().await?;
        ask(&mut client, "/whole/4000000/4000000").await?;
        let mut come = 0;
        let mut piece = vec![0; 200_000];
        while come < 4_000_000 {
            let read = timeout(LIMIT, client.read(&mut piece)).await??;
            anyhow::ensure!(read > 0, "an early end");
            anyhow::ensure!((0..read).all(|at| piece[at] == byte(come + at)), "mixed up");
            come += read;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.log(1).await
    })
    .await
}

#[tokio::test]
async fn answers_that_break_off_are_cut_off_and_told_apart() -> anyhow::Result<()> {
    same(UP, async |world: &World| {
        let mut notes = Vec::new();
        // By the endpoint, and by its silence.
        for path in ["/cut/3000000/1000000", "/silent/3000000/1000000"] {
            let mut client = world.connect().await?;
            ask(&mut client, path).await?;
            let come = take(&mut client, 3_000_000).await?;
            notes.push(format!("{path}: {}", if come <= 1_000_000 { "cut off" } else { "more" }));
        }
        // By the client.
        let mut client = world.connect().await?;
        ask(&mut client, "/silent/3000000/2000000").await?;
        notes.push(format!("{} bytes", take(&mut client, 500_000).await?));
        drop(client);
        notes.extend(world.log(3).await?);
        notes.extend(world.stats_when(0, &["http.http.downstream_rq_active"]).await?);
        Ok(notes)
    })
    .await
}

/// Over HTTP/2: the connection goes on, or it does not.
#[tokio::test]
async fn who_resets_a_stream_is_told_from_who_leaves() -> anyhow::Result<()> {
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    let log = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%";
    same(Setup { log, ..UP }, async |world: &World| {
        let mut client = Raw::connect(world).await?;
        // Of an answer that is under way, and of a request without one.
        client.send(HEADERS, 5, 1, &get("/silent/3000000/10000")).await?;
        while client.next().await.context("an end")?.kind != DATA {}
        client.send(RST_STREAM, 0, 1, &CANCEL).await?;
        let mut notes = world.log(1).await?;
        client.send(HEADERS, 5, 3, &get("/never")).await?;
        world.stats_when(1, &["cluster.up.upstream_rq_active"]).await?;
        client.send(RST_STREAM, 0, 3, &CANCEL).await?;
        notes.extend(world.log(2).await?.into_iter().skip(1));
        // All of it.
        let mut client = Raw::connect(world).await?;
        client.send(HEADERS, 5, 1, &get("/silent/3000000/10000")).await?;
        while client.next().await.context("an end")?.kind != DATA {}
        drop(client);
        notes.extend(world.log(3).await?.into_iter().skip(2));
        Ok(notes)
    })
    .await
}

/// An answer of this proxy's own, through a filter that would change its body.
const PACKED: Setup = Setup {
    manager: "
        http_filters:
        - name: envoy.filters.http.compressor
          typed_config:
            '@type': type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor
            compressor_library:
              name: gzip
              typed_config:
                '@type': type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip
        - name: envoy.filters.http.router
          typed_config:
            '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
    ",
    routes: "[{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: 'a text that is long enough to be packed'}}}]",
    ..UP
};

#[tokio::test]
async fn an_answer_to_head_lacks_nothing() -> anyhow::Result<()> {
    same(PACKED, async |world: &World| {
        let mut client = world.connect().await?;
        let asks =
            "HEAD / HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n";
        say(&mut client, asks).await?;
        let answer = hear_all(&mut client).await?;
        let mut notes = vec![format!("{:?}", answer.split("\r\n\r\n").nth(1))];
        let mut client = Raw::connect(world).await?;
        for headers in [&[][..], &[("accept-encoding", "gzip")]] {
            let head =
                [(":method", "HEAD"), (":scheme", "http"), (":authority", "x"), (":path", "/")];
            let stream = if headers.is_empty() { 1 } else { 3 };
            client.send(HEADERS, 5, stream, &block(&[&head[..], headers].concat())).await?;
            let mut bytes = 0;
            while let Ok(Some(frame)) = timeout(Duration::from_millis(500), client.next()).await {
                bytes += if frame.kind == DATA { frame.payload.len() } else { 0 };
            }
            notes.push(format!("{bytes} bytes"));
        }
        notes.extend(world.log(3).await?);
        Ok(notes)
    })
    .await
}
