//! A connection that is known, and its requests, one exchange each.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};

use super::body::ReplyBody;
use super::exchange::{Arrived, Exchange};
use super::lifetime::{Graceful, Lifetime};
use super::listener::Http;
use super::meter::Metered;
use super::overload::Counted;
use super::preface;
use super::timers::Timers;
use super::{http1, http2};
use crate::cluster::Behalf;
use crate::http::forwarded::{Hop, PeerCertificate};
use crate::http::frames::Flood;
use crate::model::Name;
use crate::model::http::{Codec, HttpManager};
use crate::model::listener::{Address, Inspect};
use crate::model::rate_limit::LocalRateLimit;
use crate::net::drain::Watch;
use crate::net::peek::peek;
use crate::net::sniff;
use crate::net::{Io, Source};
use crate::telemetry::format::Session;
use crate::tls::PeerIdentity;

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
    pub(super) lifetime: Lifetime,
    /// Buckets of local rate limits that are its alone, each with the settings that they belong to.
    limits: Mutex<Vec<[Arc<LocalRateLimit>; 2]>>,
    /// For the deadlines of its exchanges.
    pub(super) timers: Timers,
}

/// The two ends of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// Address of the peer, or of the client for whom it says that it speaks (PROXY protocol).
    pub(crate) remote: Address,
    /// Address of the peer, as the socket says.
    pub(crate) direct: Address,
    /// Address that was connected to, as the socket says, or as the PROXY protocol does.
    pub(crate) local: Address,
    /// Address that it wanted to connect to, where a redirection hides that.
    pub(crate) original_dst: Option<SocketAddr>,
    /// Server name that it asked for.
    pub(crate) sni: Option<String>,
    /// `TLSv1.3`; None: plain text.
    pub(crate) tls_version: Option<&'static str>,
    /// What is agreed on in TLS. None: plain text.
    pub(crate) tls: Option<Session>,
    /// Its verified certificate.
    pub(crate) peer: Option<PeerIdentity>,
    /// Name of the filter chain.
    pub(crate) chain: Name,
    /// Name of the listener.
    pub(crate) listener: Name,
    /// Upstream connections come from this address (`original_src`).
    pub(crate) source: Option<Source>,
    /// It counts towards the limit of all connections, as long as anything of it is there.
    pub(super) _counted: Option<Arc<Counted>>,
}

impl Ends {
    /// What upstream connections tell of this one.
    pub(crate) fn behalf(&self) -> Behalf {
        Behalf { source: self.source, ends: socket(&self.remote).zip(socket(&self.local)) }
    }

    /// Where the connection was going: before any redirection, where that is known.
    pub(super) fn destination(&self) -> Option<SocketAddr> {
        self.original_dst.or_else(|| socket(&self.local))
    }
}

pub(super) fn socket(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Socket(address) => Some(*address),
        Address::Pipe(_) => None,
    }
}

/// Serve requests until the connection closes. `ends` in a box: what an `async fn` is given it keeps beside what it makes of it.
pub(super) async fn serve_http(http: Arc<Http>, ends: Box<Ends>, mut io: Io, drain: Watch) {
    let mut early = Vec::new();
    let Some(h2) = speaks_h2(&http.manager, (&mut io, &mut early), &drain).await else { return };
    let tls = io.is_tls();
    let _active = http.stats.connection(h2, tls);
    let connection = Arc::new(Connection {
        id: http.context.next_connection_id(),
        h2,
        lifetime: Lifetime::new(&http.manager, h2),
        ends: *ends,
        drain: drain.clone(),
        limits: Mutex::default(),
        timers: Timers::default(),
        http: Arc::clone(&http),
    });
    let io = Metered::new(io, early, Arc::clone(&connection));
    if h2 {
        Box::pin(serve_http2(&connection, io)).await;
    } else {
        let answer = |request| answer(&connection, request);
        let serving = http1::serve(io, http1::Settings::new(&http.manager), answer);
        if let Err(error) = connection.watch_over(serving).await {
            tracing::debug!(connection = connection.id, %error, "downstream connection ended");
        }
    }
    http.stats.downstream_cx_destroy.inc();
    let age = connection.lifetime.age();
    http.stats.downstream_cx_length_ms.record(age.as_secs_f64() * 1000.0);
}

async fn serve_http2(connection: &Arc<Connection>, io: Metered) {
    let stats = &connection.http.stats;
    let for_streams = Arc::clone(connection);
    let answer = move |request| answer(&for_streams, request);
    let serving = http2::serve(io, http2::Settings::new(&connection.http.manager), answer);
    if let Err(error) = connection.watch_over(serving).await {
        match error {
            http2::Error::Abused(_) => stats.downstream_rq_too_many_premature_resets.inc(),
            http2::Error::Malformed(_) => stats.downstream_cx_protocol_error.inc(),
            http2::Error::Flooded(Flood::Empty) => stats.inbound_empty_frames_flood.inc(),
            http2::Error::Flooded(Flood::Priority) => stats.inbound_priority_frames_flood.inc(),
            http2::Error::Flooded(Flood::WindowUpdate) => {
                stats.inbound_window_update_frames_flood.inc();
            }
            http2::Error::TimedOut | http2::Error::Ended(_) => {}
        }
        tracing::debug!(connection = connection.id, %error, "downstream connection ended");
    }
}

/// Serve one request.
fn answer(
    connection: &Arc<Connection>,
    request: Request<Arrived>,
) -> Pin<Box<impl Future<Output = Response<ReplyBody>> + use<>>> {
    connection.lifetime.request();
    Exchange::serve(Arc::clone(connection), request)
}

/// Whether the connection is HTTP/2: by the codec, by ALPN, or by its first bytes. None: it closed. Bytes that had to be
/// taken for that are in `early`: nobody can look into TLS and leave them where they are.
async fn speaks_h2(
    manager: &HttpManager,
    (io, early): (&mut Io, &mut Vec<u8>),
    drain: &Watch,
) -> Option<bool> {
    match manager.codec {
        Codec::Http1 => Some(false),
        Codec::Http2 => Some(true),
        Codec::Auto if io.is_tls() => match io.alpn() {
            Some(agreed) => Some(agreed == b"h2"),
            None => Box::pin(preface::comes(manager, (io, early), drain)).await,
        },
        Codec::Auto => {
            let what = Inspect { http: true, ..Inspect::default() };
            let sniffed = peek(io, what, Duration::ZERO).await.ok()?;
            Some(sniffed.http == Some(sniff::Http::H2c))
        }
    }
}

impl Connection {
    /// See whether the connection is to end after an answer, and say so in it.
    pub(super) fn conclude(&self, response: &mut Response<ReplyBody>) {
        self.lifetime.say_goodbye(response);
        let overload = &self.http.overload;
        if overload.ends_connections() && self.lifetime.end_soon(response) {
            self.http.stats.overload.downstream_cx_overload_disable_keepalive.inc();
        }
    }

    async fn watch_over<E>(&self, serving: impl Graceful<Output = Result<(), E>>) -> Result<(), E> {
        self.lifetime.watch_over(serving, &self.drain, &self.http).await
    }

    /// The same limit with buckets that no other connection takes from.
    pub(crate) fn own_limit(&self, limit: &Arc<LocalRateLimit>) -> Arc<LocalRateLimit> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some([_, own]) = limits.iter().find(|[of, _]| Arc::ptr_eq(of, limit)) {
            return Arc::clone(own);
        }
        let own = Arc::new(limit.fresh());
        limits.push([Arc::clone(limit), Arc::clone(&own)]);
        own
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

    /// Address of the peer itself, whomever it says that it speaks for.
    pub(crate) fn direct_ip(&self) -> Option<IpAddr> {
        socket(&self.ends.direct).map(|address| address.ip())
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
        let details = self.http.manager.client_cert_details;
        let certificate = self.ends.peer.as_ref().map(|peer| PeerCertificate {
            by: self.http.local_uri(),
            sha256: &peer.sha256,
            subject: &peer.subject,
            uris: &peer.uri_sans,
            dns: &peer.dns_sans,
            pem: if details.cert { peer.pem_url_encoded() } else { "" },
            chain: if details.chain { peer.chain_url_encoded() } else { "" },
        });
        Hop { peer: self.remote_ip(), port: self.local_port(), tls: self.is_tls(), certificate }
    }
}
