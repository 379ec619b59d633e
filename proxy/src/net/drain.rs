//! Leaving in good order: nothing new, finish what is under way, and close what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// How far the end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Business as usual.
    #[default]
    Serving,
    /// Nothing new is taken; HTTP/2 gets GOAWAY, HTTP/1 `Connection: close`.
    Draining,
    /// Time is up: close.
    Closing,
}

/// The one that says when. One for the process, and one for each listener that goes.
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
    open: Arc<Open>,
}

/// What connections hold to learn of it.
#[derive(Clone, Debug)]
pub struct Watch {
    phase: watch::Receiver<Phase>,
    open: Arc<Open>,
}

/// Something under way that the drain waits for: until this is dropped.
#[derive(Debug)]
pub struct Guard(Arc<Open>);

#[derive(Debug, Default)]
struct Open {
    count: AtomicUsize,
    empty: Notify,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// Serving.
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving), open: Arc::default() }
    }

    /// One more to be told.
    pub fn watch(&self) -> Watch {
        Watch { phase: self.phase.subscribe(), open: self.open.clone() }
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// How many guards are held.
    pub fn open(&self) -> usize {
        self.open.count.load(Ordering::Acquire)
    }

    /// Says that draining begins. Waits for nobody; again, or after the end, it does nothing.
    pub fn start(&self) {
        self.advance(Phase::Draining);
    }

    /// Says that draining begins, waits until no guard is held, at most for `limit`, and then says
    /// that what is left shall close. Returns how many were left. Safe to drop and call again.
    pub async fn run(&self, limit: Duration) -> usize {
        self.start();
        let _ = timeout(limit, self.open.emptied()).await;
        let left = self.open();
        self.advance(Phase::Closing);
        left
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = *phase < to;
            if later {
                *phase = to;
            }
            later
        });
    }
}

impl Watch {
    /// How far it has come.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether nothing new shall be taken.
    pub fn is_draining(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// Completes when draining begins; at once if it has.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Completes when what is left shall close.
    pub async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    /// Makes the drain wait until the guard is dropped.
    pub fn guard(&self) -> Guard {
        self.open.count.fetch_add(1, Ordering::AcqRel);
        Guard(self.open.clone())
    }

    async fn reached(&self, wanted: Phase) {
        let mut phase = self.phase.clone();
        // An error: the drain itself is gone, and nobody can be served for it any more.
        let _ = phase.wait_for(|phase| *phase >= wanted).await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

impl Open {
    async fn emptied(&self) {
        loop {
            let empty = self.empty.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            empty.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_the_last_guard() {
        let drain = Drain::new();
        let watch = drain.watch();
        let guards = [watch.guard(), watch.guard()];
        assert_eq!((drain.open(), watch.is_draining()), (2, false));
        let work = tokio::spawn(async move {
            watch.draining().await;
            assert_eq!(watch.phase(), Phase::Draining);
            for guard in guards {
                tokio::task::yield_now().await;
                drop(guard);
            }
        });
        assert_eq!(drain.run(Duration::from_secs(60)).await, 0);
        work.await.unwrap();
        assert_eq!(drain.phase(), Phase::Closing);
    }

    #[tokio::test]
    async fn what_does_not_end_in_time_is_told_to_close() {
        let drain = Drain::new();
        let watch = drain.watch();
        let guard = watch.guard();
        let stubborn = tokio::spawn(async move {
            watch.closing().await;
            drop(guard);
        });
        assert_eq!(drain.run(Duration::from_millis(20)).await, 1);
        stubborn.await.unwrap();
        assert_eq!(drain.open(), 0);
    }

    #[tokio::test]
    async fn there_is_no_way_back_and_late_watchers_know_at_once() {
        let drain = Drain::new();
        assert_eq!(drain.run(Duration::ZERO).await, 0);
        drain.start();
        assert_eq!(drain.phase(), Phase::Closing);
        drain.watch().draining().await;
        drain.watch().closing().await;
        let orphan = Drain::new().watch();
        orphan.draining().await;
    }
}
