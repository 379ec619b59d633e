//! Services that telemetry is sent to: over one of the proxy's own clusters.

use http::{HeaderName, HeaderValue};

use super::Name;

/// A service that takes spans, log entries or metrics (`GrpcService`, `HttpService`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Collector {
    /// Cluster of its endpoints.
    pub cluster: Name,
    /// `:authority` of the calls.
    pub authority: Name,
    /// What it speaks.
    pub protocol: CollectorProtocol,
    /// Headers of each call.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// What a collector speaks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CollectorProtocol {
    /// gRPC.
    Grpc,
    /// Protobuf messages by POST to this path.
    Http(Name),
}

/// Where attributes of an OpenTelemetry resource come from. Later ones win.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Detector {
    /// `log_name`, `zone_name`, `cluster_name` and `node_name`.
    Node,
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    Environment,
    /// This key and value.
    Fixed(String, String),
}
