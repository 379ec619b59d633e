//! Limits that follow what an upstream can bear (`adaptive_concurrency.v3`,
//! `admission_control.v3`).

use std::time::Duration;

use http::StatusCode;

use super::kept::Kept;

/// `AdaptiveConcurrency`
#[derive(Debug)]
pub struct AdaptiveConcurrency {
    /// Off: everything passes.
    pub enabled: bool,
    /// The controller's settings.
    pub gradient: Gradient,
    /// Of a refused request. Default 503.
    pub status: StatusCode,
    /// The controller.
    pub kept: Kept,
}

/// `GradientControllerConfig`
#[derive(Clone, Debug, PartialEq)]
pub struct Gradient {
    /// The limit never exceeds this. Default 1000.
    pub max_concurrency: u32,
    /// How often the limit is worked out.
    pub update_interval: Duration,
    /// How often the best latency is measured.
    pub interval: Duration,
    /// The best latency, given. None: measured.
    pub fixed_min_rtt: Option<Duration>,
    /// Requests of a measurement. Default 50.
    pub request_count: u32,
    /// A measurement may be later by this share of the interval. Default 0.15.
    pub jitter: f64,
    /// The limit during a measurement, and the least that there ever is. Default 3.
    pub min_concurrency: u32,
    /// Added to the best latency, as a share of it. Default 0.25.
    pub buffer: f64,
    /// Which latency stands for a window. Default 0.5.
    pub percentile: f64,
}

/// `AdmissionControl`
#[derive(Debug)]
pub struct Admission {
    /// Off: everything passes.
    pub enabled: bool,
    /// Statuses that are successes, from and before.
    pub http_success: Vec<(u16, u16)>,
    /// Statuses of gRPC that are.
    pub grpc_success: Vec<u32>,
    /// Default 30 s.
    pub window: Duration,
    /// At least 1, the default.
    pub aggression: f64,
    /// Share of successes under which requests are refused. Default 0.95.
    pub success_threshold: f64,
    /// Fewer requests a second are never refused. Default 0.
    pub rps_threshold: u32,
    /// Default 0.8.
    pub max_rejection: f64,
    /// What came of the last requests.
    pub kept: Kept,
}

impl Default for Admission {
    /// What Envoy does where nothing is said.
    fn default() -> Self {
        Self {
            enabled: true,
            http_success: vec![(100, 500)],
            grpc_success: vec![0, 1, 2, 3, 5, 6, 7, 9, 11, 12, 16],
            window: Duration::from_secs(30),
            aggression: 1.0,
            success_threshold: 0.95,
            rps_threshold: 0,
            max_rejection: 0.8,
            kept: Kept::default(),
        }
    }
}
