//! The signals that mean something to a proxy.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM, SIGINT: leave in good order.
    End,
    /// SIGUSR1: open log files anew.
    Reopen,
    /// SIGUSR2: start a successor.
    Upgrade,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reopen: Signal,
    upgrade: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system has no more room for handlers.
    pub(super) fn new() -> Result<Self, String> {
        let on = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            reopen: on(SignalKind::user_defined1())?,
            upgrade: on(SignalKind::user_defined2())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.reopen.recv() => Asked::Reopen,
            _ = self.upgrade.recv() => Asked::Upgrade,
        }
    }

    /// The next one that ends the process.
    pub(super) async fn end(&mut self) {
        while self.next().await != Asked::End {}
    }
}
