//! HTTP filters before the router, and what routes change about them.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::Name;
use super::adaptive::{AdaptiveConcurrency, Admission};
use super::compression::{Compressor, CompressorRoute, Decompressor};
use super::dynamic::{HeaderRule, SetState};
use super::ext_authz::{ExtAuthz, ExtAuthzRoute};
use super::extension::Discovered;
use super::global_rate_limit::{GlobalRateLimit, GlobalRateLimitRoute};
use super::grpc_stats::GrpcStats;
use super::jwt::{JwtFilter, JwtRoute};
use super::matcher::{HeaderMatcher, StringMatcher};
use super::mutation::HeaderMutations;
use super::protection::{BandwidthLimit, Csrf};
use super::rate_limit::LocalRateLimit;
use super::rbac::Rbac;

/// An HTTP filter of a connection manager.
#[derive(Clone, Debug)]
pub struct HttpFilter {
    /// Its name; routes change it under this.
    pub name: Name,
    /// Off until a route switches it on.
    pub disabled: bool,
    /// What it does.
    pub kind: FilterKind,
}

/// What a filter does.
#[derive(Clone, Debug)]
pub enum FilterKind {
    /// `rbac.v3.RBAC`
    Rbac(Arc<RbacFilter>),
    /// `local_ratelimit.v3.LocalRateLimit`
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `fault.v3.HTTPFault`
    Fault(Arc<Fault>),
    /// `cors.v3.Cors`: the policy stands on virtual hosts and routes.
    Cors(Option<Arc<Cors>>),
    /// `stateful_session.v3.StatefulSession`
    StatefulSession(Arc<StatefulSession>),
    /// `health_check.v3.HealthCheck`
    HealthCheck(Arc<HealthCheckFilter>),
    /// `buffer.v3.Buffer`: bytes of a request body at most.
    Buffer(u32),
    /// `jwt_authn.v3.JwtAuthentication`
    Jwt(Arc<JwtFilter>),
    /// `jwt_authn.v3.PerRouteConfig`: which of the filter's requirements holds on a route.
    JwtRoute(JwtRoute),
    /// `header_mutation.v3.HeaderMutation`; that of a route holds beside the filter's own.
    HeaderMutation(Arc<HeaderMutations>),
    /// `grpc_web.v3.GrpcWeb`
    GrpcWeb,
    /// `grpc_stats.v3.FilterConfig`
    GrpcStats(Arc<GrpcStats>),
    /// `compressor.v3.Compressor`
    Compressor(Arc<Compressor>),
    /// `compressor.v3.CompressorPerRoute`: what a route changes about it.
    CompressorRoute(Arc<CompressorRoute>),
    /// `decompressor.v3.Decompressor`
    Decompressor(Arc<Decompressor>),
    /// `csrf.v3.CsrfPolicy`
    Csrf(Arc<Csrf>),
    /// `bandwidth_limit.v3.BandwidthLimit`
    BandwidthLimit(Arc<BandwidthLimit>),
    /// `adaptive_concurrency.v3.AdaptiveConcurrency`
    AdaptiveConcurrency(Arc<AdaptiveConcurrency>),
    /// `admission_control.v3.AdmissionControl`
    Admission(Arc<Admission>),
    /// `ratelimit.v3.RateLimit`
    GlobalRateLimit(Arc<GlobalRateLimit>),
    /// `ratelimit.v3.RateLimitPerRoute`: what a route changes about it.
    GlobalRateLimitRoute(Arc<GlobalRateLimitRoute>),
    /// `set_filter_state.v3.Config`
    SetState(Arc<[SetState]>),
    /// `header_to_metadata.v3.Config`: its rules for requests.
    HeaderToMetadata(Arc<[HeaderRule]>),
    /// `ext_authz.v3.ExtAuthz`
    ExtAuthz(Arc<ExtAuthz>),
    /// `ext_authz.v3.ExtAuthzPerRoute`: what a route changes.
    ExtAuthzRoute(Arc<ExtAuthzRoute>),
    /// `config_discovery`: what it does comes from elsewhere.
    Discovered(Arc<Discovered>),
}

impl FilterKind {
    /// Whether it may tell something about the request in an answer.
    pub fn tells_request(&self) -> bool {
        match self {
            Self::HeaderMutation(_) | Self::Discovered(_) => true,
            Self::LocalRateLimit(limit) => limit.response_headers.tells_request(),
            Self::GlobalRateLimit(limit) => limit.response_headers.tells_request(),
            _ => false,
        }
    }
}

impl Override {
    /// Whether it may make a filter tell something about the request in an answer.
    pub fn tells_request(&self) -> bool {
        matches!(self, Self::Settings(kind) if kind.tells_request())
    }
}

/// What a route, virtual host or route configuration says about one filter.
#[derive(Clone, Debug)]
pub enum Override {
    /// It is switched off here.
    Off,
    /// It is switched on here, with its own settings.
    On,
    /// It has other settings here.
    Settings(FilterKind),
}

/// `typed_per_filter_config`, by the filter's name. Mostly empty.
pub type Overrides = Vec<(Name, Override)>;

/// `rbac.v3.RBAC` of HTTP and network filters.
#[derive(Clone, Debug, Default)]
pub struct RbacFilter {
    /// Enforced. None: everything is allowed.
    pub rules: Option<Rbac>,
    /// Only counted.
    pub shadow: Option<Rbac>,
    /// Part of the names of the counters of `rules`. Empty: none.
    pub prefix: Name,
    /// The same for `shadow`.
    pub shadow_prefix: Name,
    /// Every policy is counted by its name, too (`track_per_rule_stats`).
    pub per_policy: bool,
}

/// `fault.v3.HTTPFault`
#[derive(Clone, Debug, Default)]
pub struct Fault {
    /// Before the request goes on.
    pub delay: Option<(FaultDelay, u32)>,
    /// Instead of forwarding it.
    pub abort: Option<(FaultAbort, u32)>,
    /// Only requests whose route leads there. None: all.
    pub upstream_cluster: Option<Name>,
    /// All have to match.
    pub headers: Vec<HeaderMatcher>,
    /// One of these in `x-envoy-downstream-service-node`. Empty: all.
    pub downstream_nodes: Vec<String>,
    /// Delays, aborts and slow answers at the same time. None: no limit.
    pub max_active: Option<u32>,
    /// How fast an answer may be.
    pub rate: Option<(FaultRate, u32)>,
}

/// How slow an answer is made; beside it the share of requests, out of a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultRate {
    /// So many KiB a second.
    Fixed(u64),
    /// As `x-envoy-fault-throughput-response` says, in KiB a second.
    Header,
}

/// How long a fault waits; beside it the share of requests, out of a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultDelay {
    /// So long.
    Fixed(Duration),
    /// As `x-envoy-fault-delay-request` says, in milliseconds.
    Header,
}

/// What a fault answers; beside it the share of requests, out of a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAbort {
    /// This status.
    Http(StatusCode),
    /// This status of gRPC.
    Grpc(u16),
    /// As `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` says.
    Header,
}

/// `stateful_session.v3.StatefulSession`
#[derive(Clone, Debug)]
pub struct StatefulSession {
    /// Where the client keeps the address of its endpoint. None: nowhere, and nothing is done.
    pub state: Option<SessionState>,
    /// That endpoint or none.
    pub strict: bool,
}

/// `envoy.http.stateful_session`
#[derive(Clone, Debug)]
pub enum SessionState {
    /// In a cookie.
    Cookie {
        /// Its name.
        name: Name,
        /// Its path: requests elsewhere have no session. Empty: every path.
        path: Name,
        /// Its life. Zero: until the client ends.
        ttl: Duration,
        /// Further attributes; an empty value: the name alone.
        attributes: Arc<[(Name, Name)]>,
    },
    /// In a header of this name.
    Header(HeaderName),
}

/// `health_check.v3.HealthCheck`
#[derive(Clone, Debug, Default)]
pub struct HealthCheckFilter {
    /// Health checks go on to the upstream, unless this proxy is told to fail.
    pub pass_through: bool,
    /// The upstream's answer is kept for so long.
    pub cache_time: Option<Duration>,
    /// Percent of the endpoints that have to be well, by cluster. Looked at where nothing is passed
    /// on.
    pub clusters: Vec<(Name, u32)>,
    /// Requests that match all of them are health checks.
    pub headers: Vec<HeaderMatcher>,
}

/// `cors.v3.CorsPolicy`
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// Any may match.
    pub allow_origin: Vec<StringMatcher>,
    /// `access-control-allow-methods`
    pub allow_methods: Option<HeaderValue>,
    /// `access-control-allow-headers`
    pub allow_headers: Option<HeaderValue>,
    /// `access-control-expose-headers`
    pub expose_headers: Option<HeaderValue>,
    /// `access-control-max-age`
    pub max_age: Option<HeaderValue>,
    /// `access-control-allow-credentials: true`
    pub allow_credentials: bool,
    /// Answer `access-control-request-private-network` with true.
    pub allow_private_network: bool,
    /// Share of requests, out of a million.
    pub enabled: u32,
    /// Preflights of other origins go on to the upstream. Default true.
    pub forward_not_matching_preflights: bool,
}
