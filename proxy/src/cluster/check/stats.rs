//! `cluster.<name>.health_check.*`

use crate::telemetry::stats::{Counter, Gauge, Scope};

/// The metrics of a cluster's active checks.
#[derive(Debug)]
pub(crate) struct CheckStats {
    /// Checks begun.
    pub(crate) attempt: Counter,
    /// Checks that found the endpoint well.
    pub(crate) success: Counter,
    /// Checks that did not, and passive failures.
    pub(crate) failure: Counter,
    /// Of those: no connection, or no answer.
    pub(crate) network_failure: Counter,
    /// Of those: by `x-envoy-immediate-health-check-fail` in answers to requests.
    pub(crate) passive_failure: Counter,
    /// Checks that looked at the service's name.
    pub(crate) verify_cluster: Counter,
    /// Endpoints whose checks do not fail.
    pub(crate) healthy: Gauge,
    /// Endpoints whose checks say that they are degraded.
    pub(crate) degraded: Gauge,
}

impl CheckStats {
    /// `scope`: the cluster's.
    pub(crate) fn new(scope: &Scope) -> Self {
        let scope = scope.scope("health_check", None);
        Self {
            attempt: scope.counter("attempt"),
            success: scope.counter("success"),
            failure: scope.counter("failure"),
            network_failure: scope.counter("network_failure"),
            passive_failure: scope.counter("passive_failure"),
            verify_cluster: scope.counter("verify_cluster"),
            healthy: scope.gauge("healthy"),
            degraded: scope.gauge("degraded"),
        }
    }
}
