//! One request to one endpoint, and the truth about what became of it.

use std::error::Error as StdError;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, COOKIE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};

use super::behalf::Behalf;
use super::body::{ActiveRequest, ResponseBody};
use super::check::IMMEDIATE_FAIL;
use super::endpoint::Endpoint;
use super::pool::{
    self, Cause, Connection, Content, Http1Error, Http2Error, Job, Lease, SendFailure, TakeHead,
};
use super::{clock, learn};
use crate::http::body::RequestBody;
use crate::http::presence::Presence;
use crate::http::{target, upgrade, upgraded};
use crate::model::route::Priority;
use crate::model::{Name, names};
use crate::telemetry::reason::{Reason, Refusal, Sent, Side};

/// How a request is sent.
#[derive(Clone, Debug, Default)]
pub struct SendOptions {
    /// Which circuit breakers count it.
    pub priority: Priority,
    /// It came in over HTTP/2: decides for clusters that speak what the downstream speaks.
    pub downstream_h2: bool,
    /// The host of the request, where the TLS context sends it as SNI (`auto_sni`). None: it is looked up in
    /// the request.
    pub sni: Option<Name>,
    /// For whom it is sent, as far as its connection has to tell that.
    pub behalf: Behalf,
    /// The head of the request may be wanted again, whatever becomes of it: it is left, or a copy
    /// of it, where the request was. Its body is gone in any case.
    pub again: bool,
}

/// In the extensions of a request: where the connection that it is sent on is told, for those who
/// write about it whatever becomes of it.
#[derive(Clone, Debug, Default)]
pub struct SentOn(Arc<Mutex<Option<Arc<Connection>>>>);

impl SentOn {
    /// The last connection that it was sent on.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, connection: &Arc<Connection>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(connection));
    }
}

/// A request that has no answer.
#[derive(Debug)]
pub struct SendError {
    /// Why, and whether it may have been processed.
    pub refusal: Refusal,
    /// Not a byte of the request was sent: it can be sent again as it is.
    pub unsent: bool,
}

/// A pooled connection that was closed while it was idle may bounce a request before a byte of it
/// is sent. So many in a row are taken for bad luck.
const BOUNCES: usize = 8;

/// Sends `request` to `job`'s endpoint. `again`: its head stays.
///
/// # Errors
/// No connection, or no answer on it.
pub(super) async fn send(
    job: Job,
    request: &mut Request<RequestBody>,
    again: bool,
) -> Result<Response<ResponseBody>, SendError> {
    let stats = &job.connector.stats;
    let active = ActiveRequest::new(&job.endpoint, stats);
    let counters = job.endpoint.counters();
    let balancer = &job.connector.config.balancer;
    let sent = if balancer.learns() { clock::now() } else { Duration::ZERO };
    let mut bounces = 0;
    loop {
        let mut lease = match pool::acquire(&job).await {
            Ok(lease) => lease,
            Err(refusal) => return Err(SendError { refusal, unsent: true }),
        };
        if bounces == 0 {
            stats.upstream_rq_total.inc();
            counters.rq_total.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(told) = request.extensions().get::<SentOn>() {
            told.set(lease.connection());
        }
        let failure = match on(&job, &mut lease, request, again).await {
            Ok((response, present)) => {
                learn::answered(balancer, &job.endpoint, response.headers(), sent);
                return Ok(answered((response, present), lease, active));
            }
            Err(failure) => failure,
        };
        if failure.unsent && failure.reused && bounces < BOUNCES {
            bounces += 1;
            drop(lease);
            // Where one was closed, others were.
            job.sweep();
            continue;
        }
        let refusal = refusal(&job, &failure);
        if refusal.reason == Reason::UpstreamProtocolError {
            stats.upstream_cx_protocol_error.inc();
        }
        stats.upstream_rq_rx_reset.inc();
        return Err(SendError { refusal, unsent: failure.unsent });
    }
}

/// Sends `request` on this connection.
async fn on(
    job: &Job,
    lease: &mut Lease,
    request: &mut Request<RequestBody>,
    again: bool,
) -> Result<(Response<Content>, Presence), SendFailure> {
    if !lease.is_http2() {
        to_http1(request);
    }
    let tls = job.connector.config.tls_of(job.endpoint.socket()).is_some();
    lease.send(request, TakeHead { again, tls }).await
}

fn is_ip(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}

fn answered(
    (response, present): (Response<Content>, Presence),
    lease: Lease,
    active: ActiveRequest,
) -> Response<ResponseBody> {
    if present.has(Presence::KEEP_ALIVE)
        && !lease.is_http2()
        && let Some(promised) = keep_alive(response.headers())
    {
        lease.connection().learn_keep_alive(promised);
    }
    let stays = upgraded::offered(response.extensions());
    response.map(|content| ResponseBody::new((content, present), lease, active, stays))
}

/// `keep-alive: timeout=5`
fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(names::KEEP_ALIVE)?.to_str().ok()?;
    value.split(',').find_map(|parameter| {
        let (name, seconds) = parameter.split_once('=')?;
        let timeout = name.trim().eq_ignore_ascii_case("timeout");
        timeout.then(|| seconds.trim().parse().ok().map(Duration::from_secs))?
    })
}

/// Puts the request into the form that HTTP/1.1 wants. Its authority is written as `host` wherever it is.
fn to_http1(request: &mut Request<RequestBody>) {
    let tunnel =
        request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none();
    *request.version_mut() = Version::HTTP_11;
    if tunnel {
        return;
    }
    upgrade::to_upgrade(request);
    // HTTP/2 may split cookies; HTTP/1.1 may not (RFC 9113 section 8.2.3).
    let headers = request.headers();
    let repeats = headers.len() > headers.keys_len();
    if repeats && headers.get_all(COOKIE).iter().nth(1).is_some() {
        let crumbs: Vec<&[u8]> =
            headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            request.headers_mut().insert(COOKIE, cookie);
        }
    }
    // Servers may wait for content that these methods usually have (RFC 9110 section 8.6).
    let bodiless = [Method::GET, Method::HEAD, Method::DELETE, Method::TRACE];
    if matches!(request.body(), RequestBody::Empty) && !bodiless.contains(request.method()) {
        request.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
    }
}

/// What a failure means for the client, and whether the endpoint may have seen the request.
fn refusal(job: &Job, failure: &SendFailure) -> Refusal {
    let (reason, sent) = judge(failure);
    let (to, cluster) = (&job.endpoint.address, &job.connector.config.name);
    let detail = match (&failure.alert, &failure.cause) {
        (Some(alert), _) => format!("{to} of cluster {cluster} did not answer: {alert}"),
        (None, Cause::Http1(Http1Error::Ambiguous)) => {
            format!("the answer of {to} of cluster {cluster} has no certain length")
        }
        (None, Cause::Http1(error)) => {
            format!("{to} of cluster {cluster} did not answer: {error}")
        }
        (None, Cause::Http2(error)) => {
            format!("{to} of cluster {cluster} did not answer: {error}")
        }
    };
    let mut refusal = Refusal::upstream(reason, sent, detail);
    if reason == Reason::UpstreamProtocolError {
        refusal.status = StatusCode::BAD_GATEWAY;
    }
    if reason == Reason::DownstreamProtocolError {
        refusal.status = StatusCode::BAD_REQUEST;
        refusal.side = Side::Downstream;
    }
    refusal
}

fn judge(failure: &SendFailure) -> (Reason, Sent) {
    // With TLS 1.3 a server refuses our certificate after we think that the handshake is done.
    if failure.alert.is_some() {
        return (Reason::TlsFailure, Sent::No);
    }
    if failure.unsent {
        return (Reason::ConnectionTermination, Sent::No);
    }
    match &failure.cause {
        Cause::Http1(error) => judge_http1(error, failure),
        Cause::Http2(error) => judge_http2(error, failure),
    }
}

fn judge_http1(error: &Http1Error, failure: &SendFailure) -> (Reason, Sent) {
    match error {
        Http1Error::Closed | Http1Error::Ended | Http1Error::Io(_) => {
            (Reason::ConnectionTermination, cut_off(failure))
        }
        Http1Error::Malformed(_) | Http1Error::Ambiguous => {
            (Reason::UpstreamProtocolError, Sent::Maybe)
        }
        Http1Error::Request(error) => (broken_request(error.as_ref()), Sent::Maybe),
    }
}

/// Our own request body broke off, or is not what it should be.
fn broken_request(error: &(dyn StdError + 'static)) -> Reason {
    match source::<std::io::Error>(error) {
        Some(error) if is_malformed(error) => Reason::DownstreamProtocolError,
        _ => Reason::DownstreamTermination,
    }
}

fn judge_http2(error: &Http2Error, failure: &SendFailure) -> (Reason, Sent) {
    match error {
        Http2Error::Closed(_) => (Reason::ConnectionTermination, Sent::No),
        Http2Error::Io(_) => (Reason::ConnectionTermination, cut_off(failure)),
        // Nobody knows what arrived before.
        Http2Error::TimedOut => (Reason::ConnectionTermination, Sent::Maybe),
        Http2Error::Request(error) => (broken_request(error.as_ref()), Sent::Maybe),
        Http2Error::Protocol(error) => judge_frame(error),
    }
}

fn judge_frame(error: &h2::Error) -> (Reason, Sent) {
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    // h2 ends a stream with GOAWAY only if the endpoint said that it did not look at it.
    if error.is_remote() && (refused || error.is_go_away()) {
        return (Reason::RefusedStream, Sent::No);
    }
    if error.is_remote() && error.is_reset() {
        return (Reason::RemoteReset, Sent::Maybe);
    }
    (Reason::UpstreamProtocolError, Sent::Maybe)
}

/// The request's own body is not what its head promised.
fn is_malformed(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData)
}

/// The connection ended under the request.
fn cut_off(failure: &SendFailure) -> Sent {
    if failure.reused && failure.silent { Sent::OnReusedConnection } else { Sent::Maybe }
}

/// The error of this kind among the causes.
fn source<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

impl super::Cluster {
    /// Sends a request to an endpoint, on a pooled connection or a new one, and waits for the head
    /// of the answer. Dropping the future cancels the request.
    ///
    /// The request's authority may be in its URI or in `Host`; it is put where the connection's
    /// HTTP wants it. Extensions pass untouched, so header case survives from HTTP/1 to HTTP/1.
    /// The request stays with the caller, though not its body; over HTTP/2 its head does not
    /// either, unless [`SendOptions::again`] says so, or [`SendError::unsent`].
    ///
    /// # Errors
    /// No connection (circuit breaker, refused, timeout, TLS), or a connection or stream that
    /// ended without an answer. [`Refusal::sent`] says what the endpoint may have seen.
    pub fn send(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        request: &mut Request<RequestBody>,
        mut options: SendOptions,
    ) -> impl Future<Output = Result<Response<ResponseBody>, SendError>> {
        // Not in the future: a request that is looked at there is kept twice.
        if let Some(tls) = self.config.tls_of(endpoint.socket()).filter(|tls| tls.by_request) {
            let host = options.sni.take().or_else(|| self.host_of(request));
            // An IP address is no server name, but certificates may be asked for it.
            options.sni = host.filter(|host| tls.auto_sni_san_validation || !is_ip(host));
        }
        async move {
            let again = options.again;
            let sent = send(self.job(endpoint, options), request, again).await;
            if let Ok(response) = &sent
                && response.body().present().has(Presence::IMMEDIATE_FAIL)
                && response.headers().contains_key(IMMEDIATE_FAIL)
            {
                self.fail_at_once(endpoint);
            }
            sent
        }
    }

    /// The host that the request is for, as `auto_sni` has it.
    fn host_of<B>(&self, request: &Request<B>) -> Option<Name> {
        let named = self.config.sni_header.as_ref().and_then(|name| request.headers().get(name));
        let authority = match named.and_then(|value| value.to_str().ok()) {
            Some(named) if !named.is_empty() => named,
            _ => target::authority(request.uri(), request.headers()),
        };
        let parsed: Authority = authority.parse().ok()?;
        Some(Name::from(parsed.host().trim_start_matches('[').trim_end_matches(']')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promised_keep_alive_is_read() {
        let headers = |value: &'static str| {
            [("keep-alive".parse().unwrap(), HeaderValue::from_static(value))].into_iter().collect()
        };
        assert_eq!(keep_alive(&headers("timeout=5")), Some(Duration::from_secs(5)));
        assert_eq!(keep_alive(&headers("max=100, Timeout = 7")), Some(Duration::from_secs(7)));
        assert_eq!(keep_alive(&headers("timeout=soon")), None);
        assert_eq!(keep_alive(&HeaderMap::new()), None);
    }

    #[test]
    fn http1_gets_one_cookie() {
        let mut request = Request::get("http://shop.local:8080/cart?x=1")
            .version(Version::HTTP_2)
            .header(COOKIE, "a=1")
            .header(COOKIE, "b=2")
            .body(RequestBody::Empty)
            .unwrap();
        to_http1(&mut request);
        assert_eq!(request.headers()[COOKIE], "a=1; b=2");
        assert_eq!(request.version(), Version::HTTP_11);
    }
}
