//! What requests tell about endpoints, and who is left out because of it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::Cluster;
use super::balance::mix;
use super::endpoint::{Endpoint, Flags};
use super::outlier::rates::{self, Origin};
use super::outlier::{self, Detector, Event, Verdict};
use crate::model::cluster::OutlierDetection;
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
            Outcome::LocalFailure(
                Reason::PerTryTimeout | Reason::PerTryIdleTimeout | Reason::RequestTimeout,
            ) => {
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
        if let Some(detector) = endpoint.host.used().monitor.observe(config, event) {
            self.suspect(endpoint, detector, Instant::now());
        }
    }

    /// Endpoints that outlier detection left out for long enough come back, and rates are compared.
    /// Called once an `outlier_detection.interval`.
    pub(super) fn sweep(&self, now: Instant) {
        let Some(config) = &self.config.outliers else { return };
        let back = self.let_back(config, now);
        let mut averages = Vec::new();
        for origin in [Origin::External, Origin::Local] {
            averages.push(self.compare(config, origin, now));
        }
        *self.averages.lock().unwrap_or_else(PoisonError::into_inner) =
            [averages.first().copied().flatten(), averages.get(1).copied().flatten()];
        if back {
            self.lay_out_again();
        }
    }

    fn let_back(&self, config: &OutlierDetection, now: Instant) -> bool {
        let _state = self.lock();
        let mut back = false;
        for endpoint in &self.set.load().endpoints {
            let Some(used) = endpoint.host.if_used() else { continue };
            if used.ejection().returns(config, now) {
                used.monitor.reset();
                endpoint.host.flags.clear(Flags::EJECTED);
                tracing::info!(cluster = %self.name(), endpoint = %endpoint.address, "endpoint is back");
                back = true;
            }
        }
        back
    }

    /// Ends an interval of counting. Returns mean and threshold, if there were enough to compare.
    fn compare(
        &self,
        config: &OutlierDetection,
        origin: Origin,
        now: Instant,
    ) -> Option<(f64, f64)> {
        let set = self.set.load();
        let least =
            config.success_rate.request_volume.min(config.failure_percentage.request_volume);
        let mut samples = Vec::new();
        for (index, endpoint) in set.endpoints.iter().enumerate() {
            let Some(used) = endpoint.host.if_used() else { continue };
            let bucket = match origin {
                Origin::External => &used.monitor.external,
                Origin::Local => &used.monitor.local,
            };
            let sample = bucket.take().filter(|_| !endpoint.is_ejected());
            let known = sample.filter(|sample| sample.total >= least.into());
            used.ejection().rates[origin as usize] = known.map(|sample| sample.rate);
            samples.extend(sample.map(|sample| (index, sample)));
        }
        let round = rates::round(config, origin, set.endpoints.len(), &samples);
        for (index, detector) in round.found {
            if let Some(endpoint) = set.endpoints.get(index) {
                self.suspect(endpoint, detector, now);
            }
        }
        round.average
    }

    fn suspect(&self, endpoint: &Endpoint, detector: Detector, now: Instant) {
        let (Some(config), Some(stats)) = (&self.config.outliers, &self.outlier_stats) else {
            return;
        };
        let state = self.lock();
        if endpoint.is_ejected() {
            return;
        }
        stats.detected(detector);
        let set = self.set.load();
        let ejected = set.endpoints.iter().filter(|endpoint| endpoint.is_ejected()).count();
        let random = fastrand::u64(..);
        let verdict = outlier::judge(config, detector, (ejected, set.endpoints.len()), random);
        if verdict == Verdict::Overflow {
            stats.overflow.inc();
            return;
        }
        stats.fits(detector);
        if verdict == Verdict::Eject {
            stats.enforced(detector);
            let used = endpoint.host.used();
            used.ejection().eject(config, now, mix(random));
            used.monitor.reset();
            endpoint.host.flags.set(Flags::EJECTED);
            tracing::info!(cluster = %self.name(), endpoint = %endpoint.address, ?detector, "endpoint is left out");
            self.lay_out(&state);
            drop(state);
            self.leave(endpoint);
        }
    }

    /// A successful check brings an endpoint back that outlier detection left out
    /// (`successful_active_health_check_uneject_host`). True: it did.
    pub(super) fn pardon(&self, endpoint: &Endpoint) -> bool {
        let wanted = self.config.outliers.as_ref().is_some_and(|config| config.uneject_by_check);
        if !wanted || !endpoint.is_ejected() {
            return false;
        }
        let used = endpoint.host.used();
        used.ejection().release();
        used.monitor.reset();
        endpoint.host.flags.clear(Flags::EJECTED);
        tracing::info!(cluster = %self.name(), endpoint = %endpoint.address, "endpoint is back: a health check succeeded");
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

    /// Where nobody detects outliers, nobody lets them back in either.
    pub(super) fn pardon_if_undetected(&self) {
        if self.config.outliers.is_none() {
            for endpoint in &self.set.load().endpoints {
                if let Some(used) = endpoint.host.if_used() {
                    used.ejection().pardon();
                }
                endpoint.host.flags.clear(Flags::EJECTED);
            }
        }
    }
}
