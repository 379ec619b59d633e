//! Somebody who asks the shop for its page, again and again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use pillion_tests::mesh::ask;
use pillion_tests::wait;
use tokio::task::JoinSet;

/// How many ask at a time.
const CLIENTS: usize = 4;
/// Between two questions of one client.
const PAUSE: Duration = Duration::from_millis(20);

/// What was answered since the last look.
#[derive(Debug, Default)]
pub(super) struct Tally {
    good: usize,
    bad: Vec<String>,
}

/// A load that goes on until it is dropped.
#[derive(Debug)]
pub(super) struct Load {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    /// On the door at `address`.
    pub(super) fn start(address: SocketAddr) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (tally, stop) = (Arc::clone(&tally), Arc::clone(&stop));
            clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = page(address).await;
                    {
                        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                        match answer {
                            Ok(_) => tally.good += 1,
                            Err(error) => tally.bad.push(format!("{error:#}")),
                        }
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { tally, stop, clients }
    }

    /// Waits for so many more answers; of all since the last time, none may be bad.
    pub(super) async fn all_good(&self, what: &str, count: usize) -> anyhow::Result<()> {
        let now = self.count();
        let enough = || async { (self.count() >= now + count).then_some(()) };
        wait::until(&format!("{count} answers: {what}"), enough).await?;
        let tally = std::mem::take(&mut *self.lock());
        let (bad, all) = (tally.bad.len(), tally.good + tally.bad.len());
        ensure!(bad == 0, "{what}: {bad} of {all} failed: {:#?}", tally.bad);
        eprintln!("{what}: {all} answers, all good");
        Ok(())
    }

    /// Lets the last questions be answered; they count as well.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        self.all_good("the last ones", 0).await
    }

    fn count(&self) -> usize {
        let tally = self.lock();
        tally.good + tally.bad.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The page of the shop; the instance of `web` that made it.
pub(super) async fn page(address: SocketAddr) -> anyhow::Result<String> {
    let answer = ask(address, "shop.example", "/").await?;
    ensure!(answer.status == 200 && !answer.cut, "{} {}", answer.status, answer.text());
    Ok(answer.header("x-shop-instance").unwrap_or_default().to_owned())
}
