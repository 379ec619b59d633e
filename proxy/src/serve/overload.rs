//! What is done when things become scarce, as it stands now (Envoy: overload manager).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{Notify, watch};

use crate::model::overload::{ActionKind, Floors, OverloadManager, Timer};
use crate::telemetry::reason::{Reason, Refusal};

/// An action that is wholly taken.
const WHOLE: u32 = 1_000_000;

/// How much of each action is taken now. Reading costs an atomic load.
#[derive(Debug)]
pub struct Overload {
    /// By the number of the action, out of a million.
    states: [AtomicU32; ActionKind::COUNT],
    /// What refused, by the number of the action.
    shed: [AtomicU64; ActionKind::COUNT],
    accepting: watch::Sender<bool>,
    floors: Floors,
    /// Timeouts became shorter, or longer again.
    rescaled: Notify,
    connections: Arc<AtomicU64>,
    max_connections: Option<u64>,
}

/// A connection that counts towards the limit of all.
#[derive(Debug)]
pub(super) struct Counted(Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What becomes of a new connection.
#[derive(Debug)]
pub(super) enum Welcome {
    /// It is served; while this is held, it counts.
    Yes(Option<Arc<Counted>>),
    /// There are as many connections as may be.
    Overflow,
    /// No new connection is served now.
    Rejected,
}

impl Overload {
    /// Nothing is scarce yet.
    pub fn new(manager: Option<&OverloadManager>) -> Arc<Self> {
        Arc::new(Self {
            states: Default::default(),
            shed: Default::default(),
            accepting: watch::Sender::new(true),
            floors: manager.map_or_else(Floors::default, |manager| manager.floors),
            rescaled: Notify::new(),
            connections: Arc::default(),
            max_connections: manager
                .and_then(|manager| manager.max_connections.as_ref().map(|(_, most)| *most)),
        })
    }

    /// Take so much of an action, of 0 to 1.
    pub fn set(&self, action: ActionKind, state: f64) {
        let state = (state.clamp(0.0, 1.0) * f64::from(WHOLE)) as u32;
        let before = self.states[action as usize].swap(state, Ordering::Relaxed);
        match action {
            ActionKind::StopAcceptingConnections => {
                self.accepting.send_if_modified(|accepting| {
                    let before = std::mem::replace(accepting, state < WHOLE);
                    before != *accepting
                });
            }
            ActionKind::ReduceTimeouts if before != state => self.rescaled.notify_waiters(),
            _ => {}
        }
    }

    /// How often this action refused something.
    pub fn shed(&self, action: ActionKind) -> u64 {
        self.shed[action as usize].load(Ordering::Relaxed)
    }

    /// How many connections there are, out of how many. None: there is no limit.
    pub fn fullness(&self) -> Option<f64> {
        let most = self.max_connections?;
        Some(self.connections.load(Ordering::Relaxed) as f64 / most as f64)
    }

    /// Whether connections are accepted, as that changes.
    pub(super) fn accepting(&self) -> watch::Receiver<bool> {
        self.accepting.subscribe()
    }

    /// What becomes of a new connection, which may count or not.
    pub(super) fn connection(&self, counts: bool) -> Welcome {
        let counted = self.max_connections.filter(|_| counts).map(|most| {
            let before = self.connections.fetch_add(1, Ordering::Relaxed);
            (before < most, Arc::new(Counted(Arc::clone(&self.connections))))
        });
        if matches!(counted, Some((false, _))) {
            return Welcome::Overflow;
        }
        if self.is_drawn(ActionKind::RejectIncomingConnections)
            || self.is_drawn(ActionKind::ShedConnections)
        {
            return Welcome::Rejected;
        }
        Welcome::Yes(counted.map(|(_, counted)| counted))
    }

    /// Whether a connection has to end after this request.
    pub(super) fn ends_connections(&self) -> bool {
        self.is_drawn(ActionKind::DisableKeepalive)
    }

    /// # Errors
    /// No request is taken now (503).
    pub(super) fn request(&self) -> Result<(), Refusal> {
        let detail = if self.is_drawn(ActionKind::ShedRequests) {
            "the overload manager sheds requests (http_connection_manager_decode_headers)"
        } else if self.is_drawn(ActionKind::StopAcceptingRequests) {
            "the overload manager takes no requests (stop_accepting_requests)"
        } else {
            return Ok(());
        };
        Err(Refusal::local(Reason::Overloaded, StatusCode::SERVICE_UNAVAILABLE, detail))
    }

    /// A timeout, as it is now.
    pub(super) fn timeout(&self, timer: Timer, whole: Duration) -> Duration {
        let Some(floor) = self.floors[timer as usize] else { return whole };
        match self.state(ActionKind::ReduceTimeouts) {
            0 => whole,
            state => floor.scaled(whole, f64::from(state) / f64::from(WHOLE)),
        }
    }

    /// Returns when timeouts have changed; never where none of them ever does.
    pub(super) async fn rescaled(&self) {
        if self.floors.iter().all(Option::is_none) {
            return std::future::pending().await;
        }
        self.rescaled.notified().await;
    }

    fn is_drawn(&self, action: ActionKind) -> bool {
        let state = self.state(action);
        let drawn = state > 0 && (state >= WHOLE || fastrand::u32(..WHOLE) < state);
        if drawn {
            self.shed[action as usize].fetch_add(1, Ordering::Relaxed);
        }
        drawn
    }

    fn state(&self, action: ActionKind) -> u32 {
        self.states[action as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::overload::Floor;

    #[tokio::test]
    async fn actions_are_taken_and_left_again() {
        let overload = Overload::new(None);
        assert!(overload.request().is_ok() && !overload.ends_connections());
        let mut accepting = overload.accepting();
        assert!(*accepting.borrow_and_update());
        for action in [
            ActionKind::StopAcceptingRequests,
            ActionKind::DisableKeepalive,
            ActionKind::StopAcceptingConnections,
            ActionKind::RejectIncomingConnections,
        ] {
            overload.set(action, 1.0);
        }
        assert_eq!(overload.request().map_err(|refusal| refusal.reason), Err(Reason::Overloaded));
        assert!(overload.ends_connections());
        assert!(matches!(overload.connection(true), Welcome::Rejected));
        assert!(accepting.has_changed().is_ok_and(|changed| changed));
        assert!(!*accepting.borrow_and_update());
        overload.set(ActionKind::StopAcceptingConnections, 0.5);
        assert!(*accepting.borrow_and_update(), "only a threshold that is passed counts");
        overload.set(ActionKind::StopAcceptingRequests, 0.0);
        assert!(overload.request().is_ok());
    }

    #[test]
    fn connections_are_counted_over_all_listeners() {
        let manager = OverloadManager {
            max_connections: Some(("all".into(), 2)),
            ..OverloadManager::default()
        };
        let overload = Overload::new(Some(&manager));
        let first = overload.connection(true);
        let second = overload.connection(true);
        assert!(matches!((&first, &second), (Welcome::Yes(Some(_)), Welcome::Yes(Some(_)))));
        assert!(matches!(overload.connection(true), Welcome::Overflow));
        assert!(matches!(overload.connection(false), Welcome::Yes(None)));
        assert_eq!(overload.fullness(), Some(1.0));
        drop(first);
        assert!(matches!(overload.connection(true), Welcome::Yes(Some(_))));
    }

    #[tokio::test]
    async fn timeouts_become_shorter_and_those_who_wait_hear_of_it() {
        let mut manager = OverloadManager::default();
        manager.floors[Timer::ConnectionIdle as usize] = Some(Floor::Share(0.5));
        let overload = Overload::new(Some(&manager));
        let whole = Duration::from_secs(8);
        assert_eq!(overload.timeout(Timer::ConnectionIdle, whole), whole);
        let waiting = overload.rescaled();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        overload.set(ActionKind::ReduceTimeouts, 1.0);
        waiting.await;
        assert_eq!(overload.timeout(Timer::ConnectionIdle, whole), whole / 2);
        assert_eq!(overload.timeout(Timer::StreamIdle, whole), whole);
    }
}
