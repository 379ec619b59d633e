//! Peers that cost more than they pay: floods of HTTP/2 frames, resets, slow heads, large heads.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::frames::{
    CONTINUATION, DATA, HEADERS, PRIORITY, RST_STREAM, Raw, WINDOW_UPDATE, block, frame, get,
};
use super::wire::{head, hear, hear_all, say};
use super::world::{Serve, Setup, World, same};

/// Never answers.
fn silent(mut stream: TcpStream) -> BoxFuture<'static, anyhow::Result<()>> {
    async move {
        hear_all(&mut stream).await?;
        Ok(())
    }
    .boxed()
}

const SILENT: Setup = Setup {
    manager: "",
    routes: "",
    clusters: "",
    servers: &[("up", silent as Serve)],
    log: "",
    on_purpose: &[],
};

/// How a connection ends that sends this. Envoy ends it with or without GOAWAY, ours always says it.
async fn flooded(world: &World, frames: &[Vec<u8>]) -> anyhow::Result<String> {
    let mut raw = Raw::connect(world).await?;
    for frame in frames {
        // It may be closed before everything is said.
        if raw.stream.write_all(frame).await.is_err() {
            break;
        }
    }
    let end = raw.end(Duration::from_secs(3)).await;
    Ok(end.split(',').next().unwrap_or_default().to_owned())
}

const EMPTY: &str = "http2.inbound_empty_frames_flood";
const PRIORITIES: &str = "http2.inbound_priority_frames_flood";
const UPDATES: &str = "http2.inbound_window_update_frames_flood";

#[tokio::test]
async fn frames_that_cost_nothing_end_a_connection() -> anyhow::Result<()> {
    same(SILENT, async |world: &World| {
        let post =
            block(&[(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/")]);
        let open = || frame(HEADERS, 4, 1, &post);
        let mut notes = Vec::new();
        let mut empty = vec![open()];
        empty.extend(vec![frame(DATA, 0, 1, &[]); 3]);
        notes.push(flooded(world, &empty).await?);
        notes.extend(world.stats_when(1, &[EMPTY]).await?);
        let priorities = vec![frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]); 300];
        notes.push(flooded(world, &priorities).await?);
        notes.extend(world.stats_when(1, &[PRIORITIES]).await?);
        let updates = vec![frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]); 30];
        notes.push(flooded(world, &updates).await?);
        notes.extend(world.stats_when(1, &[UPDATES]).await?);
        let few = vec![open(), frame(DATA, 0, 1, &[]), frame(DATA, 0, 1, b"x")];
        notes.push(flooded(world, &few).await?);
        notes.extend(world.stats(&[EMPTY, PRIORITIES, UPDATES]).await?);
        Ok(notes)
    })
    .await
}

/// A header block without an end.
#[tokio::test]
async fn a_head_in_endless_pieces_ends_a_connection() -> anyhow::Result<()> {
    same(SILENT, async |world: &World| {
        let mut frames = vec![frame(HEADERS, 0, 1, &get("/"))];
        frames.extend(
            (0..2000).map(|i| {
                frame(CONTINUATION, 0, 1, &block(&[(&format!("x-{i}"), &"y".repeat(100))]))
            }),
        );
        Ok(vec![flooded(world, &frames).await?])
    })
    .await
}

/// CVE-2023-44487.
#[tokio::test]
async fn rapid_resets_end_a_connection() -> anyhow::Result<()> {
    const RESETS: &str = "http.http.downstream_rq_too_many_premature_resets";
    same(SILENT, async |world: &World| {
        let mut raw = Raw::connect(world).await?;
        let mut refused = false;
        for i in 0..3000u32 {
            let stream = 2 * i + 1;
            let both =
                [frame(HEADERS, 5, stream, &get("/")), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])];
            if raw.stream.write_all(&both.concat()).await.is_err() {
                refused = true;
                break;
            }
            if i % 100 == 99 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let end = raw.end(Duration::from_secs(3)).await;
        let mut notes = vec![format!("{}", refused || end.starts_with("closed"))];
        notes.extend(world.stats_when(1, &[RESETS]).await?);
        Ok(notes)
    })
    .await
}

/// A head that takes its time, and one that is too large, in HTTP/1.
#[tokio::test]
async fn slow_and_large_heads_are_refused() -> anyhow::Result<()> {
    const MANAGER: &str = "request_headers_timeout: 0.4s
max_request_headers_kb: 8
common_http_protocol_options: {max_headers_count: 20}";
    const STATS: [&str; 1] = ["http.http.downstream_rq_header_timeout"];
    same(Setup { manager: MANAGER, ..SILENT }, async |world: &World| {
        let mut notes = Vec::new();
        let mut client = world.connect().await?;
        say(&mut client, "GET / HTTP/1.1\r\nhost: x\r\nx-a: ").await?;
        notes.push(brief(&hear_all(&mut client).await?));
        notes.extend(world.stats(&STATS).await?);
        let long = "y".repeat(9000);
        let many: String = (0..30).map(|i| format!("x-{i}: y\r\n")).collect();
        for more in [format!("x-a: {long}\r\n"), many] {
            let mut client = world.connect().await?;
            say(&mut client, &format!("GET / HTTP/1.1\r\nhost: x\r\n{more}\r\n")).await?;
            notes.push(brief(&hear(&mut client, "\r\n\r\n").await?));
        }
        Ok(notes)
    })
    .await
}

fn brief(text: &str) -> String {
    let text = head(text.split_once("\r\n\r\n").map_or(text, |(head, _)| head));
    text.replace(" content-type=text/plain", "")
}
