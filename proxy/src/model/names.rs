//! Header names that are looked up for every request: parsed once, by the compiler.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName};

/// gRPC over HTTP/2: how it ended.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// gRPC over HTTP/2: how long the client waits.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// HTTP/1: how long an idle connection is kept.
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// The scheme that the client used.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The id of a request, on all its hops.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context: the trace, and the caller's span.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Envoy: the request comes from within.
pub const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
/// Envoy: it is traced, whatever chance says.
pub const X_ENVOY_FORCE_TRACE: HeaderName = HeaderName::from_static("x-envoy-force-trace");
/// Envoy: the client traces it.
pub const X_CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");
/// Envoy, router filter: when to try again.
pub const X_ENVOY_RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
/// Envoy, router filter: the same for gRPC.
pub const X_ENVOY_RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
/// Envoy, router filter: how often.
pub const X_ENVOY_MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
/// Envoy, router filter: which status codes are tried again.
pub const X_ENVOY_RETRIABLE_STATUS_CODES: HeaderName =
    HeaderName::from_static("x-envoy-retriable-status-codes");
/// Envoy, router filter: answers with which headers are.
pub const X_ENVOY_RETRIABLE_HEADER_NAMES: HeaderName =
    HeaderName::from_static("x-envoy-retriable-header-names");
/// Envoy, rate limits: one of them refused the request.
pub const X_ENVOY_RATELIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
/// Envoy, router filter: how long all tries may take, in milliseconds.
pub const X_ENVOY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
/// Envoy, router filter: how long the upstream has, in milliseconds; set on every request.
pub const X_ENVOY_EXPECTED_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
/// Envoy, router filter: how long each try may take, in milliseconds.
pub const X_ENVOY_PER_TRY_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
/// Envoy, router filter: whether the next try begins while the last one is still under way.
pub const X_ENVOY_HEDGE: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");

/// The same headers if one of them is Envoy's, else none: most requests have no such header, and a look-up in an
/// empty map costs nothing.
pub fn envoy(headers: &HeaderMap) -> &HeaderMap {
    static NONE: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
    let any = headers.keys().any(|name| name.as_str().starts_with("x-envoy-"));
    if any { headers } else { &NONE }
}
