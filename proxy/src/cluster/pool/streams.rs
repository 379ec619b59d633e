//! HTTP/2 connections: many requests at a time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::connection::{Connection, Counted};
use super::{Home, Job};
use crate::http::body::RequestBody;
use crate::http::gather::{Gather, Sender};

/// How many streams a connection is taken to allow before the endpoint's SETTINGS are known: what
/// RFC 9113 recommends as the least.
pub(super) const ASSUMED: u32 = 100;

/// An HTTP/2 connection with its streams.
#[derive(Debug)]
pub(super) struct Streams {
    sender: SendRequest<RequestBody>,
    connection: Arc<Connection>,
    /// `max_concurrent_streams` of the cluster.
    configured: u32,
    /// What the endpoint allows.
    allowed: AtomicU32,
    /// Milliseconds after the connection was opened at which its last stream ended.
    idle_since: AtomicU64,
}

impl Streams {
    pub(super) fn new(
        sender: SendRequest<RequestBody>,
        connection: Arc<Connection>,
        configured: Option<u32>,
    ) -> Self {
        Self {
            sender,
            connection,
            configured: configured.unwrap_or(u32::MAX),
            allowed: AtomicU32::new(ASSUMED),
            idle_since: AtomicU64::new(0),
        }
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(super) fn sender(&self) -> SendRequest<RequestBody> {
        self.sender.clone()
    }

    /// Takes a place for a stream, if there is one.
    pub(super) fn reserve(&self) -> bool {
        let limit = self.configured.min(self.allowed.load(Ordering::Relaxed));
        let taken =
            self.connection.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |active| {
                (active < limit).then_some(active + 1)
            });
        taken.is_ok()
    }

    pub(super) fn release(&self) {
        let since = self.connection.opened.elapsed().as_millis();
        self.idle_since.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.connection.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether nothing new may begin on it: closed, told to go away, or used up.
    pub(super) fn is_over(&self) -> bool {
        self.sender.is_closed() || self.connection.is_used_up()
    }

    /// When it must be closed if nothing happens. None: never.
    pub(super) fn expires(&self) -> Option<Instant> {
        let idle_since = if self.connection.active.load(Ordering::Relaxed) > 0 {
            Instant::now()
        } else {
            let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
            self.connection.opened + since
        };
        self.connection.expires(idle_since)
    }
}

/// What runs the streams of a connection.
pub(super) type Driver = http2::Connection<TokioIo<Gather<Counted>>, RequestBody, Sender<Counted>>;

/// Runs a connection until it is closed.
pub(super) fn drive(job: &Job, streams: &Arc<Streams>, mut driver: Driver) {
    let home = Home::of(job);
    let known = Arc::clone(&streams.connection);
    let weak = Arc::downgrade(streams);
    let task = tokio::spawn(async move {
        let ended = poll_fn(|cx| {
            let polled = Pin::new(&mut driver).poll(cx);
            // SETTINGS may have changed; there is no other way to hear of it.
            if polled.is_pending()
                && let Some(streams) = weak.upgrade()
            {
                let allowed = u32::try_from(driver.current_max_send_streams()).unwrap_or(u32::MAX);
                streams.allowed.store(allowed, Ordering::Relaxed);
            }
            polled
        });
        drop(ended.await);
        drop(driver);
        home.closed(&known);
    });
    drop(streams.connection.driver.set(task.abort_handle()));
}
