//! Somebody outside who asks the shop for its page, again and again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use pillion_tests::mesh::ask;
use pillion_tests::netns::{Host, Inside};
use pillion_tests::wait;

/// How many ask at a time.
const CLIENTS: usize = 4;
/// Between two questions of one client.
const PAUSE: Duration = Duration::from_millis(20);

/// What was answered since the last look.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Good answers.
    pub(super) good: usize,
    /// What was no good answer, with the seconds since the start of the load.
    pub(super) bad: Vec<String>,
    /// The slowest answer.
    pub(super) slowest: Duration,
    /// Instances of `web` that gave good answers.
    pub(super) seen: BTreeSet<String>,
}

/// A load that goes on until it is dropped.
pub(super) struct Load {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    _inside: Inside,
}

impl Load {
    /// From `host` to the front at `address`.
    pub(super) fn start(host: &Host, address: SocketAddr) -> anyhow::Result<Self> {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&tally), Arc::clone(&stop));
        let started = Instant::now();
        let ((), inside) = host.keep(move || async move {
            for _ in 0..CLIENTS {
                let (shared, stopped) = (Arc::clone(&shared), Arc::clone(&stopped));
                tokio::spawn(async move {
                    while !stopped.load(Ordering::Relaxed) {
                        one(address, &shared, started).await;
                        tokio::time::sleep(PAUSE).await;
                    }
                });
            }
            Ok(())
        })?;
        Ok(Self { tally, stop, _inside: inside })
    }

    /// What came since the last time.
    pub(super) fn take(&self) -> Tally {
        std::mem::take(&mut *self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for so many more answers; none may be bad.
    pub(super) async fn all_good(&self, what: &str, count: usize) -> anyhow::Result<Tally> {
        let enough = || async {
            let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            (tally.good + tally.bad.len() >= count).then_some(())
        };
        wait::until(&format!("{count} answers, {what}"), enough).await?;
        let tally = self.take();
        let (bad, all) = (tally.bad.len(), tally.good + tally.bad.len());
        ensure!(bad == 0, "{what}: {bad} of {all} failed: {:#?}", tally.bad);
        eprintln!("{what}: {all} answers, the slowest took {:?}", tally.slowest);
        Ok(tally)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn one(address: SocketAddr, shared: &Mutex<Tally>, started: Instant) {
    let begun = Instant::now();
    let answer = ask(address, "shop.example", "/").await;
    let took = begun.elapsed();
    let mut tally = shared.lock().unwrap_or_else(PoisonError::into_inner);
    tally.slowest = tally.slowest.max(took);
    match answer {
        Ok(answer) if answer.status == 200 && !answer.cut => {
            tally.good += 1;
            tally.seen.extend(answer.header("x-shop-instance").map(str::to_owned));
        }
        Ok(answer) => {
            let at = started.elapsed();
            tally.bad.push(format!(
                "at {at:?} after {took:?}: {} {}",
                answer.status,
                answer.text()
            ));
        }
        Err(error) => {
            tally.bad.push(format!("at {:?} after {took:?}: {error:#}", started.elapsed()));
        }
    }
}
