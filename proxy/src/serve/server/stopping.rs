//! How listeners stop: at once or in good order, all or only those for what comes in.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::{Running, Server};
use crate::model::listener::{self as model, Direction};

/// Which listeners do not listen any more, whatever is configured from now on.
#[derive(Debug, Default)]
pub(super) struct Stopped(AtomicU8);

impl Stopped {
    const INBOUND: u8 = 1;
    const ALL: u8 = 2;

    fn set(&self, inbound_only: bool) {
        let which = if inbound_only { Self::INBOUND } else { Self::ALL };
        self.0.fetch_max(which, Ordering::Relaxed);
    }

    /// Whether a listener is one of them.
    pub(super) fn holds_for(&self, listener: &model::Listener) -> bool {
        match self.0.load(Ordering::Relaxed) {
            Self::ALL => true,
            Self::INBOUND => listener.direction == Direction::Inbound,
            _ => false,
        }
    }
}

impl Server {
    /// Stop listening for good; connections that are open finish in their own time, and none is cut. They are still
    /// waited for when the process leaves.
    pub fn stop(&self, inbound_only: bool) {
        let mut running = self.lock();
        self.stopped.set(inbound_only);
        for one in
            running.values_mut().filter(|one| self.stopped.holds_for(&one.live.load().config))
        {
            if one.sockets.is_empty() {
                continue;
            }
            // Each worker's accept loop closes its own handle once it has seen the drain.
            one.sockets.clear();
            one.drains().iter().for_each(|drain| drain.start());
            self.stats.stopped.inc();
        }
        let unbound = self.unbound.drains(|config| self.stopped.holds_for(config));
        unbound.iter().for_each(|drain| drain.start());
    }

    /// Tell connections to end, those to come as well; listening goes on, and none is cut.
    pub fn drain_connections(&self, inbound_only: bool) {
        let which =
            |config: &model::Listener| !inbound_only || config.direction == Direction::Inbound;
        let running = self.lock();
        for one in running.values() {
            let live = one.live.load();
            if which(&live.config) {
                live.drains().for_each(|drain| drain.start());
            }
        }
        self.unbound.drains(which).iter().for_each(|drain| drain.start());
    }

    /// Stop accepting, let connections finish for at most `limit`, close what is left. Returns how
    /// many connections were cut.
    pub async fn drain(&self, limit: Duration) -> usize {
        self.drain_those(|_| true, limit).await
    }

    /// The same, first for what comes in, then for the rest: an application that is still answering
    /// has to reach others.
    pub async fn drain_in_order(&self, limit: Duration) -> usize {
        let begun = Instant::now();
        let inbound = |config: &model::Listener| config.direction == Direction::Inbound;
        let cut = self.drain_those(inbound, limit).await;
        cut + self.drain_those(|_| true, limit.saturating_sub(begun.elapsed())).await
    }

    async fn drain_those(
        &self,
        which: impl Fn(&model::Listener) -> bool,
        limit: Duration,
    ) -> usize {
        let leaving: Vec<_> = {
            let mut running = self.lock();
            let leaves = |one: &Running| which(&one.live.load().config);
            let leaving = running.extract_if(|_, one| leaves(one)).map(|(_, one)| one).collect();
            self.stats.active.set(i64::try_from(running.len()).unwrap_or(i64::MAX));
            leaving
        };
        let mut drains: Vec<_> = leaving.iter().flat_map(Running::drains).collect();
        drains.extend(self.unbound.drains(which));
        // Closes the sockets, once each worker's accept loop has seen the drain.
        for drain in &drains {
            drain.start();
            self.stats.stopped.inc();
        }
        drop(leaving);
        let waits = drains.iter().map(|drain| drain.run(limit));
        futures_util::future::join_all(waits).await.into_iter().sum()
    }
}
