//! A service is asked whether a request may pass (Envoy: external authorization filter).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::Stream;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;

use super::super::exchange::Exchange;
use super::super::read;
use super::super::reply::Answer;
use super::denial::Denial;
use super::whole::{self, Read};
use super::{Filter, OnReply, Routed};
use crate::cluster::ask::Limits;
use crate::cluster::unary::unary;
use crate::http::body::{BodyError, RequestBody};
use crate::http::{hop, target};
use crate::model::ext_authz::{
    Allowed, BodySettings, Change, Decision, ExtAuthz, ExtAuthzRoute, HttpAuthz, Peer, Question,
    Said, Service,
};
use crate::model::filter::{FilterKind, Override};
use crate::model::headers::HeaderAppend;
use crate::model::matcher::StringMatcher;
use crate::model::metadata::{Fields, Value};
use crate::model::names;
use crate::telemetry::reason::{Reason, Refusal};
use crate::telemetry::stats::{Counter, Scope};

/// Of dynamic metadata.
const NAMESPACE: &str = "envoy.filters.http.ext_authz";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const FAILURE_ALLOWED: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";
const TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";
/// Bytes of an answer's text.
const LARGEST_ANSWER: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct ExtAuthzStats {
    ok: Counter,
    denied: Counter,
    error: Counter,
    disabled: Counter,
    failure_mode_allowed: Counter,
    invalid: Counter,
    ignored_dynamic_metadata: Counter,
}

impl ExtAuthzStats {
    pub(super) fn new(scope: &Scope, prefix: &str) -> Self {
        let dot = if prefix.is_empty() { "" } else { "." };
        let counter = |name: &str| scope.counter(&format!("ext_authz.{prefix}{dot}{name}"));
        Self {
            ok: counter("ok"),
            denied: counter("denied"),
            error: counter("error"),
            disabled: counter("disabled"),
            failure_mode_allowed: counter("failure_mode_allowed"),
            invalid: counter("invalid"),
            ignored_dynamic_metadata: counter("ignored_dynamic_metadata"),
        }
    }
}

/// What holds for one request.
struct Settings<'a> {
    config: &'a ExtAuthz,
    body: Option<BodySettings>,
    extensions: BTreeMap<&'a str, &'a str>,
}

/// Ask, and do what the answer says. A service that does not answer is an error after its time.
///
/// # Errors
/// The body that the service shall see is too long, or does not come.
pub(super) async fn check(
    exchange: &mut Exchange,
    (config, filter): (&ExtAuthz, &Filter),
    stats: &ExtAuthzStats,
    (routed, request): (Routed<'_>, &mut Request<RequestBody>),
) -> Result<Option<Answer>, Refusal> {
    let Some(settings) = settings(config, filter, routed) else { return Ok(None) };
    if fastrand::u32(..1_000_000) >= config.enabled {
        stats.disabled.inc();
        if !config.deny_at_disable {
            return Ok(None);
        }
        let denial = Denial::new(Reason::ExternalDenied, config.status_on_error, Bytes::new());
        return Ok(Some(denial.answer(exchange, "ext_authz_error".to_owned())));
    }
    let body = match settings.body {
        Some(limits) => match seen_body(exchange, limits, request).await? {
            Some(body) => body,
            None => return Ok(Some(too_large(exchange))),
        },
        None => None,
    };
    let asked = Instant::now();
    let decision = match &config.service {
        Service::Grpc(service, limit, wire) => {
            let question = (wire.encode)(&question(exchange, &settings, request, body.as_ref()));
            let clusters = Arc::clone(&exchange.connection.http.context.clusters);
            let answer = unary(clusters, service, CHECK, question, *limit).await;
            answer
                .map_err(|status| status.message().to_owned())
                .and_then(|bytes| (wire.decode)(&bytes))
        }
        Service::Http(service) => {
            let question = http_question(config, service, request, body.as_ref());
            let limits = Limits { time: service.service.timeout, body: LARGEST_ANSWER };
            let answer = exchange.live.ask(&service.service.cluster, question, limits).await;
            answer.map_err(|refusal| refusal.to_string()).map(|answer| read_http(service, &answer))
        }
    };
    Ok(decide(exchange, (config, stats), (request, decision), asked.elapsed()))
}

/// None: nobody is asked here.
fn settings<'a>(
    config: &'a ExtAuthz,
    filter: &'a Filter,
    routed: Routed<'a>,
) -> Option<Settings<'a>> {
    let said: Vec<&ExtAuthzRoute> = routed
        .said(&filter.config.name)
        .filter_map(|said| match said {
            Override::Settings(FilterKind::ExtAuthzRoute(route)) => Some(&**route),
            _ => None,
        })
        .collect();
    let mut body = config.body;
    match said.first() {
        Some(ExtAuthzRoute::Disabled) => return None,
        Some(ExtAuthzRoute::Check { no_body: true, .. }) => body = None,
        Some(ExtAuthzRoute::Check { body: Some(own), .. }) => body = Some(*own),
        _ => {}
    }
    let mut extensions = BTreeMap::new();
    for one in said.iter().rev() {
        if let ExtAuthzRoute::Check { extensions: more, .. } = one {
            extensions.extend(more.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        }
    }
    Some(Settings { config, body, extensions })
}

/// A part of a body.
struct Seen {
    data: Bytes,
    /// Bytes that have come.
    read: usize,
    partial: bool,
}

/// As much of the body as the service shall see; inner None: there is none. Outer None: it is too
/// long.
async fn seen_body(
    exchange: &Exchange,
    limits: BodySettings,
    request: &mut Request<RequestBody>,
) -> Result<Option<Option<Seen>>, Refusal> {
    if http_body::Body::is_end_stream(request.body()) {
        return Ok(Some(None));
    }
    let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
    match whole::read(exchange, body, limits.most).await? {
        Read::Whole(whole) => {
            let data = whole.data.clone();
            let body = RequestBody::from(whole);
            *request.body_mut() = if request.headers().contains_key(CONTENT_LENGTH) {
                body
            } else {
                // Its length was not told before, and is not now.
                RequestBody::Boxed(Box::pin(StreamBody::new(frames(body))))
            };
            Ok(Some(Some(Seen { read: data.len(), data, partial: false })))
        }
        Read::TooLong(read, rest) if limits.partial => {
            let data = read.slice(..limits.most.min(read.len()));
            let seen = Seen { data, read: read.len(), partial: true };
            let first = futures_util::stream::iter([Ok::<_, BodyError>(Frame::data(read))]);
            let all = StreamBody::new(futures_util::StreamExt::chain(first, frames(rest)));
            *request.body_mut() = RequestBody::Boxed(Box::pin(all));
            Ok(Some(Some(seen)))
        }
        Read::TooLong(..) => Ok(None),
    }
}

fn frames(body: RequestBody) -> impl Stream<Item = Result<Frame<Bytes>, BodyError>> + Send {
    let mut body = Box::pin(body);
    futures_util::stream::poll_fn(move |cx| http_body::Body::poll_frame(body.as_mut(), cx))
}

fn too_large(exchange: &mut Exchange) -> Answer {
    let (reason, status) = (Reason::RequestTooLarge, StatusCode::PAYLOAD_TOO_LARGE);
    let denial = Denial::new(reason, status, "Payload Too Large");
    denial.answer(exchange, reason.details().to_owned())
}

fn is_https(request: &Request<RequestBody>) -> bool {
    let forwarded = request.headers().get(names::X_FORWARDED_PROTO);
    forwarded.is_some_and(|value| value.as_bytes() == b"https")
}

fn question<'a>(
    exchange: &'a Exchange,
    settings: &Settings<'a>,
    request: &'a Request<RequestBody>,
    body: Option<&'a Seen>,
) -> Question<'a> {
    let config = settings.config;
    let connection = &exchange.connection;
    let ends = &connection.ends;
    let view = read::view(request);
    let scheme = if is_https(request) { "https" } else { "http" };
    let pseudo = [
        (":authority", view.authority()),
        (":method", view.method),
        (":path", view.path),
        (":scheme", scheme),
    ];
    let mut headers: Vec<(&str, &[u8])> =
        pseudo.into_iter().map(|(name, value)| (name, value.as_bytes())).collect();
    let all = request.headers().iter().filter(|(name, _)| *name != HOST);
    headers.extend(all.map(|(name, value)| (name.as_str(), value.as_bytes())));
    headers.retain(|(name, _)| {
        config.allowed_headers.as_ref().is_none_or(|allowed| any(allowed, name))
            && !any(&config.disallowed_headers, name)
    });
    if let Some(seen) = body {
        let partial: &[u8] = if seen.partial { b"true" } else { b"false" };
        headers.push((PARTIAL_BODY, partial));
    }
    let peer = ends.peer.as_ref();
    let principal = peer.map_or("", |peer| {
        let names = peer.uri_sans.first().or_else(|| peer.dns_sans.first());
        names.unwrap_or(&peer.subject)
    });
    let service = request.headers().get("x-envoy-downstream-service-cluster");
    let certificate =
        peer.filter(|_| config.include_peer_certificate).map_or("", |peer| peer.pem_url_encoded());
    Question {
        source: Peer {
            address: &ends.remote,
            principal,
            service: service.and_then(|name| name.to_str().ok()).unwrap_or(""),
            certificate,
        },
        destination: Peer {
            address: &ends.local,
            principal: connection.http.local_uri().unwrap_or(""),
            service: "",
            certificate: "",
        },
        time: exchange.wall,
        id: exchange.random.to_string(),
        method: view.method,
        path: view.path,
        host: view.authority(),
        scheme,
        protocol: if connection.is_http2() { "HTTP/2" } else { "HTTP/1.1" },
        headers,
        raw_headers: config.raw_headers,
        body: body.map(|seen| &seen.data[..]),
        size: body.map_or(0, |seen| seen.read),
        raw_body: settings.body.is_some_and(|body| body.bytes),
        extensions: settings.extensions.clone(),
        metadata: noted(exchange, &config.namespaces),
        server_name: config.include_tls_session.then_some(ends.sni.as_deref()).flatten(),
    }
}

/// What filters noted in these namespaces.
fn noted<'a>(exchange: &'a Exchange, namespaces: &'a [String]) -> Vec<(&'a str, &'a Fields)> {
    let Some(dynamic) = &exchange.facts.dynamic else { return Vec::new() };
    let named = namespaces.iter().map(String::as_str);
    named.filter_map(|name| Some((name, dynamic.metadata.get(name)?))).collect()
}

fn http_question(
    config: &ExtAuthz,
    service: &HttpAuthz,
    request: &Request<RequestBody>,
    body: Option<&Seen>,
) -> Request<Bytes> {
    let view = read::view(request);
    let content = body.map(|seen| seen.data.clone()).unwrap_or_default();
    let mut question = Request::new(content);
    *question.method_mut() = request.method().clone();
    let path = format!("{}{}", service.path_prefix, view.path);
    target::set_path(&mut question, &path);
    let headers = question.headers_mut();
    for (name, value) in request.headers() {
        let allowed = config.allowed_headers.as_deref().unwrap_or_default();
        let told = name == AUTHORIZATION || any(allowed, name.as_str());
        let own = *name == HOST || *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING;
        if told && !own && !any(&config.disallowed_headers, name.as_str()) {
            headers.append(name, value.clone());
        }
    }
    if let Ok(host) = HeaderValue::from_str(view.authority()) {
        headers.insert(HOST, host);
    }
    if let Some(seen) = body {
        headers.insert(
            PARTIAL_BODY,
            HeaderValue::from_static(if seen.partial { "true" } else { "false" }),
        );
    }
    for (name, value) in &service.headers_to_add {
        headers.insert(name, value.clone());
    }
    let length = HeaderValue::from(question.body().len());
    question.headers_mut().insert(CONTENT_LENGTH, length);
    question
}

/// 200 is a yes, 5xx no answer, anything else a no.
fn read_http(service: &HttpAuthz, answer: &Response<Bytes>) -> Decision {
    let mut headers = answer.headers().clone();
    hop::strip(&mut headers);
    let changes = |wanted: &dyn Fn(&str) -> bool, action: HeaderAppend| -> Vec<Change> {
        let taken = headers.iter().filter(|(name, _)| wanted(name.as_str()));
        let change = |(name, value): (&HeaderName, &HeaderValue)| Change {
            name: name.as_str().to_owned(),
            value: value.as_bytes().to_vec(),
            action,
            only_beside: false,
        };
        taken.map(change).collect()
    };
    let status = answer.status();
    if status == StatusCode::OK {
        let set = HeaderAppend::OverwriteIfExistsOrAdd;
        let beside = HeaderAppend::AppendIfExistsOrAdd;
        let mut request = changes(&|name| any(&service.to_upstream, name), set);
        request.extend(changes(&|name| any(&service.to_upstream_append, name), beside));
        let lines = headers.get_all(TO_REMOVE).iter().filter_map(|line| line.to_str().ok());
        let names = lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_owned());
        return Decision::Allowed(Box::new(Allowed {
            request,
            remove: names.filter(|name| !name.is_empty()).collect(),
            response: changes(&|name| any(&service.to_client_on_success, name), beside),
            ..Allowed::default()
        }));
    }
    if status.is_server_error() {
        return Decision::Failed(Said::default());
    }
    let ours = |name: &str| matches!(name, "content-length" | "server" | "date" | "host");
    let usual = |name: &str| matches!(name, "www-authenticate" | "location");
    let to_client = |name: &str| {
        !ours(name) && service.to_client.as_ref().is_none_or(|list| usual(name) || any(list, name))
    };
    Decision::Denied(Said {
        status: Some(status),
        headers: changes(&to_client, HeaderAppend::AppendIfExistsOrAdd),
        body: answer.body().clone(),
        ..Said::default()
    })
}

fn decide(
    exchange: &mut Exchange,
    (config, stats): (&ExtAuthz, &ExtAuthzStats),
    (request, decision): (&mut Request<RequestBody>, Result<Decision, String>),
    took: Duration,
) -> Option<Answer> {
    let failed = match decision {
        Ok(Decision::Allowed(mut allowed)) => {
            // As in Envoy, only where the service notes something itself.
            if !allowed.metadata.is_empty() {
                let millis =
                    Value::Number(f64::from(u32::try_from(took.as_millis()).unwrap_or(u32::MAX)));
                allowed.metadata.insert("ext_authz_duration".to_owned(), millis);
            }
            note(exchange, (config, stats), &allowed.metadata);
            if config.validate && !is_valid(&allowed) {
                stats.invalid.inc();
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                let denial = Denial::new(Reason::ExternalDenied, status, Bytes::new());
                return Some(denial.answer(exchange, "ext_authz_invalid".to_owned()));
            }
            stats.ok.inc();
            allow(exchange, config, *allowed, request);
            return None;
        }
        Ok(Decision::Denied(said)) => {
            stats.denied.inc();
            note(exchange, (config, stats), &said.metadata);
            let status = said.status.unwrap_or(StatusCode::FORBIDDEN);
            return Some(say(said, status).answer(exchange, "ext_authz_denied".to_owned()));
        }
        Ok(Decision::Failed(said)) => {
            note(exchange, (config, stats), &said.metadata);
            said
        }
        Err(why) => {
            tracing::debug!(why, "the authorization service did not answer");
            Said::default()
        }
    };
    stats.error.inc();
    if config.failure_mode_allow {
        stats.failure_mode_allowed.inc();
        if config.failure_mode_header {
            request.headers_mut().insert(FAILURE_ALLOWED, HeaderValue::from_static("true"));
        }
        return None;
    }
    let status = failed.status.unwrap_or(config.status_on_error);
    Some(say(failed, status).answer(exchange, "ext_authz_error".to_owned()))
}

fn note(exchange: &mut Exchange, (config, stats): (&ExtAuthz, &ExtAuthzStats), fields: &Fields) {
    if fields.is_empty() {
        return;
    }
    if config.notes {
        exchange.facts.dynamic_mut().note(NAMESPACE, fields.clone());
    } else {
        stats.ignored_dynamic_metadata.inc();
    }
}

fn say(said: Said, status: StatusCode) -> Denial {
    let mut denial = Denial::new(Reason::ExternalDenied, status, said.body);
    said.headers.iter().for_each(|change| change.apply(&mut denial.headers));
    denial.headers.remove(CONNECTION);
    denial.headers.remove(CONTENT_LENGTH);
    denial
}

fn is_valid(allowed: &Allowed) -> bool {
    let name = |name: &String| HeaderName::from_bytes(name.as_bytes()).is_ok();
    allowed.request.iter().chain(&allowed.response).all(|change| change.parts().is_some())
        && allowed.remove.iter().all(name)
}

fn allow(
    exchange: &mut Exchange,
    config: &ExtAuthz,
    allowed: Allowed,
    request: &mut Request<RequestBody>,
) {
    let changes_path = !(allowed.set_query.is_empty() && allowed.remove_query.is_empty());
    if config.clear_route
        && (changes_path || !allowed.request.is_empty() || !allowed.remove.is_empty())
    {
        exchange.notes.reroute = true;
    }
    for change in &allowed.request {
        match change.name.as_str() {
            ":path" => {
                let path = String::from_utf8_lossy(&change.value);
                target::set_path(request, &path);
            }
            ":authority" | "host" => {
                if let Ok(host) = HeaderValue::from_bytes(&change.value) {
                    target::set_authority(request, &host);
                }
            }
            ":method" => {
                if let Ok(method) = change.value.as_slice().try_into() {
                    *request.method_mut() = method;
                }
            }
            _ => change.apply(request.headers_mut()),
        }
    }
    for name in allowed.remove.iter().filter(|name| !name.eq_ignore_ascii_case("host")) {
        request.headers_mut().remove(name.as_str());
    }
    if changes_path {
        let path = query(target::path(request.uri()), &allowed);
        target::set_path(request, &path);
    }
    if !allowed.response.is_empty() {
        exchange.notes.on_reply(OnReply::Changes(allowed.response));
    }
}

/// The path with other parameters: those that are set come at their first place, or at the end.
fn query(path: &str, allowed: &Allowed) -> String {
    let (before, query) = path.split_once('?').unwrap_or((path, ""));
    let name = |pair: &str| pair.split_once('=').map_or(pair, |(name, _)| name).to_owned();
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| (name(pair), pair.to_owned()))
        .collect();
    for (key, value) in &allowed.set_query {
        let pair = format!("{key}={value}");
        match pairs.iter().position(|(name, _)| name == key) {
            Some(at) => {
                pairs[at].1 = pair;
                let mut seen = 0;
                pairs.retain(|(name, _)| {
                    name != key || {
                        seen += 1;
                        seen == 1
                    }
                });
            }
            None => pairs.push((key.clone(), pair)),
        }
    }
    pairs.retain(|(name, _)| !allowed.remove_query.contains(name));
    let pairs: Vec<String> = pairs.into_iter().map(|(_, pair)| pair).collect();
    if pairs.is_empty() { before.to_owned() } else { format!("{before}?{}", pairs.join("&")) }
}

/// What the service wants of the answer.
pub(super) fn on_reply(changes: &[Change], headers: &mut HeaderMap) {
    changes.iter().for_each(|change| change.apply(headers));
}

fn any(matchers: &[StringMatcher], name: &str) -> bool {
    matchers.iter().any(|matcher| matcher.matches(name))
}
