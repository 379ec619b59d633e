//! HTTP/1.1 clients that do no more than they must.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Meter;

/// One request after the other on one connection.
pub async fn kept(to: SocketAddr, path: &'static str, meter: Arc<Meter>) {
    while meter.goes_on() {
        if session(to, path, &meter).await.is_err() && meter.goes_on() {
            meter.bad();
        }
    }
}

async fn session(to: SocketAddr, path: &str, meter: &Meter) -> anyhow::Result<()> {
    let mut connection = Connection::open(to).await?;
    let request = request(path, "");
    while meter.goes_on() {
        connection.ask(&request).await?;
        meter.good();
    }
    Ok(())
}

/// This many requests on one connection.
///
/// # Errors
/// When one fails.
pub async fn one_after_the_other(to: SocketAddr, path: &str, count: usize) -> anyhow::Result<()> {
    let mut connection = Connection::open(to).await?;
    let request = request(path, "");
    for _ in 0..count {
        connection.ask(&request).await?;
    }
    Ok(())
}

/// A connection for each request; the proxy closes it.
pub async fn anew(to: SocketAddr, path: &'static str, meter: Arc<Meter>) {
    let request = request(path, "connection: close\r\n");
    while meter.goes_on() {
        let once = async {
            let mut connection = Connection::open(to).await?;
            connection.ask(&request).await?;
            connection.ended().await
        };
        match once.await {
            Ok(()) => meter.good(),
            Err(_) => meter.bad(),
        }
    }
}

/// This many connections that had one request each, and nothing since.
///
/// # Errors
/// When one is refused.
pub async fn idle(to: SocketAddr, path: &str, count: usize) -> anyhow::Result<Vec<impl Sized>> {
    let request = request(path, "");
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = Connection::open(to).await?;
        connection.ask(&request).await?;
        connection.buffer = Vec::new();
        open.push(connection);
    }
    Ok(open)
}

fn request(path: &str, more: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench.test\r\nuser-agent: pillion-benches\r\naccept: */*\r\n{more}\r\n")
        .into_bytes()
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(to: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 64 * 1024] })
    }

    /// One request and its whole answer, which must be 200.
    async fn ask(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let mut left = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "closed");
            filled += read;
            if let Some((head, length)) = head(&self.buffer[..filled])? {
                break (head + length).checked_sub(filled).context("more than one answer")?;
            }
            ensure!(filled < self.buffer.len(), "a head without an end");
        };
        while left > 0 {
            let most = left.min(self.buffer.len());
            let read = self.stream.read(&mut self.buffer[..most]).await?;
            ensure!(read > 0, "closed within the content");
            left -= read;
        }
        Ok(())
    }

    async fn ended(mut self) -> anyhow::Result<()> {
        ensure!(self.stream.read(&mut self.buffer).await? == 0, "more than one answer");
        Ok(())
    }
}

/// Lengths of head and content, once the head is whole.
fn head(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = response.parse(bytes)? else { return Ok(None) };
    ensure!(response.code == Some(200), "status {:?}", response.code);
    let length = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let Some(length) = length else { bail!("no content-length") };
    Ok(Some((end, std::str::from_utf8(length.value)?.trim().parse()?)))
}
