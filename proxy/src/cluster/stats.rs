//! The metrics of a cluster, under Envoy's names ("Cluster manager: statistics"). All handles are
//! made with the cluster; response codes are made when they are first seen.

use std::sync::{Arc, OnceLock};

use crate::model::Name;
use crate::telemetry::reason::Reason;
use crate::telemetry::stats::{Counter, Gauge, Histogram, Registry, Scope};

/// Declares the struct and its constructor from one list: field = flat name inside `cluster.<name>.`
macro_rules! metrics {
    (
        counters { $($(#[$cdoc:meta])* $counter:ident = $cname:literal,)* }
        gauges { $($(#[$gdoc:meta])* $gauge:ident = $gname:literal,)* }
        histograms { $($(#[$hdoc:meta])* $histogram:ident = $hname:literal,)* }
    ) => {
        /// The metrics of one cluster.
        #[derive(Debug)]
        pub struct ClusterStats {
            $($(#[$cdoc])* pub $counter: Counter,)*
            $($(#[$gdoc])* pub $gauge: Gauge,)*
            $($(#[$hdoc])* pub $histogram: Histogram,)*
            codes: Codes,
            retry_codes: Codes,
        }

        impl ClusterStats {
            /// `stat_name` is `alt_stat_name` or the cluster's name, with `:` replaced.
            pub fn new(registry: &Registry, stat_name: &Name) -> Self {
                let scope = Self::scope(registry, stat_name);
                Self {
                    $($counter: scope.counter($cname),)*
                    $($gauge: scope.gauge($gname),)*
                    $($histogram: scope.histogram($hname),)*
                    retry_codes: Codes::new(scope.scope("retry", None)),
                    codes: Codes::new(scope),
                }
            }
        }
    };
}

metrics! {
    counters {
        /// Connections made or tried.
        upstream_cx_total = "upstream_cx_total",
        /// HTTP/1.1 connections.
        upstream_cx_http1_total = "upstream_cx_http1_total",
        /// HTTP/2 connections.
        upstream_cx_http2_total = "upstream_cx_http2_total",
        /// Connections that were not made.
        upstream_cx_connect_fail = "upstream_cx_connect_fail",
        /// Of those: because of `connect_timeout`.
        upstream_cx_connect_timeout = "upstream_cx_connect_timeout",
        /// Connections closed because they were idle.
        upstream_cx_idle_timeout = "upstream_cx_idle_timeout",
        /// Connections closed at `max_connection_duration`.
        upstream_cx_max_duration_reached = "upstream_cx_max_duration_reached",
        /// Times `max_connections` was in the way.
        upstream_cx_overflow = "upstream_cx_overflow",
        /// Connections closed.
        upstream_cx_destroy = "upstream_cx_destroy",
        /// Closed by this proxy.
        upstream_cx_destroy_local = "upstream_cx_destroy_local",
        /// Closed by the endpoint.
        upstream_cx_destroy_remote = "upstream_cx_destroy_remote",
        /// Closed with requests under way.
        upstream_cx_destroy_with_active_rq = "upstream_cx_destroy_with_active_rq",
        /// Bytes received.
        upstream_cx_rx_bytes_total = "upstream_cx_rx_bytes_total",
        /// Bytes sent.
        upstream_cx_tx_bytes_total = "upstream_cx_tx_bytes_total",
        /// Picks that found no endpoint.
        upstream_cx_none_healthy = "upstream_cx_none_healthy",
        /// Connections closed at `max_requests_per_connection`.
        upstream_cx_max_requests = "upstream_cx_max_requests",
        /// Protocol errors of endpoints.
        upstream_cx_protocol_error = "upstream_cx_protocol_error",
        /// Requests sent.
        upstream_rq_total = "upstream_rq_total",
        /// Requests that had to wait for a connection.
        upstream_rq_pending_total = "upstream_rq_pending_total",
        /// Requests refused by `max_pending_requests` or `max_requests`.
        upstream_rq_pending_overflow = "upstream_rq_pending_overflow",
        /// Requests that waited for a connection that was not made.
        upstream_rq_pending_failure_eject = "upstream_rq_pending_failure_eject",
        /// Requests given up before there was a connection.
        upstream_rq_cancelled = "upstream_rq_cancelled",
        /// Requests that ran out of the route's time.
        upstream_rq_timeout = "upstream_rq_timeout",
        /// Tries that ran out of their time.
        upstream_rq_per_try_timeout = "upstream_rq_per_try_timeout",
        /// Tries that went without a byte for too long.
        upstream_rq_per_try_idle_timeout = "upstream_rq_per_try_idle_timeout",
        /// Streams reset by the endpoint.
        upstream_rq_rx_reset = "upstream_rq_rx_reset",
        /// Streams reset by this proxy.
        upstream_rq_tx_reset = "upstream_rq_tx_reset",
        /// Retries.
        upstream_rq_retry = "upstream_rq_retry",
        /// Retries after an exponential back-off.
        upstream_rq_retry_backoff_exponential = "upstream_rq_retry_backoff_exponential",
        /// Retries after the time that the endpoint asked for.
        upstream_rq_retry_backoff_ratelimited = "upstream_rq_retry_backoff_ratelimited",
        /// Answers that led to a retry.
        upstream_rq_retry_completed = "retry.upstream_rq_completed",
        /// Retries that helped.
        upstream_rq_retry_success = "upstream_rq_retry_success",
        /// Redirects that were followed.
        upstream_internal_redirect_succeeded_total = "upstream_internal_redirect_succeeded_total",
        /// Redirects that a policy is for, and that were passed on.
        upstream_internal_redirect_failed_total = "upstream_internal_redirect_failed_total",
        /// Retries refused by the limit or the budget.
        upstream_rq_retry_overflow = "upstream_rq_retry_overflow",
        /// Requests that failed in every try.
        upstream_rq_retry_limit_exceeded = "upstream_rq_retry_limit_exceeded",
        /// Requests that had an answer.
        upstream_rq_completed = "upstream_rq_completed",
        /// Requests dropped by `drop_overloads`.
        upstream_rq_drop_overload = "upstream_rq_drop_overload",
        /// Requests over `max_stream_duration`.
        upstream_rq_max_duration_reached = "upstream_rq_max_duration_reached",
        /// Picks while a priority panicked.
        lb_healthy_panic = "lb_healthy_panic",
        /// Picks from the subset that the route names.
        lb_subsets_selected = "lb_subsets_selected",
        /// Picks from what is fallen back to, where there is no such subset.
        lb_subsets_fallback = "lb_subsets_fallback",
        /// Picks of anyone, because the fallback had nobody.
        lb_subsets_fallback_panic = "lb_subsets_fallback_panic",
        /// Subsets made.
        lb_subsets_created = "lb_subsets_created",
        /// Subsets gone.
        lb_subsets_removed = "lb_subsets_removed",
        /// Times the endpoints changed.
        membership_change = "membership_change",
        /// Discoveries tried (DNS).
        update_attempt = "update_attempt",
        /// Discoveries that worked.
        update_success = "update_success",
        /// Discoveries that failed.
        update_failure = "update_failure",
        /// Discoveries that came back with nothing.
        update_empty = "update_empty",
        /// Discoveries that changed nothing.
        update_no_rebuild = "update_no_rebuild",
        /// TLS handshakes done.
        ssl_handshake = "ssl.handshake",
        /// TLS handshakes that failed.
        ssl_connection_error = "ssl.connection_error",
        /// Of those: the chain did not verify.
        ssl_fail_verify_error = "ssl.fail_verify_error",
        /// No name matched.
        ssl_fail_verify_san = "ssl.fail_verify_san",
        /// No pin matched.
        ssl_fail_verify_cert_hash = "ssl.fail_verify_cert_hash",
        /// There was no certificate.
        ssl_fail_verify_no_cert = "ssl.fail_verify_no_cert",
    }
    gauges {
        /// Subsets.
        lb_subsets_active = "lb_subsets_active",
        /// Connections open.
        upstream_cx_active = "upstream_cx_active",
        /// Requests under way.
        upstream_rq_active = "upstream_rq_active",
        /// Requests that wait for a connection.
        upstream_rq_pending_active = "upstream_rq_pending_active",
        /// Endpoints.
        membership_total = "membership_total",
        /// Endpoints that are well.
        membership_healthy = "membership_healthy",
        /// Endpoints that are degraded.
        membership_degraded = "membership_degraded",
        /// Endpoints that do not count at present.
        membership_excluded = "membership_excluded",
    }
    histograms {
        /// Milliseconds from the request to the end of the answer.
        upstream_rq_time = "upstream_rq_time",
        /// Milliseconds to make a connection.
        upstream_cx_connect_ms = "upstream_cx_connect_ms",
        /// Milliseconds that a connection was open.
        upstream_cx_length_ms = "upstream_cx_length_ms",
    }
}

impl ClusterStats {
    /// Counts the status that a request ended with: `upstream_rq_completed`, `upstream_rq_2xx`,
    /// `upstream_rq_200`.
    pub fn charge(&self, status: u16) {
        self.upstream_rq_completed.inc();
        self.codes.charge(status);
    }

    /// Counts the status of a try that is tried again: `retry.upstream_rq_503` and its class.
    pub fn charge_retried(&self, status: u16) {
        self.upstream_rq_retry_completed.inc();
        self.retry_codes.charge(status);
    }

    /// Counts a request or a try that ran out of time, if that is what it did.
    pub fn out_of_time(&self, reason: Reason) {
        match reason {
            Reason::RequestTimeout => self.upstream_rq_timeout.inc(),
            Reason::PerTryTimeout => self.upstream_rq_per_try_timeout.inc(),
            Reason::PerTryIdleTimeout => self.upstream_rq_per_try_idle_timeout.inc(),
            _ => {}
        }
    }

    pub(crate) fn scope(registry: &Registry, stat_name: &Name) -> Scope {
        registry.scope("cluster", Some(("envoy_cluster_name", stat_name.clone())))
    }
}

/// `upstream_rq_<code>` and `upstream_rq_<class>`.
#[derive(Debug)]
pub struct Codes {
    scope: Scope,
    /// 1xx to 5xx. A class is allocated when its first status is seen.
    classes: [OnceLock<Box<Class>>; 5],
}

#[derive(Debug)]
struct Class {
    all: Counter,
    codes: [OnceLock<Counter>; 100],
}

impl Codes {
    /// Counters in this scope; a code is made when it is first seen.
    pub fn new(scope: Scope) -> Self {
        Self { scope, classes: Default::default() }
    }

    /// Counts a status.
    pub fn charge(&self, status: u16) {
        let (hundreds, rest) = (status / 100, status % 100);
        let Some(slot) = usize::from(hundreds).checked_sub(1).and_then(|at| self.classes.get(at))
        else {
            return;
        };
        let class = slot.get_or_init(|| {
            let flat = format!("upstream_rq_{hundreds}xx");
            let label = ("envoy_response_code_class", Arc::from(hundreds.to_string()));
            let all = self.scope.labelled_counter(&flat, "upstream_rq_xx", label);
            Box::new(Class { all, codes: [const { OnceLock::new() }; 100] })
        });
        class.all.inc();
        if let Some(code) = class.codes.get(usize::from(rest)) {
            code.get_or_init(|| {
                let flat = format!("upstream_rq_{status}");
                let label = ("envoy_response_code", Arc::from(status.to_string()));
                self.scope.labelled_counter(&flat, "upstream_rq", label)
            })
            .inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_named_as_envoy_names_them() {
        let registry = Registry::new();
        let stats = ClusterStats::new(&registry, &"shop".into());
        stats.charge(200);
        stats.charge(200);
        stats.charge(503);
        stats.charge_retried(503);
        stats.charge(999);
        let names: Vec<String> = registry.entries().into_iter().map(|(name, _)| name).collect();
        for expected in [
            "cluster.shop.upstream_rq_200",
            "cluster.shop.upstream_rq_2xx",
            "cluster.shop.upstream_rq_503",
            "cluster.shop.retry.upstream_rq_503",
            "cluster.shop.retry.upstream_rq_5xx",
            "cluster.shop.ssl.handshake",
        ] {
            assert!(names.iter().any(|name| name == expected), "{expected} in {names:?}");
        }
        assert_eq!(stats.upstream_rq_completed.get(), 4);
        let entries = registry.entries();
        let (_, entry) =
            entries.iter().find(|(name, _)| name == "cluster.shop.upstream_rq_200").unwrap();
        assert_eq!(&*entry.family, "cluster_upstream_rq");
        assert_eq!(entry.labels.last(), Some(&("envoy_response_code", "200".into())));
    }
}
