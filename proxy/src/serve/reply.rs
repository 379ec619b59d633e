//! Step eight, reply: answers of the upstream, answers of our own, and the one place where a
//! refusal becomes HTTP or gRPC.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION, SERVER, SET_COOKIE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};

use super::admit::Plan;
use super::body::{AnswerBody, Outgoing, ReplyBody};
use super::exchange::Exchange;
use super::tunnel::{self, Tunnel};
use super::{filter, headers, local_reply};
use crate::cluster::ResponseBody;
use crate::http::presence::Presence;
use crate::http::{grpc, hop, number};
use crate::model::duration::millis;
use crate::model::http::ServerHeader;
use crate::model::listener::Direction;
use crate::model::matcher::RequestView;
use crate::model::route::{DirectResponse, Redirect, Route};
use crate::policy::hash::NewCookie;
use crate::route::redirect_location;
use crate::telemetry::reason::{Reason, Refusal, Sent};

pub(super) const SERVICE_TIME: HeaderName =
    HeaderName::from_static("x-envoy-upstream-service-time");
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Tells the sidecar before us that the application never saw the request, so that it may be
/// tried elsewhere whatever its method.
const RETRIABLE: HeaderName = HeaderName::from_static("x-pillion-retriable");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const DEADLINE_EXCEEDED: u16 = 4;
const GRPC_UNKNOWN: u16 = 2;
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const LOCAL_OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-local-overloaded");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What an exchange is answered with.
pub(super) enum Answer {
    /// By this proxy.
    Local(Reason, Response<Bytes>),
    /// By an endpoint.
    Upstream(Response<Outgoing>),
    /// By bytes both ways.
    Tunnel(Box<Tunnel>),
}

/// Send the outcome of an exchange to the downstream.
pub(super) async fn send(
    mut exchange: Box<Exchange>,
    outcome: Result<Answer, Refusal>,
) -> Response<ReplyBody> {
    count(&exchange, &outcome);
    match outcome {
        Ok(Answer::Upstream(response)) => {
            finish_head(&mut exchange, response.status(), response.headers());
            response.map(|body| ReplyBody::new(exchange, body))
        }
        Ok(Answer::Tunnel(tunnel)) => tunnel::start(exchange, *tunnel),
        Ok(Answer::Local(reason, response)) => {
            exchange.flag(reason);
            local(exchange, reason, response).await
        }
        Err(refusal) => {
            let response = refused(&mut exchange, &refusal);
            local(exchange, refusal.reason, response).await
        }
    }
}

/// An answer of our own, for a client that reads gRPC only: the status as gRPC has it, the text as
/// its message.
fn in_grpc(exchange: &Exchange, reason: Reason, response: Response<Bytes>) -> Response<Bytes> {
    let (mut head, body) = response.into_parts();
    let spelled_out = matches!(reason, Reason::DirectResponse | Reason::Redirect);
    let status = match (exchange.notes.grpc_status, head.status, reason) {
        (Some(chosen), ..) => chosen,
        (None, _, Reason::MaxDuration) => DEADLINE_EXCEEDED,
        // That an answer is fine says nothing about a call that nobody served.
        (None, StatusCode::OK, _) if spelled_out => GRPC_UNKNOWN,
        (None, status, _) => u16::from(grpc::status_of(status)),
    };
    head.status = StatusCode::OK;
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.insert(GRPC_STATUS, HeaderValue::from(status));
    if !body.is_empty() {
        head.headers.insert(GRPC_MESSAGE, grpc::message(&String::from_utf8_lossy(&body)));
    }
    Response::from_parts(head, Bytes::new())
}

fn count(exchange: &Exchange, outcome: &Result<Answer, Refusal>) {
    let stats = &exchange.connection.http.stats;
    match outcome {
        Ok(Answer::Upstream(..) | Answer::Tunnel(_)) => stats.rq_total.inc(),
        Ok(Answer::Local(Reason::Redirect, _)) => stats.rq_redirect.inc(),
        Ok(Answer::Local(Reason::DirectResponse, _)) => stats.rq_direct_response.inc(),
        // A filter's own.
        Ok(Answer::Local(..)) => {}
        Err(refusal) => match refusal.reason {
            Reason::RequestTooLarge => stats.downstream_rq_too_large.inc(),
            Reason::DownstreamRequestTimeout => stats.downstream_rq_timeout.inc(),
            Reason::StreamIdleTimeout => stats.downstream_rq_idle_timeout.inc(),
            Reason::MaxDuration => stats.downstream_rq_max_duration_reached.inc(),
            _ => {}
        },
    }
}

/// Everything that the reply changes on an endpoint's answer: what the router does, then the
/// filters, then the connection manager.
pub(super) async fn from_upstream(
    exchange: &mut Exchange,
    plan: &mut Plan<'_>,
    response: Response<ResponseBody>,
) -> Answer {
    let present = response.body().present();
    let mut response = response.map(AnswerBody::Upstream);
    dress(exchange, plan, (&mut response, present)).await;
    let clock = super::attempt::clock(exchange, plan);
    let limits = Some((clock, plan.permit.take()));
    Answer::Upstream(response.map(|body| Outgoing::new(exchange, body, limits)))
}

/// The same for the head, whatever the body is. `present`: headers that it has.
pub(super) async fn dress(
    exchange: &mut Exchange,
    plan: &Plan<'_>,
    (response, present): (&mut Response<AnswerBody>, Presence),
) {
    exchange.facts.details = Some("via_upstream");
    // An endpoint's HTTP/1.0 is its own affair: the downstream's connection stays open.
    *response.version_mut() = Version::HTTP_11;
    let map = response.headers_mut();
    hop::strip_present(map, present);
    if present.has(Presence::PILLION) {
        map.remove(&RETRIABLE);
    }
    // An answer that came before the end of the request says nothing about how long it took.
    let complete = exchange.meter.as_ref().is_none_or(|meter| meter.ended().is_some());
    if complete
        && exchange.upgrade.is_none()
        && let (Some(after), Some(sent)) =
            (exchange.facts.response_after, exchange.facts.sent_after)
    {
        map.insert(SERVICE_TIME, number::value(millis(after.saturating_sub(sent))));
    }
    if plan.host.include_attempt_count_in_response {
        map.insert(ATTEMPT_COUNT, HeaderValue::from(exchange.facts.attempts));
    }
    for cookie in exchange.facts.cookies.iter().filter_map(set_cookie) {
        map.append(SET_COOKIE, cookie);
    }
    headers::to_downstream(exchange, plan, response.headers_mut());
    filtered(exchange, response).await;
    let manager = &exchange.connection.http.manager;
    let map = response.headers_mut();
    match manager.server_header {
        ServerHeader::Overwrite => {
            map.insert(SERVER, manager.server_name.clone());
        }
        ServerHeader::AppendIfAbsent => {
            map.entry(SERVER).or_insert_with(|| manager.server_name.clone());
        }
        ServerHeader::PassThrough => {}
    }
    echo_request_id(exchange, map);
    if let Some(span) = &mut exchange.span {
        span.answered(map, present.has(Presence::DECORATOR));
    }
    if let Some(via) = &manager.via {
        map.append(http::header::VIA, via.clone());
    }
}

/// `redirect` of a route.
pub(super) fn redirect(redirect: &Redirect, route: &Route, request: &RequestView<'_>) -> Answer {
    let location = redirect_location(redirect, &route.matches.path, request);
    found(redirect.status, &location)
}

/// `direct_response` of a route. What was made, and what is elsewhere, is where the request was going.
pub(super) fn direct(direct: &DirectResponse, request: &RequestView<'_>) -> Answer {
    let mut response = Response::new(direct.body.clone());
    *response.status_mut() = direct.status;
    if direct.status == StatusCode::CREATED || direct.status.is_redirection() {
        let (authority, path) = (request.authority(), request.path);
        let location = HeaderValue::from_str(&format!("{}://{authority}{path}", request.scheme()));
        response.headers_mut().extend(location.ok().map(|location| (LOCATION, location)));
    }
    Answer::Local(Reason::DirectResponse, response)
}

/// To the same place, by https.
pub(super) fn to_https(authority: &str, path: &str) -> Answer {
    let host = authority.strip_suffix(":80").unwrap_or(authority);
    found(StatusCode::MOVED_PERMANENTLY, &format!("https://{host}{path}"))
}

/// To the path without escaped slashes.
pub(super) fn normalized(path: &str) -> Answer {
    found(StatusCode::TEMPORARY_REDIRECT, path)
}

fn found(status: StatusCode, location: &str) -> Answer {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Answer::Local(Reason::Redirect, response)
}

/// A refusal, in words.
fn refused(exchange: &mut Exchange, refusal: &Refusal) -> Response<Bytes> {
    exchange.flag(refusal.reason);
    let mut response = Response::new(Bytes::from(refusal.to_string()));
    *response.status_mut() = refusal.status;
    if refusal.reason == Reason::Overflow {
        response.headers_mut().insert(OVERLOADED, HeaderValue::from_static("true"));
    }
    let inbound = exchange.connection.http.direction == Direction::Inbound;
    if inbound
        && refusal.sent == Sent::No
        && refusal.side != crate::telemetry::reason::Side::Downstream
    {
        response.headers_mut().insert(RETRIABLE, HeaderValue::from_static(refusal.reason.flag()));
    }
    response
}

async fn local(
    mut exchange: Box<Exchange>,
    reason: Reason,
    mut response: Response<Bytes>,
) -> Response<ReplyBody> {
    let overloaded = reason == Reason::Overloaded;
    if overloaded && exchange.connection.http.manager.append_local_overload {
        response.headers_mut().insert(LOCAL_OVERLOADED, HeaderValue::from_static("true"));
    }
    // A preflight is no answer of the route: its changes are not for it.
    if reason == Reason::Preflight {
        exchange.facts.status = Some(response.status());
    } else if overloaded {
        exchange.facts.status = Some(response.status());
        response = local_reply::rewrite(&mut exchange, reason, response);
    } else {
        exchange.facts.own_status = Some(response.status());
        headers::to_own_answer(&exchange, response.headers_mut());
        exchange.facts.own_status = None;
        exchange.facts.status = Some(response.status());
        response = local_reply::rewrite(&mut exchange, reason, response);
    }
    let health = matches!(reason, Reason::HealthCheck | Reason::FailedHealthCheck);
    let response = if exchange.grpc && !health && reason != Reason::Preflight {
        in_grpc(&exchange, reason, response)
    } else {
        // In HTTP/2 the head itself says that there is nothing more.
        if !response.body().is_empty() || !exchange.connection.is_http2() {
            let length = HeaderValue::from(response.body().len());
            response.headers_mut().insert(CONTENT_LENGTH, length);
        }
        response
    };
    let mut response = response.map(AnswerBody::from);
    // When things are scarce, filters have not seen the request either.
    if !overloaded {
        filtered(&mut exchange, &mut response).await;
    }
    let (mut head, body) = response.into_parts();
    head.headers.insert(SERVER, exchange.connection.http.manager.server_name.clone());
    echo_request_id(&exchange, &mut head.headers);
    if let Some(span) = &mut exchange.span {
        span.answered(&mut head.headers, true);
    }
    // Rather than read a body that nobody wants, HTTP/1 begins anew.
    let unread = exchange.meter.as_ref().is_some_and(|meter| meter.ended().is_none());
    if unread && !exchange.connection.is_http2() {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    finish_head(&mut exchange, head.status, &head.headers);
    let body = Outgoing::new(&exchange, body, None);
    Response::from_parts(head, ReplyBody::new(exchange, body))
}

/// Through the filters, if one has something to do; in a box, so that others do not carry their state.
async fn filtered(exchange: &mut Exchange, response: &mut Response<AnswerBody>) {
    if filter::wants_reply(exchange) {
        Box::pin(filter::reply(exchange, response)).await;
    }
}

fn finish_head(exchange: &mut Exchange, status: StatusCode, headers: &HeaderMap) {
    exchange.facts.status = Some(status);
    exchange.facts.reply_after = Some(exchange.started.elapsed());
    // A gRPC answer without a body tells its status here.
    let status_told = exchange.grpc && headers.contains_key("grpc-status");
    if status_told && exchange.span.is_some() || exchange.is_recorded() {
        exchange.facts.response = Some(Box::new(headers.clone()));
    }
}

fn echo_request_id(exchange: &Exchange, headers: &mut HeaderMap) {
    if let Some(id) = &exchange.echo_request_id {
        headers.insert(REQUEST_ID, id.clone());
    }
}

pub(super) fn set_cookie(cookie: &NewCookie) -> Option<HeaderValue> {
    use std::fmt::Write;
    let mut text = format!("{}=\"{}\"", cookie.name, cookie.value);
    if !cookie.ttl.is_zero() {
        let _ = write!(text, "; Max-Age={}", cookie.ttl.as_secs());
    }
    if !cookie.path.is_empty() {
        let _ = write!(text, "; Path={}", cookie.path);
    }
    for (name, value) in &*cookie.attributes {
        let sign = if value.is_empty() { "" } else { "=" };
        let _ = write!(text, "; {name}{sign}{value}");
    }
    text.push_str("; HttpOnly");
    HeaderValue::from_str(&text).ok()
}
