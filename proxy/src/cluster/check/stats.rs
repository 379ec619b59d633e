//! `cluster.<name>.health_check.*`

use crate::telemetry::stats::metrics;

metrics! {
    /// The metrics of a cluster's active checks.
    pub(crate) struct CheckStats {
        counters {
            /// Checks begun.
            attempt = "attempt",
            /// Checks that found the endpoint well.
            success = "success",
            /// Checks that did not, and passive failures.
            failure = "failure",
            /// Of those: no connection, or no answer.
            network_failure = "network_failure",
            /// Of those: by `x-envoy-immediate-health-check-fail` in answers to requests.
            passive_failure = "passive_failure",
            /// Checks that looked at the service's name.
            verify_cluster = "verify_cluster",
        }
        gauges {
            /// Endpoints whose checks do not fail.
            healthy = "healthy",
            /// Endpoints whose checks say that they are degraded.
            degraded = "degraded",
        }
        histograms {}
        never { counters [] gauges [] }
    }
}
