//! Making connections to endpoints: TCP or a Unix socket, TLS, and the HTTP that is spoken on top.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::Version;
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::connection::{Connection, ConnectionPermit, Counted};
use super::http1::Http1;
use super::http2::{self, Streams};
use super::{Fit, Job};
use crate::cluster::behalf::Behalf;
use crate::cluster::breaker::{Breakers, ConnectionPlace};
use crate::cluster::endpoint::Endpoint;
use crate::cluster::stats::ClusterStats;
use crate::http::gather::Gather;
use crate::model::Name;
use crate::model::cluster::{Cluster, Protocol};
use crate::model::listener::Address;
use crate::net::{self, ConnectOptions, Io};
use crate::telemetry::format::Certificate;
use crate::telemetry::reason::{Reason, Refusal, Sent};
use crate::tls::{self, Failure, Secrets};

/// Everything that a connection is made by. It outlives changes of the configuration that do not
/// concern connections, and so do the pools.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) config: Arc<Cluster>,
    pub(crate) stats: Arc<ClusterStats>,
    pub(crate) breakers: Arc<Breakers>,
    /// By transport socket. None: plain text.
    tls: Box<[ArcSwapOption<Tls>]>,
    /// Our own certificate as it was first, for access logs.
    own: OnceLock<Box<tls::PeerIdentity>>,
}

/// A TLS context compiled with the secrets of the moment.
#[derive(Debug)]
struct Tls {
    /// Why no connection can be made, if so.
    config: Result<Arc<ClientConfig>, String>,
}

/// Which HTTP is wanted of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Http1,
    Http2,
    /// What ALPN says.
    Negotiated,
}

/// A connection that speaks HTTP.
pub(super) enum Opened {
    Http1(Box<Http1>),
    Http2(Arc<Streams>),
}

impl Connector {
    pub(crate) fn new(
        config: Arc<Cluster>,
        stats: Arc<ClusterStats>,
        breakers: Arc<Breakers>,
        secrets: &dyn Secrets,
    ) -> Self {
        let tls = (0..=config.socket_matches.len()).map(|_| ArcSwapOption::empty()).collect();
        let connector = Self { config, stats, breakers, tls, own: OnceLock::new() };
        connector.reload_tls(secrets);
        connector
    }

    /// Whether connections made for one configuration serve the other as well.
    pub(crate) fn serves(&self, other: &Cluster) -> bool {
        let own = &*self.config;
        own.name == other.name
            && own.stat_name == other.stat_name
            && own.connect_timeout == other.connect_timeout
            && own.tls == other.tls
            && own.socket_matches == other.socket_matches
            && own.protocol == other.protocol
            && own.idle_timeout == other.idle_timeout
            && own.max_connection_duration == other.max_connection_duration
            && own.max_requests_per_connection == other.max_requests_per_connection
            && own.http2 == other.http2
            && own.buffer_limit == other.buffer_limit
            && own.tcp_keepalive == other.tcp_keepalive
            && own.proxy_header == other.proxy_header
            && own.bind == other.bind
            && own.close_on_health_failure == other.close_on_health_failure
            // Whoever learns from answers does so by the configuration of the connection.
            && (own.balancer == other.balancer
                || !(own.balancer.learns() || other.balancer.learns()))
    }

    /// Secrets or files changed. Connections that are open stay.
    pub(crate) fn reload_tls(&self, secrets: &dyn Secrets) {
        for (socket, place) in self.tls.iter().enumerate() {
            let Some(context) = self.config.tls_of(socket) else { continue };
            let config = tls::client_config(context, secrets).map_err(|error| error.to_string());
            if let Err(error) = &config {
                tracing::warn!(cluster = %self.config.name, "no TLS to the endpoints: {error}");
            }
            place.store(Some(Arc::new(Tls { config })));
            if let Some(own) = tls::own_identity(&context.common, secrets) {
                // A renewed certificate has the same names.
                let _ = self.own.set(own.into());
            }
        }
    }

    /// Our own certificate, for access logs.
    pub(crate) fn own_certificate(&self) -> Option<&dyn Certificate> {
        self.own.get().map(|own| &**own as _)
    }

    pub(crate) fn wanted(&self, socket: usize, downstream_h2: bool) -> Wanted {
        match self.config.protocol {
            Protocol::Http1 => Wanted::Http1,
            Protocol::Http2 => Wanted::Http2,
            // Without TLS there is nothing to negotiate with.
            Protocol::Auto if self.config.tls_of(socket).is_none() => Wanted::Http1,
            Protocol::Auto => Wanted::Negotiated,
            Protocol::Downstream if downstream_h2 => Wanted::Http2,
            Protocol::Downstream => Wanted::Http1,
        }
    }

    /// A byte stream to the endpoint, for `tcp_proxy`.
    pub(crate) async fn connect(
        &self,
        endpoint: &Endpoint,
        behalf: Behalf,
        place: ConnectionPlace,
    ) -> Result<(Io, ConnectionPermit), Refusal> {
        let io = self.dial(endpoint, &Fit { sni: None, behalf }, None).await?;
        Ok((io, self.permit(endpoint, place)))
    }

    /// A byte stream for a health check of an endpoint, at an address that may be another. Nobody
    /// counts it. `alpn`: what is offered, and whether instead of what the TLS context says.
    ///
    /// # Errors
    /// No connection, or no TLS on it. There is no limit of time: that is the check's.
    pub(crate) async fn probe(
        &self,
        endpoint: &Endpoint,
        address: &Address,
        (alpn, forced): (&[&[u8]], bool),
    ) -> Result<Io, Refusal> {
        let options = ConnectOptions {
            timeout: PROBE,
            keepalive: self.config.tcp_keepalive,
            source: None,
            bind: self.config.bind.towards(address),
        };
        let io = self.begin(address, &options, None).await.map_err(|error| {
            let detail = format!("no connection to {address} for a health check: {error}");
            Refusal::upstream(Reason::ConnectFailure, Sent::No, detail)
        })?;
        let tls = self.tls.get(endpoint.socket()).and_then(ArcSwapOption::load_full);
        let (Some(tls), Some(context)) = (tls, self.config.tls_of(endpoint.socket())) else {
            return Ok(io);
        };
        let mut tls = Tls { config: tls.config.clone() };
        if let Ok(config) = &mut tls.config
            && (forced || config.alpn_protocols.is_empty())
        {
            let mut own = ClientConfig::clone(config);
            own.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
            *config = Arc::new(own);
        }
        self.handshake(io, &tls, (endpoint, context.server_name(None, &endpoint.hostname)), None)
            .await
    }

    /// A connection for requests.
    pub(super) async fn open(
        self: &Arc<Self>,
        job: &Job,
        place: ConnectionPlace,
    ) -> Result<Opened, Refusal> {
        let io = self.dial(&job.endpoint, &job.fit, Some(job.wanted)).await?;
        let http2 = match job.wanted {
            Wanted::Http1 => false,
            Wanted::Http2 => true,
            Wanted::Negotiated => io.alpn() == Some(b"h2"),
        };
        let version = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let connection = Connection::new(&io, version, job);
        let connection = Arc::new(connection);
        let permit = self.permit(&job.endpoint, place);
        let io = Counted::new(io, Arc::clone(&connection), permit);
        if !http2 {
            self.stats.upstream_cx_http1_total.inc();
            return Ok(Opened::Http1(Box::new(Http1::new(io))));
        }
        let failed = |error: h2::Error| {
            let detail = format!("HTTP with {} did not start: {error}", job.endpoint.address);
            Refusal::upstream(Reason::ConnectFailure, Sent::No, detail)
        };
        self.stats.upstream_cx_http2_total.inc();
        let io = Gather::new(io);
        let options = &self.config.http2;
        let writer = io.sender();
        let started = http2::builder(options).handshake(io).await;
        let (sender, driver) = started.map_err(failed)?;
        let streams = Arc::new(Streams::new(sender, connection, options.max_concurrent_streams));
        http2::drive(job, &streams, writer, driver);
        Ok(Opened::Http2(streams))
    }

    fn permit(&self, endpoint: &Endpoint, place: ConnectionPlace) -> ConnectionPermit {
        let counters = Arc::clone(&endpoint.host.used().counters);
        ConnectionPermit::new(Arc::clone(&self.stats), counters, place)
    }

    async fn dial(
        &self,
        endpoint: &Endpoint,
        fit: &Fit,
        wanted: Option<Wanted>,
    ) -> Result<Io, Refusal> {
        let started = Instant::now();
        let counters = endpoint.counters();
        self.stats.upstream_cx_total.inc();
        counters.cx_total.fetch_add(1, Ordering::Relaxed);
        let limit = self.config.connect_timeout;
        let result = match timeout(limit, self.establish(endpoint, fit, wanted)).await {
            Ok(result) => result,
            Err(_) => Err(self.timed_out(endpoint)),
        };
        match &result {
            Ok(_) => {
                let took = started.elapsed().as_secs_f64() * 1000.0;
                self.stats.upstream_cx_connect_ms.record(took);
            }
            Err(refusal) => {
                self.stats.upstream_cx_connect_fail.inc();
                counters.cx_connect_fail.fetch_add(1, Ordering::Relaxed);
                if refusal.reason == Reason::ConnectTimeout {
                    self.stats.upstream_cx_connect_timeout.inc();
                }
            }
        }
        result
    }

    async fn establish(
        &self,
        endpoint: &Endpoint,
        fit: &Fit,
        wanted: Option<Wanted>,
    ) -> Result<Io, Refusal> {
        let options = ConnectOptions {
            timeout: self.config.connect_timeout,
            keepalive: self.config.tcp_keepalive,
            source: fit.behalf.source,
            bind: self.config.bind.towards(&endpoint.address),
        };
        let begun = self.begin(&endpoint.address, &options, fit.behalf.ends).await;
        let io = begun.map_err(|error| {
            if error.kind() == io::ErrorKind::TimedOut {
                return self.timed_out(endpoint);
            }
            let (to, cluster) = (&endpoint.address, &self.config.name);
            let detail = format!("no connection to {to} of cluster {cluster}: {error}");
            Refusal::upstream(Reason::ConnectFailure, Sent::No, detail)
        })?;
        let tls = self.tls.get(endpoint.socket()).and_then(ArcSwapOption::load_full);
        match (tls, self.config.tls_of(endpoint.socket())) {
            (Some(tls), Some(context)) => {
                let name = context.server_name(fit.sni.as_ref(), &endpoint.hostname);
                self.handshake(io, &tls, (endpoint, name), wanted).await
            }
            _ => Ok(io),
        }
    }

    /// The server name that is sent to an endpoint, if there is one.
    pub(super) fn server_name(&self, endpoint: &Endpoint, fit: &Fit) -> Option<Name> {
        let context = self.config.tls_of(endpoint.socket())?;
        let name = context.server_name(fit.sni.as_ref(), &endpoint.hostname);
        Some(Arc::clone(name)).filter(|name| !name.is_empty())
    }

    /// A connection without TLS, on which the PROXY header is sent.
    async fn begin(
        &self,
        address: &Address,
        options: &ConnectOptions,
        ends: Option<(SocketAddr, SocketAddr)>,
    ) -> io::Result<Io> {
        let made = net::connect(address, options).await;
        let no_address = |error: &io::Error| error.kind() == io::ErrorKind::AddrNotAvailable;
        if options.bind.is_some() && made.as_ref().is_err_and(no_address) {
            self.stats.bind_errors.inc();
        }
        let mut io = made?;
        if let Some(header) = &self.config.proxy_header {
            io.write_all(&net::proxy_protocol::write(header, ends)).await?;
        }
        Ok(io)
    }

    async fn handshake(
        &self,
        io: Io,
        tls: &Tls,
        (endpoint, sni): (&Endpoint, &Name),
        wanted: Option<Wanted>,
    ) -> Result<Io, Refusal> {
        let failed = |why: &str| {
            let (to, cluster) = (&endpoint.address, &self.config.name);
            let detail = format!("no TLS with {to} of cluster {cluster}: {why}");
            Refusal::upstream(Reason::TlsFailure, Sent::No, detail)
        };
        let config = tls.config.as_ref().map_err(|error| failed(error))?;
        let config = with_alpn(config, wanted);
        let name = tls::server_name(sni).map_err(|error| failed(&error.to_string()))?;
        match io.connect_tls(config, name).await {
            Ok(io) => {
                self.stats.handshake(io.tls_facts().as_ref());
                Ok(io)
            }
            Err(error) => {
                let stats = self.stats.tls();
                match tls::failure_io(&error) {
                    Failure::NoCertificate => stats.fail_verify_no_cert.inc(),
                    Failure::Verify => stats.fail_verify_error.inc(),
                    Failure::San => stats.fail_verify_san.inc(),
                    Failure::Hash => stats.fail_verify_cert_hash.inc(),
                    Failure::Connection => stats.connection_error.inc(),
                }
                Err(failed(&tls::explain_io(&error)))
            }
        }
    }

    fn timed_out(&self, endpoint: &Endpoint) -> Refusal {
        let (to, cluster) = (&endpoint.address, &self.config.name);
        let limit = self.config.connect_timeout;
        let detail = format!("no connection to {to} of cluster {cluster} within {limit:?}");
        Refusal::upstream(Reason::ConnectTimeout, Sent::No, detail)
    }
}

/// Where the context names no ALPN protocols, HTTP does (Envoy's fallback).
fn with_alpn(config: &Arc<ClientConfig>, wanted: Option<Wanted>) -> Arc<ClientConfig> {
    let protocols: &[&[u8]] = match wanted {
        None => &[],
        Some(Wanted::Http1) => &[b"http/1.1"],
        Some(Wanted::Http2) => &[b"h2"],
        Some(Wanted::Negotiated) => &[b"h2", b"http/1.1"],
    };
    if protocols.is_empty() || !config.alpn_protocols.is_empty() {
        return Arc::clone(config);
    }
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// Longer than any check waits.
const PROBE: Duration = Duration::from_secs(3600);
