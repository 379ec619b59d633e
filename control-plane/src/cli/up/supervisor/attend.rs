//! What becomes of an instance while it runs: when a program or its sidecar ends by itself, people are told; what a
//! health check says, its sidecar is told too, which leaves the endpoints meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::super::tail::Line;
use super::Supervisor;
use crate::cli::demo::http_get;
use crate::cli::demo::process::{Phase, Process, Status};
use crate::intent::{self, Restart};

/// A sidecar that could not be told is told again after this.
const AGAIN: Duration = Duration::from_millis(500);

/// Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Attended(JoinHandle<()>);

impl Attended {
    /// From now on somebody else says how things are.
    pub(super) fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Tells a sidecar whether others may be sent to its program. Whether it heard.
pub(super) async fn tell(admin: SocketAddr, well: bool) -> bool {
    let path = if well { "/healthcheck/ok" } else { "/healthcheck/fail" };
    http_get::post(admin, path).await.is_ok_and(|reply| reply.status == 200)
}

impl Supervisor {
    /// Attends to a program and its sidecar until they are stopped.
    pub(super) fn attend(
        &self,
        spec: &intent::Process,
        (app, sidecar): (&Process, &Process),
        admin: SocketAddr,
    ) -> Attended {
        let health = spec.health.as_ref().filter(|_| spec.listens);
        let pair = Pair {
            app: End::of(app, spec.restart),
            sidecar: End::of(sidecar, Restart::Always),
            health: health.map(|health| (health.path.clone(), admin)),
            lines: self.lines.downgrade(),
        };
        Attended(tokio::spawn(pair.follow()))
    }
}

/// A program and its sidecar.
struct Pair {
    app: End,
    sidecar: End,
    /// The path that is checked, and who is told what came of it. `None`: the sidecar sees for itself whether the port
    /// accepts.
    health: Option<(String, SocketAddr)>,
    lines: mpsc::WeakUnboundedSender<Line>,
}

/// One of the two.
struct End {
    name: String,
    status: watch::Receiver<Status>,
    restart: Restart,
    /// How often it had ended when somebody was told the last time.
    deaths: u32,
    /// It ended well, and that was told.
    done: bool,
}

impl End {
    fn of(process: &Process, restart: Restart) -> Self {
        Self {
            name: process.name.clone(),
            status: process.watch(),
            restart,
            deaths: 0,
            done: false,
        }
    }

    /// How it ended since the last time.
    fn news(&mut self) -> Option<String> {
        let status = self.status.borrow_and_update().clone();
        if status.deaths == self.deaths {
            let done = status.phase == Phase::Stopped && !std::mem::replace(&mut self.done, true);
            return done.then(|| Some(format!("{} {}", self.name, status.last_end?))).flatten();
        }
        self.deaths = status.deaths;
        let again = if self.restart == Restart::Never { "" } else { ", and is started again" };
        Some(format!("{} {}{again}", self.name, status.last_end?))
    }
}

impl Pair {
    async fn follow(mut self) {
        // Which process was told what; one that is started again knows nothing.
        let mut told = None;
        let mut unwell = false;
        loop {
            for text in [self.app.news(), self.sidecar.news()].into_iter().flatten() {
                self.say(&text);
            }
            let phase = self.app.status.borrow_and_update().phase;
            let pid = self.sidecar.status.borrow_and_update().pid;
            let mut heard = true;
            if let Some((path, admin)) = &self.health {
                if unwell != (phase == Phase::Unwell) {
                    unwell = !unwell;
                    match unwell {
                        true => {
                            self.say(&format!("{} is unhealthy: no 200 from {path}", self.app.name))
                        }
                        false => self.say(&format!("{} is not unhealthy any more", self.app.name)),
                    }
                }
                let wanted = (pid, phase == Phase::Ready);
                heard = told == Some(wanted) || tell(*admin, wanted.1).await;
                told = heard.then_some(wanted);
            }
            let changed = tokio::select! {
                changed = self.app.status.changed() => changed,
                changed = self.sidecar.status.changed() => changed,
                () = sleep(AGAIN), if !heard => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn say(&self, text: &str) {
        if let Some(lines) = self.lines.upgrade() {
            let _ = lines.send(Line::own(text));
        }
    }
}
