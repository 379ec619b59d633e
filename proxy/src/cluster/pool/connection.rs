//! What is known about one upstream connection, and what counts it for as long as it is open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use super::dial::Connector;
use super::{Fit, Job};
use crate::cluster::behalf::Behalf;
use crate::cluster::breaker::ConnectionPlace;
use crate::cluster::endpoint::EndpointCounters;
use crate::cluster::stats::ClusterStats;
use crate::model::Name;
use crate::model::listener::Address;
use crate::net::Io;
use crate::net::splice::Pipe;
use crate::telemetry::format::{Session, Upstream, WireBytes};
use crate::tls;

/// A connection that serves one client only is not kept for longer than this without a request.
const OF_ONE_CLIENT: Duration = Duration::from_secs(60);

static IDS: AtomicU64 = AtomicU64::new(1);

/// An upstream HTTP connection, as access logs and the pool see it.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    local: Option<Address>,
    tls: Option<Session>,
    /// Certificate of the endpoint.
    peer: Option<Box<tls::PeerIdentity>>,
    version: Version,
    pub(super) fit: Fit,
    /// The server name that was sent.
    server_name: Option<Name>,
    pub(crate) connector: Arc<Connector>,
    pub(super) opened: Instant,
    /// Bytes received: unchanged means that the endpoint said nothing since.
    pub(crate) received: AtomicU64,
    /// Bytes sent.
    sent: AtomicU64,
    /// The same when the last request began.
    received_before: AtomicU64,
    sent_before: AtomicU64,
    /// Requests that it was given.
    pub(super) served: AtomicU32,
    /// Requests under way.
    pub(super) active: AtomicU32,
    /// What the endpoint's `keep-alive: timeout=` promised, in milliseconds. 0: nothing.
    keep_alive: AtomicU64,
    /// The endpoint closed first.
    remote_close: AtomicBool,
    /// The TLS alert that ended it, in words. Kept here, because HTTP/2 passes on only its text.
    alert: OnceLock<String>,
    /// What runs it, if something does: HTTP/2.
    pub(super) driver: OnceLock<AbortHandle>,
    /// Its socket once more, where it may have to be closed under whoever uses it: HTTP/1.1.
    socket: Mutex<Option<OwnedFd>>,
    /// It was.
    aborted: AtomicBool,
}

impl Connection {
    pub(super) fn new(io: &Io, version: Version, job: &Job) -> Self {
        let connector = Arc::clone(&job.connector);
        let abortable = connector.config.close_on_health_failure && version != Version::HTTP_2;
        let socket = abortable.then(|| io.as_fd().try_clone_to_owned().ok()).flatten();
        Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            local: io.local_address().ok(),
            tls: io.tls_facts(),
            peer: match io.peer_certificates() {
                [] => None,
                chain => Some(Box::new(tls::PeerIdentity::from_der(chain))),
            },
            version,
            fit: job.fit.clone(),
            server_name: connector.server_name(&job.endpoint, &job.fit),
            connector,
            opened: Instant::now(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received_before: AtomicU64::new(0),
            sent_before: AtomicU64::new(0),
            served: AtomicU32::new(0),
            active: AtomicU32::new(0),
            keep_alive: AtomicU64::new(0),
            remote_close: AtomicBool::new(false),
            alert: OnceLock::new(),
            driver: OnceLock::new(),
            socket: Mutex::new(socket),
            aborted: AtomicBool::new(false),
        }
    }

    /// Unique in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Our end of it.
    pub fn local_address(&self) -> Option<&Address> {
        self.local.as_ref()
    }

    /// `TLSv1.3`; None: plain text.
    pub fn tls_version(&self) -> Option<&'static str> {
        self.tls.map(|session| session.version)
    }

    /// What access logs say of it.
    pub fn told(&self) -> Upstream<'_> {
        let totals = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Upstream {
            connection_id: self.id,
            protocol: Some(if self.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" }),
            tls: self.tls,
            sni: self.server_name.as_deref(),
            peer: self.peer.as_deref().map(|peer| peer as _),
            local: self.connector.own_certificate(),
            // One request at a time: what went by since is this one's.
            wire: (self.version != Version::HTTP_2).then(|| WireBytes {
                received: totals(&self.received).saturating_sub(totals(&self.received_before)),
                sent: totals(&self.sent).saturating_sub(totals(&self.sent_before)),
            }),
        }
    }

    /// A request begins.
    pub(super) fn begin_request(&self) {
        let keep = |from: &AtomicU64, to: &AtomicU64| {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        };
        keep(&self.received, &self.received_before);
        keep(&self.sent, &self.sent_before);
    }

    /// Something was sent since the last request began.
    pub(super) fn has_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed) != self.sent_before.load(Ordering::Relaxed)
    }

    /// HTTP/1.1 or HTTP/2.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The TLS alert that ended it, in words.
    pub(crate) fn alert(&self) -> Option<&str> {
        self.alert.get().map(String::as_str)
    }

    /// The endpoint said how long it keeps an idle connection.
    pub(crate) fn learn_keep_alive(&self, promised: Duration) {
        let promised = u64::try_from(promised.as_millis()).unwrap_or(u64::MAX);
        self.keep_alive.store(promised, Ordering::Relaxed);
    }

    /// When it must not be used any more if it is idle since `since`. None: never.
    pub(super) fn expires(&self, since: Instant) -> Option<Instant> {
        let config = &self.connector.config;
        let mut idle = config.idle_timeout;
        if self.fit.behalf != Behalf::default() {
            idle = Some(idle.map_or(OF_ONE_CLIENT, |idle| idle.min(OF_ONE_CLIENT)));
        }
        if let promised @ 1.. = self.keep_alive.load(Ordering::Relaxed) {
            // A second for what is on its way when the endpoint closes.
            let safe = Duration::from_millis(promised.saturating_sub(1000));
            idle = Some(idle.map_or(safe, |idle| idle.min(safe)));
        }
        let ends = config.max_connection_duration.map(|age| self.opened + age);
        match (idle.map(|idle| since + idle), ends) {
            (Some(idle), Some(age)) => Some(idle.min(age)),
            (idle, age) => idle.or(age),
        }
    }

    /// Whether `max_requests_per_connection` or `max_connection_duration` ends it.
    pub(super) fn is_used_up(&self) -> bool {
        let config = &self.connector.config;
        let stats = &self.connector.stats;
        if config
            .max_requests_per_connection
            .is_some_and(|max| self.served.load(Ordering::Relaxed) >= max)
        {
            stats.upstream_cx_max_requests.inc();
            return true;
        }
        let old = config.max_connection_duration.is_some_and(|age| self.opened.elapsed() >= age);
        if old {
            stats.upstream_cx_max_duration_reached.inc();
        }
        old
    }

    /// Ends it at once, with whatever is under way.
    pub(super) fn abort(&self) {
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
        if let Some(socket) = self.take_socket() {
            self.aborted.store(true, Ordering::Relaxed);
            // Whoever reads from it finds its end; it cannot be more closed than closed.
            let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
        }
    }

    /// It has become something else, and is not ours to abort any more; or it is closed.
    pub(super) fn take_socket(&self) -> Option<OwnedFd> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Counts a connection while it is open, and holds its place under `max_connections`.
#[derive(Debug)]
pub struct ConnectionPermit {
    stats: Arc<ClusterStats>,
    counters: Arc<EndpointCounters>,
    opened: Instant,
    _place: ConnectionPlace,
}

impl ConnectionPermit {
    pub(super) fn new(
        stats: Arc<ClusterStats>,
        counters: Arc<EndpointCounters>,
        place: ConnectionPlace,
    ) -> Self {
        stats.upstream_cx_active.add(1);
        counters.cx_active.fetch_add(1, Ordering::Relaxed);
        Self { stats, counters, opened: Instant::now(), _place: place }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.stats.upstream_cx_active.add(-1);
        self.stats.upstream_cx_destroy.inc();
        self.stats.upstream_cx_length_ms.record(self.opened.elapsed().as_secs_f64() * 1000.0);
        self.counters.cx_active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bytes of a pooled connection, counted.
#[derive(Debug)]
pub(super) struct Counted {
    io: Io,
    connection: Arc<Connection>,
    permit: ConnectionPermit,
}

impl Counted {
    pub(super) fn new(io: Io, connection: Arc<Connection>, permit: ConnectionPermit) -> Self {
        Self { io, connection, permit }
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    fn sent(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &polled {
            self.permit.stats.upstream_cx_tx_bytes_total.add(*bytes as u64);
            self.connection.sent.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        drop(self.connection.take_socket());
        let stats = &self.permit.stats;
        let remote = self.connection.remote_close.load(Ordering::Relaxed);
        let (all, with_requests) = if remote {
            (&stats.upstream_cx_destroy_remote, &stats.upstream_cx_destroy_remote_with_active_rq)
        } else {
            (&stats.upstream_cx_destroy_local, &stats.upstream_cx_destroy_local_with_active_rq)
        };
        all.inc();
        if self.connection.active.load(Ordering::Relaxed) > 0 {
            with_requests.inc();
            stats.upstream_cx_destroy_with_active_rq.inc();
        }
        stats.upstream_rq_per_cx.record(f64::from(self.connection.served.load(Ordering::Relaxed)));
        if !remote && self.io.is_tls() {
            // So that the endpoint knows that nothing was cut off. Nobody waits for it.
            let mut nobody = Context::from_waker(Waker::noop());
            let _ = Pin::new(&mut self.io).poll_shutdown(&mut nobody);
        }
    }
}

impl Counted {
    /// Whether bytes come out of its socket as they were sent.
    pub(super) fn is_plain(&self) -> bool {
        self.io.plain().is_some()
    }

    /// At most so many bytes into a pipe. 0: they have to be read.
    pub(super) fn poll_splice(
        &self,
        most: u64,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        let Some(socket) = self.io.plain() else { return Poll::Ready(Ok(0)) };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let filled = ready!(pipe.poll_fill(socket, most, cx));
        match &filled {
            // Whoever reads finds out why.
            Ok(0) => {}
            Ok(bytes) => self.received(*bytes as u64),
            Err(_) => self.connection.remote_close.store(true, Ordering::Relaxed),
        }
        Poll::Ready(filled)
    }

    fn received(&self, bytes: u64) {
        self.connection.received.fetch_add(bytes, Ordering::Relaxed);
        self.permit.stats.upstream_cx_rx_bytes_total.add(bytes);
    }
}

fn is_alert(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::AlertReceived(_)))
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        let bytes = (buf.filled().len() - before) as u64;
        if bytes == 0 && self.connection.aborted.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if bytes == 0 {
            // The end, or an error: either way it is the endpoint's side that went.
            self.connection.remote_close.store(true, Ordering::Relaxed);
        } else {
            self.received(bytes);
        }
        if let Err(error) = &read
            && is_alert(error)
        {
            // Only the first one matters.
            drop(self.connection.alert.set(tls::explain_io(error)));
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.sent(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.sent(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
