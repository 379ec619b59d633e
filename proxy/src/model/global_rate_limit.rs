//! Global rate limits (`envoy.extensions.filters.http.ratelimit.v3`): a service counts for all
//! proxies.

use std::time::Duration;

use http::StatusCode;

use super::Name;
use super::headers::HeaderOps;
use super::kept::Kept;
use super::rate_limit::{HostLimits, Rule};
use super::service::GrpcService;

/// `RateLimit`
#[derive(Debug)]
pub struct GlobalRateLimit {
    /// Limits of one domain do not touch those of another.
    pub domain: String,
    /// Only rules of this stage.
    pub stage: u32,
    /// Only requests from inside (true) or outside (false). None: both.
    pub internal: Option<bool>,
    /// Of one question. Default 20 ms.
    pub timeout: Duration,
    /// Who is asked.
    pub service: GrpcService,
    /// Share of requests that are refused while the service fails, out of a million.
    pub deny_on_failure: u32,
    /// What those are answered with. Default 500.
    pub status_on_failure: StatusCode,
    /// gRPC requests get RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub resource_exhausted: bool,
    /// Of a refused request. Default 429.
    pub status: StatusCode,
    /// Put into refusals.
    pub response_headers: HeaderOps,
    /// Tell `x-ratelimit-*`.
    pub headers: bool,
    /// Tell `x-envoy-ratelimited`.
    pub tell_limited: bool,
    /// `ratelimit.<prefix>.`; empty: `ratelimit.`
    pub stat_prefix: String,
    /// Share of requests that are asked about, out of a million.
    pub enabled: u32,
    /// Share of those that are really refused.
    pub enforced: u32,
    /// What is asked. Empty: what routes and virtual hosts say.
    pub rules: Vec<Rule>,
    /// Counters, by cluster.
    pub kept: Kept,
}

/// `RateLimitPerRoute`
#[derive(Clone, Debug, Default)]
pub struct GlobalRateLimitRoute {
    /// Whether rules of the virtual host count beside those of the route.
    pub host: HostLimits,
    /// In place of all others.
    pub rules: Vec<Rule>,
    /// In place of the filter's. None: that.
    pub domain: Option<Name>,
}
