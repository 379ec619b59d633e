//! Closes connections that were idle for too long: one task for each pool that has any.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::{Inner, Stale};
use crate::cluster::endpoint::Host;

/// Makes sure that somebody looks after this pool, if its connections ever expire.
pub(super) fn start(host: &Arc<Host>, at: usize) {
    let Some(pool) = host.pool(at) else { return };
    let first = {
        let mut inner = pool.lock();
        if inner.reaping {
            return;
        }
        let Some(first) = inner.next_expiry() else { return };
        inner.reaping = true;
        first
    };
    tokio::spawn(reap(Arc::downgrade(host), at, first));
}

async fn reap(host: Weak<Host>, at: usize, first: Instant) {
    let mut next = first;
    loop {
        tokio::time::sleep_until(next.into()).await;
        let Some(host) = host.upgrade() else { return };
        let Some(pool) = host.pool(at) else { return };
        let mut inner = pool.lock();
        let expired = inner.expire(Instant::now());
        let after = inner.next_expiry();
        inner.reaping = after.is_some();
        drop(inner);
        drop(expired);
        match after {
            Some(after) => next = after,
            None => return,
        }
    }
}

impl Inner {
    fn next_expiry(&self) -> Option<Instant> {
        let idle = self.idle.iter().filter_map(|idle| idle.connection.expires(idle.since));
        idle.chain(self.streams.iter().filter_map(|streams| streams.expires())).min()
    }

    fn expire(&mut self, now: Instant) -> Vec<Stale> {
        let mut stale = Vec::new();
        let mut at = 0;
        while let Some(idle) = self.idle.get(at) {
            if idle.connection.expires(idle.since).is_some_and(|end| end <= now)
                && let Some(idle) = self.idle.remove(at)
            {
                idle.connection.connector.stats.upstream_cx_idle_timeout.inc();
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
        stale
    }
}
