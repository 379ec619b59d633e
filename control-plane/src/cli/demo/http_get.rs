//! The smallest HTTP client that the demo gets along with: one request on a connection of its own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(5);
/// The statistics of a sidecar are far below that.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// Status code and body of an answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// GETs `path` from `address`, within five seconds.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Reply> {
    ask(address, http::Method::GET, path).await
}

/// POSTs nothing to `path` of `address`, within five seconds.
pub(crate) async fn post(address: SocketAddr, path: &str) -> anyhow::Result<Reply> {
    ask(address, http::Method::POST, path).await
}

async fn ask(address: SocketAddr, method: http::Method, path: &str) -> anyhow::Result<Reply> {
    let what = format!("{method} {path}");
    timeout(LIMIT, exchange(address, method, path))
        .await
        .with_context(|| format!("{address} did not answer {what} within {LIMIT:?}"))?
        .with_context(|| format!("{what} from {address}"))
}

async fn exchange(address: SocketAddr, method: http::Method, path: &str) -> anyhow::Result<Reply> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let reply = async {
        let reply = sender.send_request(request).await?;
        let status = reply.status().as_u16();
        let body = Limited::new(reply.into_body(), MAX_BODY_BYTES)
            .collect()
            .await
            .map_err(anyhow::Error::from_boxed)?
            .to_bytes();
        anyhow::Ok(Reply { status, body })
    };
    let (reply, _) = tokio::join!(reply, connection);
    reply
}
