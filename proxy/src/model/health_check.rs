//! Active health checks (`envoy.config.core.v3.HealthCheck`).

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use http::uri::PathAndQuery;

use super::Name;
use super::headers::HeaderOps;
use super::listener::Address;
use super::matcher::StringMatcher;

/// How the endpoints of a cluster are asked whether they are well.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// How long a check may take, the connection included.
    pub timeout: Duration,
    /// When an endpoint is checked again.
    pub intervals: Intervals,
    /// Failures in a row until an endpoint is out, at least 1.
    pub unhealthy_threshold: u32,
    /// Successes in a row until it is back, at least 1. The first check of all needs only one.
    pub healthy_threshold: u32,
    /// Keep the connection for the next check. Default true.
    pub reuse_connection: bool,
    /// `alt_port`: asked there, unless the endpoint says something else.
    pub port: Option<u16>,
    /// `tls_options.alpn_protocols`. Empty: what the protocol of the check needs.
    pub alpn: Vec<Vec<u8>>,
    /// Where changes are written down.
    pub events: Option<Events>,
    /// What is asked.
    pub checker: Checker,
}

/// Time between checks. Which one counts depends on how the endpoint is, and on whether its
/// cluster ever had traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Intervals {
    /// For the well.
    pub healthy: Duration,
    /// For the others. Default `healthy`.
    pub unhealthy: Duration,
    /// After a failure of a healthy endpoint that stays in. Default `unhealthy`.
    pub unhealthy_edge: Duration,
    /// After a success of an unhealthy endpoint that stays out. Default `healthy`.
    pub healthy_edge: Duration,
    /// While the cluster never had a connection. Default 60 s.
    pub no_traffic: Duration,
    /// The same, for the well. Default `no_traffic`.
    pub no_traffic_healthy: Duration,
    /// The very first check waits up to so long. Default none.
    pub initial_jitter: Duration,
    /// Random extra, up to so much. Default none.
    pub jitter: Duration,
    /// Random extra, up to so many percent of the interval. Default 0.
    pub jitter_percent: u32,
}

/// A file of events, a JSON object (`envoy.data.core.v3.HealthCheckEvent`) a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// Appended to.
    pub path: PathBuf,
    /// Every failure, not just the first one.
    pub all_failures: bool,
    /// Every success.
    pub all_successes: bool,
}

/// The protocol of a check.
#[derive(Clone, Debug, PartialEq)]
pub enum Checker {
    /// A request with an expected status.
    Http(HttpCheck),
    /// A connection, and maybe bytes on it.
    Tcp(TcpCheck),
    /// `grpc.health.v1.Health/Check`
    Grpc(GrpcCheck),
}

/// `HttpHealthCheck`
#[derive(Clone, Debug, PartialEq)]
pub struct HttpCheck {
    /// `Host` of the request. Empty: the endpoint's own for checks, else the cluster's name.
    pub host: Name,
    /// What is asked for.
    pub path: PathAndQuery,
    /// Default GET.
    pub method: Method,
    /// Speak HTTP/2.
    pub http2: bool,
    /// Sent as the request's body.
    pub send: Vec<u8>,
    /// What the body of the answer must contain, in this order.
    pub receive: Vec<Vec<u8>>,
    /// So many bytes of the body are looked at. Default 1 KiB; 0: all.
    pub buffer: usize,
    /// Changes to the request.
    pub headers: HeaderOps,
    /// Half-open ranges. Default 200 alone.
    pub expected: Vec<(u16, u16)>,
    /// Other statuses that count as failures by threshold, where the rest ends it at once.
    pub retriable: Vec<(u16, u16)>,
    /// What `x-envoy-upstream-healthchecked-cluster` of the answer has to match.
    pub service: Option<StringMatcher>,
}

/// `TcpHealthCheck`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpCheck {
    /// Sent, where something is expected.
    pub send: Vec<u8>,
    /// What must come, in this order. Empty: the connection is enough.
    pub receive: Vec<Vec<u8>>,
}

/// `GrpcHealthCheck`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrpcCheck {
    /// Asked about. Empty: the server as a whole.
    pub service: String,
    /// `:authority`. Empty: the endpoint's own for checks, else the cluster's name.
    pub authority: Name,
    /// Metadata of the call.
    pub metadata: HeaderOps,
}

/// `Endpoint.HealthCheckConfig`: where this endpoint is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckTarget {
    /// Another port.
    pub port: Option<u16>,
    /// Another address.
    pub address: Option<Address>,
    /// `Host` or `:authority` of its checks. Empty: the check's own.
    pub hostname: String,
    /// It is not checked, and counts as well.
    pub disabled: bool,
}
