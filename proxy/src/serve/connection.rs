//! Step two, identify: who is at the other end, which filter chain is theirs, and then their
//! requests, one exchange each.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::exchange::Exchange;
use super::lifetime::{Graceful, Lifetime};
use super::listener::{Chain, Http, Listener, Terminal};
use super::speak_first::{self, Ahead};
use super::tcp;
use crate::http::forwarded::{Hop, PeerCertificate};
use crate::model::http::{Codec, HttpManager};
use crate::model::listener::{Address, Inspect};
use crate::net::Io;
use crate::net::chain_match::{ConnectionFacts, select};
use crate::net::drain::Watch;
use crate::net::peek::peek;
use crate::net::sniff::{self, Sniffed};
use crate::tls::{self, PeerIdentity};

/// One connection of a downstream, and what is known about its peer.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Unique in this process.
    pub(crate) id: u64,
    /// How its requests are served.
    pub(crate) http: Arc<Http>,
    /// What is known about its two ends.
    pub(crate) ends: Ends,
    /// Tells when the listener goes.
    pub(super) drain: Watch,
    /// Requests are served in HTTP/2.
    h2: bool,
    /// What decides when it ends.
    lifetime: Lifetime,
}

/// The two ends of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// Address of the peer.
    pub(crate) remote: Address,
    /// Address that it connected to, as the socket says.
    pub(crate) local: Address,
    /// Address that it wanted to connect to, where a redirection hides that.
    pub(crate) original_dst: Option<SocketAddr>,
    /// Server name that it asked for.
    pub(crate) sni: Option<String>,
    /// `TLSv1.3`; None: plain text.
    pub(crate) tls_version: Option<&'static str>,
    /// Its verified certificate.
    pub(crate) peer: Option<PeerIdentity>,
    /// Name of the filter chain.
    pub(crate) chain: crate::model::Name,
}

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
            Terminal::Http(http) => serve_http(Arc::clone(http), ends, io, drain).await,
            Terminal::Tcp(proxy) => tcp::serve(proxy, &ends, (io, ahead), drain).await,
        }
    }
    listener.stats.downstream_cx_destroy.inc();
}

type Identified = (Arc<Chain>, Ends, Io, Option<tcp::Upstream>);

/// Look at a new connection, choose its filter chain, and finish its TLS handshake. None: it is
/// closed; why is counted and logged.
async fn identify(listener: &Listener, arrival: Arrival) -> Option<Identified> {
    let Arrival { io, remote, original_dst } = arrival;
    let local = io.local_address().ok()?;
    let (sniffed, mut ahead) = inspect(listener, &io, original_dst).await?;
    let chain = choose(listener, &sniffed, (&remote, &local), original_dst)?;
    if ahead.as_ref().is_some_and(|(of, _)| !Arc::ptr_eq(of, &chain)) {
        ahead = None;
    }
    let ahead = ahead.map(|(_, upstream)| upstream);
    let mut ends = Ends {
        remote,
        local,
        original_dst,
        sni: sniffed.sni,
        tls_version: None,
        peer: None,
        chain: Arc::clone(&chain.config.name),
    };
    let Some(config) = &chain.tls else { return Some((chain, ends, io, ahead)) };
    let io = handshake(listener, &chain, io, Arc::clone(&config.load())).await?;
    ends.tls_version = io.tls_version();
    ends.sni = io.sni().map(str::to_owned).or(ends.sni);
    if !io.peer_certificates().is_empty() {
        ends.peer = Some(PeerIdentity::from_der(io.peer_certificates()));
    }
    Some((chain, ends, io, ahead))
}

/// What the first bytes show; and the connection of a chain that was dialled meanwhile, with what
/// its server had to say first.
async fn inspect(
    listener: &Listener,
    io: &Io,
    original_dst: Option<SocketAddr>,
) -> Option<(Sniffed, Option<Ahead>)> {
    let config = &listener.config;
    if !(config.inspect.tls || config.inspect.http) {
        return Some((Sniffed::default(), None));
    }
    let look = peek(io, config.inspect, config.inspect_timeout);
    let (sniffed, ahead) = match (listener.blind_chain(), original_dst) {
        (Some(chain), Some(destination)) => {
            speak_first::race(look, chain, destination).await.ok()?
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

fn choose(
    listener: &Listener,
    sniffed: &Sniffed,
    (remote, local): (&Address, &Address),
    original_dst: Option<SocketAddr>,
) -> Option<Arc<Chain>> {
    let protocols = sniffed.application_protocols();
    let facts = ConnectionFacts {
        destination: original_dst.or_else(|| socket(local)),
        source: socket(remote),
        direct_source: socket(remote),
        sni: sniffed.sni.as_deref(),
        transport: sniffed.transport(),
        application_protocols: &protocols,
    };
    let chosen = select(&listener.config, &facts).and_then(|chain| listener.chain(&chain));
    if chosen.is_none() {
        listener.stats.no_filter_chain_match.inc();
        tracing::debug!(listener = %listener.config.name, %remote, "no filter chain matches");
    }
    chosen
}

pub(super) fn socket(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Socket(address) => Some(*address),
        Address::Pipe(_) => None,
    }
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

/// Serve requests until the connection closes.
pub(super) async fn serve_http(http: Arc<Http>, ends: Ends, io: Io, drain: Watch) {
    let Some(h2) = speaks_h2(&http.manager, &io).await else { return };
    let _active = http.stats.connection(h2, io.is_tls());
    let connection = Arc::new(Connection {
        id: http.context.next_connection_id(),
        h2,
        lifetime: Lifetime::new(&http.manager, h2),
        ends,
        drain: drain.clone(),
        http: Arc::clone(&http),
    });
    let for_service = Arc::clone(&connection);
    let service = service_fn(move |request| {
        let connection = Arc::clone(&for_service);
        async move {
            let _counted = connection.lifetime.request();
            let mut response = Exchange::serve(Arc::clone(&connection), request).await;
            connection.lifetime.say_goodbye(&mut response);
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(io);
    let ended = if h2 {
        let serving = http2(&http.manager).serve_connection(io, service);
        connection.watch_over(serving).await
    } else {
        let serving = http1(&http.manager).serve_connection(io, service).with_upgrades();
        connection.watch_over(serving).await
    };
    if let Err(error) = ended {
        if error.is_parse() || error.is_parse_too_large() {
            http.stats.downstream_cx_protocol_error.inc();
        }
        tracing::debug!(connection = connection.id, %error, "downstream connection ended");
    }
    http.stats.downstream_cx_destroy.inc();
}

/// Whether the connection is HTTP/2: by the codec, by ALPN, or by its first bytes. None: it closed.
async fn speaks_h2(manager: &HttpManager, io: &Io) -> Option<bool> {
    match manager.codec {
        Codec::Http1 => Some(false),
        Codec::Http2 => Some(true),
        Codec::Auto if io.is_tls() => Some(io.alpn() == Some(b"h2")),
        Codec::Auto => {
            let what = Inspect { http: true, ..Inspect::default() };
            let sniffed = peek(io, what, Duration::ZERO).await.ok()?;
            Some(sniffed.http == Some(sniff::Http::H2c))
        }
    }
}

fn http1(manager: &HttpManager) -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .preserve_header_case(true)
        .half_close(false)
        .header_read_timeout(manager.timeouts.request_headers)
        .max_headers(manager.limits.max_headers_count as usize + 1)
        // hyper asks for at least 8 KiB.
        .max_buf_size((manager.limits.max_request_headers_kb as usize * 1024).max(8192));
    builder
}

fn http2(manager: &HttpManager) -> hyper::server::conn::http2::Builder<TokioExecutor> {
    const STREAM_WINDOW: u32 = 1 << 20;
    const CONNECTION_WINDOW: u32 = 4 << 20;
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let options = &manager.http2;
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams.or(Some(1024)))
        .initial_stream_window_size(options.initial_stream_window.unwrap_or(STREAM_WINDOW))
        .initial_connection_window_size(
            options.initial_connection_window.unwrap_or(CONNECTION_WINDOW),
        )
        .max_header_list_size(manager.limits.max_request_headers_kb.saturating_mul(1024))
        .max_pending_accept_reset_streams(64)
        .keep_alive_interval(options.keepalive_interval);
    if let Some(timeout) = options.keepalive_timeout {
        builder.keep_alive_timeout(timeout);
    }
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    builder
}

impl Connection {
    async fn watch_over(&self, serving: impl Graceful) -> hyper::Result<()> {
        self.lifetime.watch_over(serving, &self.drain, &self.http.stats).await
    }

    /// Requests are served in HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.h2
    }

    /// Bytes travel encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        self.ends.tls_version.is_some()
    }

    /// The peer has proved who it is.
    pub(crate) fn is_mutual_tls(&self) -> bool {
        self.ends.peer.is_some()
    }

    /// Address of the peer.
    pub(crate) fn remote_ip(&self) -> Option<IpAddr> {
        socket(&self.ends.remote).map(|address| address.ip())
    }

    /// Port that the peer connected to.
    pub(crate) fn local_port(&self) -> Option<u16> {
        socket(&self.ends.local).map(|address| address.port())
    }

    /// Whether an address leads back to where this connection came in.
    pub(crate) fn is_here(&self, address: SocketAddr) -> bool {
        socket(&self.ends.local).is_some_and(|local| {
            let ip = address.ip();
            let own = ip == local.ip() || ip.is_loopback() || ip.is_unspecified();
            local.port() == address.port() && own
        })
    }

    /// Where the peer wanted to go before it was redirected here.
    pub(crate) fn original_dst(&self) -> Option<SocketAddr> {
        self.ends.original_dst
    }

    /// What the forwarding headers tell about this connection.
    pub(crate) fn hop(&self) -> Hop<'_> {
        let certificate = self.ends.peer.as_ref().map(|peer| PeerCertificate {
            by: self.http.local_uri.as_deref(),
            sha256: &peer.sha256,
            subject: &peer.subject,
            uris: &peer.uri_sans,
            dns: &peer.dns_sans,
            pem: if self.http.manager.client_cert_details.cert {
                peer.pem_url_encoded()
            } else {
                ""
            },
        });
        Hop { peer: self.remote_ip(), tls: self.is_tls(), certificate }
    }
}
