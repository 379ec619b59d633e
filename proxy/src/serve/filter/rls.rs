//! The conversation with a rate limit service (`envoy.service.ratelimit.v3.RateLimitService`).

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use crate::cluster::Clusters;
use crate::cluster::grpc::Channel;
use crate::model::Name;
use crate::model::global_rate_limit::GlobalRateLimit;

const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What a request is described by.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Descriptor {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Entry>,
    #[prost(message, optional, tag = "3")]
    hits: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(message, repeated, tag = "2")]
    descriptors: Vec<Descriptor>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(message, repeated, tag = "2")]
    statuses: Vec<Status>,
    #[prost(message, repeated, tag = "3")]
    response_headers: Vec<Header>,
    #[prost(message, repeated, tag = "4")]
    request_headers: Vec<Header>,
    #[prost(bytes = "bytes", tag = "5")]
    body: Bytes,
}

/// The decision for one descriptor.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Status {
    #[prost(message, optional, tag = "2")]
    limit: Option<Limit>,
    #[prost(uint32, tag = "3")]
    remaining: u32,
    #[prost(message, optional, tag = "4")]
    until_reset: Option<prost_types::Duration>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Limit {
    #[prost(uint32, tag = "1")]
    requests: u32,
    #[prost(int32, tag = "2")]
    unit: i32,
    #[prost(string, tag = "3")]
    name: String,
}

/// A header of the service's answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Header {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
    #[prost(bytes = "bytes", tag = "3")]
    raw: Bytes,
}

/// May the request pass?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Ok,
    OverLimit,
}

/// What the service decided.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) code: Code,
    pub(super) statuses: Vec<Status>,
    pub(super) response_headers: Vec<Header>,
    pub(super) request_headers: Vec<Header>,
    pub(super) body: Bytes,
}

impl Descriptor {
    pub(super) fn new(entries: Vec<(Name, String)>, hits: Option<u64>) -> Self {
        let entry = |(key, value): (Name, String)| Entry { key: key.to_string(), value };
        Self { entries: entries.into_iter().map(entry).collect(), hits }
    }
}

/// Ask, within the configured time.
///
/// # Errors
/// There is no answer, in words.
pub(super) async fn ask(
    clusters: &Arc<Clusters>,
    config: &GlobalRateLimit,
    domain: &str,
    descriptors: Vec<Descriptor>,
) -> Result<Decision, String> {
    let question = Question { domain: domain.to_owned(), descriptors };
    let (channel, mut request) = Channel::to(Arc::clone(clusters), &config.service, question);
    request.set_timeout(config.timeout);
    let mut client = Grpc::new(channel);
    let path = PathAndQuery::from_static(METHOD);
    let call = client.unary(request, path, ProstCodec::<Question, Response>::default());
    let answer = match tokio::time::timeout(config.timeout, call).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(status.message().to_owned()),
        Err(_) => return Err(format!("no answer in {:?}", config.timeout)),
    };
    Ok(Decision {
        code: if answer.code == 2 { Code::OverLimit } else { Code::Ok },
        statuses: answer.statuses,
        response_headers: answer.response_headers,
        request_headers: answer.request_headers,
        body: answer.body,
    })
}

/// The headers that are valid.
pub(super) fn headers(list: &[Header]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for header in list {
        let value = if header.raw.is_empty() { header.value.as_bytes() } else { &header.raw };
        if let (Ok(name), Ok(value)) =
            (header.key.parse::<HeaderName>(), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

/// `x-ratelimit-*` of draft 03: the limit with the fewest requests left, then all of them with their
/// windows.
pub(super) fn tell(statuses: &[Status], map: &mut HeaderMap) {
    use std::fmt::Write as _;
    let limited = statuses.iter().filter_map(|status| Some((status, status.limit.as_ref()?)));
    let Some((tightest, limit)) = limited.clone().min_by_key(|(status, _)| status.remaining) else {
        return;
    };
    let mut text = limit.requests.to_string();
    for (_, limit) in limited {
        let window = window(limit.unit);
        if window > 0 {
            let _ = write!(text, ", {};w={window}", limit.requests);
            if !limit.name.is_empty() {
                let _ = write!(text, ";name=\"{}\"", limit.name);
            }
        }
    }
    if let Ok(value) = HeaderValue::from_str(&text) {
        map.append(LIMIT, value);
    }
    map.append(REMAINING, HeaderValue::from(tightest.remaining));
    let reset = tightest.until_reset.as_ref().map_or(0, |reset| reset.seconds);
    map.append(RESET, HeaderValue::from(reset));
}

/// Seconds.
fn window(unit: i32) -> u32 {
    const DAY: u32 = 24 * 3600;
    match unit {
        1 => 1,
        2 => 60,
        3 => 3600,
        4 => DAY,
        5 => 30 * DAY,
        6 => 365 * DAY,
        7 => 7 * DAY,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_is_told_first_and_then_all() {
        let status = |requests, unit, remaining, name: &str| Status {
            limit: Some(Limit { requests, unit, name: name.to_owned() }),
            remaining,
            until_reset: Some(prost_types::Duration { seconds: 7, nanos: 0 }),
        };
        let mut map = HeaderMap::new();
        tell(&[status(10, 1, 4, "per-ip"), status(1000, 3, 900, "")], &mut map);
        assert_eq!(map[LIMIT], "10, 10;w=1;name=\"per-ip\", 1000;w=3600");
        assert_eq!((&map[REMAINING], &map[RESET]), (&"4".parse().unwrap(), &"7".parse().unwrap()));
        let mut none = HeaderMap::new();
        tell(&[Status::default()], &mut none);
        assert!(none.is_empty());
    }
}
