//! The metrics of a cluster, under Envoy's names ("Cluster manager: statistics"): one allocation for
//! all of them; what only some clusters count is made when it is first counted.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::codes::Codes;
use crate::model::Name;
use crate::model::cluster::{Cluster, Protocol};
use crate::telemetry::format::Session;
use crate::telemetry::reason::Reason;
use crate::telemetry::stats::{
    Bounds, Count, Fresh, Group, Item, Level, Reading, Registry, Scope, Spread, metrics,
};

/// The metrics of one cluster.
#[derive(Debug)]
pub struct ClusterStats {
    numbers: Numbers,
    /// None: there was no answer so far.
    answered: OnceLock<Box<Answered>>,
    /// Buckets for the times of answers.
    times: Bounds,
    /// None: its connections have no TLS.
    tls: OnceLock<Box<OverTls>>,
    /// Highest weight of an endpoint.
    pub(super) max_host_weight: Level,
    /// Endpoints that a subset of one endpoint has no place for. None: there are no subsets.
    pub(super) lb_subsets_duplicates: OnceLock<Level>,
    /// Its connections are meant to speak HTTP/2.
    http2: AtomicBool,
}

/// What a cluster counts from its first answer on.
#[derive(Debug)]
struct Answered {
    /// To requests that came from outside.
    external: Answers,
    /// To requests that came from inside (`x-envoy-internal`), our own included.
    internal: Answers,
    /// To tries that were tried again.
    retried: Codes,
}

/// What a cluster counts whose connections have TLS.
#[derive(Debug, Default)]
struct OverTls {
    numbers: Tls,
    /// Handshakes by what was agreed on: names of metrics, and of their families.
    agreed: Mutex<Vec<(Agreed, u64)>>,
}

/// Something that a handshake agrees on: `ciphers` or `curves`, and which.
type Agreed = (&'static str, &'static str);

/// Answers to requests, and how long they took.
#[derive(Debug)]
struct Answers {
    codes: Codes,
    /// Milliseconds from the request to the end of the answer.
    time: Spread,
}

impl Deref for ClusterStats {
    type Target = Numbers;

    fn deref(&self) -> &Numbers {
        &self.numbers
    }
}

metrics! {
    /// Numbers of a cluster that stand for themselves.
    pub struct Numbers {
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
        /// Closed by this proxy with requests under way.
        upstream_cx_destroy_local_with_active_rq = "upstream_cx_destroy_local_with_active_rq",
        /// Closed by the endpoint with requests under way.
        upstream_cx_destroy_remote_with_active_rq = "upstream_cx_destroy_remote_with_active_rq",
        /// Connections that the endpoint said it would close (`connection: close`, GOAWAY).
        upstream_cx_close_notify = "upstream_cx_close_notify",
        /// Connections of a TCP proxy that were given up after all attempts.
        upstream_cx_connect_attempts_exceeded = "upstream_cx_connect_attempts_exceeded",
        /// Requests whose body was too long to be sent twice.
        retry_or_shadow_abandoned = "retry_or_shadow_abandoned",
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
        /// Times that the plan of zones was made.
        lb_recalculate_zone_structures = "lb_recalculate_zone_structures",
        /// Too few healthy endpoints for zones to matter.
        lb_zone_cluster_too_small = "lb_zone_cluster_too_small",
        /// Too few proxies of this kind are healthy for zones to matter.
        lb_local_cluster_not_ok = "lb_local_cluster_not_ok",
        /// Picks from the own zone, which can take everything.
        lb_zone_routing_all_directly = "lb_zone_routing_all_directly",
        /// Picks from the own zone, which can take a part.
        lb_zone_routing_sampled = "lb_zone_routing_sampled",
        /// Picks from other zones.
        lb_zone_routing_cross_zone = "lb_zone_routing_cross_zone",
        /// Of those: no zone has anything to spare.
        lb_zone_no_capacity_left = "lb_zone_no_capacity_left",
        /// Subsets made.
        lb_subsets_created = "lb_subsets_created",
        /// Subsets gone.
        lb_subsets_removed = "lb_subsets_removed",
        /// Times the endpoints changed.
        membership_change = "membership_change",
        /// Connections not made, because their own address cannot be had.
        bind_errors = "bind_errors",
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
        /// Requests that a connection served.
        upstream_rq_per_cx = "upstream_rq_per_cx",
        /// Milliseconds to make a connection.
        upstream_cx_connect_ms = "upstream_cx_connect_ms",
        /// Milliseconds that a connection was open.
        upstream_cx_length_ms = "upstream_cx_length_ms",
    }
    never {
        counters [
            "assignment_stale",
            "assignment_timeout_received",
            "assignment_use_cached",
            "original_dst_host_invalid",
            "upstream_cx_connect_with_0_rtt",
            "upstream_cx_http3_total",
            "upstream_cx_pool_overflow",
            "upstream_cx_preconnect_skipped",
            "upstream_http3_broken",
            "upstream_rq_0rtt",
            "upstream_rq_active_overflow",
            "upstream_rq_maintenance_mode",
            "upstream_rq_rx_reset_no_error",
        ]
        gauges ["upstream_queue_overloaded"]
    }
    }
}

metrics! {
    /// `ssl.` of a cluster whose connections have TLS.
    pub(super) struct Tls {
    counters {
        /// TLS handshakes done.
        handshake = "handshake",
        /// TLS handshakes that failed.
        connection_error = "connection_error",
        /// Of those: the chain did not verify.
        fail_verify_error = "fail_verify_error",
        /// No name matched.
        fail_verify_san = "fail_verify_san",
        /// No pin matched.
        fail_verify_cert_hash = "fail_verify_cert_hash",
        /// There was no certificate.
        fail_verify_no_cert = "fail_verify_no_cert",
    }
    gauges {}
    histograms {}
    never {
        counters [
            "no_certificate",
            "ocsp_staple_failed",
            "ocsp_staple_omitted",
            "ocsp_staple_requests",
            "ocsp_staple_responses",
            "session_reused",
        ]
        gauges []
    }
    }
}

impl ClusterStats {
    /// `scope`: see [`scope`](Self::scope).
    pub(crate) fn new(scope: &Scope) -> Self {
        Self {
            numbers: Numbers::fresh(scope),
            answered: OnceLock::new(),
            times: scope.bounds("upstream_rq_time"),
            tls: OnceLock::new(),
            max_host_weight: Level::default(),
            lb_subsets_duplicates: OnceLock::new(),
            http2: AtomicBool::new(false),
        }
    }

    /// Names of things that only clusters of this configuration have.
    pub(super) fn show(&self, config: &Cluster) {
        if config.tls.is_some() || config.socket_matches.iter().any(|one| one.tls.is_some()) {
            self.tls();
        }
        if config.balancing.subsets.is_some() {
            self.lb_subsets_duplicates.get_or_init(Level::default);
        }
        self.http2.store(config.protocol == Protocol::Http2, Ordering::Relaxed);
    }

    /// Counts the status that a request ended with: `upstream_rq_completed`, `upstream_rq_2xx`,
    /// `upstream_rq_200`, and the same under `internal.` or `external.`.
    pub fn charge(&self, status: u16, internal: bool) {
        self.answers(internal).codes.charge(status);
    }

    /// How long a request took, in milliseconds.
    pub(crate) fn took(&self, milliseconds: f64, internal: bool) {
        self.answers(internal).time.record(milliseconds);
    }

    /// Counts the status of a try that is tried again: `retry.upstream_rq_503` and its class.
    pub fn charge_retried(&self, status: u16) {
        self.answered().retried.charge(status);
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

    /// A handshake is done.
    pub(super) fn handshake(&self, session: Option<&Session>) {
        let tls = self.over_tls();
        tls.numbers.handshake.inc();
        let Some(session) = session else { return };
        let mut agreed = tls.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        for one in [("ciphers", session.cipher), ("curves", session.group)] {
            match agreed.iter_mut().find(|(known, _)| *known == one) {
                Some((_, count)) => *count += 1,
                None => agreed.push((one, 1)),
            }
        }
    }

    /// What discovery of its endpoints counts.
    pub(crate) fn discovery(&self) -> Discovered<'_> {
        let numbers = &self.numbers;
        Discovered {
            attempt: &numbers.update_attempt,
            success: &numbers.update_success,
            failure: &numbers.update_failure,
            empty: &numbers.update_empty,
            no_rebuild: &numbers.update_no_rebuild,
        }
    }

    /// What TLS counts.
    pub(super) fn tls(&self) -> &Tls {
        &self.over_tls().numbers
    }

    fn over_tls(&self) -> &OverTls {
        self.tls.get_or_init(Box::default)
    }

    /// `stat_name` is `alt_stat_name` or the cluster's name, with `:` replaced.
    pub(crate) fn scope(registry: &Registry, stat_name: &Name) -> Scope {
        registry.scope("cluster", Some(("envoy_cluster_name", stat_name.clone())))
    }

    fn answers(&self, internal: bool) -> &Answers {
        let answered = self.answered();
        if internal { &answered.internal } else { &answered.external }
    }

    fn answered(&self) -> &Answered {
        self.answered.get_or_init(|| {
            let answers =
                || Answers { codes: Codes::default(), time: Spread::new(self.times.clone()) };
            let (external, internal) = (answers(), answers());
            Box::new(Answered { external, internal, retried: Codes::default() })
        })
    }
}

/// Discoveries: tried, that worked, that failed, that came back with nothing, that changed nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Discovered<'a> {
    pub(crate) attempt: &'a Count,
    pub(crate) success: &'a Count,
    pub(crate) failure: &'a Count,
    pub(crate) empty: &'a Count,
    pub(crate) no_rebuild: &'a Count,
}

impl Group for ClusterStats {
    fn each(&self, see: &mut dyn FnMut(Item<'_>, Reading)) {
        self.numbers.each(see);
        see(Item::plain("max_host_weight"), Reading::Gauge(self.max_host_weight.get()));
        if let Some(level) = self.lb_subsets_duplicates.get() {
            let name = "lb_subsets_single_host_per_subset_duplicate";
            see(Item::plain(name), Reading::Gauge(level.get()));
        }
        // A cluster is not shown before it is warm.
        see(Item::plain("warming_state"), Reading::Gauge(0));
        if let Some(tls) = self.tls.get() {
            tls.each(see);
        }
        match self.answered.get() {
            Some(answered) => answered.each(see),
            None => Codes::each(&[], "", see),
        }
        see_codecs(&self.numbers, self.http2.load(Ordering::Relaxed), see);
    }

    fn reset(&self) {
        self.numbers.reset();
        if let Some(answered) = self.answered.get() {
            answered.retried.reset();
            answered.external.codes.reset();
            answered.internal.codes.reset();
        }
        if let Some(tls) = self.tls.get() {
            tls.numbers.reset();
        }
    }
}

impl OverTls {
    fn each(&self, see: &mut dyn FnMut(Item<'_>, Reading)) {
        self.numbers.each(&mut |item, reading| {
            let flat = format!("ssl.{}", item.flat);
            see(Item { flat: &flat, family: &flat, label: item.label }, reading);
        });
        for ((kind, name), count) in &*self.agreed.lock().unwrap_or_else(PoisonError::into_inner) {
            let flat = format!("ssl.{kind}.{name}");
            let (family, label) = match *kind {
                "ciphers" => ("ssl.ciphers", Some(("cipher_suite", *name))),
                _ => (flat.as_str(), None),
            };
            see(Item { flat: &flat, family, label }, Reading::Counter(*count));
        }
    }
}

impl Answered {
    fn each(&self, see: &mut dyn FnMut(Item<'_>, Reading)) {
        Codes::each(&[&self.external.codes, &self.internal.codes], "", see);
        self.retried.each_used("retry.", see);
        let (outside, inside) = (self.external.time.summary(), self.internal.time.summary());
        for (answers, start, time) in
            [(&self.external, "external.", &outside), (&self.internal, "internal.", &inside)]
        {
            answers.codes.each_used(start, see);
            if time.count > 0 {
                let flat = format!("{start}upstream_rq_time");
                see(Item::plain(&flat), Reading::Histogram(time.clone()));
            }
        }
        if outside.count + inside.count > 0 {
            see(Item::plain("upstream_rq_time"), Reading::Histogram(outside + &inside));
        }
    }
}

/// What codecs count. What `never` happens here is what the HTTP/2 library does not let happen.
fn see_codecs(numbers: &Numbers, http2: bool, see: &mut dyn FnMut(Item<'_>, Reading)) {
    const HTTP1: [&str; 4] = [
        "http1.dropped_headers_with_underscores",
        "http1.metadata_not_supported_error",
        "http1.requests_rejected_with_underscores_in_headers",
        "http1.response_flood",
    ];
    const HTTP2: [&str; 11] = [
        "http2.dropped_headers_with_underscores",
        "http2.inbound_empty_frames_flood",
        "http2.inbound_priority_frames_flood",
        "http2.inbound_window_update_frames_flood",
        "http2.metadata_empty_frames",
        "http2.nghttp2_downstream_connections",
        "http2.nghttp2_upstream_connections",
        "http2.oghttp2_downstream_connections",
        "http2.oghttp2_upstream_connections",
        "http2.outbound_control_flood",
        "http2.requests_rejected_with_underscores_in_headers",
    ];
    let (one, two) = (&numbers.upstream_cx_http1_total, &numbers.upstream_cx_http2_total);
    if two.get() > 0 {
        HTTP2.into_iter().for_each(|name| see(Item::plain(name), Reading::Counter(0)));
        // Of a cluster that speaks both, the parts are not told apart.
        let active = if one.get() == 0 { numbers.upstream_rq_active.get() } else { 0 };
        see(Item::plain("http2.streams_active"), Reading::Gauge(active));
        for (name, count) in [
            ("http2.rx_reset", &numbers.upstream_rq_rx_reset),
            ("http2.tx_reset", &numbers.upstream_rq_tx_reset),
        ] {
            see(Item::plain(name), Reading::Counter(if one.get() == 0 { count.get() } else { 0 }));
        }
    }
    if one.get() > 0 || (numbers.upstream_cx_total.get() > 0 && !http2) {
        HTTP1.into_iter().for_each(|name| see(Item::plain(name), Reading::Counter(0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_named_as_envoy_names_them() {
        let registry = Registry::new();
        let stats = ClusterStats::scope(&registry, &"shop".into()).group(ClusterStats::new);
        stats.charge(200, false);
        stats.charge(200, true);
        stats.charge(503, false);
        stats.charge_retried(503);
        stats.charge(999, false);
        stats.took(7.0, true);
        for (name, value) in [
            ("upstream_rq_200", Some(2)),
            ("upstream_rq_2xx", Some(2)),
            ("upstream_rq_503", Some(1)),
            ("upstream_rq_completed", Some(4)),
            ("external.upstream_rq_200", Some(1)),
            ("external.upstream_rq_completed", Some(3)),
            ("internal.upstream_rq_2xx", Some(1)),
            ("internal.upstream_rq_5xx", None),
            ("retry.upstream_rq_503", Some(1)),
            ("retry.upstream_rq_5xx", Some(1)),
            ("retry.upstream_rq_completed", Some(1)),
            ("upstream_rq_time", Some(1)),
            ("internal.upstream_rq_time", Some(1)),
            ("ssl.handshake", None),
            ("upstream_cx_total", Some(0)),
            ("upstream_cx_http3_total", Some(0)),
        ] {
            assert_eq!(registry.value(&format!("cluster.shop.{name}")), value, "{name}");
        }
        stats.tls().handshake.inc();
        assert_eq!(registry.value("cluster.shop.ssl.handshake"), Some(1));
        let mut labels = Vec::new();
        registry.visit(&mut |sample| {
            if sample.name == "cluster.shop.upstream_rq_200" {
                labels.push((sample.family.to_owned(), sample.label.map(|(_, to)| to.to_owned())));
            }
        });
        assert_eq!(labels, [("cluster_upstream_rq".to_owned(), Some("200".to_owned()))]);
    }

    #[test]
    fn a_cluster_at_rest_is_small() {
        // A class of the allocator that leaves room for the counts of an `Arc`.
        assert!(size_of::<ClusterStats>() <= 768 - 16, "{}", size_of::<ClusterStats>());
    }
}
