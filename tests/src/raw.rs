//! HTTP/1.1 byte by byte, for what no client library sends.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::Answer;
use crate::wait::LIMIT;

/// Sends exactly these bytes, and reads until the other side closes: the request should ask for
/// that.
///
/// # Errors
/// When there is no connection, or nothing came back.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(bytes).await?;
        let mut answer = Vec::new();
        // A reset after the answer is no less an end.
        let _ = stream.read_to_end(&mut answer).await;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(LIMIT, talk).await.context("no end in time")??;
    ensure!(!answer.is_empty(), "the connection was closed without an answer");
    Ok(answer)
}

/// Sends these bytes to a server of bytes, reads until what came ends with `until` or the other side closes, says that
/// there is no more, and reads to the end. What came may be nothing. Without `until` it says so at once.
///
/// # Errors
/// When there is no connection, or no end.
pub async fn talk(
    address: SocketAddr,
    bytes: &[u8],
    until: Option<&[u8]>,
) -> anyhow::Result<Vec<u8>> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        // The other side may have closed already.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        while until.is_some_and(|until| !answer.ends_with(until)) {
            match stream.read_buf(&mut answer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut answer).await;
        Ok::<_, std::io::Error>(answer)
    };
    Ok(timeout(LIMIT, talk).await.context("no end in time")??)
}

/// A connection to a server that speaks first, once it spoke.
///
/// # Errors
/// When there is no connection, or nothing came.
pub async fn hold(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let hold = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.read_exact(&mut [0]).await?;
        Ok::<_, std::io::Error>(stream)
    };
    Ok(timeout(LIMIT, hold).await.context("the server does not speak")??)
}

/// Reads what [`exchange`] got as one answer. Interim answers (1xx) before it are skipped. Header
/// names keep their case.
///
/// # Errors
/// When it is not HTTP/1.1.
pub fn parse(mut bytes: &[u8], head_only: bool) -> anyhow::Result<Answer> {
    loop {
        let end = find(bytes, b"\r\n\r\n").context("no end of the head")?;
        let mut answer = head(std::str::from_utf8(&bytes[..end])?)?;
        bytes = &bytes[end + 4..];
        if (100..200).contains(&answer.status) {
            continue;
        }
        if !head_only {
            body(&mut answer, bytes)?;
        }
        return Ok(answer);
    }
}

fn head(text: &str) -> anyhow::Result<Answer> {
    let mut lines = text.split("\r\n");
    let mut words = lines.next().context("no status line")?.split(' ');
    ensure!(words.next().is_some_and(|word| word.starts_with("HTTP/1.")), "not HTTP/1: {text}");
    let status = words.next().context("no status")?.parse()?;
    let header = |line: &str| -> anyhow::Result<(String, String)> {
        let (name, value) = line.split_once(':').with_context(|| format!("no header: {line}"))?;
        Ok((name.to_owned(), value.trim().to_owned()))
    };
    let headers = lines.map(header).collect::<anyhow::Result<_>>()?;
    Ok(Answer { status, headers, ..Answer::default() })
}

fn body(answer: &mut Answer, bytes: &[u8]) -> anyhow::Result<()> {
    let header = |wanted: &str| {
        let found = answer.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    };
    if header("transfer-encoding") == Some("chunked") {
        let (body, cut) = chunks(bytes)?;
        (answer.body, answer.cut) = (body, cut);
    } else if let Some(length) = header("content-length") {
        let length: usize = length.parse()?;
        answer.cut = bytes.len() < length;
        answer.body = bytes[..length.min(bytes.len())].to_vec();
    } else {
        answer.body = bytes.to_vec();
    }
    Ok(())
}

/// The content of chunks, and whether their end is missing. Trailers are skipped.
fn chunks(mut bytes: &[u8]) -> anyhow::Result<(Vec<u8>, bool)> {
    let mut body = Vec::new();
    loop {
        let Some(end) = find(bytes, b"\r\n") else { return Ok((body, true)) };
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end])?, 16)?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Ok((body, false));
        }
        if bytes.len() < size + 2 {
            body.extend_from_slice(bytes);
            return Ok((body, true));
        }
        body.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
