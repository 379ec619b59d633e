//! JSON Web Tokens (Envoy: JWT authentication filter).

mod state;

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, StatusCode};

use self::state::State;
use super::super::exchange::Exchange;
use super::super::read;
use super::super::reply::Answer;
use super::denial::Denial;
use crate::cluster::Clusters;
use crate::http::body::RequestBody;
use crate::http::target;
use crate::model::jwt::{JwtFilter, JwtRoute, Requirement};
use crate::model::metadata::{Fields, Value};
use crate::policy::jwt::{Accepted, Fault, Verdict, evaluate, providers, remove};
use crate::route;
use crate::telemetry::reason::{Reason, Refusal};
use crate::telemetry::stats::{Counter, Scope};

/// Bytes of a path that `www-authenticate` repeats.
/// Of dynamic metadata.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";
const REALM_PATH: usize = 256;

#[derive(Clone, Debug)]
pub(in super::super) struct JwtStats {
    allowed: Counter,
    denied: Counter,
    cors_preflight_bypassed: Counter,
    jwks_fetch_success: Counter,
    jwks_fetch_failed: Counter,
    jwt_cache_hit: Counter,
    jwt_cache_miss: Counter,
}

impl JwtStats {
    pub(super) fn new(scope: &Scope, prefix: &str) -> Self {
        let dot = if prefix.is_empty() { "" } else { "." };
        let counter = |name: &str| scope.counter(&format!("jwt_authn.{prefix}{dot}{name}"));
        Self {
            allowed: counter("allowed"),
            denied: counter("denied"),
            cors_preflight_bypassed: counter("cors_preflight_bypassed"),
            jwks_fetch_success: counter("jwks_fetch_success"),
            jwks_fetch_failed: counter("jwks_fetch_failed"),
            jwt_cache_hit: counter("jwt_cache_hit"),
            jwt_cache_miss: counter("jwt_cache_miss"),
        }
    }
}

/// Ask for the keys of providers that want that before the first request.
pub(super) fn fetch_ahead(config: &Arc<JwtFilter>, stats: &JwtStats, clusters: &Arc<Clusters>) {
    state::fetch_ahead(config, stats, clusters);
}

/// Answers a request that does not show the token that it needs. Tells the upstream what the token
/// says, where that is wanted.
pub(super) async fn check(
    exchange: &mut Exchange,
    (config, on_route): (&JwtFilter, Option<&JwtRoute>),
    stats: &JwtStats,
    request: &mut Request<RequestBody>,
) -> Result<Option<Answer>, Refusal> {
    if config.bypass_cors_preflight && is_preflight(request) {
        stats.cors_preflight_bypassed.inc();
        stats.allowed.inc();
        return Ok(None);
    }
    let requirement = match on_route {
        Some(JwtRoute::Disabled) => None,
        Some(JwtRoute::Named(name)) => match config.named.get(name) {
            Some(requirement) => Some(requirement),
            None => {
                stats.denied.inc();
                return Ok(Some(wrong_name(exchange, config, name)));
            }
        },
        None => {
            let view = read::view(request);
            let fits = |matches| route::fits(matches, &view, exchange.given());
            config.rules.iter().find(|rule| fits(&rule.matches)).map(|rule| &rule.requirement)
        }
    };
    let Some(requirement) = requirement else {
        stats.allowed.inc();
        return Ok(None);
    };
    sanitize(requirement, request);
    match satisfy(exchange, config, stats, (requirement, request)).await {
        Ok(accepted) => {
            stats.allowed.inc();
            for one in &accepted {
                tell(one, request);
                if let Some(key) = &one.provider.tell.metadata {
                    let claims = Value::Struct(one.token.fields());
                    let fields = Fields::from([(key.clone(), claims)]);
                    exchange.facts.dynamic_mut().note(NAMESPACE, fields);
                }
                exchange.notes.reroute |= one.provider.clear_route;
            }
            Ok(None)
        }
        Err(fault) => {
            stats.denied.inc();
            Ok(Some(denied(exchange, config, fault, request)))
        }
    }
}

/// Evaluate; wherever the keys of a provider are missing, fetch them and evaluate again.
async fn satisfy(
    exchange: &Exchange,
    config: &JwtFilter,
    stats: &JwtStats,
    (requirement, request): (&Requirement, &mut Request<RequestBody>),
) -> Result<Vec<Accepted>, Fault> {
    let state = State::of(config);
    let mut asked = Vec::new();
    loop {
        let world = state.as_seen(&asked, stats);
        let path = target::path(request.uri());
        let now = SystemTime::now();
        match evaluate(requirement, (request.headers(), path), &world, now) {
            Verdict::Allowed(accepted) => return Ok(accepted),
            Verdict::Denied(fault) => return Err(fault),
            Verdict::Needs(provider) => {
                state.fetch(&provider, &exchange.live, stats).await;
                asked.push(Arc::clone(&provider.name));
            }
        }
    }
}

fn is_preflight(request: &Request<RequestBody>) -> bool {
    let said = |name| request.headers().get(name).is_some_and(|value| !value.is_empty());
    request.method() == Method::OPTIONS && said(ORIGIN) && said(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Nobody but a good token may say what the upstream is told: also not the token of another
/// provider that would have done as well.
fn sanitize(requirement: &Requirement, request: &mut Request<RequestBody>) {
    let mut all = Vec::new();
    providers(requirement, &mut all);
    for provider in all {
        if let Some(name) = &provider.tell.payload {
            request.headers_mut().remove(name);
        }
        for (name, _) in &provider.tell.claims {
            request.headers_mut().remove(name);
        }
    }
}

fn tell(accepted: &Accepted, request: &mut Request<RequestBody>) {
    let provider = &accepted.provider;
    let mut say = |name: &http::HeaderName, value: &str| {
        // A claim that no header can carry is not told.
        if let Ok(value) = HeaderValue::from_str(value) {
            request.headers_mut().append(name, value);
        }
    };
    if let Some(name) = &provider.tell.payload {
        say(name, &accepted.token.payload(provider.tell.padded));
    }
    for (name, claim) in &provider.tell.claims {
        if let Some(value) = accepted.token.claim(claim) {
            say(name, &value);
        }
    }
    if !provider.forward {
        let path = target::path(request.uri()).to_owned();
        if let Some(path) = remove(&accepted.place, request.headers_mut(), &path) {
            target::set_path(request, &path);
        }
    }
}

fn denied(
    exchange: &mut Exchange,
    config: &JwtFilter,
    fault: Fault,
    request: &Request<RequestBody>,
) -> Answer {
    let status = match fault {
        Fault::AudienceNotAllowed => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    let text = if config.strip_failure_response { "" } else { fault.text() };
    let mut denial = Denial::new(Reason::Denied, status, text);
    if !config.strip_failure_response
        && let Ok(value) = HeaderValue::from_str(&realm(fault, request))
    {
        denial.headers.insert(WWW_AUTHENTICATE, value);
    }
    denial.answer(exchange, details(fault.text()))
}

/// `www-authenticate` (RFC 6750 section 3). Without the query: it may hold a token.
fn realm(fault: Fault, request: &Request<RequestBody>) -> String {
    let view = read::view(request);
    let path = view.path.split('?').next().unwrap_or("");
    let path: String = path.chars().take(REALM_PATH).collect();
    let invalid = if fault == Fault::Missing { "" } else { ", error=\"invalid_token\"" };
    format!("Bearer realm=\"{}://{}{path}\"{invalid}", view.scheme(), view.authority())
}

fn wrong_name(exchange: &mut Exchange, config: &JwtFilter, name: &str) -> Answer {
    let names: Vec<&str> = config.named.keys().map(|name| &**name).collect();
    let names = names.join(",");
    let why = format!("Wrong requirement_name: {name}. It should be one of [{names}]");
    let text = if config.strip_failure_response {
        String::new()
    } else {
        format!("Failed JWT authentication: {why}")
    };
    let denial = Denial::new(Reason::Denied, StatusCode::FORBIDDEN, text);
    denial.answer(exchange, details(&why))
}

fn details(why: &str) -> String {
    format!("jwt_authn_access_denied{{{}}}", why.replace(' ', "_"))
}
