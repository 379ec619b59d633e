//! Which of two servers requests go to.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server on all loopback addresses that answers with this letter.
pub(super) async fn server(letter: u8) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move { drop(serve(stream, letter).await) });
        }
    });
    Ok(port)
}

async fn serve(mut stream: TcpStream, letter: u8) -> std::io::Result<()> {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n".to_vec();
    answer.push(letter);
    let mut head = Vec::new();
    while stream.read_buf(&mut head).await? > 0 {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            stream.write_all(&answer).await?;
        }
    }
    Ok(())
}

/// Ten places: all are the first server, but the last, which is `last`.
pub(super) fn places(first: u16, last: u16) -> Vec<SocketAddr> {
    let at = |number: u8, port| SocketAddr::from((Ipv4Addr::new(127, 0, 0, number), port));
    let mut all: Vec<SocketAddr> = (1..super::ENDPOINTS as u8).map(|n| at(n, first)).collect();
    all.push(at(super::ENDPOINTS as u8, last));
    all
}

/// Asks until this letter comes; how long that took.
pub(super) async fn until(proxy: SocketAddr, host: &str, letter: u8) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    while !ask(proxy, host).await.is_ok_and(|answer| answer == Some(letter)) {
        ensure!(begun.elapsed() < Duration::from_secs(120), "{host} is not answered as expected");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(begun.elapsed())
}

/// The letter that is answered. None: another answer.
async fn ask(proxy: SocketAddr, host: &str) -> anyhow::Result<Option<u8>> {
    let mut stream = TcpStream::connect(proxy).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200").then(|| answer.last().copied()).flatten())
}
