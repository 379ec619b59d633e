//! What the admin interface asks of the proxy.

use std::time::Duration;

use serde_json::Value;
use tracing::level_filters::LevelFilter;

use crate::model::endpoint::{Findings, Health, Locality};
use crate::model::listener::Address;
use crate::telemetry::stats::Registry;

/// The proxy as the admin interface sees it. Methods are called on the admin's runtime for each
/// request: they must not block. Nothing that they return may hold keys or tokens.
pub trait Source: Send + Sync {
    /// For `/ready`.
    fn readiness(&self) -> Readiness;
    /// For `/stats` and `/reset_counters`.
    fn registry(&self) -> Registry;
    /// For `/clusters`, in the order to show.
    fn clusters(&self) -> Vec<ClusterView>;
    /// For `/listeners`: those that are listening, one for each address; a listener's main address is its first.
    fn listeners(&self) -> Vec<ListenerView>;
    /// For `/config_dump`: `envoy.admin.v3.ConfigDump` as JSON, endpoints included (they are left
    /// out here unless `include_eds` asks for them), secrets redacted.
    fn config_dump(&self) -> Value;
    /// For `/certs`: `envoy.admin.v3.Certificates` as JSON.
    fn certs(&self) -> Value;
    /// For `/server_info`.
    fn server_info(&self) -> ServerInfo;
    /// Loggers and their levels, for `/logging`.
    fn log_levels(&self) -> Vec<(String, LevelFilter)>;
    /// Set the level of one logger, or of all.
    ///
    /// # Errors
    /// Why it cannot, such as that there is no such logger; goes into the answer.
    fn set_log_level(&self, logger: Option<&str>, level: LevelFilter) -> Result<(), String>;
    /// Start to drain listeners.
    fn drain_listeners(&self, what: DrainListeners);
    /// Fail health checks from now on (true: `/ready` says DRAINING), or pass them again.
    fn fail_health_check(&self, fail: bool);
    /// Leave the endpoints of the mesh, and go on serving.
    fn deregister(&self);
    /// Open the files of access logs anew.
    fn reopen_logs(&self);
    /// Start to exit. The answer to the request is still sent: `serve` lets it end when told to
    /// shut down.
    fn quit(&self);
}

/// Whether the proxy takes traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Ready is [`ServerState::Live`] only.
    pub state: ServerState,
    /// What it waits for, in words, one line each. Empty when live.
    pub waiting_for: Vec<String>,
}

/// `envoy.admin.v3.ServerInfo.State`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerState {
    /// Takes traffic.
    Live,
    /// Leaving, or told to fail health checks.
    Draining,
    /// Before clusters are known.
    #[default]
    PreInitializing,
    /// Before everything else is known.
    Initializing,
}

/// `envoy.admin.v3.ServerInfo`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerInfo {
    /// Version of the program.
    pub version: String,
    /// As in [`Readiness`].
    pub state: ServerState,
    /// Since the start of the process.
    pub uptime: Duration,
    /// `core.v3.Node` as JSON.
    pub node: Value,
    /// Options in effect, as JSON.
    pub command_line_options: Value,
}

/// What `/drain_listeners` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainListeners {
    /// Go on listening for the drain time, while connections are told to end.
    pub graceful: bool,
    /// Only listeners with `traffic_direction: INBOUND`.
    pub inbound_only: bool,
    /// Connections are told to end, and the listeners go on listening for good.
    pub skip_exit: bool,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerView {
    /// As configured.
    pub name: String,
    /// Where it really listens.
    pub address: Address,
}

/// A cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterView {
    /// As configured.
    pub name: String,
    /// Its name in metrics: `alt_stat_name`, or the name.
    pub observability_name: String,
    /// Whether it came by xDS, not from the bootstrap.
    pub added_via_api: bool,
    /// `eds_cluster_config.service_name`, for EDS.
    pub eds_service_name: Option<String>,
    /// Circuit breakers of the default priority.
    pub default_priority: Thresholds,
    /// Circuit breakers of the high priority.
    pub high_priority: Thresholds,
    /// Of outlier detection, if computed: mean success rate in percent, and the rate below which
    /// one is an outlier. First of the endpoints' answers, then of the way to them. The outer None:
    /// there is no detection.
    pub outliers: Option<[Option<(f64, f64)>; 2]>,
    /// Endpoints, in the order to show.
    pub hosts: Vec<HostView>,
}

/// Limits of a circuit breaker; 1024 each and 3 retries unless configured (Envoy's defaults).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Connections at a time.
    pub max_connections: u32,
    /// Requests waiting for a connection at a time.
    pub max_pending_requests: u32,
    /// Requests at a time.
    pub max_requests: u32,
    /// Retries at a time.
    pub max_retries: u32,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct HostView {
    /// Where it listens.
    pub address: Address,
    /// May be empty.
    pub hostname: String,
    /// At least 1.
    pub weight: u32,
    /// It is one to try something out on.
    pub canary: bool,
    /// 0 is tried first.
    pub priority: u32,
    /// Where it is.
    pub locality: Locality,
    /// As the control plane sees it.
    pub health: Health,
    /// What this proxy found out itself.
    pub found: Findings,
    /// Percent over the last interval of outlier detection, if computed: of its answers.
    pub success_rate: Option<f64>,
    /// The same of the way to it.
    pub local_origin_success_rate: Option<f64>,
    /// Connections open.
    pub cx_active: u64,
    /// Connections not made.
    pub cx_connect_fail: u64,
    /// Connections tried.
    pub cx_total: u64,
    /// Requests under way.
    pub rq_active: u64,
    /// Requests that failed.
    pub rq_error: u64,
    /// Requests that wait for a connection.
    pub rq_pending_active: u64,
    /// Requests that did not fail.
    pub rq_success: u64,
    /// Requests not answered in time.
    pub rq_timeout: u64,
    /// Requests sent.
    pub rq_total: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
        }
    }
}

impl HostView {
    /// An endpoint that did nothing yet: weight 1, priority 0, healthy.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            hostname: String::new(),
            weight: 1,
            canary: false,
            priority: 0,
            locality: Locality::default(),
            health: Health::Healthy,
            found: Findings::default(),
            success_rate: None,
            local_origin_success_rate: None,
            cx_active: 0,
            cx_connect_fail: 0,
            cx_total: 0,
            rq_active: 0,
            rq_error: 0,
            rq_pending_active: 0,
            rq_success: 0,
            rq_timeout: 0,
            rq_total: 0,
        }
    }

    /// Counters and gauges under Envoy's names and in its order; true marks gauges.
    pub(super) fn stats(&self) -> [(&'static str, bool, u64); 9] {
        [
            ("cx_active", true, self.cx_active),
            ("cx_connect_fail", false, self.cx_connect_fail),
            ("cx_total", false, self.cx_total),
            ("rq_active", true, self.rq_active),
            ("rq_error", false, self.rq_error),
            ("rq_pending_active", true, self.rq_pending_active),
            ("rq_success", false, self.rq_success),
            ("rq_timeout", false, self.rq_timeout),
            ("rq_total", false, self.rq_total),
        ]
    }
}

impl ServerState {
    /// Envoy's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }
}
