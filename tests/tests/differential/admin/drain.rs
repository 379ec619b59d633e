//! `/drain_listeners`, as Envoy does it: what goes on listening, what connections are told, and what
//! the proxy says of itself meanwhile.

use std::net::SocketAddr;

use http::Method;
use pillion_tests::proxy::{Kind, envoy};
use pillion_tests::venv::optional;
use pillion_tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ask, start};

/// What becomes of the way in, of the other listeners, and of a connection that is open.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    answer: (u16, String),
    /// Right after the answer.
    inbound_listens: bool,
    others_listen: bool,
    /// An answer on a connection from before says that it is the last one, sooner or later.
    told_to_end: bool,
    /// When that has happened.
    inbound_listens_then: bool,
    ready: u16,
}

async fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

/// Asks on a connection until an answer says that it ends, or it has ended.
async fn told_to_end(mut kept: TcpStream) -> bool {
    for _ in 0..200 {
        let asked = kept.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut answer = vec![0; 4096];
        let read = if asked.is_ok() { kept.read(&mut answer).await.unwrap_or(0) } else { 0 };
        let text = String::from_utf8_lossy(&answer[..read]).to_ascii_lowercase();
        if read == 0 || text.contains("connection: close") {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    false
}

async fn outcome(kind: Kind, query: &str) -> anyhow::Result<Outcome> {
    let running = start(kind).await?;
    let (inbound, other) = (running.ports[0], running.ports[2]);
    let mut kept = TcpStream::connect(inbound).await?;
    kept.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await?;
    let mut answer = vec![0; 4096];
    anyhow::ensure!(kept.read(&mut answer).await? > 0, "no answer");
    let path = format!("/drain_listeners{query}");
    let answer = ask(&running, Method::POST, &path).await?;
    if !query.contains("graceful") && !query.contains("skip_exit") {
        let closed = || async { (!listens(inbound).await).then_some(()) };
        wait::until("the way in is closed", closed).await?;
    }
    let (inbound_listens, others_listen) = (listens(inbound).await, listens(other).await);
    let told_to_end = told_to_end(kept).await;
    if query == "?graceful" {
        let closed = || async { (!listens(inbound).await).then_some(()) };
        wait::until("the drain time is over", closed).await?;
    }
    Ok(Outcome {
        answer: (answer.status, answer.text()),
        inbound_listens,
        others_listen,
        told_to_end,
        inbound_listens_then: listens(inbound).await,
        ready: ask(&running, Method::GET, "/ready").await?.status,
    })
}

#[tokio::test]
async fn listeners_drain_as_envoys() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    for query in ["", "?inboundonly", "?graceful", "?graceful&skip_exit", "?graceful&inboundonly"] {
        let (theirs, ours) =
            tokio::try_join!(outcome(Kind::Envoy, query), outcome(Kind::Pillion, query))?;
        assert_eq!(theirs, ours, "/drain_listeners{query}: Envoy's, and ours");
        assert!(theirs.told_to_end, "{query}: {theirs:?}");
    }
    Ok(())
}
