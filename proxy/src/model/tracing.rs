//! Tracing of a connection manager (`HttpConnectionManager.Tracing`, `OpenTelemetryConfig`).

use std::time::Duration;

use super::Name;
use super::collector::{Collector, Detector};
use super::format::Template;

/// How requests become spans.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// Where spans go.
    pub exporter: Collector,
    /// `service.name` of the resource.
    pub service_name: Name,
    /// More attributes of the resource.
    pub resource: Vec<Detector>,
    /// Percent of requests with `x-client-trace-id` that are traced for it. Default 100.
    pub client_sampling: f64,
    /// Percent of requests that start a trace here. Default 100.
    pub random_sampling: f64,
    /// Upper bound of all sampled, percent. Default 100.
    pub overall_sampling: f64,
    /// How the decision is made when a parent comes in or not.
    pub sampler: Sampler,
    /// The second look at spans that the sampler left out. None: they are not recorded.
    pub tail: Option<Tail>,
    /// Extra attributes: name and value (with command operators).
    pub custom_tags: Vec<(Name, Template)>,
    /// A span of its own for each try.
    pub spawn_upstream_span: bool,
    /// Longest `http.url` path. Default 256.
    pub max_path_tag_length: u32,
}

/// What a route says about spans (`envoy.config.route.v3.Tracing`).
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTracing {
    /// In place of [`Tracing::client_sampling`].
    pub client_sampling: f64,
    /// In place of [`Tracing::random_sampling`].
    pub random_sampling: f64,
    /// In place of [`Tracing::overall_sampling`].
    pub overall_sampling: f64,
    /// Beside [`Tracing::custom_tags`]; of two of one name this one counts.
    pub custom_tags: Vec<(Name, Template)>,
}

/// Sampler of the tracer.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Sampler {
    /// The connection manager's percentages; a sampled parent is followed (Envoy's default).
    #[default]
    Manager,
    /// `AlwaysOnSampler`
    AlwaysOn,
    /// `ParentBasedSampler`: the parent's decision, else the inner one.
    ParentBased(Box<Self>),
    /// `TraceIdRatioBasedSampler`, out of a million.
    TraceIdRatio(u32),
}

/// Which spans are kept though the decision at the head left them out (`pillion.trace.v1.TailSampler`). At least
/// one of the first two is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Exchanges that took longer. None: none for being slow.
    pub slower_than: Option<Duration>,
    /// Exchanges that failed.
    pub failed: bool,
    /// Most of them in a second, in the whole process. At least 1.
    pub per_second: u32,
}
