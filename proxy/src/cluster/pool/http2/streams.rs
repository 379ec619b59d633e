//! An HTTP/2 connection as its pool sees it: places for streams.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;

use super::Error;
use crate::cluster::pool::connection::Connection;

/// How many streams a connection is taken to allow before the endpoint's SETTINGS are known: what
/// RFC 9113 recommends as the least.
pub(in super::super) const ASSUMED: u32 = 100;
/// So many streams that have ended are kept until the connection's task has something to do.
const ENDED: usize = 8;

/// An HTTP/2 connection with its streams. It is closed when nobody has it any more, nor a stream of it.
#[derive(Debug)]
pub(in super::super) struct Streams {
    sender: SendRequest<Bytes>,
    /// The same, for [`Self::look`].
    looking: Mutex<SendRequest<Bytes>>,
    connection: Arc<Connection>,
    /// `max_concurrent_streams` of the cluster.
    configured: u32,
    /// What the endpoint allows.
    allowed: AtomicU32,
    /// A request was begun on it.
    begun: AtomicBool,
    /// Milliseconds after the connection was opened at which its last stream ended.
    idle_since: AtomicU64,
    /// Streams that have ended. Each that is dropped wakes the connection's task, for nothing: it drops them itself when it
    /// was woken for something.
    ended: Mutex<Vec<RecvStream>>,
    /// Nothing new may begin on it.
    closed: AtomicBool,
    /// It ended because a PING was not answered.
    timed_out: AtomicBool,
}

impl Streams {
    pub(in super::super) fn new(
        sender: SendRequest<Bytes>,
        connection: Arc<Connection>,
        configured: Option<u32>,
    ) -> Self {
        Self {
            looking: Mutex::new(sender.clone()),
            sender,
            connection,
            configured: configured.unwrap_or(u32::MAX),
            allowed: AtomicU32::new(ASSUMED),
            begun: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            ended: Mutex::default(),
            closed: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
        }
    }

    pub(in super::super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// What sends one request.
    ///
    /// # Errors
    /// The connection takes no more.
    pub(super) fn sender(&self) -> Result<SendRequest<Bytes>, Error> {
        let mut sender = self.sender.clone();
        self.check(&mut sender)?;
        Ok(sender)
    }

    /// Whether more may begin. A sender that has sent nothing has no request that waits for its place, so it is ready or
    /// never will be.
    fn check(&self, sender: &mut SendRequest<Bytes>) -> Result<(), Error> {
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(error)) => {
                self.close();
                Err(Error::Closed(error))
            }
            _ => Ok(()),
        }
    }

    /// A request begins: whether it is the first, from which the compression's table gets the names that all of them
    /// have. Only from that one: each value that is there is held against those of every request.
    pub(super) fn learns(&self) -> bool {
        !self.begun.swap(true, Ordering::Relaxed)
    }

    /// The answer on this stream has been read, and what it answers was sent.
    pub(in super::super) fn ended(&self, stream: RecvStream) {
        let mut ended = self.lock_ended();
        if ended.len() < ENDED {
            ended.push(stream);
        }
    }

    /// The connection's task has something to do.
    pub(super) fn drop_ended(&self) {
        self.lock_ended().clear();
    }

    fn lock_ended(&self) -> MutexGuard<'_, Vec<RecvStream>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was received: see whether it was GOAWAY or SETTINGS.
    pub(super) fn look(&self) {
        let mut sender = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = u32::try_from(sender.current_max_send_streams()).unwrap_or(u32::MAX);
        self.allowed.store(allowed, Ordering::Relaxed);
        drop(self.check(&mut sender));
    }

    /// Nothing new begins on it.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// A PING was not answered.
    pub(super) fn time_out(&self) {
        self.timed_out.store(true, Ordering::Relaxed);
    }

    /// What a stream failed with.
    pub(super) fn failed(&self, error: h2::Error) -> Error {
        if self.timed_out.load(Ordering::Relaxed) {
            return Error::TimedOut;
        }
        error.into()
    }

    /// Takes a place for a stream, if there is one.
    pub(in super::super) fn reserve(&self) -> bool {
        let limit = self.configured.min(self.allowed.load(Ordering::Relaxed));
        let taken =
            self.connection.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |active| {
                (active < limit).then_some(active + 1)
            });
        taken.is_ok()
    }

    pub(in super::super) fn release(&self) {
        let since = self.connection.opened.elapsed().as_millis();
        self.idle_since.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.connection.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether nothing new may begin on it: closed, told to go away, or used up.
    pub(in super::super) fn is_over(&self) -> bool {
        self.closed.load(Ordering::Relaxed) || self.connection.is_used_up()
    }

    /// When it must be closed if nothing happens. None: never.
    pub(in super::super) fn expires(&self) -> Option<Instant> {
        let idle_since = if self.connection.active.load(Ordering::Relaxed) > 0 {
            Instant::now()
        } else {
            let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
            self.connection.opened + since
        };
        self.connection.expires(idle_since)
    }
}
