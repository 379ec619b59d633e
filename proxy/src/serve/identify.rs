//! Step two, identify: who is at the other end, and which filter chain is theirs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::connection::{self, Ends, socket};
use super::listener::{Chain, Listener, Terminal};
use super::network_filter::{self, Denied};
use super::overload::Counted;
use super::speak_first::{self, Ahead};
use super::tcp::{self, Begun, Told};
use crate::model::Name;
use crate::model::listener::{Address, FilterChain, Transport};
use crate::model::overload::Timer;
use crate::model::proxy_protocol::Version;
use crate::model::rbac::Matcher;
use crate::net::chain_match::{ConnectionFacts, select};
use crate::net::drain::Watch;
use crate::net::peek::{peek, take_proxy_header};
use crate::net::proxy_protocol::{Found, Read};
use crate::net::sniff::Sniffed;
use crate::net::{Io, Source, unmapped};
use crate::policy::rbac::{self, Subject};
use crate::tls::{self, PeerIdentity};

/// A connection that was accepted.
pub(super) struct Arrival {
    pub(super) io: Io,
    /// Address of the peer.
    pub(super) remote: Address,
    /// Where it was going before it was redirected.
    pub(super) original_dst: Option<SocketAddr>,
    /// It counts towards the limit of all connections.
    pub(super) counted: Option<Arc<Counted>>,
}

/// A connection that knows where it belongs.
struct Identified {
    chain: Arc<Chain>,
    io: Io,
    /// In a box: few connections have one, and each is kept in several places.
    ahead: Option<Box<tcp::Upstream>>,
}

/// Serve one accepted socket until it closes.
pub(super) async fn serve(listener: Arc<Listener>, arrival: Arrival, drain: Watch) {
    let begun = Begun::now();
    let guard = drain.guard();
    let Some((mut ends, io)) = meet(&listener, arrival) else { return };
    let before = listener.stats.downstream_pre_cx_active.guard();
    let chosen = Box::pin(prepare(&listener, &mut ends, io)).await;
    drop(before);
    let told = match chosen {
        Ok((chain, io, ahead)) => {
            let stats = &listener.stats;
            let _open = stats.open(crate::cluster::worker());
            // From here on it ends with its chain, which may live longer than this version of the listener.
            let watch = chain.drain.watch();
            let _guard = watch.guard();
            drop(guard);
            // In a box, as all that most connections do not need for long, or ever: each has but one task.
            match Box::pin(secure(&listener, &chain, (&mut ends, io))).await {
                Some(io) => run(Identified { chain, io, ahead }, &ends, watch).await,
                None => Told::default(),
            }
        }
        Err(told) => told,
    };
    if listener.logger.is_enabled() {
        listener.logger.log(&tcp::record_of(&ends, &told, &begun));
    }
}

/// Hand a connection to its chain.
async fn run(found: Identified, ends: &Ends, drain: Watch) -> Told {
    let Identified { chain, io, ahead } = found;
    let _places = match network_filter::pass(&chain.gates, ends, Instant::now()) {
        Ok(places) => places,
        Err(denied) => return Box::pin(turn_away(&chain, ends, (denied, &drain))).await,
    };
    match &chain.terminal {
        Terminal::Http(http) => {
            let ends = Box::new(ends.clone());
            connection::serve_http(Arc::clone(http), ends, io, drain).await;
            Told::default()
        }
        Terminal::Tcp(proxy) => Box::pin(tcp::serve(proxy, ends, (io, ahead), drain)).await,
    }
}

async fn turn_away(chain: &Chain, ends: &Ends, (denied, drain): (Denied, &Watch)) -> Told {
    tracing::debug!(remote = %ends.remote, chain = %ends.chain, why = denied.why, "connection denied");
    if !denied.after.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(denied.after) => {}
            () = drain.closing() => {}
        }
    }
    let told = Told::denied(denied.why);
    if let Terminal::Tcp(proxy) = &chain.terminal {
        tcp::denied(proxy, ends, &told);
    }
    told
}

/// What is known before the first byte.
fn meet(listener: &Listener, arrival: Arrival) -> Option<(Ends, Io)> {
    let Arrival { io, remote, original_dst, counted } = arrival;
    let ends = Ends {
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
        _counted: counted,
    };
    Some((ends, io))
}

/// What listener filters do, and then the filter chain.
async fn prepare(
    listener: &Listener,
    ends: &mut Ends,
    mut io: Io,
) -> Result<(Arc<Chain>, Io, Option<Box<tcp::Upstream>>), Told> {
    unwrap_header(listener, ends, &mut io).await.ok_or_else(Told::default)?;
    if let Some(mark) = listener.config.original_src {
        let client = socket(&ends.remote);
        ends.source = client.map(|client| Source { address: client.ip(), mark });
    }
    let (sniffed, ahead) = inspect(listener, &io, ends).await.ok_or_else(Told::default)?;
    let Some(chain) = choose(listener, &sniffed, ends) else {
        return Err(Told::without_chain());
    };
    ends.sni = sniffed.sni;
    ends.chain = Arc::clone(&chain.config.name);
    let ahead = ahead.filter(|(of, _)| Arc::ptr_eq(of, &chain));
    Ok((chain, io, ahead.map(|(_, upstream)| Box::new(upstream))))
}

/// The PROXY header, where the listener takes one. None: the connection is closed.
async fn unwrap_header(listener: &Listener, ends: &mut Ends, io: &mut Io) -> Option<()> {
    let (Some(accept), Some(stats)) = (&listener.config.proxy_protocol, &listener.proxy_protocol)
    else {
        return Some(());
    };
    let refuse = |why: &str| {
        let name = &listener.config.name;
        tracing::debug!(listener = %name, remote = %ends.direct, why, "PROXY header");
    };
    match take_proxy_header(io, listener.config.inspect_timeout).await {
        Ok(Found::Whole(Read { version, ends: said, .. })) => {
            let taken = match version {
                Version::V1 => accept.v1,
                Version::V2 => accept.v2,
            };
            stats.found(version);
            if !taken {
                stats.disallowed(version);
                refuse("its version is not taken here");
                return None;
            }
            if let Some((client, destination)) = said {
                ends.remote = Address::Socket(unmapped(client));
                ends.local = Address::Socket(unmapped(destination));
                ends.original_dst = None;
            }
            Some(())
        }
        Ok(Found::Bad(version, why)) => {
            stats.bad(version);
            stats.error.inc();
            refuse(why);
            None
        }
        Ok(Found::No) if accept.optional => {
            stats.not_found_allowed.inc();
            Some(())
        }
        Ok(Found::No) => {
            stats.not_found_disallowed.inc();
            stats.error.inc();
            refuse("there is none");
            None
        }
        Ok(Found::Undecided) => {
            listener.stats.downstream_listener_filter_remote_close.inc();
            None
        }
        Err(error) => {
            if error.kind() == io::ErrorKind::TimedOut {
                listener.stats.downstream_pre_cx_timeout.inc();
            }
            // What came of a header is no beginning of anything else.
            (accept.optional && listener.config.continue_on_inspect_timeout).then_some(())
        }
    }
}

/// Finish the TLS handshake of the chain, if there is any.
async fn secure(listener: &Listener, chain: &Chain, (ends, io): (&mut Ends, Io)) -> Option<Io> {
    let Some(config) = &chain.tls else { return Some(io) };
    let io = handshake(listener, chain, io, Arc::clone(&config.load())).await?;
    ends.tls_version = io.tls_version();
    ends.tls = io.tls_facts();
    ends.sni = io.sni().map(str::to_owned).or_else(|| ends.sni.take());
    if !io.peer_certificates().is_empty() {
        ends.peer = Some(PeerIdentity::from_der(io.peer_certificates()));
    }
    Some(io)
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
            speak_first::race(look, chain, ends).await.ok().or_else(|| gone(listener))?
        }
        _ => (Some(look.await.ok().or_else(|| gone(listener))?), None),
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

/// The peer left before it said what it wants.
fn gone<T>(listener: &Listener) -> Option<T> {
    listener.stats.downstream_listener_filter_remote_close.inc();
    None
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
    let chosen = match &listener.config.chain_tree {
        None => select(&listener.config, &facts),
        Some(tree) => by_tree(listener, tree, &facts),
    };
    let chosen = chosen.and_then(|chain| listener.chain(&chain));
    if chosen.is_none() {
        listener.stats.no_filter_chain_match.inc();
        let (name, remote) = (&listener.config.name, &ends.remote);
        tracing::debug!(listener = %name, %remote, "no filter chain matches");
    }
    chosen
}

/// A chain that the tree names and that is not there is as bad as none.
fn by_tree(
    listener: &Listener,
    tree: &Matcher,
    facts: &ConnectionFacts<'_>,
) -> Option<Arc<FilterChain>> {
    let subject = Subject {
        remote: facts.source.map(|address| address.ip()),
        direct: facts.direct_source.map(|address| address.ip()),
        destination: facts.destination,
        server_name: facts.sni,
        transport: Some(match facts.transport {
            Transport::Tls => "tls",
            Transport::RawBuffer => "raw_buffer",
        }),
        protocols: facts.application_protocols,
        ..Subject::default()
    };
    let config = &listener.config;
    match rbac::outcome(tree, &subject) {
        Some(name) => config.filter_chains.iter().find(|chain| chain.name == *name).cloned(),
        None => config.default_filter_chain.clone(),
    }
}

async fn handshake(
    listener: &Listener,
    chain: &Chain,
    io: Io,
    config: Arc<rustls::ServerConfig>,
) -> Option<Io> {
    let limit = chain.config.transport_connect_timeout;
    let limit = listener.overload.timeout(Timer::TransportSocketConnect, limit);
    let accepting = io.accept_tls(config);
    let accepted = if limit.is_zero() {
        accepting.await
    } else {
        match tokio::time::timeout(limit, accepting).await {
            Ok(accepted) => accepted,
            Err(_) => {
                listener.stats.downstream_cx_transport_socket_connect_timeout.inc();
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the TLS handshake took longer than transport_socket_connect_timeout",
                ))
            }
        }
    };
    match accepted {
        Ok(io) => {
            let anonymous = io.peer_certificates().is_empty();
            listener.stats.handshake_done(io.tls_facts().as_ref(), anonymous);
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
