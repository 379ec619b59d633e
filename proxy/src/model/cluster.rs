//! Clusters (`envoy.config.cluster.v3`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::Name;
use super::balancing::{Balancer, Balancing};
use super::health_check::HealthCheck;
use super::listener::Address;
use super::metadata::{Fields, Metadata, TRANSPORT_SOCKET_MATCH, has_all};
use super::proxy_protocol;
use super::source::Reference;
use super::tls::UpstreamTls;

/// A group of endpoints that do the same job, and how to use them.
#[derive(Debug, PartialEq)]
pub struct Cluster {
    /// Name that routes say.
    pub name: Name,
    /// Metric name: `cluster.<stat_name>.`; `:` already replaced by `_`.
    pub stat_name: Name,
    /// How endpoints are found.
    pub discovery: Discovery,
    /// How long a connection may take to be made, TLS included. Default 5 s.
    pub connect_timeout: Duration,
    /// How one is picked.
    pub balancer: Balancer,
    /// What goes for every way of picking.
    pub balancing: Balancing,
    /// `common_lb_config.healthy_panic_threshold`, percent. Default 50; 0 turns panic off.
    pub panic_threshold: u32,
    /// Close connections to an endpoint that turns unhealthy.
    pub close_on_health_failure: bool,
    /// Limits by priority: `[DEFAULT, HIGH]`.
    pub breakers: [Thresholds; 2],
    /// `fail_traffic_on_panic`: nobody is picked in a priority that panics.
    pub fail_on_panic: bool,
    /// `common_lb_config.close_connections_on_host_set_change`: open connections end when the
    /// endpoints change.
    pub close_on_set_change: bool,
    /// Active health checking.
    pub health_check: Option<Arc<HealthCheck>>,
    /// `common_lb_config.ignore_new_hosts_until_first_hc`: endpoints that were never checked do
    /// not count, not even for panic.
    pub ignore_unchecked: bool,
    /// `ignore_health_on_host_removal`: a removed endpoint goes at once. Else, where there are
    /// active checks, it stays until one fails.
    pub remove_healthy: bool,
    /// `wait_for_warm_on_init`: the proxy is not ready before this cluster is. Default true.
    pub wait_for_warm: bool,
    /// Passive health checking.
    pub outliers: Option<Box<OutlierDetection>>,
    /// How often unused endpoints of ORIGINAL_DST are forgotten. Default 5 s.
    pub cleanup_interval: Duration,
    /// Connections begin with a PROXY header, before any TLS.
    pub proxy_header: Option<Arc<proxy_protocol::Header>>,
    /// The header that names the host for `auto_sni` in place of the authority.
    pub sni_header: Option<HeaderName>,
    /// Where connections come from (`upstream_bind_config`).
    pub bind: Bind,
    /// TLS to the endpoints. None: plain text.
    pub tls: Option<Arc<UpstreamTls>>,
    /// The same for endpoints whose metadata match, in the order in which they are tried.
    pub socket_matches: Vec<SocketMatch>,
    /// Which HTTP is spoken.
    pub protocol: Protocol,
    /// Close an idle upstream connection after this. Default 1 h in Envoy; None: never.
    pub idle_timeout: Option<Duration>,
    /// Close an upstream connection at this age.
    pub max_connection_duration: Option<Duration>,
    /// Requests on one connection. None: no limit.
    pub max_requests_per_connection: Option<u32>,
    /// HTTP/2 knobs.
    pub http2: Http2Options,
    /// Soft limit of bytes buffered per connection. Default 1 MiB.
    pub buffer_limit: u32,
    /// TCP keepalive (probes, idle time, interval).
    pub tcp_keepalive: Option<TcpKeepalive>,
}

impl Default for Cluster {
    /// Envoy's defaults: static, without a name.
    fn default() -> Self {
        Self {
            name: Name::from(""),
            stat_name: Name::from(""),
            discovery: Discovery::Static,
            connect_timeout: Duration::from_secs(5),
            balancer: Balancer::RoundRobin,
            panic_threshold: 50,
            balancing: Balancing::default(),
            close_on_health_failure: false,
            breakers: [Thresholds::default(), Thresholds::default()],
            fail_on_panic: false,
            close_on_set_change: false,
            health_check: None,
            ignore_unchecked: false,
            remove_healthy: false,
            wait_for_warm: true,
            outliers: None,
            cleanup_interval: Duration::from_secs(5),
            tls: None,
            socket_matches: Vec::new(),
            protocol: Protocol::Http1,
            idle_timeout: None,
            max_connection_duration: None,
            max_requests_per_connection: None,
            http2: Http2Options::default(),
            buffer_limit: 1 << 20,
            tcp_keepalive: None,
            proxy_header: None,
            sni_header: None,
            bind: Bind::default(),
        }
    }
}

/// `BindConfig`: our own addresses that connections come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bind {
    /// The first one of the endpoint's family counts. Empty: as the system chooses. Port 0: any.
    pub addresses: Vec<SocketAddr>,
    /// They need not be ours yet (`IP_FREEBIND`).
    pub freebind: bool,
}

impl Bind {
    /// Where a connection to this address comes from, and whether that need not be ours. Where all addresses are of
    /// the other family, the first: such a connection fails, as in Envoy.
    pub fn towards(&self, address: &Address) -> Option<(SocketAddr, bool)> {
        let Address::Socket(to) = address else { return None };
        let same = self.addresses.iter().find(|one| one.is_ipv4() == to.is_ipv4());
        same.or_else(|| self.addresses.first()).map(|from| (*from, self.freebind))
    }
}

/// `Cluster.TransportSocketMatch`
#[derive(Clone, Debug, PartialEq)]
pub struct SocketMatch {
    /// Its name in metrics.
    pub name: Name,
    /// What an endpoint has to have under `envoy.transport_socket_match`. Empty: any endpoint.
    pub fields: Fields,
    /// None: plain text.
    pub tls: Option<Arc<UpstreamTls>>,
}

impl Cluster {
    /// Which transport socket an endpoint has: 0 for the cluster's own, else one more than the place
    /// of the match. The endpoint's own metadata count before those of its locality.
    pub fn socket_for(&self, endpoint: &Metadata, locality: &Metadata) -> usize {
        [endpoint, locality]
            .into_iter()
            .find_map(|metadata| {
                let fields = metadata.get(TRANSPORT_SOCKET_MATCH);
                self.socket_matches.iter().position(|one| has_all(fields, &one.fields, false))
            })
            .map_or(0, |place| place + 1)
    }

    /// TLS of a transport socket. None: plain text.
    pub fn tls_of(&self, socket: usize) -> Option<&Arc<UpstreamTls>> {
        match socket.checked_sub(1) {
            None => self.tls.as_ref(),
            Some(place) => self.socket_matches.get(place)?.tls.as_ref(),
        }
    }

    /// TLS of every transport socket that has it.
    pub fn tls_contexts(&self) -> impl Iterator<Item = &Arc<UpstreamTls>> {
        self.tls.iter().chain(self.socket_matches.iter().filter_map(|one| one.tls.as_ref()))
    }
}

/// `Cluster.type`
#[derive(Clone, Debug, PartialEq)]
pub enum Discovery {
    /// Endpoints are in the cluster itself.
    Static,
    /// Every address of every name is an endpoint; looked up again when the records expire.
    StrictDns(Dns),
    /// One endpoint: the first address of the name.
    LogicalDns(Dns),
    /// By EDS under this name.
    Eds(Reference),
    /// To wherever the connection was going before it was redirected.
    OriginalDst,
    /// To the host that the request names (`dynamic_forward_proxy`).
    Forward(Forward),
    /// To the endpoints of these clusters, in this order of preference (`aggregate`).
    Aggregate(Vec<Name>),
}

/// `DnsCacheConfig`
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Which families.
    pub family: DnsFamily,
    /// How long an address is good for. Default 60 s.
    pub refresh_rate: Duration,
    /// So many hosts are remembered. Default 1024.
    pub max_hosts: usize,
}

/// DNS knobs.
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// How often, when TTLs are not respected. Default 5 s.
    pub refresh_rate: Duration,
    /// Look up again when the record's TTL ends.
    pub respect_ttl: bool,
    /// After failures: between this and that, doubled with each one in a row, and then a random
    /// part of it. None: `refresh_rate`.
    pub failure_rate: Option<(Duration, Duration)>,
    /// Random extra before the next lookup, up to so much. Default 0.
    pub jitter: Duration,
    /// Which families.
    pub family: DnsFamily,
}

impl Default for Dns {
    /// Envoy's defaults.
    fn default() -> Self {
        Self {
            refresh_rate: Duration::from_secs(5),
            respect_ttl: false,
            failure_rate: None,
            jitter: Duration::ZERO,
            family: DnsFamily::Auto,
        }
    }
}

/// `dns_lookup_family`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsFamily {
    /// IPv6 first, IPv4 if there is none (Envoy's AUTO).
    #[default]
    Auto,
    /// A records only.
    V4Only,
    /// AAAA records only.
    V6Only,
    /// IPv4 first, IPv6 if there is none.
    V4Preferred,
    /// Both.
    All,
}

/// `CircuitBreakers.Thresholds`
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// Connections. Default 1024.
    pub max_connections: u32,
    /// Connections to one endpoint (`per_host_thresholds`). None: no limit.
    pub per_host_max_connections: Option<u32>,
    /// Requests that wait for a connection. Default 1024.
    pub max_pending_requests: u32,
    /// Requests under way. Default 1024.
    pub max_requests: u32,
    /// Retries under way. Default 3. Not used where a budget is set.
    pub max_retries: u32,
    /// Retries as a share of the requests under way.
    pub retry_budget: Option<RetryBudget>,
    /// Publish `remaining_*` gauges.
    pub track_remaining: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            per_host_max_connections: None,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

/// `CircuitBreakers.Thresholds.RetryBudget`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Percent of requests under way or pending. Default 20.
    pub percent: f64,
    /// Always allowed. Default 3.
    pub min_concurrency: u32,
}

/// `OutlierDetection`
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// 5xx answers in a row. Default 5; 0 turns it off.
    pub consecutive_5xx: u32,
    /// 502, 503, 504 in a row. Default 5.
    pub consecutive_gateway_failure: u32,
    /// Local failures in a row. Default 5. Only with the split.
    pub consecutive_local_origin_failure: u32,
    /// Count failures that we saw ourselves (connect, reset, timeout) apart from answers.
    pub split_external_local_origin_errors: bool,
    /// Percent of detections that are enforced.
    pub enforcing: Enforcing,
    /// By the share of successes, compared with that of the others.
    pub success_rate: SuccessRate,
    /// By the share of failures alone.
    pub failure_percentage: FailurePercentage,
    /// How often rates are computed and ejected endpoints are looked at. Default 10 s.
    pub interval: Duration,
    /// Ejection lasts this times the number of ejections. Default 30 s.
    pub base_ejection_time: Duration,
    /// Upper bound of it. Default 300 s (or base, if that is more).
    pub max_ejection_time: Duration,
    /// Random extra so that not all return at once. Default 0.
    pub max_ejection_time_jitter: Duration,
    /// At most this percent of endpoints at a time. Default 10.
    pub max_ejection_percent: u32,
    /// One may be ejected whatever the percentage says. Default false.
    pub always_eject_one: bool,
    /// `successful_active_health_check_uneject_host`. Default true.
    pub uneject_by_check: bool,
}

/// `enforcing_*`: percent of detections that have consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforcing {
    /// Default 100.
    pub consecutive_5xx: u32,
    /// Default 0.
    pub consecutive_gateway_failure: u32,
    /// Default 100.
    pub consecutive_local_origin_failure: u32,
    /// Default 100.
    pub success_rate: u32,
    /// Default 100.
    pub local_origin_success_rate: u32,
    /// Default 0.
    pub failure_percentage: u32,
    /// Default 0.
    pub local_origin_failure_percentage: u32,
}

/// `success_rate_*`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// So many endpoints need enough requests. Default 5.
    pub minimum_hosts: u32,
    /// Enough requests in an interval. Default 100.
    pub request_volume: u32,
    /// Thousandths of the standard deviation that one may be below the mean. Default 1900.
    pub stdev_factor: u32,
}

/// `failure_percentage_*`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePercentage {
    /// From this percent on. Default 85.
    pub threshold: u32,
    /// So many endpoints need enough requests. Default 5.
    pub minimum_hosts: u32,
    /// Enough requests in an interval. Default 50.
    pub request_volume: u32,
}

impl Default for OutlierDetection {
    /// Envoy's defaults.
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway_failure: 5,
            consecutive_local_origin_failure: 5,
            split_external_local_origin_errors: false,
            enforcing: Enforcing {
                consecutive_5xx: 100,
                consecutive_gateway_failure: 0,
                consecutive_local_origin_failure: 100,
                success_rate: 100,
                local_origin_success_rate: 100,
                failure_percentage: 0,
                local_origin_failure_percentage: 0,
            },
            success_rate: SuccessRate { minimum_hosts: 5, request_volume: 100, stdev_factor: 1900 },
            failure_percentage: FailurePercentage {
                threshold: 85,
                minimum_hosts: 5,
                request_volume: 50,
            },
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one: false,
            uneject_by_check: true,
        }
    }
}

/// Which HTTP an endpoint is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 (Envoy's default).
    #[default]
    Http1,
    /// HTTP/2, by prior knowledge or ALPN `h2`.
    Http2,
    /// What ALPN says; HTTP/1.1 where there is none.
    Auto,
    /// What the downstream request came in.
    Downstream,
}

/// `Http2ProtocolOptions`, for either side. None: our default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Http2Options {
    /// Streams at a time on a connection.
    pub max_concurrent_streams: Option<u32>,
    /// Bytes per stream. Default 1 MiB upstream and downstream.
    pub initial_stream_window: Option<u32>,
    /// Bytes per connection. Default 4 MiB.
    pub initial_connection_window: Option<u32>,
    /// Send a PING so often. None: never.
    pub keepalive_interval: Option<Duration>,
    /// Close when a PING is not answered in this time.
    pub keepalive_timeout: Option<Duration>,
    /// Take extended CONNECT (RFC 8441). Downstream only: what is sent needs no consent of ours.
    pub allow_connect: bool,
    /// Downstream only.
    pub frames: FrameLimits,
}

/// Limits of HTTP/2 frames that cost the sender nothing, with Envoy's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// `max_consecutive_inbound_frames_with_empty_payload`. Default 1.
    pub empty: u32,
    /// `max_inbound_priority_frames_per_stream`. Default 100.
    pub priority_per_stream: u32,
    /// `max_inbound_window_update_frames_per_data_frame_sent`. Default 10.
    pub window_updates_per_data: u32,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { empty: 1, priority_per_stream: 100, window_updates_per_data: 10 }
    }
}

/// `core.v3.TcpKeepalive`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes before giving up.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}
