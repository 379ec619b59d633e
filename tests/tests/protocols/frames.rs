//! HTTP/2 frame by frame, for what no client library sends.

use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::world::World;

/// Types of frames.
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// A frame.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) payload: Vec<u8>,
}

/// A client's connection.
pub(super) struct Raw {
    pub(super) stream: TcpStream,
}

impl Raw {
    /// With the preface and empty SETTINGS sent.
    pub(super) async fn connect(world: &World) -> anyhow::Result<Self> {
        let mut stream = world.connect().await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        let mut raw = Self { stream };
        raw.send(SETTINGS, 0, 0, &[]).await?;
        Ok(raw)
    }

    pub(super) async fn send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> anyhow::Result<()> {
        self.stream.write_all(&frame(kind, flags, stream, payload)).await.context("write")
    }

    /// The next frame; None at the end.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind: head[3], payload })
    }

    /// Reads to the end of the connection, or until nothing comes for a while: how it was ended.
    pub(super) async fn end(&mut self, patience: Duration) -> String {
        let mut said = None;
        loop {
            match timeout(patience, self.next()).await {
                Err(_) => return format!("open, {said:?}"),
                Ok(None) => return format!("closed, {said:?}"),
                Ok(Some(frame)) if frame.kind == GOAWAY => {
                    let code = frame.payload.get(4..8).unwrap_or_default();
                    said = Some(code.last().copied().unwrap_or(0xff));
                }
                Ok(Some(_)) => {}
            }
        }
    }
}

/// Its bytes.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block without compression (RFC 7541 section 6.2.2).
pub(super) fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers {
        bytes.push(0);
        for text in [name, value] {
            integer(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// A header block of a GET.
pub(super) fn get(path: &str) -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path)])
}

/// With a prefix of seven bits.
fn integer(bytes: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        return bytes.push(u8::try_from(value).unwrap_or(0));
    }
    bytes.push(127);
    value -= 127;
    while value >= 128 {
        bytes.push(u8::try_from(value % 128).unwrap_or(0) | 128);
        value /= 128;
    }
    bytes.push(u8::try_from(value).unwrap_or(0));
}
