//! HTTP/1.1 in bytes: said, heard, and written down so that two sides can be compared.

use anyhow::Context;
use pillion_tests::wait::LIMIT;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Sends.
pub(super) async fn say<S: AsyncWrite + Unpin>(stream: &mut S, text: &str) -> anyhow::Result<()> {
    stream.write_all(text.as_bytes()).await.context("write")?;
    Ok(stream.flush().await?)
}

/// Reads until `end` was read, or the stream ends, or nothing comes for a long time.
pub(super) async fn hear<S: AsyncRead + Unpin>(
    stream: &mut S,
    end: &str,
) -> anyhow::Result<String> {
    let mut heard = Vec::new();
    let read = async {
        let mut byte = [0; 1];
        while !heard.ends_with(end.as_bytes()) {
            match stream.read(&mut byte).await {
                Ok(1) => heard.push(byte[0]),
                Ok(_) => break,
                Err(_) => {
                    heard.extend_from_slice(b"(reset)");
                    break;
                }
            }
        }
    };
    timeout(LIMIT, read).await.with_context(|| format!("waiting for {end:?}"))?;
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

/// Reads to the end of the stream.
pub(super) async fn hear_all<S: AsyncRead + Unpin>(stream: &mut S) -> anyhow::Result<String> {
    let mut heard = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let read = async {
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return,
                Ok(count) => heard.extend_from_slice(&buffer[..count]),
                Err(_) => return heard.extend_from_slice(b"(reset)"),
            }
        }
    };
    timeout(LIMIT, read).await.context("waiting for the end")?;
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

/// A head in one line: what differs by nature is left out, the rest is sorted, in lower case.
pub(super) fn head(text: &str) -> String {
    const NATURE: [&str; 7] = [
        "date",
        "x-request-id",
        "x-envoy-upstream-service-time",
        "x-forwarded-proto",
        "x-envoy-expected-rq-timeout-ms",
        "sec-websocket-key",
        "content-length",
    ];
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let mut headers: Vec<String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .filter(|(name, _)| !NATURE.contains(&name.as_str()))
        .map(|(name, value)| match name.as_str() {
            "server" => name,
            _ => format!("{name}={value}"),
        })
        .collect();
    headers.sort();
    format!("{first} | {}", headers.join(" "))
}

/// An answer, or several, with bodies; heads as [`head`] has them, bodies as they are.
pub(super) fn plain(text: &str) -> String {
    match text.split_once("\r\n\r\n") {
        Some((first, rest)) => format!("{} || {rest}", head(first)),
        None => text.to_owned(),
    }
}
