//! What has come of a request body so far: bytes, last activity and its end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Shared between the body on its way and the exchange that waits for the answer.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    bytes: AtomicU64,
    /// Nanoseconds after `start`.
    last: AtomicU64,
    ended: OnceLock<Instant>,
    end: Notify,
}

impl Meter {
    /// A body that begins now.
    pub fn new(now: Instant) -> Self {
        Self(Arc::new(Inner {
            start: now,
            bytes: AtomicU64::new(0),
            last: AtomicU64::new(0),
            ended: OnceLock::new(),
            end: Notify::new(),
        }))
    }

    /// `bytes` more went by.
    pub fn progress(&self, bytes: u64, now: Instant) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        let nanos = now.saturating_duration_since(self.0.start).as_nanos();
        self.0.last.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// All of it went by.
    pub fn end(&self, now: Instant) {
        if self.0.ended.set(now).is_ok() {
            self.0.end.notify_one();
        }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// When something last moved.
    pub fn last_activity(&self) -> Instant {
        self.0.start + Duration::from_nanos(self.0.last.load(Ordering::Relaxed))
    }

    /// When it ended. None: it has not.
    pub fn ended(&self) -> Option<Instant> {
        self.0.ended.get().copied()
    }

    /// Wait for its end. One waiter at a time.
    pub async fn wait_end(&self) {
        if self.ended().is_none() {
            self.0.end.notified().await;
        }
    }
}
