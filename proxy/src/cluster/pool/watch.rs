//! Looks after connections that nobody uses: one task for each pool that has any. It closes those that
//! were idle for too long, and hears of those that their endpoint closes.

use std::future::{Future, poll_fn};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::{Inner, Pool, Stale};
use crate::cluster::endpoint::Host;

/// Who looks after a pool.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    /// None: nobody does yet.
    waker: Option<Waker>,
    /// There will be somebody soon.
    starting: bool,
    /// When it looks again by itself. None: never.
    next: Option<Instant>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Makes sure that somebody looks after this pool, and looks now.
pub(super) fn start(host: &Arc<Host>, at: usize) {
    let Some(pool) = host.pool(at) else { return };
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let mut inner = pool.lock();
    match &inner.watcher.waker {
        Some(waker) => waker.wake_by_ref(),
        None if inner.watcher.starting => {}
        None => {
            inner.watcher.starting = true;
            runtime.spawn(watch(Arc::downgrade(host), at));
        }
    }
}

async fn watch(host: Weak<Host>, at: usize) {
    let mut timer = Box::pin(tokio::time::sleep(std::time::Duration::ZERO));
    poll_fn(|cx| {
        loop {
            let Some(host) = host.upgrade() else { return Poll::Ready(()) };
            let Some(pool) = host.pool(at) else { return Poll::Ready(()) };
            let Some(next) = pool.look(Some(cx.waker())) else { return Poll::Pending };
            timer.as_mut().reset(next.into());
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

impl Pool {
    /// Closes what is to be closed; returns when to look again at the latest.
    fn look(&self, watcher: Option<&Waker>) -> Option<Instant> {
        let mut inner = self.lock();
        if let Some(waker) = watcher
            && !inner.watcher.waker.as_ref().is_some_and(|known| known.will_wake(waker))
        {
            inner.watcher.waker = Some(waker.clone());
        }
        let mut stale = inner.gone();
        inner.expire(Instant::now(), &mut stale);
        let next = inner.next_expiry();
        inner.watcher.next = next;
        drop(inner);
        if !stale.is_empty() {
            drop(stale);
            self.place_freed();
        }
        next
    }

    /// One idle connection was found closed: others are likely to be as well.
    pub(super) fn sweep(&self) {
        self.look(None);
    }
}

impl Inner {
    /// The connection that was idle last: has it been closed, and will the watcher hear of it? None: there is no watcher yet.
    pub(super) fn watch_last(&mut self) -> Option<bool> {
        let waker = self.watcher.waker.as_ref()?;
        let last = self.idle.back_mut()?;
        let gone = last.is_gone(&mut Context::from_waker(waker));
        if last.expires().is_some_and(|end| self.watcher.next.is_none_or(|next| end < next)) {
            waker.wake_by_ref();
        }
        Some(gone)
    }

    /// Those that the endpoint has closed. The others tell the watcher.
    fn gone(&mut self) -> Vec<Stale> {
        let mut stale = Vec::new();
        let Some(waker) = &self.watcher.waker else { return stale };
        let mut cx = Context::from_waker(waker);
        let mut at = 0;
        while let Some(idle) = self.idle.get_mut(at) {
            if idle.is_gone(&mut cx) {
                stale.extend(self.idle.remove(at).map(Stale::Http1));
            } else {
                at += 1;
            }
        }
        stale
    }

    fn next_expiry(&self) -> Option<Instant> {
        let idle = self.idle.iter().filter_map(super::Idle::expires);
        idle.chain(self.streams.iter().filter_map(|streams| streams.expires())).min()
    }

    fn expire(&mut self, now: Instant, stale: &mut Vec<Stale>) {
        let mut at = 0;
        while let Some(idle) = self.idle.get(at) {
            if idle.expires().is_some_and(|end| end <= now)
                && let Some(idle) = self.idle.remove(at)
            {
                idle.connection().connector.stats.upstream_cx_idle_timeout.inc();
                stale.push(Stale::Http1(idle));
            } else {
                at += 1;
            }
        }
        let mut at = 0;
        while let Some(streams) = self.streams.get(at) {
            if streams.expires().is_some_and(|end| end <= now) {
                let streams = self.streams.swap_remove(at);
                streams.connection().connector.stats.upstream_cx_idle_timeout.inc();
                stale.push(Stale::Http2(streams));
            } else {
                at += 1;
            }
        }
    }
}
