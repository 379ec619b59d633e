//! What the service manager hears of a running proxy: that it is ready, what it is at, and that its
//! threads are alive.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::footprint;
use super::state::State;
use super::systemd::Notifier;
use crate::admin::Source;

/// How often it is looked whether the proxy is ready.
const LOOK: Duration = Duration::from_millis(50);
/// So long after it is ready it has begun: what is done for the first time has been done.
const BEGINNING: Duration = Duration::from_millis(250);
/// How often a new status is told.
const STATUS_EVERY: Duration = Duration::from_secs(2);

/// Tells it, for ever. Runs on the control thread, so that one that hangs is silent.
pub(super) async fn attend(manager: Notifier, state: Arc<State>, workers: Vec<Handle>) {
    let mut told = String::new();
    let (mut ready, mut begun) = (false, false);
    let watchdog = manager.watchdog().map(|watchdog| watchdog / 2);
    // The first sign of life is for the time since the process that this one replaces gave its last one.
    let (mut beat, mut look) = (None::<Instant>, Instant::now());
    loop {
        if watchdog.is_some_and(|pause| beat.is_none_or(|beat| beat.elapsed() >= pause)) {
            beat = Some(Instant::now());
            are_alive(&workers).await;
            manager.alive();
        }
        if ready && !begun && look.elapsed() >= BEGINNING {
            begun = true;
            if let Err(error) = footprint::give_back() {
                tracing::debug!(%error, "the code of the start stays in memory");
            }
        }
        if !ready || look.elapsed() >= STATUS_EVERY {
            look = Instant::now();
            let (serving, status) = describe(&state);
            if serving && !ready {
                manager.ready(&status);
                ready = true;
            } else if status != told {
                manager.status(&status);
            }
            told = status;
        }
        let pause = match (ready, begun) {
            (false, _) => LOOK,
            (true, false) => BEGINNING,
            (true, true) => STATUS_EVERY,
        };
        sleep(watchdog.unwrap_or(pause).min(pause)).await;
    }
}

/// Whether everything that is needed is there, and in words.
fn describe(state: &State) -> (bool, String) {
    match state.waiting_for() {
        Some(what) => (false, format!("waiting: {what}")),
        None => {
            let listeners = state.listeners().len();
            let clusters = state.clusters.load().snapshot.clusters.size();
            (true, format!("serving: {listeners} listeners, {clusters} clusters"))
        }
    }
}

/// Waits until every worker has done something.
async fn are_alive(workers: &[Handle]) {
    for worker in workers {
        // An error is the end of the proxy.
        let _ = worker.spawn(async {}).await;
    }
}
