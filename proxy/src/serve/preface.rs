//! The first bytes of an HTTP connection whose TLS agreed on no protocol.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::model::http::HttpManager;
use crate::net::Io;
use crate::net::drain::Watch;

/// So much of the client's preface (RFC 9113 section 3.4) decides, as in Envoy.
const PREFACE: &[u8] = b"PRI * HTTP/2";

/// Whether HTTP/2 comes. What was read is in `early`. None: nothing comes, because the client closed, the idle timeout
/// is over, or the listener goes.
pub(super) async fn comes(
    manager: &HttpManager,
    (io, early): (&mut Io, &mut Vec<u8>),
    drain: &Watch,
) -> Option<bool> {
    let idle = manager.timeouts.idle.filter(|idle| !idle.is_zero());
    tokio::select! {
        biased;
        looked = look(io, early) => looked.ok()?,
        () = drain.closing() => None,
        () = over(idle) => None,
    }
}

async fn over(idle: Option<Duration>) {
    match idle {
        Some(idle) => tokio::time::sleep(idle).await,
        None => std::future::pending().await,
    }
}

/// Reads until the bytes can be no preface, or are one. `None`: the client closed before it said anything.
async fn look(io: &mut (impl AsyncRead + Unpin), early: &mut Vec<u8>) -> io::Result<Option<bool>> {
    while PREFACE.starts_with(early) && early.len() < PREFACE.len() {
        let mut wanted = io.take((PREFACE.len() - early.len()) as u64);
        if wanted.read_buf(early).await? == 0 {
            // Of half a request the parser knows what to say.
            return Ok((!early.is_empty()).then_some(false));
        }
    }
    Ok(Some(early.starts_with(PREFACE)))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// What is found of a client that writes these pieces and closes, and what is left to read.
    async fn found(pieces: &[&str]) -> (Option<bool>, String) {
        let (mut client, mut server) = tokio::io::duplex(4);
        let write = async {
            for piece in pieces {
                client.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        let read = async {
            let mut all = Vec::new();
            let found = look(&mut server, &mut all).await.unwrap();
            server.read_to_end(&mut all).await.unwrap();
            (found, String::from_utf8(all).unwrap())
        };
        tokio::join!(write, read).1
    }

    #[tokio::test]
    async fn a_preface_is_known_in_pieces_and_no_byte_is_lost() {
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        assert_eq!(found(&[preface, "frames"]).await, (Some(true), format!("{preface}frames")));
        assert_eq!(found(&["P", "RI * HT", "TP/2.0"]).await.0, Some(true));
        for request in ["GET / HTTP/1.1\r\n\r\n", "PRINT / HTTP/1.1\r\n\r\n", "PRI"] {
            assert_eq!(found(&[request]).await, (Some(false), request.to_owned()));
        }
        assert_eq!(found(&[]).await, (None, String::new()));
    }
}
