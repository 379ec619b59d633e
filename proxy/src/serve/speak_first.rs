//! Servers that speak first, behind a listener that waits for the client's first bytes.
//!
//! While a redirected client keeps silent, the server that it wanted is dialled. If that one speaks
//! before the client does, the protocol is one of those where it should, and nobody waits any longer.

use std::future::{Future, pending};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::connection::Ends;
use super::listener::{Chain, Terminal};
use super::tcp::{self, Upstream};
use crate::net::Io;
use crate::net::sniff::Sniffed;

/// A client that speaks first does so at once; only the silent cost their server a connection.
const GRACE: Duration = Duration::from_millis(20);

/// A connection that was made before it was known to be needed, and the chain that it is for.
pub(super) type Ahead = (Arc<Chain>, Upstream);

/// Wait for the client's first bytes, and meanwhile for its server's. None: the server was first.
pub(super) async fn race(
    look: impl Future<Output = io::Result<Sniffed>>,
    chain: &Arc<Chain>,
    ends: &Ends,
) -> io::Result<(Option<Sniffed>, Option<Ahead>)> {
    let mut look = pin!(look);
    let mut ahead = None;
    tokio::select! {
        biased;
        sniffed = &mut look => return Ok((Some(sniffed?), None)),
        () = tokio::time::sleep(GRACE) => {}
    }
    tokio::select! {
        biased;
        sniffed = &mut look => return Ok((Some(sniffed?), None)),
        upstream = dial(chain, ends) => ahead.insert(upstream),
    };
    tokio::select! {
        biased;
        sniffed = &mut look => {
            let sniffed = sniffed?;
            Ok((Some(sniffed), ahead.map(|upstream| (Arc::clone(chain), upstream))))
        }
        () = heard(ahead.as_ref()) => {
            Ok((None, ahead.take().map(|upstream| (Arc::clone(chain), upstream))))
        }
    }
}

/// Never ends if there is no connection: then the client decides.
async fn dial(chain: &Chain, ends: &Ends) -> Upstream {
    if let Terminal::Tcp(proxy) = &chain.terminal
        && let Ok(upstream) = tcp::dial(proxy, ends).await
    {
        return upstream;
    }
    pending().await
}

/// Ends when the server has sent something, or has gone.
async fn heard(upstream: Option<&Upstream>) {
    let plain = match upstream.map(Upstream::io) {
        Some(io) if !io.is_tls() => io,
        // What a TLS server sends first is its own affair.
        _ => return pending().await,
    };
    match plain {
        Io::Tcp(stream) => drop(stream.readable().await),
        Io::Unix(stream) => drop(stream.readable().await),
        Io::TlsServer(_) | Io::TlsClient(_) => pending().await,
    }
}
