//! Cross-origin resource sharing (Envoy: CORS filter; Fetch standard, section 3.2).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};

use super::super::exchange::Exchange;
use super::super::reply::Answer;
use super::OnReply;
use crate::http::body::RequestBody;
use crate::model::filter::Cors;
use crate::model::matcher::{StringMatch, StringMatcher};
use crate::telemetry::reason::Reason;
use crate::telemetry::stats::{Counter, Scope};

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
static NOTHING: HeaderValue = HeaderValue::from_static("");
const TRUE: HeaderValue = HeaderValue::from_static("true");

#[derive(Debug)]
pub(super) struct CorsStats {
    origin_valid: Counter,
    origin_invalid: Counter,
}

impl CorsStats {
    pub(super) fn new(scope: &Scope) -> Self {
        Self {
            origin_valid: scope.counter("cors.origin_valid"),
            origin_invalid: scope.counter("cors.origin_invalid"),
        }
    }
}

/// Answers a preflight; for any other request of an allowed origin, remembers what the answer has
/// to carry.
pub(super) fn preflight(
    exchange: &mut Exchange,
    policy: &Arc<Cors>,
    stats: &CorsStats,
    request: &Request<RequestBody>,
) -> Option<Answer> {
    let headers = request.headers();
    let origin = headers.get(ORIGIN).filter(|origin| !origin.is_empty())?;
    if policy.enabled < 1_000_000 && fastrand::u32(..1_000_000) >= policy.enabled {
        return None;
    }
    let asks = request.method() == Method::OPTIONS
        && headers.get(ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|method| !method.is_empty());
    let text = origin.to_str().unwrap_or("");
    if !policy.allow_origin.iter().any(|allowed| is_any(allowed) || allowed.matches(text)) {
        stats.origin_invalid.inc();
        let stays = asks && !policy.forward_not_matching_preflights;
        return stays.then(|| Answer::Local(Reason::Preflight, Response::new(Bytes::new())));
    }
    stats.origin_valid.inc();
    if !asks {
        exchange.notes.on_reply(OnReply::Cors(origin.clone(), Arc::clone(policy)));
        return None;
    }
    let mut response = Response::new(Bytes::new());
    let map = response.headers_mut();
    map.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if policy.allow_credentials {
        map.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    let said = |name| headers.get(name).unwrap_or(&NOTHING);
    let methods = policy.allow_methods.as_ref();
    let methods = methods.map(|all| said_or(all, said(ACCESS_CONTROL_REQUEST_METHOD)));
    put(map, ACCESS_CONTROL_ALLOW_METHODS, methods);
    let names = policy.allow_headers.as_ref();
    let names = names.map(|all| said_or(all, said(ACCESS_CONTROL_REQUEST_HEADERS)));
    put(map, ACCESS_CONTROL_ALLOW_HEADERS, names);
    put(map, ACCESS_CONTROL_EXPOSE_HEADERS, policy.expose_headers.as_ref());
    put(map, ACCESS_CONTROL_MAX_AGE, policy.max_age.as_ref());
    if policy.allow_private_network && headers.get(REQUEST_PRIVATE_NETWORK) == Some(&TRUE) {
        map.insert(ALLOW_PRIVATE_NETWORK, TRUE);
    }
    Some(Answer::Local(Reason::Preflight, response))
}

/// What the answer to an allowed origin carries.
pub(super) fn allow(origin: &HeaderValue, policy: &Cors, map: &mut HeaderMap) {
    map.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if policy.allow_credentials {
        map.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    put(map, ACCESS_CONTROL_EXPOSE_HEADERS, policy.expose_headers.as_ref());
}

/// `*` allows whatever is asked for, and says so (with credentials a browser takes no `*`).
fn said_or<'a>(configured: &'a HeaderValue, asked: &'a HeaderValue) -> &'a HeaderValue {
    if configured == "*" { asked } else { configured }
}

/// `*` stands for every origin.
fn is_any(allowed: &StringMatcher) -> bool {
    matches!(&allowed.kind, StringMatch::Exact(text) if text == "*")
}

fn put(map: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        map.insert(name, value.clone());
    }
}
