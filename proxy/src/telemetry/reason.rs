//! Why a request was refused or cut short: one stable name and one response flag for each cause.
//!
//! Flags and details are Envoy's (`%RESPONSE_FLAGS%`, `%RESPONSE_CODE_DETAILS%`), so that people's
//! dashboards and habits keep working.

use std::borrow::Cow;

use http::StatusCode;

/// A cause. [`Reason::flag`] is what access logs and metrics say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No route matched.
    NoRoute,
    /// The route names a cluster that does not exist.
    NoCluster,
    /// The cluster has no endpoint that may be picked.
    NoHealthyUpstream,
    /// The host that the request names has no address.
    DnsFailure,
    /// The connection to the endpoint was not made.
    ConnectFailure,
    /// It was not made in `connect_timeout`.
    ConnectTimeout,
    /// TLS with the endpoint failed: certificate, name or protocol.
    TlsFailure,
    /// The endpoint closed the connection before it answered.
    ConnectionTermination,
    /// The endpoint reset the stream.
    RemoteReset,
    /// The endpoint refused the stream without looking at it.
    RefusedStream,
    /// The endpoint answered with something that is not HTTP.
    UpstreamProtocolError,
    /// A circuit breaker is open: too many connections, pending requests, requests or retries.
    Overflow,
    /// `drop_overload` of the endpoint assignment.
    DropOverload,
    /// The route's timeout ran out.
    RequestTimeout,
    /// The timeout of one try ran out.
    PerTryTimeout,
    /// A try went without a byte for `per_try_idle_timeout`.
    PerTryIdleTimeout,
    /// The stream was idle for too long.
    StreamIdleTimeout,
    /// The stream was open for too long.
    MaxDuration,
    /// The request did not arrive in time.
    DownstreamRequestTimeout,
    /// The peer left before the answer was complete.
    DownstreamTermination,
    /// The client has reset its stream, and its connection goes on.
    DownstreamReset,
    /// The request breaks HTTP or a limit of ours.
    DownstreamProtocolError,
    /// A limit on the size of headers.
    HeadersTooLarge,
    /// The request's body is longer than may be buffered.
    RequestTooLarge,
    /// A gRPC-Web request is no base64.
    BadBase64,
    /// A request that changes something was made by another site's page.
    InvalidOrigin,
    /// Every try failed.
    RetryLimitExceeded,
    /// A policy said no.
    Denied,
    /// An authorization service said no, or nothing.
    ExternalDenied,
    /// Too many requests for a local rate limit.
    RateLimited,
    /// The head of the request did not arrive in time.
    RequestHeadersTimeout,
    /// The request asks for an upgrade that is not taken.
    UpgradeRefused,
    /// Too many requests for a global rate limit.
    GlobalRateLimited,
    /// The rate limit service did not answer.
    RateLimitService,
    /// As many requests are under way as adaptive concurrency lets through.
    ConcurrencyLimit,
    /// Admission control: too many of the last requests failed.
    AdmissionDenied,
    /// The overload manager takes no requests.
    Overloaded,
    /// A fault was asked for.
    FaultInjected,
    /// Settings of a filter that come over ECDS have not arrived.
    NoFilterConfig,
    /// Answered for the upstream: a CORS preflight.
    Preflight,
    /// A health check, answered by the filter: well.
    HealthCheck,
    /// The same, not well.
    FailedHealthCheck,
    /// The proxy is shutting down.
    Draining,
    /// The route answers by itself.
    DirectResponse,
    /// The route redirects.
    Redirect,
}

impl Reason {
    /// The response flag, short form. `-` where Envoy sets none.
    pub fn flag(self) -> &'static str {
        match self {
            Self::NoRoute => "NR",
            Self::NoCluster => "NC",
            Self::NoHealthyUpstream => "UH",
            Self::DnsFailure => "DF",
            Self::ConnectFailure | Self::ConnectTimeout | Self::TlsFailure => "UF",
            Self::ConnectionTermination => "UC",
            Self::RemoteReset | Self::RefusedStream => "UR",
            Self::UpstreamProtocolError => "UPE",
            Self::Overflow => "UO",
            Self::DropOverload => "DO",
            Self::RequestTimeout | Self::PerTryTimeout | Self::PerTryIdleTimeout => "UT",
            Self::StreamIdleTimeout => "SI",
            Self::DownstreamTermination => "DC",
            Self::DownstreamReset => "DR",
            Self::DownstreamProtocolError | Self::HeadersTooLarge => "DPE",
            Self::RetryLimitExceeded => "URX",
            Self::RateLimited | Self::GlobalRateLimited => "RL",
            Self::RateLimitService => "RLSE",
            Self::FaultInjected => "FI",
            Self::NoFilterConfig => "NFCF",
            Self::ExternalDenied => "UAEX",
            Self::FailedHealthCheck => "LH",
            Self::DownstreamRequestTimeout
            | Self::Denied
            | Self::RequestTooLarge
            | Self::UpgradeRefused
            | Self::BadBase64
            | Self::ConcurrencyLimit
            | Self::AdmissionDenied
            | Self::Overloaded
            | Self::InvalidOrigin
            | Self::RequestHeadersTimeout
            | Self::Preflight
            | Self::HealthCheck
            | Self::Draining
            | Self::MaxDuration
            | Self::DirectResponse
            | Self::Redirect => "-",
        }
    }

    /// `%RESPONSE_CODE_DETAILS%`
    pub fn details(self) -> &'static str {
        match self {
            Self::NoRoute => "route_not_found",
            Self::NoCluster => "cluster_not_found",
            Self::NoHealthyUpstream => "no_healthy_upstream",
            Self::DnsFailure => "dns_resolution_failure",
            Self::ConnectFailure => {
                "upstream_reset_before_response_started{remote_connection_failure}"
            }
            Self::ConnectTimeout => "upstream_reset_before_response_started{connection_timeout}",
            Self::TlsFailure => {
                "upstream_reset_before_response_started{remote_connection_failure|TLS_error}"
            }
            Self::ConnectionTermination => {
                "upstream_reset_before_response_started{connection_termination}"
            }
            Self::RemoteReset => "upstream_reset_before_response_started{remote_reset}",
            Self::RefusedStream => {
                "upstream_reset_before_response_started{remote_refused_stream_reset}"
            }
            Self::UpstreamProtocolError => "upstream_reset_before_response_started{protocol_error}",
            Self::Overflow => "upstream_reset_before_response_started{overflow}",
            Self::DropOverload => "drop_overload",
            Self::RequestTimeout => "response_timeout",
            Self::PerTryTimeout => "upstream_per_try_timeout",
            Self::PerTryIdleTimeout => "upstream_per_try_idle_timeout",
            Self::StreamIdleTimeout => "stream_idle_timeout",
            Self::MaxDuration => "max_duration_timeout",
            Self::DownstreamRequestTimeout => "request_overall_timeout",
            Self::DownstreamTermination => "downstream_remote_disconnect",
            Self::DownstreamReset => "http2.remote_reset",
            Self::DownstreamProtocolError => "http1.codec_error",
            Self::HeadersTooLarge => "request_headers_too_large",
            Self::RequestTooLarge => "request_payload_too_large",
            Self::ConcurrencyLimit => "reached_concurrency_limit",
            Self::AdmissionDenied => "denied_by_admission_control",
            Self::BadBase64 => "grpc_base_64_decode_failed",
            Self::InvalidOrigin => "csrf_origin_mismatch",
            Self::RetryLimitExceeded => "upstream_retry_limit_exceeded",
            Self::Denied => "rbac_access_denied",
            Self::ExternalDenied => "ext_authz_denied",
            Self::RateLimited => "local_rate_limited",
            Self::GlobalRateLimited => "request_rate_limited",
            Self::RateLimitService => "rate_limiter_error",
            Self::RequestHeadersTimeout => "request_header_timeout",
            Self::UpgradeRefused => "upgrade_failed",
            Self::FaultInjected => "fault_filter_abort",
            Self::Overloaded => "overload",
            Self::NoFilterConfig => "filter_config_not_found",
            Self::Preflight => "cors_response",
            Self::HealthCheck => "health_check_ok",
            Self::FailedHealthCheck => "health_check_failed",
            Self::Draining => "draining",
            Self::DirectResponse => "direct_response",
            Self::Redirect => "direct_response",
        }
    }
}

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Downstream,
    /// The endpoint's, or of the way there.
    Upstream,
    /// Configuration, policy or a limit of this proxy.
    Local,
}

/// What is known about the request on the upstream's side: whether trying again is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Not a byte of it left this proxy, or the endpoint said that it did not look at it.
    No,
    /// It went onto a connection that had served before and that died without a byte of an
    /// answer: most likely closed by an idle timeout at the same moment.
    OnReusedConnection,
    /// It, or a part of it, may have been processed.
    Maybe,
}

/// The one error of the request path. It is made where the failure happens, and turned into an
/// HTTP or gRPC answer in one place (`serve::reply`).
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Stable name of the cause.
    pub reason: Reason,
    /// What the client is answered with.
    pub status: StatusCode,
    /// Whose fault it is.
    pub side: Side,
    /// Whether it is safe to try again.
    pub sent: Sent,
    /// For the body and the log: what happened, with the name of the object that caused it.
    pub detail: Cow<'static, str>,
}

impl Refusal {
    /// A refusal of this proxy's own: the request did not leave it.
    pub fn local(reason: Reason, status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, status, side: Side::Local, sent: Sent::No, detail: detail.into() }
    }

    /// The client's fault.
    pub fn downstream(
        reason: Reason,
        status: StatusCode,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { reason, status, side: Side::Downstream, sent: Sent::No, detail: detail.into() }
    }

    /// A failure on the way to the endpoint or of the endpoint; answered with 503.
    pub fn upstream(reason: Reason, sent: Sent, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            status: StatusCode::SERVICE_UNAVAILABLE,
            side: Side::Upstream,
            sent,
            detail: detail.into(),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.detail, self.reason.details())
    }
}

impl std::error::Error for Refusal {}
/// Envoy's long name of a response flag, as `%RESPONSE_FLAGS_LONG%` has it; a flag that is not ours
/// stays short.
pub fn long_flag(flag: &'static str) -> &'static str {
    match flag {
        "NR" => "NoRouteFound",
        "NC" => "NoClusterFound",
        "UH" => "NoHealthyUpstream",
        "DF" => "DnsResolutionFailed",
        "UF" => "UpstreamConnectionFailure",
        "UC" => "UpstreamConnectionTermination",
        "UR" => "UpstreamRemoteReset",
        "UPE" => "UpstreamProtocolError",
        "UO" => "UpstreamOverflow",
        "DO" => "DropOverload",
        "UT" => "UpstreamRequestTimeout",
        "SI" => "StreamIdleTimeout",
        "DC" => "DownstreamConnectionTermination",
        "DR" => "DownstreamRemoteReset",
        "DPE" => "DownstreamProtocolError",
        "URX" => "UpstreamRetryLimitExceeded",
        "RL" => "RateLimited",
        "RLSE" => "RateLimitServiceError",
        "FI" => "FaultInjected",
        "NFCF" => "NoFilterConfigFound",
        "UAEX" => "UnauthorizedExternalService",
        "LH" => "FailedLocalHealthCheck",
        "DI" => "DelayInjected",
        "DT" => "DurationTimeout",
        other => other,
    }
}
