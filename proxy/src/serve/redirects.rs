//! Redirects that the proxy follows by itself (`internal_redirect_policy`): the request is routed
//! again, through all filters, to where the endpoint's answer points.

use http::request::Parts;
use http::uri::{Scheme, Uri};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::exchange::Exchange;
use super::filter::Routed;
use super::read;
use crate::cluster::ResponseBody;
use crate::http::body::RequestBody;
use crate::http::replay::Replay;
use crate::http::target;
use crate::model::Name;
use crate::model::route::{InternalRedirect, Route, RouteTable};

const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// What was followed so far.
#[derive(Debug, Default)]
pub(super) struct Followed {
    count: u32,
    /// From this route to that one.
    hops: Vec<(Name, Name)>,
}

/// A request as it was before it was sent.
pub(super) struct Kept {
    head: Parts,
    body: Option<Replay>,
}

/// Keep what is needed to send the request elsewhere. Its body is kept up to `limit` bytes.
pub(super) fn keep(request: &mut Request<RequestBody>, limit: usize) -> Kept {
    let head = read::head_of(request);
    let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
    if matches!(body, RequestBody::Empty) {
        return Kept { head, body: None };
    }
    let replay = Replay::new(body, limit);
    *request.body_mut() = replay.reader();
    Kept { head, body: Some(replay) }
}

/// Why a redirect is passed on instead of followed.
enum Why {
    /// There is no `location`.
    NotSaid,
    BadLocation,
    UnsafeScheme,
    TooMany,
    NoRoute,
    Predicate,
    /// The body is not there any more.
    Body,
}

/// The request that the answer asks for, if the policy allows to follow it.
pub(super) fn follow(
    exchange: &Exchange,
    (table, route): (&RouteTable, &Route),
    policy: &InternalRedirect,
    (kept, followed): (Kept, &mut Followed),
    response: &Response<ResponseBody>,
) -> Option<Request<RequestBody>> {
    if !policy.codes.contains(&response.status().as_u16()) {
        return None;
    }
    let next = next(exchange, (table, route), policy, (kept, followed), response);
    let stats = &exchange.connection.http.stats;
    let cluster = exchange.facts.cluster.as_ref();
    match next {
        Ok(request) => {
            if let Some(cluster) = cluster {
                cluster.stats.upstream_internal_redirect_succeeded_total.inc();
            }
            return Some(request);
        }
        Err(Why::BadLocation) => stats.passthrough_internal_redirect_bad_location.inc(),
        Err(Why::UnsafeScheme) => stats.passthrough_internal_redirect_unsafe_scheme.inc(),
        Err(Why::TooMany) => stats.passthrough_internal_redirect_too_many_redirects.inc(),
        Err(Why::NoRoute) => stats.passthrough_internal_redirect_no_route.inc(),
        Err(Why::Predicate) => stats.passthrough_internal_redirect_predicate.inc(),
        Err(Why::NotSaid | Why::Body) => {}
    }
    if let Some(cluster) = cluster {
        cluster.stats.upstream_internal_redirect_failed_total.inc();
    }
    None
}

fn next(
    exchange: &Exchange,
    (table, route): (&RouteTable, &Route),
    policy: &InternalRedirect,
    (kept, followed): (Kept, &mut Followed),
    response: &Response<ResponseBody>,
) -> Result<Request<RequestBody>, Why> {
    let location = response.headers().get(http::header::LOCATION).ok_or(Why::NotSaid)?;
    let location: Uri = location.as_bytes().try_into().map_err(|_| Why::BadLocation)?;
    let https = match location.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        Some(_) => return Err(Why::UnsafeScheme),
        None => return Err(Why::BadLocation),
    };
    let mut request = rebuild(kept, response.status())?;
    let was_https = read::view(&request).scheme() == "https";
    if https != was_https && !policy.cross_scheme {
        return Err(Why::UnsafeScheme);
    }
    if followed.count >= policy.max {
        return Err(Why::TooMany);
    }
    redirect(&mut request, &location, was_https).ok_or(Why::BadLocation)?;
    for name in &policy.copy {
        request.headers_mut().remove(name);
        for value in response.headers().get_all(name) {
            request.headers_mut().append(name, value.clone());
        }
    }
    let chosen = Routed::choose(table, &read::view(&request), exchange.given());
    let to = chosen.matched.and_then(|matched| matched.route).ok_or(Why::NoRoute)?;
    let hop = (route.name.clone(), to.name.clone());
    let repeated = policy.previous_routes && followed.hops.contains(&hop);
    let listed = policy.allow_listed.as_ref().is_none_or(|names| names.contains(&to.name));
    let scheme = !policy.safe_cross_scheme || was_https || !https;
    if repeated || !listed || !scheme {
        return Err(Why::Predicate);
    }
    followed.count += 1;
    followed.hops.push(hop);
    Ok(request)
}

/// The request once more; `303 See Other` makes a GET of it.
fn rebuild(kept: Kept, status: StatusCode) -> Result<Request<RequestBody>, Why> {
    let mut request = Request::from_parts(kept.head, RequestBody::Empty);
    let bodiless = matches!(*request.method(), Method::GET | Method::HEAD);
    if status == StatusCode::SEE_OTHER && !bodiless {
        *request.method_mut() = Method::GET;
        request.headers_mut().remove(http::header::CONTENT_LENGTH);
        request.headers_mut().remove(http::header::CONTENT_TYPE);
        return Ok(request);
    }
    if let Some(replay) = kept.body {
        // Only once all of it is here: what is still coming may never come.
        replay.complete().ok_or(Why::Body)?;
        *request.body_mut() = replay.reader();
    }
    Ok(request)
}

/// What the client knows of the connection (`x-forwarded-proto`) stays.
fn redirect<B>(request: &mut Request<B>, location: &Uri, was_https: bool) -> Option<()> {
    let original = format!(
        "{}://{}{}",
        if was_https { "https" } else { "http" },
        target::authority(request.uri(), request.headers()),
        target::path(request.uri())
    );
    request.headers_mut().insert(ORIGINAL_URL, HeaderValue::from_str(&original).ok()?);
    let host = HeaderValue::from_str(location.authority()?.as_str()).ok()?;
    target::set_authority(request, &host);
    let path = match target::path(location) {
        "" => "/",
        path => path,
    };
    target::set_path(request, path).then_some(())
}
