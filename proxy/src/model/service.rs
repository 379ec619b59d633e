//! Services that the proxy itself calls over its clusters (`core.v3.GrpcService`, `HttpUri`).

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::Name;

/// `GrpcService.envoy_grpc`
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcService {
    /// The cluster; it speaks HTTP/2.
    pub cluster: Name,
    /// `:authority`. None: the cluster's name.
    pub authority: Option<Name>,
    /// Of one call. None: the caller's default.
    pub timeout: Option<Duration>,
    /// Sent with every call.
    pub metadata: Vec<(HeaderName, HeaderValue)>,
}

/// `HttpUri`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpService {
    /// Where to: authority and path are sent, the scheme is the cluster's affair.
    pub uri: Uri,
    /// The cluster.
    pub cluster: Name,
    /// From the call to the last byte of its answer.
    pub timeout: Duration,
}
