//! Counters of the downstream side, under Envoy's names, resolved when a listener is made.

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, Version};

use crate::model::Name;
use crate::model::proxy_protocol::{Accept, Version as Written};
use crate::telemetry::stats::{Counter, Gauge, GaugeGuard, Histogram, Registry, Scope};

/// `http.<stat_prefix>.`
#[derive(Debug)]
pub(crate) struct HttpStats {
    pub(super) downstream_cx_total: Counter,
    pub(super) downstream_cx_active: Gauge,
    downstream_cx_http1_total: Counter,
    downstream_cx_http2_total: Counter,
    pub(super) downstream_cx_ssl_total: Counter,
    pub(super) downstream_cx_destroy: Counter,
    /// WebSocket, CONNECT and the like.
    pub(super) downstream_cx_upgrades_total: Counter,
    pub(super) downstream_cx_upgrades_active: Gauge,
    pub(super) downstream_rq_ws_on_non_ws_route: Counter,
    pub(super) downstream_rq_header_timeout: Counter,
    pub(super) downstream_rq_too_many_premature_resets: Counter,
    /// `http2.`: of all connection managers together.
    pub(super) inbound_empty_frames_flood: Counter,
    pub(super) inbound_priority_frames_flood: Counter,
    pub(super) inbound_window_update_frames_flood: Counter,
    pub(super) downstream_cx_idle_timeout: Counter,
    pub(super) downstream_cx_max_duration_reached: Counter,
    pub(super) downstream_cx_protocol_error: Counter,
    pub(super) overload: OverloadStats,
    downstream_rq_total: Counter,
    downstream_rq_http1_total: Counter,
    downstream_rq_http2_total: Counter,
    /// Ours: requests on connections whose peer proved who it is.
    downstream_rq_mtls_total: Counter,
    /// Ours: all others. It stays at zero, whoever reads it while requests come in.
    downstream_rq_plain_total: Counter,
    downstream_rq_active: Gauge,
    downstream_rq_completed: Counter,
    downstream_rq_class: [Counter; 5],
    downstream_rq_time: Histogram,
    pub(super) downstream_rq_rx_reset: Counter,
    pub(super) downstream_rq_timeout: Counter,
    pub(super) downstream_rq_idle_timeout: Counter,
    pub(super) passthrough_internal_redirect_bad_location: Counter,
    pub(super) passthrough_internal_redirect_unsafe_scheme: Counter,
    pub(super) passthrough_internal_redirect_too_many_redirects: Counter,
    pub(super) passthrough_internal_redirect_no_route: Counter,
    pub(super) passthrough_internal_redirect_predicate: Counter,
    pub(super) no_route: Counter,
    pub(super) no_cluster: Counter,
    pub(super) rq_direct_response: Counter,
    pub(super) rq_redirect: Counter,
    pub(super) rq_total: Counter,
    pub(super) tracing_sampled: Counter,
    pub(super) tracing_not_sampled: Counter,
}

/// What the overload manager did.
#[derive(Debug)]
pub(crate) struct OverloadStats {
    pub(super) downstream_cx_overload_disable_keepalive: Counter,
    pub(super) downstream_rq_overload_close: Counter,
}

impl OverloadStats {
    fn new(scope: &Scope) -> Self {
        Self {
            downstream_cx_overload_disable_keepalive: scope
                .counter("downstream_cx_overload_disable_keepalive"),
            downstream_rq_overload_close: scope.counter("downstream_rq_overload_close"),
        }
    }
}

impl HttpStats {
    pub(super) fn new(registry: &Registry, prefix: &Name) -> Self {
        let label = ("envoy_http_conn_manager_prefix", Arc::clone(prefix));
        let scope = registry.scope("http", Some(label));
        let http2 = registry.scope("http2", None);
        let counter = |name: &str| scope.counter(name);
        Self {
            downstream_cx_total: counter("downstream_cx_total"),
            downstream_cx_active: scope.gauge("downstream_cx_active"),
            downstream_cx_http1_total: counter("downstream_cx_http1_total"),
            downstream_cx_http2_total: counter("downstream_cx_http2_total"),
            downstream_cx_ssl_total: counter("downstream_cx_ssl_total"),
            downstream_cx_destroy: counter("downstream_cx_destroy"),
            downstream_cx_upgrades_total: counter("downstream_cx_upgrades_total"),
            downstream_cx_upgrades_active: scope.gauge("downstream_cx_upgrades_active"),
            downstream_rq_ws_on_non_ws_route: counter("downstream_rq_ws_on_non_ws_route"),
            downstream_rq_header_timeout: counter("downstream_rq_header_timeout"),
            downstream_rq_too_many_premature_resets: counter(
                "downstream_rq_too_many_premature_resets",
            ),
            inbound_empty_frames_flood: http2.counter("inbound_empty_frames_flood"),
            inbound_priority_frames_flood: http2.counter("inbound_priority_frames_flood"),
            inbound_window_update_frames_flood: http2.counter("inbound_window_update_frames_flood"),
            downstream_cx_idle_timeout: counter("downstream_cx_idle_timeout"),
            downstream_cx_max_duration_reached: counter("downstream_cx_max_duration_reached"),
            downstream_cx_protocol_error: counter("downstream_cx_protocol_error"),
            overload: OverloadStats::new(&scope),
            downstream_rq_total: counter("downstream_rq_total"),
            downstream_rq_http1_total: counter("downstream_rq_http1_total"),
            downstream_rq_http2_total: counter("downstream_rq_http2_total"),
            downstream_rq_mtls_total: counter("downstream_rq_mtls_total"),
            downstream_rq_plain_total: counter("downstream_rq_plain_total"),
            downstream_rq_active: scope.gauge("downstream_rq_active"),
            downstream_rq_completed: counter("downstream_rq_completed"),
            downstream_rq_class: classes(&scope),
            downstream_rq_time: scope.histogram("downstream_rq_time"),
            downstream_rq_rx_reset: counter("downstream_rq_rx_reset"),
            downstream_rq_timeout: counter("downstream_rq_timeout"),
            downstream_rq_idle_timeout: counter("downstream_rq_idle_timeout"),
            passthrough_internal_redirect_bad_location: counter(
                "passthrough_internal_redirect_bad_location",
            ),
            passthrough_internal_redirect_unsafe_scheme: counter(
                "passthrough_internal_redirect_unsafe_scheme",
            ),
            passthrough_internal_redirect_too_many_redirects: counter(
                "passthrough_internal_redirect_too_many_redirects",
            ),
            passthrough_internal_redirect_no_route: counter(
                "passthrough_internal_redirect_no_route",
            ),
            passthrough_internal_redirect_predicate: counter(
                "passthrough_internal_redirect_predicate",
            ),
            no_route: counter("no_route"),
            no_cluster: counter("no_cluster"),
            rq_direct_response: counter("rq_direct_response"),
            rq_redirect: counter("rq_redirect"),
            rq_total: counter("rq_total"),
            tracing_sampled: counter("tracing.random_sampling"),
            tracing_not_sampled: counter("tracing.not_traceable"),
        }
    }

    /// A connection begins; it is counted as active until the guard is dropped.
    pub(super) fn connection(&self, h2: bool, tls: bool) -> GaugeGuard {
        self.downstream_cx_total.inc();
        if h2 { &self.downstream_cx_http2_total } else { &self.downstream_cx_http1_total }.inc();
        if tls {
            self.downstream_cx_ssl_total.inc();
        }
        self.downstream_cx_active.guard()
    }

    /// A request begins.
    pub(super) fn begin(&self, version: Version, mutual_tls: bool) {
        self.downstream_rq_total.inc();
        if version == Version::HTTP_2 {
            self.downstream_rq_http2_total.inc();
        } else {
            self.downstream_rq_http1_total.inc();
        }
        if mutual_tls {
            self.downstream_rq_mtls_total.inc();
        } else {
            self.downstream_rq_plain_total.inc();
        }
        self.downstream_rq_active.add(1);
    }

    /// A request ends. None: it was never answered. What health checks are answered is no statistic.
    pub(super) fn end(&self, status: Option<StatusCode>, took: Duration, health_check: bool) {
        self.downstream_rq_active.add(-1);
        let Some(status) = status else {
            self.downstream_rq_rx_reset.inc();
            return;
        };
        self.downstream_rq_time.record(took.as_secs_f64() * 1000.0);
        if health_check {
            return;
        }
        self.downstream_rq_completed.inc();
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.downstream_rq_class.get(class) {
            counter.inc();
        }
    }
}

/// Flat `downstream_rq_2xx`, Prometheus `downstream_rq_xx{envoy_response_code_class="2"}`.
fn classes(scope: &Scope) -> [Counter; 5] {
    ["1", "2", "3", "4", "5"].map(|class| {
        let flat = format!("downstream_rq_{class}xx");
        let label = ("envoy_response_code_class", Arc::from(class));
        scope.labelled_counter(&flat, "downstream_rq_xx", label)
    })
}

/// `listener.<stat_prefix>.`
#[derive(Debug)]
pub(super) struct ListenerStats {
    pub(super) downstream_cx_total: Counter,
    pub(super) downstream_cx_active: Gauge,
    pub(super) downstream_cx_destroy: Counter,
    pub(super) downstream_pre_cx_timeout: Counter,
    pub(super) downstream_pre_cx_active: Gauge,
    pub(super) downstream_cx_length_ms: Histogram,
    pub(super) downstream_listener_filter_remote_close: Counter,
    pub(super) downstream_cx_transport_socket_connect_timeout: Counter,
    pub(super) no_filter_chain_match: Counter,
    pub(super) downstream_cx_overload_reject: Counter,
    pub(super) downstream_global_cx_overflow: Counter,
    pub(super) ssl_handshake: Counter,
    pub(super) ssl_connection_error: Counter,
    scope: Scope,
}

impl ListenerStats {
    pub(super) fn new(registry: &Registry, prefix: &Name) -> Self {
        let label = ("envoy_listener_address", Arc::clone(prefix));
        let scope = registry.scope("listener", Some(label));
        Self {
            downstream_cx_total: scope.counter("downstream_cx_total"),
            downstream_cx_active: scope.gauge("downstream_cx_active"),
            downstream_cx_destroy: scope.counter("downstream_cx_destroy"),
            downstream_pre_cx_timeout: scope.counter("downstream_pre_cx_timeout"),
            downstream_pre_cx_active: scope.gauge("downstream_pre_cx_active"),
            downstream_cx_length_ms: scope.histogram("downstream_cx_length_ms"),
            downstream_listener_filter_remote_close: scope
                .counter("downstream_listener_filter_remote_close"),
            downstream_cx_transport_socket_connect_timeout: scope
                .counter("downstream_cx_transport_socket_connect_timeout"),
            no_filter_chain_match: scope.counter("no_filter_chain_match"),
            downstream_cx_overload_reject: scope.counter("downstream_cx_overload_reject"),
            downstream_global_cx_overflow: scope.counter("downstream_global_cx_overflow"),
            ssl_handshake: scope.counter("ssl.handshake"),
            ssl_connection_error: scope.counter("ssl.connection_error"),
            scope,
        }
    }

    /// Count a failed handshake under the cause's own name (`ssl.fail_verify_san` …).
    pub(super) fn handshake_failed(&self, cause: &str) {
        self.ssl_connection_error.inc();
        if cause != "connection_error" {
            self.scope.counter(&format!("ssl.{cause}")).inc();
        }
    }
}

/// `proxy_proto.[<stat_prefix>.]`, and one counter of the listener's.
#[derive(Debug)]
pub(super) struct ProxyProtocolStats {
    pub(super) error: Counter,
    pub(super) not_found_allowed: Counter,
    pub(super) not_found_disallowed: Counter,
    v1: [Counter; 3],
    v2: [Counter; 3],
}

impl ProxyProtocolStats {
    pub(super) fn new(registry: &Registry, listener: &Name, accept: &Accept) -> Self {
        let label = ("envoy_listener_address", Arc::clone(listener));
        let prefix = Some(&accept.stat_prefix).filter(|prefix| !prefix.is_empty());
        let prefix = prefix.map(|prefix| ("envoy_proxy_protocol_prefix", Arc::clone(prefix)));
        let scope = registry.scope("proxy_proto", prefix);
        let version = |version: &str| {
            ["found", "disallowed", "error"]
                .map(|name| scope.counter(&format!("versions.{version}.{name}")))
        };
        Self {
            error: registry
                .scope("listener", Some(label))
                .counter("downstream_cx_proxy_proto_error"),
            not_found_allowed: scope.counter("not_found_allowed"),
            not_found_disallowed: scope.counter("not_found_disallowed"),
            v1: version("v1"),
            v2: version("v2"),
        }
    }

    fn of(&self, version: Written) -> &[Counter; 3] {
        match version {
            Written::V1 => &self.v1,
            Written::V2 => &self.v2,
        }
    }

    pub(super) fn found(&self, version: Written) {
        self.of(version)[0].inc();
    }

    pub(super) fn disallowed(&self, version: Written) {
        self.of(version)[1].inc();
    }

    pub(super) fn bad(&self, version: Written) {
        self.of(version)[2].inc();
    }
}

/// `tcp.<stat_prefix>.`
#[derive(Debug)]
pub(super) struct TcpStats {
    pub(super) downstream_cx_total: Counter,
    pub(super) downstream_cx_no_route: Counter,
    pub(super) downstream_cx_rx_bytes_total: Counter,
    pub(super) downstream_cx_tx_bytes_total: Counter,
    pub(super) idle_timeout: Counter,
    pub(super) max_downstream_connection_duration: Counter,
}

impl TcpStats {
    pub(super) fn new(registry: &Registry, prefix: &Name) -> Self {
        let scope = registry.scope("tcp", Some(("envoy_tcp_prefix", Arc::clone(prefix))));
        Self {
            downstream_cx_total: scope.counter("downstream_cx_total"),
            downstream_cx_no_route: scope.counter("downstream_cx_no_route"),
            downstream_cx_rx_bytes_total: scope.counter("downstream_cx_rx_bytes_total"),
            downstream_cx_tx_bytes_total: scope.counter("downstream_cx_tx_bytes_total"),
            idle_timeout: scope.counter("idle_timeout"),
            max_downstream_connection_duration: scope.counter("max_downstream_connection_duration"),
        }
    }
}
