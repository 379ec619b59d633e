//! Timers of a connection that go from exchange to exchange.
//!
//! To set a timer, and to take it back because the answer came in time, costs as much as routing does. So a timer stays set:
//! the next exchange takes it over, and what fires too early for its deadline is set again.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::Sleep;

/// So many are kept; more are there while so many streams of HTTP/2 wait at once.
const KEPT: usize = 8;

/// Timers that nobody waits for.
#[derive(Debug, Default)]
pub(super) struct Timers(Mutex<Vec<Pin<Box<Sleep>>>>);

/// A timer in use. It goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Timer<'t> {
    of: &'t Timers,
    /// None: nobody has waited yet.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timers {
    /// One of them.
    pub(super) fn timer(&self) -> Timer<'_> {
        Timer { of: self, sleep: None }
    }
}

impl Timer<'_> {
    /// Ready: it is `at`, or later.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let kept = || self.of.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let made = || Box::pin(tokio::time::sleep_until(at.into()));
        let sleep = self.sleep.get_or_insert_with(|| kept().unwrap_or_else(made));
        if sleep.deadline() > at.into() {
            sleep.as_mut().reset(at.into());
        }
        ready!(sleep.as_mut().poll(cx));
        if sleep.deadline() >= at.into() {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(at.into());
        sleep.as_mut().poll(cx)
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let Some(sleep) = self.sleep.take().filter(|sleep| !sleep.is_elapsed()) else { return };
        let mut kept = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(sleep);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    /// By the clock that the test holds.
    async fn wait(timers: &Timers, millis: u64) -> u128 {
        let start = tokio::time::Instant::now();
        let at = start.into_std() + Duration::from_millis(millis);
        let mut timer = timers.timer();
        poll_fn(|cx| timer.poll(cx, at)).await;
        start.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_taken_over_fires_at_its_new_time() {
        let timers = Timers::default();
        let kept = || timers.0.lock().unwrap().len();
        let at = tokio::time::Instant::now().into_std() + Duration::from_millis(100);
        let mut timer = timers.timer();
        assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx, at))).await.is_pending());
        drop(timer);
        assert_eq!(kept(), 1);
        // Later than it was set for, and earlier.
        for millis in [250, 30, 500] {
            let late = wait(&timers, millis).await - u128::from(millis);
            assert!(late <= 1, "{late}");
        }
        assert_eq!(kept(), 0);
    }
}
