//! Connections of one endpoint on one worker. A request takes an idle HTTP/1.1 connection (the one
//! used last, so that the others can time out), or a place on an HTTP/2 connection, or waits in
//! line for the next one that is made or comes back.
//!
//! The line is served in order, whoever caused the connection. When a connection cannot be made,
//! all who wait are told (as Envoy does): they may try another endpoint.

mod connection;
pub(crate) mod dial;
mod http1;
mod http2;
mod lease;
mod watch;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::StatusCode;
use tokio::sync::oneshot;

pub use connection::{Connection, ConnectionPermit};
pub(crate) use dial::{Connector, Wanted};
pub(crate) use http1::Error as Http1Error;
pub(crate) use http2::{Error as Http2Error, TakeHead};
pub(crate) use lease::{Cause, Content, Lease, SendFailure};

use super::behalf::Behalf;
use super::breaker::ConnectionPlace;
use super::endpoint::{Endpoint, Host};
use crate::model::Name;
use crate::model::route::Priority;
use crate::telemetry::reason::{Reason, Refusal, Sent};
use dial::Opened;
use http1::{Http1, Idle};
use http2::Streams;
use watch::Watcher;

/// A pool. Only the worker it belongs to uses it in the common case, so its lock is not contended.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    inner: Mutex<Inner>,
    /// Length of the line, to be looked at without the lock.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    /// Least recently used first.
    idle: VecDeque<Idle>,
    /// HTTP/1.1 connections that serve a request now.
    busy: usize,
    streams: Vec<Arc<Streams>>,
    /// Connections that are being made.
    dialing: usize,
    line: VecDeque<Waiter>,
    /// ALPN chose HTTP/1.1 here before, so every waiter needs a connection of its own.
    negotiated_http1: bool,
    /// Who looks after idle connections.
    watcher: Watcher,
    /// All that are open, for those who have to be closed when the endpoint turns unhealthy.
    open: Vec<Weak<Connection>>,
}

/// Somebody in the line, and how to make a connection for them.
#[derive(Debug)]
struct Waiter {
    reply: oneshot::Sender<Result<Lease, Refusal>>,
    job: Job,
}

/// What kind of connection is wanted, where.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) connector: Arc<Connector>,
    pub(crate) wanted: Wanted,
    pub(crate) priority: Priority,
    /// What makes the connection unfit for others.
    pub(crate) fit: Fit,
    /// Which of the endpoint's pools.
    pub(crate) at: usize,
}

/// What connections of a pool may differ in: only a request that wants the very same gets one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Name to be sent in the ClientHello, where it depends on the request.
    pub(crate) sni: Option<Name>,
    /// What the connection tells of the client that it was made for.
    pub(crate) behalf: Behalf,
}

impl Job {
    fn pool(&self) -> Result<&Pool, Refusal> {
        self.endpoint.host.pool(self.at).ok_or_else(gone)
    }

    /// A connection that was idle turned out to be closed: away with all that are.
    pub(crate) fn sweep(&self) {
        if let Ok(pool) = self.pool() {
            pool.sweep();
        }
    }
}

/// A connection to send one request on.
///
/// # Errors
/// The line is too long, or no connection can be made.
pub(crate) async fn acquire(job: &Job) -> Result<Lease, Refusal> {
    let pool = job.pool()?;
    // The common case: no channel, no gauge, one lock.
    if let Some(lease) = pool.take(job) {
        return Ok(lease);
    }
    let stats = &job.connector.stats;
    let Some(_place) = job.connector.breakers.pending(job.priority) else {
        stats.upstream_rq_pending_overflow.inc();
        return Err(overflow(job, "max_pending_requests"));
    };
    stats.upstream_rq_pending_total.inc();
    let _active = stats.upstream_rq_pending_active.guard();
    job.endpoint.counters().rq_pending_active.fetch_add(1, Ordering::Relaxed);
    let mut cancelled = Cancelled { job, armed: true };
    let (reply, answer) = oneshot::channel();
    pool.queue(Waiter { reply, job: job.clone() });
    pool.start_dials();
    let answer = answer.await;
    cancelled.armed = false;
    match answer {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(refusal)) => {
            stats.upstream_rq_pending_failure_eject.inc();
            Err(refusal)
        }
        Err(_) => Err(gone()),
    }
}

/// Counts a request that waits, and one that was given up meanwhile.
struct Cancelled<'a> {
    job: &'a Job,
    armed: bool,
}

impl Drop for Cancelled<'_> {
    fn drop(&mut self) {
        self.job.endpoint.counters().rq_pending_active.fetch_sub(1, Ordering::Relaxed);
        if self.armed {
            self.job.connector.stats.upstream_rq_cancelled.inc();
        }
    }
}

pub(crate) fn overflow(job: &Job, limit: &str) -> Refusal {
    let cluster = &job.connector.config.name;
    let detail = format!("circuit breaker {limit} of cluster {cluster} is open");
    Refusal::local(Reason::Overflow, StatusCode::SERVICE_UNAVAILABLE, detail)
}

fn gone() -> Refusal {
    Refusal::upstream(Reason::ConnectFailure, Sent::No, "the endpoint was removed")
}

impl Pool {
    /// Closes idle connections, and all others too. Called when an endpoint turned unhealthy.
    pub(crate) fn close(&self) {
        let (idle, streams, open) = {
            let mut inner = self.lock();
            (
                std::mem::take(&mut inner.idle),
                std::mem::take(&mut inner.streams),
                std::mem::take(&mut inner.open),
            )
        };
        for connection in open.iter().filter_map(Weak::upgrade) {
            connection.abort();
        }
        drop((idle, streams));
    }

    /// Closes idle connections; the others serve what they have, and HTTP/2 takes no more. Called
    /// when an endpoint turned unhealthy.
    pub(crate) fn let_go(&self) {
        let (idle, streams) = {
            let mut inner = self.lock();
            (std::mem::take(&mut inner.idle), std::mem::take(&mut inner.streams))
        };
        drop((idle, streams));
        self.start_dials();
    }

    /// A connection that is free now.
    fn take(&self, job: &Job) -> Option<Lease> {
        let mut stale = Vec::new();
        let mut inner = self.lock();
        let lease = inner.take(job, &mut stale);
        drop(inner);
        // Closing connections takes the locks of others: not under ours.
        drop(stale);
        lease
    }

    /// Joins the line; served at once if something was freed in the meantime.
    fn queue(&self, waiter: Waiter) {
        let mut stale = Vec::new();
        let mut inner = self.lock();
        match inner.take(&waiter.job, &mut stale) {
            Some(lease) => {
                drop(inner);
                drop(waiter.reply.send(Ok(lease)));
            }
            None => {
                inner.line.push_back(waiter);
                self.waiting.store(inner.line.len(), Ordering::Relaxed);
            }
        }
        drop(stale);
    }

    /// Makes as many connections as the line needs and the breakers allow.
    fn start_dials(&self) {
        while let Some((job, place)) = self.next_dial() {
            tokio::spawn(dial(job, place));
        }
    }

    fn next_dial(&self) -> Option<(Job, ConnectionPlace)> {
        let mut inner = self.lock();
        inner.line.retain(|waiter| !waiter.reply.is_closed());
        self.waiting.store(inner.line.len(), Ordering::Relaxed);
        if inner.dialing >= inner.dials_needed() {
            return None;
        }
        let job = inner.line.get(inner.dialing).or_else(|| inner.line.front())?.job.clone();
        let first = inner.is_without_connections();
        let stats = &job.connector.stats;
        let open = job.endpoint.counters().cx_active.load(Ordering::Relaxed);
        let place = job.connector.breakers.connection(job.priority, first, open);
        let Some((place, over)) = place else {
            stats.upstream_cx_overflow.inc();
            return None;
        };
        if over {
            stats.upstream_cx_overflow.inc();
        }
        inner.dialing += 1;
        Some((job, place))
    }

    /// A connection was made.
    fn dialed(&self, job: &Job, opened: Opened) {
        match opened {
            Opened::Http1(http1) => {
                {
                    let mut inner = self.lock();
                    inner.dialing -= 1;
                    inner.busy += 1;
                    inner.negotiated_http1 = job.wanted == Wanted::Negotiated;
                    inner.register(http1.connection());
                }
                self.deliver(Lease::http1(job, http1));
            }
            Opened::Http2(streams) => {
                let mut inner = self.lock();
                inner.dialing -= 1;
                inner.register(streams.connection());
                inner.streams.push(streams);
                drop(inner);
                self.serve_line();
                watch::start(&job.endpoint.host, job.at);
            }
        }
        self.start_dials();
    }

    /// A connection could not be made: everybody who waits for one like it is told.
    fn not_dialed(&self, job: &Job, refusal: &Refusal) {
        let told: VecDeque<Waiter> = {
            let mut inner = self.lock();
            inner.dialing -= 1;
            let line = std::mem::take(&mut inner.line);
            let (told, rest) = line.into_iter().partition(|waiter| waiter.job.fit == job.fit);
            inner.line = rest;
            self.waiting.store(inner.line.len(), Ordering::Relaxed);
            told
        };
        for waiter in told {
            drop(waiter.reply.send(Err(refusal.clone())));
        }
        self.start_dials();
    }

    /// An HTTP/1.1 connection is free: for the first in line that it suits, else it is kept.
    fn deliver(&self, lease: Lease) {
        let (host, at) = (Arc::clone(lease.host()), lease.at());
        let mut lease = lease;
        loop {
            let mut inner = self.lock();
            let Some(waiter) = inner.next_waiter(lease.fit()) else {
                if let Some(http1) = lease.into_http1() {
                    self.keep(inner, http1, (&host, at));
                }
                return;
            };
            self.waiting.store(inner.line.len(), Ordering::Relaxed);
            drop(inner);
            match waiter.reply.send(Ok(lease)) {
                Ok(()) => return,
                // They left while we looked: the next one, please.
                Err(Ok(back)) => lease = back,
                Err(Err(_)) => return,
            }
        }
    }

    /// An HTTP/1.1 connection is free. Given back if somebody waits for one.
    fn put_back(&self, http1: Box<Http1>, host: &Arc<Host>, at: usize) -> Option<Box<Http1>> {
        let inner = self.lock();
        if !inner.line.is_empty() {
            return Some(http1);
        }
        self.keep(inner, http1, (host, at));
        None
    }

    /// Keeps a connection that nobody waits for.
    fn keep(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        http1: Box<Http1>,
        (host, at): (&Arc<Host>, usize),
    ) {
        inner.busy = inner.busy.saturating_sub(1);
        inner.idle.push_back(Idle::new(http1));
        match inner.watch_last() {
            Some(false) => {}
            Some(true) => {
                let gone = inner.idle.pop_back();
                drop(inner);
                drop(gone);
                self.place_freed();
            }
            None => {
                drop(inner);
                watch::start(host, at);
            }
        }
    }

    /// Gives free HTTP/2 streams to those in line.
    fn serve_line(&self) {
        let mut stale = Vec::new();
        loop {
            let mut inner = self.lock();
            let Some(job) = inner.line.front().map(|waiter| waiter.job.clone()) else { break };
            let Some(lease) = inner.take_stream(&job, &mut stale) else { break };
            let waiter = inner.line.pop_front();
            self.waiting.store(inner.line.len(), Ordering::Relaxed);
            drop(inner);
            if let Some(waiter) = waiter {
                drop(waiter.reply.send(Ok(lease)));
            }
        }
        drop(stale);
    }

    /// A stream ended: its place may be for somebody in line.
    fn stream_freed(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.serve_line();
        }
    }

    /// A busy HTTP/1.1 connection was closed instead of coming back.
    fn lost_busy(&self) {
        let mut inner = self.lock();
        inner.busy = inner.busy.saturating_sub(1);
        drop(inner);
        self.place_freed();
    }

    /// A connection was closed: its place under `max_connections` may be for somebody in line.
    fn place_freed(&self) {
        // Whoever ends together with the runtime needs no other connection.
        if self.waiting.load(Ordering::Relaxed) > 0 && tokio::runtime::Handle::try_current().is_ok()
        {
            self.start_dials();
        }
    }

    /// An HTTP/2 connection is closed: forget it; who waited for a place under `max_connections` gets it.
    fn closed(&self, connection: &Arc<Connection>) {
        let is_it = |other: &Arc<Connection>| Arc::ptr_eq(other, connection);
        let mut inner = self.lock();
        let streams = inner.streams.iter().position(|streams| is_it(streams.connection()));
        let streams = streams.map(|at| inner.streams.swap_remove(at));
        drop(inner);
        drop(streams);
        self.place_freed();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn dial(job: Job, place: ConnectionPlace) {
    let opened = Box::pin(job.connector.open(&job, place)).await;
    let Ok(pool) = job.pool() else { return };
    match opened {
        Ok(opened) => pool.dialed(&job, opened),
        Err(refusal) => pool.not_dialed(&job, &refusal),
    }
}

/// What is closed once the lock is released.
enum Stale {
    Http1(#[expect(dead_code, reason = "held to be dropped later")] Idle),
    Http2(#[expect(dead_code, reason = "held to be dropped later")] Arc<Streams>),
}

impl Inner {
    fn take(&mut self, job: &Job, stale: &mut Vec<Stale>) -> Option<Lease> {
        self.take_idle(job, stale).or_else(|| self.take_stream(job, stale))
    }

    fn take_idle(&mut self, job: &Job, stale: &mut Vec<Stale>) -> Option<Lease> {
        let mut at = self.idle.len();
        while let Some(index) = at.checked_sub(1) {
            at = index;
            let idle = self.idle.get(index)?;
            if idle.connection().fit != job.fit {
                continue;
            }
            let idle = self.idle.remove(index)?;
            if idle.is_usable() {
                self.busy += 1;
                return Some(Lease::http1(job, idle.http1));
            }
            stale.push(Stale::Http1(idle));
        }
        None
    }

    fn take_stream(&mut self, job: &Job, stale: &mut Vec<Stale>) -> Option<Lease> {
        let mut at = 0;
        while let Some(streams) = self.streams.get(at) {
            if streams.connection().fit != job.fit {
                at += 1;
            } else if streams.is_over() {
                // What is under way on it goes on; nothing new begins.
                stale.push(Stale::Http2(self.streams.swap_remove(at)));
            } else if streams.reserve() {
                return Some(Lease::http2(job, Arc::clone(streams)));
            } else {
                at += 1;
            }
        }
        None
    }

    fn next_waiter(&mut self, fit: &Fit) -> Option<Waiter> {
        loop {
            let suits = |waiter: &Waiter| waiter.job.fit == *fit;
            let waiter = self.line.iter().position(suits).and_then(|at| self.line.remove(at))?;
            if !waiter.reply.is_closed() {
                return Some(waiter);
            }
        }
    }

    /// HTTP/1.1 serves one at a time; an HTTP/2 connection will serve many, so one is enough until
    /// it is known how many.
    fn dials_needed(&self) -> usize {
        let Some(front) = self.line.front() else { return 0 };
        let at_a_time = match front.job.wanted {
            Wanted::Http1 => 1,
            Wanted::Negotiated if self.negotiated_http1 => 1,
            Wanted::Http2 | Wanted::Negotiated => {
                let configured = front.job.connector.config.http2.max_concurrent_streams;
                configured.unwrap_or(http2::ASSUMED).clamp(1, http2::ASSUMED) as usize
            }
        };
        self.line.len().div_ceil(at_a_time)
    }

    fn is_without_connections(&self) -> bool {
        self.busy == 0 && self.dialing == 0 && self.idle.is_empty() && self.streams.is_empty()
    }

    fn register(&mut self, connection: &Arc<Connection>) {
        if connection.connector.config.close_on_health_failure {
            self.open.retain(|open| open.strong_count() > 0);
            self.open.push(Arc::downgrade(connection));
        }
    }
}

/// What a driver needs to tell its pool that the connection is closed.
struct Home {
    host: Weak<Host>,
    at: usize,
}

impl Home {
    fn of(job: &Job) -> Self {
        Self { host: Arc::downgrade(&job.endpoint.host), at: job.at }
    }

    fn closed(&self, connection: &Arc<Connection>) {
        if let Some(host) = self.host.upgrade()
            && let Some(pool) = host.pool(self.at)
        {
            pool.closed(connection);
        }
    }
}
