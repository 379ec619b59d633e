//! Step three, read: what a request must look like before it is routed, and what it gains and
//! loses on entry.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{EXPECT, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};

use super::connection::Connection;
use super::exchange::Exchange;
use super::filter;
use super::reply::{self, Answer};
use super::stats::HttpStats;
use super::upgrade;
use crate::http::body::RequestBody;
use crate::http::guard::Verdict;
use crate::http::path::{Normalized, normalize};
use crate::http::presence::Presence;
use crate::http::request_id;
use crate::http::{forwarded, hop, target};
use crate::model::http::{HttpManager, StripPort, Underscores};
use crate::model::matcher::RequestView;
use crate::model::names;
use crate::telemetry::reason::{Reason, Refusal};
use crate::telemetry::stats::Counter;
use crate::telemetry::trace::TraceReason;

/// The parts of a request that matchers see.
pub(super) fn view<B>(request: &Request<B>) -> RequestView<'_> {
    RequestView {
        method: request.method().as_str(),
        path: target::path(request.uri()),
        authority: request.uri().authority().map(Authority::as_str),
        scheme: None,
        headers: request.headers(),
    }
}

/// A copy of a request's head, with all that came with it.
pub(super) fn head_of<B>(request: &Request<B>) -> Parts {
    let mut head = Request::new(()).into_parts().0;
    head.method.clone_from(request.method());
    head.uri.clone_from(request.uri());
    head.version = request.version();
    head.headers.clone_from(request.headers());
    head.extensions.clone_from(request.extensions());
    head
}

/// Check a request against the connection manager's limits and bring it into the form in which it
/// is routed and forwarded. An answer: it needs not be.
///
/// # Errors
/// The request breaks HTTP or a limit; the refusal says which.
pub(super) fn accept(
    exchange: &mut Exchange,
    request: &mut Request<RequestBody>,
) -> Result<Option<Box<Answer>>, Refusal> {
    let connection = Arc::clone(&exchange.connection);
    let manager = &*connection.http.manager;
    let present = exchange.present;
    exchange.upgrade = upgrade::take(request, present);
    let http = &connection.http;
    if http.logger.is_enabled()
        || http.manager.local_replies.is_some()
        || filter::wants_head(&http.filters)
    {
        exchange.head = Some(Box::new(head_of(request)));
    }
    http.overload
        .request()
        .inspect_err(|_| http.stats.overload.downstream_rq_overload_close.inc())?;
    check_limits(request.headers(), manager)?;
    if manager.limits.underscores != Underscores::Allow {
        let http2 = connection.is_http2();
        let counters = &connection.http.stats.underscores[usize::from(http2)];
        handle_underscores(request.headers_mut(), manager.limits.underscores, counters)?;
    }
    default_host(request, manager);
    check_authority(request)?;
    if let Some(answer) = clean_path(request, &connection)? {
        return Ok(Some(Box::new(answer)));
    }
    if manager.strip_trailing_host_dot {
        strip_dot(request);
    }
    strip_port(request, manager.strip_port, connection.local_port());
    hop::strip_present(request.headers_mut(), present);
    if let Some(upgrade) = &exchange.upgrade {
        upgrade.restore(request);
    }
    let headers = request.headers_mut();
    // Answered here: whoever reads the connection sends `100 Continue` when the body is first read.
    if present.has(Presence::EXPECT)
        && headers.get(EXPECT).is_some_and(|value| value == "100-continue")
    {
        headers.remove(EXPECT);
    }
    exchange.facts.client = forwarded::apply(headers, present, manager, &connection.hop());
    exchange.facts.internal = manager.inside.is_some()
        && headers.get(names::X_ENVOY_INTERNAL).is_some_and(|value| value.as_bytes() == b"true");
    set_request_id(manager, present, headers);
    if let Some(via) = &manager.via {
        request.headers_mut().append(http::header::VIA, via.clone());
    }
    Ok(None)
}

/// Bring the path into its normal form, or send the client there.
fn clean_path(
    request: &mut Request<RequestBody>,
    connection: &Connection,
) -> Result<Option<Answer>, Refusal> {
    let http = &connection.http;
    let clean = match normalize(target::path(request.uri()), http.manager.path) {
        Normalized::Path(Cow::Borrowed(_)) => return Ok(None),
        Normalized::Path(Cow::Owned(path)) => path,
        Normalized::Redirect(path) => {
            http.stats.downstream_rq_redirected_with_normalized_path.inc();
            return Ok(Some(reply::normalized(&path)));
        }
        Normalized::Reject => {
            http.stats.downstream_rq_failed_path_normalization.inc();
            return Err(bad_request("the path cannot be normalised safely"));
        }
    };
    if !target::set_path(request, &clean) {
        return Err(bad_request("the normalised path is not a valid request target"));
    }
    Ok(None)
}

/// What the guard found wrong with the head, counted.
pub(super) fn refused(verdict: &Verdict, stats: &HttpStats) -> Refusal {
    let reason = match verdict.status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Reason::HeadersTooLarge,
        StatusCode::REQUEST_TIMEOUT => Reason::RequestHeadersTimeout,
        _ => Reason::DownstreamProtocolError,
    };
    if reason == Reason::RequestHeadersTimeout {
        stats.downstream_rq_header_timeout.inc();
    } else {
        stats.downstream_cx_protocol_error.inc();
    }
    Refusal::downstream(reason, verdict.status, verdict.why)
}

/// HTTP/1.0 needs no host; some do, behind us.
fn default_host(request: &mut Request<RequestBody>, manager: &HttpManager) {
    if request.version() == Version::HTTP_10
        && let Some(host) = &manager.default_host_for_http_10
    {
        request.headers_mut().entry(HOST).or_insert_with(|| host.clone());
    }
}

fn check_limits(headers: &HeaderMap, manager: &HttpManager) -> Result<(), Refusal> {
    let lines = headers.len();
    let limit = manager.limits.max_headers_count as usize;
    if lines > limit {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let detail = format!("{lines} header lines, max_headers_count is {limit}");
        return Err(Refusal::downstream(Reason::HeadersTooLarge, status, detail));
    }
    Ok(())
}

fn handle_underscores(
    headers: &mut HeaderMap,
    action: Underscores,
    [dropped, rejected]: &[Counter; 2],
) -> Result<(), Refusal> {
    let named: Vec<_> = headers.keys().filter(|n| n.as_str().contains('_')).cloned().collect();
    match (action, named.first()) {
        (Underscores::RejectRequest, Some(name)) => {
            rejected.inc();
            Err(bad_request(format!("header name `{name}` has an underscore")))
        }
        _ => {
            for name in named {
                dropped.inc();
                headers.remove(name);
            }
            Ok(())
        }
    }
}

/// HTTP/1.1 wants exactly one `host` (RFC 9112 section 3.2).
fn check_authority(request: &Request<RequestBody>) -> Result<(), Refusal> {
    let headers = request.headers();
    let repeats = headers.len() > headers.keys_len();
    let hosts = match repeats {
        true => headers.get_all(HOST).iter().count(),
        false => usize::from(headers.contains_key(HOST)),
    };
    let known = hosts == 1 || request.uri().authority().is_some();
    if hosts > 1 {
        return Err(bad_request("more than one `host` header"));
    }
    if !known && request.version() != Version::HTTP_10 {
        return Err(bad_request("no `host` header and no authority in the request target"));
    }
    if request.method() != Method::CONNECT && request.uri().path_and_query().is_none() {
        return Err(bad_request("no path in the request target"));
    }
    Ok(())
}

/// `shop.example.:80` is `shop.example:80`.
fn strip_dot(request: &mut Request<RequestBody>) {
    let authority = target::authority(request.uri(), request.headers());
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    };
    let Some(host) = host.strip_suffix('.') else { return };
    let authority = match port {
        Some(port) => HeaderValue::from_str(&format!("{host}:{port}")),
        None => HeaderValue::from_str(host),
    };
    if let Ok(authority) = authority {
        target::set_authority(request, &authority);
    }
}

fn strip_port(request: &mut Request<RequestBody>, strip: StripPort, local: Option<u16>) {
    if strip == StripPort::None {
        return;
    }
    let authority = target::authority(request.uri(), request.headers());
    let Some((host, port)) = authority.rsplit_once(':') else { return };
    let Ok(port) = port.parse::<u16>() else { return };
    if (strip == StripPort::Any || Some(port) == local)
        && let Ok(host) = HeaderValue::from_str(host)
    {
        target::set_authority(request, &host);
    }
}

/// Keep the id of a request that may bring one; make one for any other.
fn set_request_id(manager: &HttpManager, present: Presence, headers: &mut HeaderMap) {
    let external = || manager.use_remote_address && !headers.contains_key(names::X_ENVOY_INTERNAL);
    // `connection` may have named it, and taken it away.
    let brought = present.has(Presence::REQUEST_ID)
        && (!present.has(Presence::CONNECTION) || headers.contains_key(names::X_REQUEST_ID));
    if manager.generate_request_id
        && (!brought || (!manager.preserve_external_request_id && external()))
    {
        headers
            .insert(names::X_REQUEST_ID, request_id::generate(fastrand::u128(..), TraceReason::No));
    }
}

fn bad_request(detail: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::downstream(Reason::DownstreamProtocolError, StatusCode::BAD_REQUEST, detail)
}
