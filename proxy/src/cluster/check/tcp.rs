//! A check by connecting, and maybe by an exchange of bytes.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::state::{Failure, Finding, contains};
use super::{Kept, Probe};
use crate::model::health_check::TcpCheck;
use crate::net::Io;

/// So much is read before what is expected has come.
const MOST: usize = 64 << 10;

/// One check. A connection that the endpoint closed since the last one is replaced.
pub(super) async fn check(
    probe: &Probe,
    config: &TcpCheck,
    kept: Option<Kept>,
) -> (Finding, Option<Kept>) {
    if let Some(Kept::Tcp(io)) = kept {
        let (finding, kept) = exchange(io, config).await;
        if finding == Finding::Healthy {
            return (finding, kept);
        }
    }
    let Ok(io) = probe.connect(&[]).await else {
        return (Finding::Failed(Failure::Network), None);
    };
    if config.receive.is_empty() {
        return (Finding::Healthy, None);
    }
    exchange(io, config).await
}

async fn exchange(mut io: Io, config: &TcpCheck) -> (Finding, Option<Kept>) {
    let failed = (Finding::Failed(Failure::Network), None);
    if io.write_all(&config.send).await.is_err() || io.flush().await.is_err() {
        return failed;
    }
    let mut seen = Vec::new();
    while !contains(&config.receive, &seen) {
        let room = MOST.saturating_sub(seen.len()).min(4096);
        let mut buffer = vec![0; room];
        match io.read(&mut buffer).await {
            Ok(count) if count > 0 => seen.extend_from_slice(buffer.get(..count).unwrap_or(&[])),
            // The end, an error, or too much of something else.
            _ => return failed,
        }
    }
    (Finding::Healthy, Some(Kept::Tcp(io)))
}
