//! Load: requests in a closed loop for a while, or at a given pace.

mod http1;
mod http2;
mod paced;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use http1::{anew, idle, kept, one_after_the_other};
pub use http2::multiplexed;
pub use paced::{Latencies, paced};

/// Counts what was answered, and says when to stop.
#[derive(Debug, Default)]
pub struct Meter {
    answered: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

impl Meter {
    fn good(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn bad(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Good answers so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Everything else.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Ends the load.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// HTTP/1.1 on this many connections, one request at a time on each.
    Kept(usize),
    /// HTTP/1.1, this many at a time, each on a connection of its own.
    Anew(usize),
    /// HTTP/2: connections, and streams at a time on each.
    Multiplexed(usize, usize),
}

/// Starts the load; it ends when the meter is stopped.
pub fn start(style: Style, to: SocketAddr, path: &'static str) -> Arc<Meter> {
    let meter = Arc::new(Meter::default());
    match style {
        Style::Kept(connections) => {
            for _ in 0..connections {
                tokio::spawn(kept(to, path, Arc::clone(&meter)));
            }
        }
        Style::Anew(at_a_time) => {
            for _ in 0..at_a_time {
                tokio::spawn(anew(to, path, Arc::clone(&meter)));
            }
        }
        Style::Multiplexed(connections, streams) => {
            for _ in 0..connections {
                tokio::spawn(multiplexed(to, path, streams, Arc::clone(&meter)));
            }
        }
    }
    meter
}

/// Waits until the load has answered something.
///
/// # Errors
/// When it has not after ten seconds.
pub async fn begins(meter: &Meter) -> anyhow::Result<()> {
    let begun = Instant::now();
    while meter.answered() == 0 {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(10), "no request was answered");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
