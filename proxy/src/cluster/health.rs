//! What requests tell about endpoints, and who is left out because of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Cluster;
use super::balance::mix;
use super::endpoint::{Endpoint, Flags};
use super::outlier::{self, Detector, Event, Verdict};
use crate::telemetry::reason::Reason;

/// What became of a request, for outlier detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered with this status.
    Status(u16),
    /// This proxy saw it fail.
    LocalFailure(Reason),
    /// It works, and there is no status (TCP).
    Success,
}

impl Cluster {
    /// Tells outlier detection what an endpoint did.
    pub fn record(&self, endpoint: &Arc<Endpoint>, outcome: Outcome) {
        let counters = endpoint.counters();
        let event = match outcome {
            Outcome::Status(status) => {
                let counter = if status < 500 { &counters.rq_success } else { &counters.rq_error };
                counter.fetch_add(1, Ordering::Relaxed);
                Event::Status(status)
            }
            Outcome::Success => Event::LocalSuccess,
            Outcome::LocalFailure(Reason::PerTryTimeout | Reason::RequestTimeout) => {
                counters.rq_timeout.fetch_add(1, Ordering::Relaxed);
                Event::LocalTimeout
            }
            Outcome::LocalFailure(Reason::ConnectTimeout) => {
                counters.rq_error.fetch_add(1, Ordering::Relaxed);
                Event::LocalTimeout
            }
            Outcome::LocalFailure(_) => {
                counters.rq_error.fetch_add(1, Ordering::Relaxed);
                Event::LocalFailure
            }
        };
        let Some(config) = &self.config.outliers else { return };
        if let Some(detector) = endpoint.host.monitor.observe(config, event) {
            self.suspect(endpoint, detector, Instant::now());
        }
    }

    /// Endpoints that outlier detection left out for long enough come back. Called once an
    /// `outlier_detection.interval`.
    pub(super) fn sweep(&self, now: Instant) {
        let Some(config) = &self.config.outliers else { return };
        let state = self.lock();
        let mut back = false;
        for endpoint in &self.set.load().endpoints {
            if endpoint.host.ejection().returns(config, now) {
                endpoint.host.monitor.reset();
                endpoint.host.flags.clear(Flags::EJECTED);
                tracing::info!(cluster = %self.name(), endpoint = %endpoint.address_text, "endpoint is back");
                back = true;
            }
        }
        if back {
            self.lay_out(&state);
        }
    }

    fn suspect(&self, endpoint: &Endpoint, detector: Detector, now: Instant) {
        let Some(config) = &self.config.outliers else { return };
        let state = self.lock();
        if endpoint.is_ejected() {
            return;
        }
        self.count_detection(detector, false);
        let set = self.set.load();
        let ejected = set.endpoints.iter().filter(|endpoint| endpoint.is_ejected()).count();
        let random = fastrand::u64(..);
        match outlier::judge(config, detector, (ejected, set.endpoints.len()), random) {
            Verdict::NotEnforced => {}
            Verdict::Overflow => self.stats.ejections_overflow.inc(),
            Verdict::Eject => {
                self.stats.ejections_enforced_total.inc();
                self.count_detection(detector, true);
                endpoint.host.ejection().eject(config, now, mix(random));
                endpoint.host.monitor.reset();
                endpoint.host.flags.set(Flags::EJECTED);
                tracing::info!(cluster = %self.name(), endpoint = %endpoint.address_text, ?detector, "endpoint is left out");
                self.lay_out(&state);
                drop(state);
                self.leave(endpoint);
            }
        }
    }

    /// A successful check brings an endpoint back that outlier detection left out
    /// (`successful_active_health_check_uneject_host`). True: it did.
    pub(super) fn pardon(&self, endpoint: &Endpoint) -> bool {
        let wanted = self.config.outliers.as_ref().is_some_and(|config| config.uneject_by_check);
        if !wanted || !endpoint.is_ejected() {
            return false;
        }
        endpoint.host.ejection().release();
        endpoint.host.monitor.reset();
        endpoint.host.flags.clear(Flags::EJECTED);
        tracing::info!(cluster = %self.name(), endpoint = %endpoint.address_text, "endpoint is back: a health check succeeded");
        true
    }

    /// Endpoints turned healthy or unhealthy: who may be picked is counted anew.
    pub(super) fn lay_out_again(&self) {
        let state = self.lock();
        self.lay_out(&state);
    }

    /// An endpoint is not well any more: nobody waits for its idle connections, and where that is
    /// on the others end too.
    pub(super) fn leave(&self, endpoint: &Endpoint) {
        let close = self.config.close_on_health_failure;
        endpoint.host.pools().for_each(|pool| if close { pool.close() } else { pool.let_go() });
    }

    /// A cluster that replaces another of this name, with connections of its own, knows how the
    /// endpoints are all the same.
    pub(super) fn inherit_health(&self, before: &Self) {
        if self.config.health_check.is_none() {
            return;
        }
        if before.is_checked() {
            self.set_checked();
        }
        let known = before.set.load();
        let known: HashMap<_, _> = known.endpoints.iter().map(|at| (&at.address, at)).collect();
        for endpoint in &self.set.load().endpoints {
            if let Some(old) = known.get(&endpoint.address)
                && !old.is_same(endpoint)
                && !old.host.flags.has(Flags::FAILED_ACTIVE)
            {
                endpoint.host.flags.clear(Flags::FAILED_ACTIVE | Flags::PENDING_ACTIVE);
            }
        }
        self.lay_out_again();
    }

    fn count_detection(&self, detector: Detector, enforced: bool) {
        let stats = &self.stats;
        let counter = match (detector, enforced) {
            (Detector::Consecutive5xx, false) => &stats.ejections_detected_consecutive_5xx,
            (Detector::Consecutive5xx, true) => &stats.ejections_enforced_consecutive_5xx,
            (Detector::ConsecutiveGatewayFailure, false) => {
                &stats.ejections_detected_consecutive_gateway_failure
            }
            (Detector::ConsecutiveGatewayFailure, true) => {
                &stats.ejections_enforced_consecutive_gateway_failure
            }
            (Detector::ConsecutiveLocalOriginFailure, false) => {
                &stats.ejections_detected_consecutive_local_origin_failure
            }
            (Detector::ConsecutiveLocalOriginFailure, true) => {
                &stats.ejections_enforced_consecutive_local_origin_failure
            }
        };
        counter.inc();
    }

    /// Where nobody detects outliers, nobody lets them back in either.
    pub(super) fn pardon_if_undetected(&self) {
        if self.config.outliers.is_none() {
            for endpoint in &self.set.load().endpoints {
                endpoint.host.ejection().pardon();
                endpoint.host.flags.clear(Flags::EJECTED);
            }
        }
    }
}
