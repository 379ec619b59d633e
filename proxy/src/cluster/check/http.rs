//! A check by HTTP request.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use super::state::{Failure, Finding, contains};
use super::{AGENT, Kept, Probe, wire};
use crate::cluster::endpoint::Flags;
use crate::model::health_check::HttpCheck;

/// Put into an answer by an endpoint that wants no traffic from this moment on.
pub(crate) const IMMEDIATE_FAIL: HeaderName =
    HeaderName::from_static("x-envoy-immediate-health-check-fail");
const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");
const SERVICE: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");

/// One check.
pub(super) async fn check(
    probe: &Probe,
    config: &HttpCheck,
    kept: Option<Kept>,
) -> (Finding, Option<Kept>) {
    let failed = (Finding::Failed(Failure::Network), None);
    let Ok(request) = request(probe, config) else { return failed };
    let Ok((response, kept)) = wire::send(probe, config.http2, request, kept).await else {
        return failed;
    };
    let last = says_close(response.headers());
    let (head, body) = response.into_parts();
    let Ok(body) = read(body, config).await else { return failed };
    let finding = judge(probe, config, (head.status, &head.headers), &body);
    (finding, kept.filter(|_| !last))
}

fn request(probe: &Probe, config: &HttpCheck) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = Request::builder()
        .method(config.method.clone())
        .uri(config.path.as_str())
        .header(HOST, probe.host(&config.host))
        .header(USER_AGENT, AGENT)
        .body(Full::new(Bytes::copy_from_slice(&config.send)))?;
    // Servers may wait for content that these methods usually have (RFC 9110 section 8.6).
    let bodiless = [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE, Method::TRACE];
    if !bodiless.contains(&config.method) {
        request.headers_mut().insert(CONTENT_LENGTH, config.send.len().into());
    }
    super::change(&config.headers, request.headers_mut());
    Ok(request)
}

fn says_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(http::header::CONNECTION).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("close"))
}

/// The beginning of the body; the rest is read and forgotten.
async fn read(mut body: Incoming, config: &HttpCheck) -> Result<Vec<u8>, hyper::Error> {
    let limit = if config.buffer == 0 { usize::MAX } else { config.buffer };
    let mut seen = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data()
            && !config.receive.is_empty()
        {
            let room = limit - seen.len();
            seen.extend_from_slice(data.get(..room).unwrap_or(&data));
        }
    }
    Ok(seen)
}

fn judge(
    probe: &Probe,
    config: &HttpCheck,
    (status, headers): (StatusCode, &HeaderMap),
    body: &[u8],
) -> Finding {
    let leave_alone = || {
        if headers.contains_key(IMMEDIATE_FAIL) {
            probe.endpoint.host.flags.set(Flags::EXCLUDED);
        }
    };
    if !contains(&config.receive, body) {
        leave_alone();
        return Finding::Failed(Failure::Active);
    }
    let within = |ranges: &[(u16, u16)]| {
        ranges.iter().any(|(start, end)| (*start..*end).contains(&status.as_u16()))
    };
    if !within(&config.expected) {
        leave_alone();
        let retriable = within(&config.retriable);
        return Finding::Failed(if retriable { Failure::Retriable } else { Failure::Active });
    }
    if let Some(service) = &config.service {
        probe.stats.verify_cluster.inc();
        let said = headers.get(SERVICE).and_then(|value: &HeaderValue| value.to_str().ok());
        if !service.matches(said.unwrap_or("")) {
            return Finding::Failed(Failure::Active);
        }
    }
    if headers.contains_key(DEGRADED) { Finding::Degraded } else { Finding::Healthy }
}

pub(super) type Answer = Response<Incoming>;
