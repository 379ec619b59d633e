//! HTTP/2 clients.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::ensure;
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Meter;

/// This many streams at a time on one connection, with prior knowledge.
pub async fn multiplexed(to: SocketAddr, path: &'static str, streams: usize, meter: Arc<Meter>) {
    while meter.goes_on() {
        if session(to, path, streams, &meter).await.is_err() && meter.goes_on() {
            meter.bad();
        }
    }
}

async fn session(
    to: SocketAddr,
    path: &'static str,
    streams: usize,
    meter: &Arc<Meter>,
) -> anyhow::Result<()> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { Ok(connection.await?) });
    for _ in 0..streams {
        tasks.spawn(one_by_one(sender.clone(), path, Arc::clone(meter)));
    }
    drop(sender);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn one_by_one(
    sender: SendRequest<Bytes>,
    path: &str,
    meter: Arc<Meter>,
) -> anyhow::Result<()> {
    let mut sender = sender;
    while meter.goes_on() {
        sender = sender.ready().await?;
        let uri = format!("http://bench.test{path}");
        let request = Request::get(uri).header("user-agent", "pillion-benches").body(())?;
        let (response, _) = sender.send_request(request, true)?;
        let response = response.await?;
        ensure!(response.status() == 200, "status {}", response.status());
        let mut content = response.into_body();
        while let Some(piece) = content.data().await {
            let length = piece?.len();
            content.flow_control().release_capacity(length)?;
        }
        meter.good();
    }
    Ok(())
}
