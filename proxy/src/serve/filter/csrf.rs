//! Requests that another site's page made (Envoy: CSRF filter).

use http::header::{ORIGIN, REFERER};
use http::{HeaderValue, Method, Request, StatusCode, Uri};

use super::drawn;
use crate::http::body::RequestBody;
use crate::http::target;
use crate::model::protection::Csrf;
use crate::telemetry::reason::{Reason, Refusal};
use crate::telemetry::stats::{Counter, Scope};

#[derive(Debug)]
pub(super) struct CsrfStats {
    missing_source_origin: Counter,
    request_invalid: Counter,
    request_valid: Counter,
}

impl CsrfStats {
    pub(super) fn new(scope: &Scope) -> Self {
        Self {
            missing_source_origin: scope.counter("csrf.missing_source_origin"),
            request_invalid: scope.counter("csrf.request_invalid"),
            request_valid: scope.counter("csrf.request_valid"),
        }
    }
}

/// # Errors
/// The request changes something and comes from elsewhere.
pub(super) fn check(
    policy: &Csrf,
    stats: &CsrfStats,
    request: &Request<RequestBody>,
) -> Result<(), Refusal> {
    let enabled = drawn(policy.enabled);
    if !enabled && !drawn(policy.shadow) {
        return Ok(());
    }
    let changes = [Method::POST, Method::PUT, Method::DELETE, Method::PATCH];
    if !changes.contains(request.method()) {
        return Ok(());
    }
    let origin = |name| request.headers().get(name).map(source).filter(|text| !text.is_empty());
    let source = origin(ORIGIN).or_else(|| origin(REFERER));
    let invalid = source.is_some();
    let own = target::authority(request.uri(), request.headers());
    let valid = source.is_some_and(|source| {
        source == own || policy.origins.iter().any(|allowed| allowed.matches(&source))
    });
    if valid {
        stats.request_valid.inc();
        return Ok(());
    }
    if invalid { &stats.request_invalid } else { &stats.missing_source_origin }.inc();
    if !enabled {
        return Ok(());
    }
    Err(Refusal::downstream(Reason::InvalidOrigin, StatusCode::FORBIDDEN, "Invalid origin"))
}

/// Host and port of an origin; what is no URL counts as it stands, and `null` is none.
fn source(value: &HeaderValue) -> String {
    let text = value.to_str().unwrap_or("");
    let authority = text.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some());
    match authority.as_ref().and_then(Uri::authority) {
        Some(authority) => authority.as_str().to_owned(),
        None if text == "null" => String::new(),
        None => text.to_owned(),
    }
}
