//! Circuit breakers: how much a cluster may have open at a time, by priority. One atomic counter a
//! limit, shared by all workers; a permit gives its place back when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::model::cluster::Thresholds;
use crate::model::route::Priority;
use crate::telemetry::stats::{Group, Item, Reading, Scope};

/// The limits of one cluster. They can be changed while permits are out.
#[derive(Debug)]
pub(crate) struct Breakers {
    levels: [Level; 2],
}

#[derive(Debug)]
struct Level {
    connections: Limit,
    /// Connections to one endpoint.
    per_endpoint: AtomicU32,
    pending: Limit,
    requests: Limit,
    retries: Limit,
    /// Bits of the budget's percent (`f64`); the bits of NaN: there is no budget.
    budget_percent: AtomicU64,
    budget_min: AtomicU32,
    track_remaining: AtomicBool,
}

/// One limit.
#[derive(Debug, Default)]
struct Limit {
    current: AtomicU32,
    max: AtomicU32,
}

/// What a permit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Connection,
    Pending,
    Request,
    Retry,
}

/// A place under a limit; given back when it is dropped.
#[derive(Debug)]
struct Permit {
    breakers: Arc<Breakers>,
    priority: Priority,
    kind: Kind,
}

/// Admission of a request; held until its exchange is over.
#[derive(Debug)]
pub struct RequestPermit(#[expect(dead_code, reason = "held for its Drop")] Permit);

/// Admission of a retry; held until that try is over.
#[derive(Debug)]
pub struct RetryPermit(#[expect(dead_code, reason = "held for its Drop")] Permit);

/// A place for an upstream connection; held while it is open.
#[derive(Debug)]
pub(crate) struct ConnectionPlace(#[expect(dead_code, reason = "held for its Drop")] Permit);

/// A place for a request that waits for a connection.
#[derive(Debug)]
pub(crate) struct PendingPlace(#[expect(dead_code, reason = "held for its Drop")] Permit);

impl Breakers {
    /// `scope` is the cluster's: gauges are `circuit_breakers.<priority>.*`.
    pub(crate) fn new(thresholds: &[Thresholds; 2], scope: &Scope) -> Arc<Self> {
        let level = || Level {
            connections: Limit::default(),
            per_endpoint: AtomicU32::new(u32::MAX),
            pending: Limit::default(),
            requests: Limit::default(),
            retries: Limit::default(),
            budget_percent: AtomicU64::new(f64::NAN.to_bits()),
            budget_min: AtomicU32::new(0),
            track_remaining: AtomicBool::new(false),
        };
        let breakers = Arc::new(Self { levels: [level(), level()] });
        breakers.set(thresholds);
        scope.scope("circuit_breakers", None).show(Arc::clone(&breakers) as _);
        breakers
    }

    /// New limits. Permits that are out stay out.
    pub(crate) fn set(&self, thresholds: &[Thresholds; 2]) {
        for (level, at) in self.levels.iter().zip(thresholds) {
            level.connections.set(at.max_connections);
            let per_endpoint = at.per_host_max_connections.unwrap_or(u32::MAX);
            level.per_endpoint.store(per_endpoint, Ordering::Relaxed);
            level.pending.set(at.max_pending_requests);
            level.requests.set(at.max_requests);
            level.retries.set(at.max_retries);
            let percent = at.retry_budget.map_or(f64::NAN, |budget| budget.percent);
            level.budget_percent.store(percent.to_bits(), Ordering::Relaxed);
            let min = at.retry_budget.map_or(0, |budget| budget.min_concurrency);
            level.budget_min.store(min, Ordering::Relaxed);
            level.track_remaining.store(at.track_remaining, Ordering::Relaxed);
        }
    }

    pub(crate) fn request(self: &Arc<Self>, priority: Priority) -> Option<RequestPermit> {
        let taken = self.level(priority).requests.take();
        taken.then(|| RequestPermit(self.permit(priority, Kind::Request)))
    }

    pub(crate) fn pending(self: &Arc<Self>, priority: Priority) -> Option<PendingPlace> {
        let taken = self.level(priority).pending.take();
        taken.then(|| PendingPlace(self.permit(priority, Kind::Pending)))
    }

    /// `force`: take a place even above the limit, as Envoy does for the first connection to an
    /// endpoint, so that no request waits where nothing can ever serve it. The flag that comes
    /// with the place says whether that was needed. `open`: connections that the endpoint has.
    pub(crate) fn connection(
        self: &Arc<Self>,
        priority: Priority,
        force: bool,
        open: u32,
    ) -> Option<(ConnectionPlace, bool)> {
        let level = self.level(priority);
        let limit = &level.connections;
        let within = open < level.per_endpoint.load(Ordering::Relaxed) && limit.take();
        if !within && force {
            limit.take_anyway();
        }
        let place = || ConnectionPlace(self.permit(priority, Kind::Connection));
        (within || force).then(|| (place(), !within))
    }

    /// By the retry budget where there is one, else by `max_retries`.
    pub(crate) fn retry(self: &Arc<Self>, priority: Priority) -> Option<RetryPermit> {
        let level = self.level(priority);
        let percent = f64::from_bits(level.budget_percent.load(Ordering::Relaxed));
        if !percent.is_nan() {
            // Requests that wait for a connection are admitted already, so they are among these.
            let busy = level.requests.current();
            let min = level.budget_min.load(Ordering::Relaxed);
            level.retries.set(budget(percent, min, busy));
        }
        level.retries.take().then(|| RetryPermit(self.permit(priority, Kind::Retry)))
    }

    /// Requests, pending requests, connections and retries now, for the admin's view.
    pub(crate) fn limits(&self, priority: Priority) -> [(&'static str, u32); 4] {
        let level = self.level(priority);
        [
            ("max_connections", level.connections.max()),
            ("max_pending_requests", level.pending.max()),
            ("max_requests", level.requests.max()),
            ("max_retries", level.retries.max()),
        ]
    }

    fn level(&self, priority: Priority) -> &Level {
        let [default, high] = &self.levels;
        match priority {
            Priority::Default => default,
            Priority::High => high,
        }
    }

    fn permit(self: &Arc<Self>, priority: Priority, kind: Kind) -> Permit {
        Permit { breakers: self.clone(), priority, kind }
    }
}

/// Nothing is written for the gauges: they are computed when somebody reads them.
impl Group for Breakers {
    fn each(&self, see: &mut dyn FnMut(Item<'_>, Reading)) {
        const NAMES: [[&str; 2]; 4] = [
            ["cx_open", "remaining_cx"],
            ["rq_pending_open", "remaining_pending"],
            ["rq_open", "remaining_rq"],
            ["rq_retry_open", "remaining_retries"],
        ];
        for (level, priority) in self.levels.iter().zip(["default", "high"]) {
            let mut gauge = |name: &str, value: i64| {
                let flat = format!("{priority}.{name}");
                see(Item { flat: &flat, family: &flat, label: None }, Reading::Gauge(value));
            };
            let limits = [&level.connections, &level.pending, &level.requests, &level.retries];
            for (limit, [open, remaining]) in limits.into_iter().zip(NAMES) {
                let left = i64::from(limit.max()) - i64::from(limit.current());
                gauge(open, i64::from(left <= 0));
                if level.track_remaining.load(Ordering::Relaxed) {
                    gauge(remaining, left.max(0));
                }
            }
            // How many pools there are is not limited.
            gauge("cx_pool_open", 0);
            if level.track_remaining.load(Ordering::Relaxed) {
                gauge("remaining_cx_pools", i64::from(u32::MAX));
            }
        }
    }

    fn reset(&self) {}
}

/// How many retries may be under way while `busy` requests are: Envoy's retry budget.
fn budget(percent: f64, min_concurrency: u32, busy: u32) -> u32 {
    ((percent / 100.0 * f64::from(busy)) as u32).max(min_concurrency)
}

impl Limit {
    fn current(&self) -> u32 {
        self.current.load(Ordering::Relaxed)
    }

    fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    fn set(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        let max = self.max();
        let mut current = self.current();
        while current < max {
            match self.current.compare_exchange_weak(
                current,
                current + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => current = now,
            }
        }
        false
    }

    fn take_anyway(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    fn give(&self) {
        self.current.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let level = self.breakers.level(self.priority);
        match self.kind {
            Kind::Connection => level.connections.give(),
            Kind::Pending => level.pending.give(),
            Kind::Request => level.requests.give(),
            Kind::Retry => level.retries.give(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::cluster::RetryBudget;
    use crate::telemetry::stats::Registry;

    fn breakers(thresholds: &Thresholds) -> (Arc<Breakers>, Registry) {
        let registry = Registry::new();
        let scope = registry.scope("cluster", Some(("envoy_cluster_name", "a".into())));
        let both = [thresholds.clone(), Thresholds::default()];
        (Breakers::new(&both, &scope), registry)
    }

    fn gauge(registry: &Registry, name: &str) -> i64 {
        registry.value(&format!("cluster.a.circuit_breakers.{name}")).unwrap()
    }

    #[test]
    fn a_breaker_opens_at_its_limit_and_closes_again() {
        let thresholds =
            Thresholds { max_requests: 2, track_remaining: true, ..Thresholds::default() };
        let (breakers, registry) = breakers(&thresholds);
        let first = breakers.request(Priority::Default).unwrap();
        assert_eq!(gauge(&registry, "default.rq_open"), 0);
        let second = breakers.request(Priority::Default).unwrap();
        assert_eq!(gauge(&registry, "default.rq_open"), 1);
        assert_eq!(gauge(&registry, "default.remaining_rq"), 0);
        assert!(breakers.request(Priority::Default).is_none());
        // The other priority has limits of its own.
        assert!(breakers.request(Priority::High).is_some());
        drop(first);
        assert_eq!(gauge(&registry, "default.rq_open"), 0);
        assert_eq!(gauge(&registry, "default.remaining_rq"), 1);
        drop(second);
        assert!(breakers.request(Priority::Default).is_some());
    }

    #[test]
    fn a_limit_of_zero_is_open_from_the_start_and_limits_can_change() {
        let (breakers, registry) =
            breakers(&Thresholds { max_requests: 0, ..Thresholds::default() });
        assert!(breakers.request(Priority::Default).is_none());
        breakers
            .set(&[Thresholds { max_requests: 1, ..Thresholds::default() }, Thresholds::default()]);
        let held = breakers.request(Priority::Default).unwrap();
        breakers
            .set(&[Thresholds { max_requests: 0, ..Thresholds::default() }, Thresholds::default()]);
        assert_eq!(gauge(&registry, "default.rq_open"), 1);
        drop(held);
        assert!(breakers.request(Priority::Default).is_none());
    }

    #[test]
    fn the_first_connection_to_an_endpoint_is_always_allowed() {
        let (breakers, _) = breakers(&Thresholds { max_connections: 1, ..Thresholds::default() });
        let (_first, forced) = breakers.connection(Priority::Default, false, 0).unwrap();
        assert!(!forced);
        assert!(breakers.connection(Priority::Default, false, 0).is_none());
        let (_second, forced) = breakers.connection(Priority::Default, true, 0).unwrap();
        assert!(forced);
    }

    #[test]
    fn an_endpoint_has_a_limit_of_its_own() {
        let thresholds = Thresholds { per_host_max_connections: Some(2), ..Thresholds::default() };
        let (breakers, _) = breakers(&thresholds);
        assert!(breakers.connection(Priority::Default, false, 1).is_some());
        assert!(breakers.connection(Priority::Default, false, 2).is_none());
        assert!(breakers.connection(Priority::High, false, 2).is_some());
    }

    proptest! {
        /// Whatever comes and goes: retries under way never exceed the budget of the requests that
        /// were under way when the last one was admitted, and the minimum is always allowed.
        #[test]
        fn retries_stay_inside_the_budget(
            percent in 0.0_f64..100.0,
            min_concurrency in 0_u32..5,
            steps in prop::collection::vec(0_u8..4, 1..300),
        ) {
            let (breakers, _) = breakers(&Thresholds {
                retry_budget: Some(RetryBudget { percent, min_concurrency }),
                ..Thresholds::default()
            });
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    0 => requests.extend(breakers.request(Priority::Default)),
                    1 => drop(requests.pop()),
                    2 => {
                        let allowed = budget(percent, min_concurrency, requests.len() as u32);
                        let permit = breakers.retry(Priority::Default);
                        prop_assert_eq!(permit.is_some(), (retries.len() as u32) < allowed);
                        retries.extend(permit);
                    }
                    _ => drop(retries.pop()),
                }
            }
            retries.clear();
            prop_assert_eq!(breakers.retry(Priority::Default).is_some(), budget(percent, min_concurrency, requests.len() as u32) > 0);
        }
    }
}
