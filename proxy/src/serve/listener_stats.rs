//! Counters of a listener, under Envoy's names, resolved when it is made.

use std::sync::Arc;

use crate::model::Name;
use crate::telemetry::format::Session;
use crate::telemetry::stats::{
    Counter, Fresh as _, Gauge, GaugeGuard, Histogram, Registry, Scope, metrics,
};

/// `listener.<stat_prefix>.`
pub(super) fn listener_scope(registry: &Registry, prefix: &Name) -> Scope {
    registry.scope("listener", Some(("envoy_listener_address", Arc::clone(prefix))))
}

/// `listener.<stat_prefix>.`
#[derive(Debug)]
pub(super) struct ListenerStats {
    downstream_cx_total: Counter,
    downstream_cx_active: Gauge,
    downstream_cx_destroy: Counter,
    downstream_cx_length_ms: Histogram,
    pub(super) downstream_pre_cx_active: Gauge,
    pub(super) downstream_pre_cx_timeout: Counter,
    pub(super) downstream_cx_transport_socket_connect_timeout: Counter,
    pub(super) downstream_listener_filter_remote_close: Counter,
    pub(super) downstream_cx_overload_reject: Counter,
    pub(super) downstream_global_cx_overflow: Counter,
    pub(super) no_filter_chain_match: Counter,
    /// By worker: connections, and those that are open.
    workers: Box<[(Counter, Gauge)]>,
    /// None: no chain has TLS.
    tls: Option<Tls>,
    _never: Arc<Never>,
}

#[derive(Debug)]
struct Tls {
    handshake: Counter,
    connection_error: Counter,
    no_certificate: Counter,
    scope: Scope,
    _failures: [Counter; 4],
    _never: Arc<TlsNever>,
}

/// A connection, counted while it is open.
#[derive(Debug)]
pub(super) struct Open<'a> {
    stats: &'a ListenerStats,
    since: std::time::Instant,
    _active: [Option<GaugeGuard>; 2],
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.stats.downstream_cx_destroy.inc();
        let age = self.since.elapsed().as_secs_f64() * 1000.0;
        self.stats.downstream_cx_length_ms.record(age);
    }
}

impl ListenerStats {
    /// `workers`: how many there are.
    pub(super) fn new(registry: &Registry, prefix: &Name, workers: usize, tls: bool) -> Self {
        let scope = listener_scope(registry, prefix);
        let of_worker = |worker: usize| {
            let label = ("envoy_worker_id", Arc::from(worker.to_string()));
            let scope = scope.numbered("worker", label);
            (scope.counter("downstream_cx_total"), scope.gauge("downstream_cx_active"))
        };
        Self {
            downstream_cx_total: scope.counter("downstream_cx_total"),
            downstream_cx_active: scope.gauge("downstream_cx_active"),
            downstream_cx_destroy: scope.counter("downstream_cx_destroy"),
            downstream_cx_length_ms: scope.histogram("downstream_cx_length_ms"),
            downstream_pre_cx_active: scope.gauge("downstream_pre_cx_active"),
            downstream_pre_cx_timeout: scope.counter("downstream_pre_cx_timeout"),
            downstream_cx_transport_socket_connect_timeout: scope
                .counter("downstream_cx_transport_socket_connect_timeout"),
            downstream_listener_filter_remote_close: scope
                .counter("downstream_listener_filter_remote_close"),
            downstream_cx_overload_reject: scope.counter("downstream_cx_overload_reject"),
            downstream_global_cx_overflow: scope.counter("downstream_global_cx_overflow"),
            no_filter_chain_match: scope.counter("no_filter_chain_match"),
            workers: (0..workers).map(of_worker).collect(),
            tls: tls.then(|| Tls::new(&scope)),
            _never: scope.group(Never::fresh),
        }
    }

    /// Connections that are open.
    pub(super) fn active(&self) -> i64 {
        self.downstream_cx_active.get()
    }

    /// A connection begins on this worker.
    pub(super) fn open(&self, worker: usize) -> Open<'_> {
        self.downstream_cx_total.inc();
        let of_worker = self.workers.get(worker).map(|(total, active)| {
            total.inc();
            active.guard()
        });
        let since = std::time::Instant::now();
        Open { stats: self, since, _active: [Some(self.downstream_cx_active.guard()), of_worker] }
    }

    /// A handshake is done; the peer may have shown nothing.
    pub(super) fn handshake_done(&self, session: Option<&Session>, anonymous: bool) {
        let Some(tls) = &self.tls else { return };
        tls.handshake.inc();
        if anonymous {
            tls.no_certificate.inc();
        }
        if let Some(session) = session {
            for (kind, value) in [
                ("versions", session.version),
                ("ciphers", session.cipher),
                ("curves", session.group),
            ] {
                if !value.is_empty() {
                    tls.scope.counter(&format!("{kind}.{value}")).inc();
                }
            }
        }
    }

    /// Count a failed handshake under the cause's own name (`ssl.fail_verify_san` …).
    pub(super) fn handshake_failed(&self, cause: &str) {
        let Some(tls) = &self.tls else { return };
        if cause == "connection_error" {
            tls.connection_error.inc();
        } else {
            tls.scope.counter(cause).inc();
        }
    }
}

impl Tls {
    fn new(listener: &Scope) -> Self {
        let scope = listener.scope("ssl", None);
        Self {
            handshake: scope.counter("handshake"),
            connection_error: scope.counter("connection_error"),
            no_certificate: scope.counter("no_certificate"),
            _failures: [
                "fail_verify_cert_hash",
                "fail_verify_error",
                "fail_verify_no_cert",
                "fail_verify_san",
            ]
            .map(|name| scope.counter(name)),
            _never: scope.group(TlsNever::fresh),
            scope,
        }
    }
}

metrics! {
    /// What does not happen to a listener here: connections of one listener alone have no limit, and no
    /// extension is waited for.
    struct Never {
        counters {}
        gauges {}
        histograms {}
        never {
            counters [
                "downstream_cx_overflow",
                "extension_config_missing",
                "network_extension_config_missing",
            ]
            gauges []
        }
    }
}

metrics! {
    /// There is no session resumption and no stapling.
    struct TlsNever {
        counters {}
        gauges {}
        histograms {}
        never {
            counters [
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
