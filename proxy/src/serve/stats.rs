//! Counters of the downstream side, under Envoy's names, resolved when a listener is made.

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, Version};

use super::listener_stats::listener_scope;
use crate::model::Name;
use crate::model::proxy_protocol::{Accept, Version as Written};
use crate::telemetry::stats::{
    Count, Counter, Fresh as _, Gauge, GaugeGuard, Group, Histogram, Item, Reading, Registry,
    Scope, metrics,
};

/// `http.<stat_prefix>.`
#[derive(Debug)]
pub(crate) struct HttpStats {
    pub(super) downstream_cx_total: Counter,
    pub(super) downstream_cx_active: Gauge,
    downstream_cx_http1_total: Counter,
    downstream_cx_http2_total: Counter,
    pub(super) downstream_cx_ssl_total: Counter,
    pub(super) downstream_cx_destroy: Counter,
    /// Closed by this proxy.
    pub(super) downstream_cx_destroy_local: Counter,
    /// Closed by the client.
    pub(super) downstream_cx_destroy_remote: Counter,
    /// Closed with requests under way.
    pub(super) downstream_cx_destroy_active_rq: Counter,
    /// Of those: by this proxy.
    pub(super) downstream_cx_destroy_local_active_rq: Counter,
    /// Of those: by the client.
    pub(super) downstream_cx_destroy_remote_active_rq: Counter,
    /// Closed because the listener goes.
    pub(super) downstream_cx_drain_close: Counter,
    /// Closed at `max_requests_per_connection`.
    pub(super) downstream_cx_max_requests_reached: Counter,
    /// Bytes received.
    pub(super) downstream_cx_rx_bytes_total: Counter,
    /// Bytes sent.
    pub(super) downstream_cx_tx_bytes_total: Counter,
    pub(super) downstream_cx_length_ms: Histogram,
    downstream_cx_http1_active: Gauge,
    downstream_cx_http2_active: Gauge,
    downstream_cx_ssl_active: Gauge,
    pub(super) tracing_client_enabled: Counter,
    pub(super) tracing_service_forced: Counter,
    pub(super) downstream_rq_failed_path_normalization: Counter,
    pub(super) downstream_rq_redirected_with_normalized_path: Counter,
    pub(super) downstream_rq_too_large: Counter,
    pub(super) downstream_rq_tx_reset: Counter,
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
    /// Of this connection manager, and of its listener's part of it.
    classes: [Arc<Classes>; 2],
    _codecs: Arc<Http1Never>,
    _never: Arc<HttpNever>,
    downstream_rq_time: Histogram,
    pub(super) downstream_rq_rx_reset: Counter,
    pub(super) downstream_rq_timeout: Counter,
    pub(super) downstream_rq_idle_timeout: Counter,
    /// `max_stream_duration` was over before an answer.
    pub(super) downstream_rq_max_duration_reached: Counter,
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
    /// Headers with underscores: dropped, and requests refused for them; in HTTP/1 and HTTP/2.
    pub(super) underscores: [[Counter; 2]; 2],
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
    /// `prefix`: its own, and that of its listener.
    #[expect(clippy::too_many_lines, reason = "a line for each metric, and nothing else")]
    pub(super) fn new(registry: &Registry, (prefix, listener): (&Name, &Name)) -> Self {
        let label = || Some(("envoy_http_conn_manager_prefix", Arc::clone(prefix)));
        let scope = registry.scope("http", label());
        let of_listener = listener_scope(registry, listener).scope("http", label());
        let http2 = registry.scope("http2", None);
        let http1 = registry.scope("http1", None);
        let counter = |name: &str| scope.counter(name);
        Self {
            downstream_cx_total: counter("downstream_cx_total"),
            downstream_cx_active: scope.gauge("downstream_cx_active"),
            downstream_cx_http1_total: counter("downstream_cx_http1_total"),
            downstream_cx_http2_total: counter("downstream_cx_http2_total"),
            downstream_cx_ssl_total: counter("downstream_cx_ssl_total"),
            downstream_cx_destroy: counter("downstream_cx_destroy"),
            downstream_cx_destroy_local: counter("downstream_cx_destroy_local"),
            downstream_cx_destroy_remote: counter("downstream_cx_destroy_remote"),
            downstream_cx_destroy_active_rq: counter("downstream_cx_destroy_active_rq"),
            downstream_cx_destroy_local_active_rq: counter("downstream_cx_destroy_local_active_rq"),
            downstream_cx_destroy_remote_active_rq: counter(
                "downstream_cx_destroy_remote_active_rq",
            ),
            downstream_cx_drain_close: counter("downstream_cx_drain_close"),
            downstream_cx_max_requests_reached: counter("downstream_cx_max_requests_reached"),
            downstream_cx_rx_bytes_total: counter("downstream_cx_rx_bytes_total"),
            downstream_cx_tx_bytes_total: counter("downstream_cx_tx_bytes_total"),
            downstream_cx_length_ms: scope.histogram("downstream_cx_length_ms"),
            downstream_cx_http1_active: scope.gauge("downstream_cx_http1_active"),
            downstream_cx_http2_active: scope.gauge("downstream_cx_http2_active"),
            downstream_cx_ssl_active: scope.gauge("downstream_cx_ssl_active"),
            tracing_client_enabled: counter("tracing.client_enabled"),
            tracing_service_forced: counter("tracing.service_forced"),
            downstream_rq_failed_path_normalization: counter(
                "downstream_rq_failed_path_normalization",
            ),
            downstream_rq_redirected_with_normalized_path: counter(
                "downstream_rq_redirected_with_normalized_path",
            ),
            downstream_rq_too_large: counter("downstream_rq_too_large"),
            downstream_rq_tx_reset: counter("downstream_rq_tx_reset"),
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
            classes: [&scope, &of_listener].map(|scope| scope.group(|_| Classes::default())),
            _codecs: http1.group(Http1Never::fresh),
            _never: scope.group(HttpNever::fresh),
            downstream_rq_time: scope.histogram("downstream_rq_time"),
            downstream_rq_rx_reset: counter("downstream_rq_rx_reset"),
            downstream_rq_timeout: counter("downstream_rq_timeout"),
            downstream_rq_idle_timeout: counter("downstream_rq_idle_timeout"),
            downstream_rq_max_duration_reached: counter("downstream_rq_max_duration_reached"),
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
            underscores: [&http1, &http2].map(|codec| {
                [
                    codec.counter("dropped_headers_with_underscores"),
                    codec.counter("requests_rejected_with_underscores_in_headers"),
                ]
            }),
            tracing_sampled: counter("tracing.random_sampling"),
            tracing_not_sampled: counter("tracing.not_traceable"),
        }
    }

    /// A connection begins; it is counted as active until the guards are dropped.
    pub(super) fn connection(&self, h2: bool, tls: bool) -> [Option<GaugeGuard>; 3] {
        self.downstream_cx_total.inc();
        if h2 { &self.downstream_cx_http2_total } else { &self.downstream_cx_http1_total }.inc();
        if tls {
            self.downstream_cx_ssl_total.inc();
        }
        let of_protocol =
            if h2 { &self.downstream_cx_http2_active } else { &self.downstream_cx_http1_active };
        let secure = tls.then(|| self.downstream_cx_ssl_active.guard());
        [Some(self.downstream_cx_active.guard()), Some(of_protocol.guard()), secure]
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
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        self.classes.iter().filter_map(|all| all.0.get(class)).for_each(Count::inc);
    }
}

/// `downstream_rq_2xx` (Prometheus: `downstream_rq_xx{envoy_response_code_class="2"}`) and so on, and
/// `downstream_rq_completed`, which is their sum.
#[derive(Debug, Default)]
struct Classes([Count; 5]);

impl Group for Classes {
    fn each(&self, see: &mut dyn FnMut(Item<'_>, Reading)) {
        let mut completed = 0;
        for (count, class) in self.0.iter().zip(["1", "2", "3", "4", "5"]) {
            let flat = format!("downstream_rq_{class}xx");
            let label = Some(("envoy_response_code_class", class));
            let count = count.get();
            see(Item { flat: &flat, family: "downstream_rq_xx", label }, Reading::Counter(count));
            completed += count;
        }
        see(Item::plain("downstream_rq_completed"), Reading::Counter(completed));
    }

    fn reset(&self) {
        self.0.iter().for_each(Count::reset);
    }
}

metrics! {
    /// What does not happen to a connection manager here: there is no HTTP/3, nothing waits for a
    /// delayed close, and addresses are not detected by extensions.
    struct HttpNever {
        counters {}
        gauges {}
        histograms {}
        never {
            counters [
                "downstream_cx_delayed_close_timeout",
                "downstream_cx_http3_total",
                "downstream_rq_http3_total",
                "downstream_rq_non_relative_path",
                "downstream_rq_rejected_via_ip_detection",
                "rq_overload_local_reply",
                "rs_too_large",
            ]
            gauges ["downstream_cx_http1_soft_drain", "downstream_cx_http3_active"]
        }
    }
}

metrics! {
    /// There is no METADATA, and HTTP/1 has one answer at a time.
    struct Http1Never {
        counters {}
        gauges {}
        histograms {}
        never { counters ["metadata_not_supported_error", "response_flood"] gauges [] }
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
    _never: Arc<TcpNever>,
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
            _never: scope.group(TcpNever::fresh),
        }
    }
}

metrics! {
    /// What does not happen to a TCP proxy here: data is copied as it comes, and the upstream side is
    /// closed as soon as the downstream side has been read to its end.
    struct TcpNever {
        counters {}
        gauges {}
        histograms {}
        never {
            counters [
                "downstream_cx_drain_close",
                "downstream_cx_overload_close",
                "early_data_received_count_total",
                "route_delayed_total",
                "upstream_flush_total",
            ]
            gauges ["upstream_flush_active"]
        }
    }
}
