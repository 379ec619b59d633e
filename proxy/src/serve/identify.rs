//! Step two, identify: who is at the other end, and which filter chain is theirs.

use std::net::SocketAddr;
use std::sync::Arc;

use super::connection::{self, Ends, socket};
use super::listener::{Chain, Listener, Terminal};
use super::speak_first::{self, Ahead};
use super::tcp;
use crate::model::Name;
use crate::model::listener::Address;
use crate::net::chain_match::{ConnectionFacts, select};
use crate::net::drain::Watch;
use crate::net::peek::peek;
use crate::net::sniff::Sniffed;
use crate::net::{Io, Source};
use crate::tls::{self, PeerIdentity};

/// A connection that was accepted.
pub(super) struct Arrival {
    pub(super) io: Io,
    /// Address of the peer.
    pub(super) remote: Address,
    /// Where it was going before it was redirected.
    pub(super) original_dst: Option<SocketAddr>,
}

/// Serve one accepted socket until it closes.
pub(super) async fn serve(listener: Arc<Listener>, arrival: Arrival, drain: Watch) {
    listener.stats.downstream_cx_total.inc();
    let _active = listener.stats.downstream_cx_active.guard();
    let _guard = drain.guard();
    if let Some((chain, ends, io, ahead)) = identify(&listener, arrival).await {
        match &chain.terminal {
            Terminal::Http(http) => {
                connection::serve_http(Arc::clone(http), ends, io, drain).await;
            }
            Terminal::Tcp(proxy) => tcp::serve(proxy, &ends, (io, ahead), drain).await,
        }
    }
    listener.stats.downstream_cx_destroy.inc();
}

type Identified = (Arc<Chain>, Ends, Io, Option<tcp::Upstream>);

/// Look at a new connection, choose its filter chain, and finish its TLS handshake. None: it is
/// closed; why is counted and logged.
async fn identify(listener: &Listener, arrival: Arrival) -> Option<Identified> {
    let (mut ends, io) = meet(listener, arrival)?;
    let (sniffed, ahead) = inspect(listener, &io, &ends).await?;
    let chain = choose(listener, &sniffed, &ends)?;
    let ahead = ahead.filter(|(of, _)| Arc::ptr_eq(of, &chain)).map(|(_, upstream)| upstream);
    ends.sni = sniffed.sni;
    ends.chain = Arc::clone(&chain.config.name);
    let Some(config) = &chain.tls else { return Some((chain, ends, io, ahead)) };
    let io = handshake(listener, &chain, io, Arc::clone(&config.load())).await?;
    ends.tls_version = io.tls_version();
    ends.tls = io.tls_facts();
    ends.sni = io.sni().map(str::to_owned).or(ends.sni);
    if !io.peer_certificates().is_empty() {
        ends.peer = Some(PeerIdentity::from_der(io.peer_certificates()));
    }
    Some((chain, ends, io, ahead))
}

/// What is known before the first byte.
fn meet(listener: &Listener, arrival: Arrival) -> Option<(Ends, Io)> {
    let Arrival { io, remote, original_dst } = arrival;
    let mut ends = Ends {
        direct: remote.clone(),
        remote,
        local: io.local_address().ok()?,
        original_dst,
        sni: None,
        tls_version: None,
        tls: None,
        peer: None,
        chain: Name::default(),
        listener: Arc::clone(&listener.config.name),
        source: None,
    };
    if let Some(mark) = listener.config.original_src {
        let client = socket(&ends.remote);
        ends.source = client.map(|client| Source { address: client.ip(), mark });
    }
    Some((ends, io))
}

/// What the first bytes show; and the connection of a chain that was dialled meanwhile, with what
/// its server had to say first.
async fn inspect(listener: &Listener, io: &Io, ends: &Ends) -> Option<(Sniffed, Option<Ahead>)> {
    let config = &listener.config;
    if !(config.inspect.tls || config.inspect.http) {
        return Some((Sniffed::default(), None));
    }
    let look = peek(io, config.inspect, config.inspect_timeout);
    let (sniffed, ahead) = match listener.blind_chain() {
        Some(chain) if ends.original_dst.is_some() => {
            speak_first::race(look, chain, ends).await.ok()?
        }
        _ => (Some(look.await.ok()?), None),
    };
    // The server spoke: no byte of the client's is needed to know that this is no HTTP.
    let Some(sniffed) = sniffed else { return Some((Sniffed::default(), ahead)) };
    if sniffed.need_more {
        listener.stats.downstream_pre_cx_timeout.inc();
        if !config.continue_on_inspect_timeout {
            return None;
        }
    }
    Some((sniffed, ahead))
}

fn choose(listener: &Listener, sniffed: &Sniffed, ends: &Ends) -> Option<Arc<Chain>> {
    let protocols = sniffed.application_protocols();
    let facts = ConnectionFacts {
        destination: ends.destination(),
        source: socket(&ends.remote),
        direct_source: socket(&ends.direct),
        sni: sniffed.sni.as_deref(),
        transport: sniffed.transport(),
        application_protocols: &protocols,
    };
    let chosen = select(&listener.config, &facts).and_then(|chain| listener.chain(&chain));
    if chosen.is_none() {
        listener.stats.no_filter_chain_match.inc();
        let (name, remote) = (&listener.config.name, &ends.remote);
        tracing::debug!(listener = %name, %remote, "no filter chain matches");
    }
    chosen
}

async fn handshake(
    listener: &Listener,
    chain: &Chain,
    io: Io,
    config: Arc<rustls::ServerConfig>,
) -> Option<Io> {
    let limit = chain.config.transport_connect_timeout;
    let accepting = io.accept_tls(config);
    let accepted = if limit.is_zero() {
        accepting.await
    } else {
        match tokio::time::timeout(limit, accepting).await {
            Ok(accepted) => accepted,
            Err(_) => Err(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "the TLS handshake took longer than transport_socket_connect_timeout",
            )),
        }
    };
    match accepted {
        Ok(io) => {
            listener.stats.ssl_handshake.inc();
            Some(io)
        }
        Err(error) => {
            listener.stats.handshake_failed(tls::failure_io(&error).stat());
            tracing::info!(
                listener = %listener.config.name,
                why = tls::explain_io(&error),
                "TLS handshake with a downstream failed"
            );
            None
        }
    }
}
