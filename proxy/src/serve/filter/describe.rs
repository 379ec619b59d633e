//! Descriptors of requests, for rate limits (Envoy: route rate limit actions).

use std::net::IpAddr;
use std::sync::Arc;

use http::Request;
use ipnet::IpNet;

use super::super::exchange::Exchange;
use super::super::read;
use super::Routed;
use crate::http::body::RequestBody;
use crate::http::target;
use crate::model::Name;
use crate::model::matcher::HeaderKey;
use crate::model::rate_limit::{DescribeBy, HostLimits, Rule};
use crate::model::route::Action;
use crate::route::query_fits;

/// The rules that hold for a request: the filter's own, else those of the route and of its virtual
/// host.
pub(super) fn rules<'a>(
    own: &'a [Rule],
    host: HostLimits,
    stage: u32,
    routed: Routed<'a>,
) -> Vec<&'a Rule> {
    if !own.is_empty() {
        return own.iter().collect();
    }
    let Some(matched) = routed.matched else { return Vec::new() };
    let (of_route, include) = match matched.route.map(|route| &route.action) {
        Some(Action::Forward(forward)) => {
            (&forward.rate_limits[..], forward.include_host_rate_limits)
        }
        _ => return Vec::new(),
    };
    let host_too = match host {
        _ if include => true,
        HostLimits::Include => true,
        HostLimits::Ignore => false,
        HostLimits::Override => of_route.is_empty(),
    };
    let of_host = if host_too { &matched.host.rate_limits[..] } else { &[] };
    of_route.iter().chain(of_host).filter(|rule| rule.stage == stage).collect()
}

/// The entries that the actions make. None: one of them has nothing to say.
pub(super) fn entries(
    exchange: &Exchange,
    actions: &[DescribeBy],
    routed: Routed<'_>,
    request: &Request<RequestBody>,
) -> Option<Vec<(Name, String)>> {
    let mut entries = Vec::with_capacity(actions.len());
    for action in actions {
        match entry(exchange, action, routed, request)? {
            Entry::Is(key, value) => entries.push((key, value)),
            Entry::Skipped => {}
        }
    }
    Some(entries)
}

enum Entry {
    Is(Name, String),
    /// What is absent may be left out.
    Skipped,
}

fn entry(
    exchange: &Exchange,
    action: &DescribeBy,
    routed: Routed<'_>,
    request: &Request<RequestBody>,
) -> Option<Entry> {
    let client = || exchange.facts.client.or_else(|| exchange.connection.remote_ip());
    let found = |key: &Name, skip: bool, value: Option<String>| match value {
        Some(value) => Some(Entry::Is(Arc::clone(key), value)),
        None => skip.then_some(Entry::Skipped),
    };
    let fixed = |key: &str, value: String| Some(Entry::Is(key.into(), value));
    let when = |fits: bool, key: &Name, value: &Name| {
        fits.then(|| Entry::Is(Arc::clone(key), value.to_string()))
    };
    let path = target::path(request.uri());
    match action {
        DescribeBy::Generic(key, value) => when(true, key, value),
        DescribeBy::Header(name, key, skip) => {
            let view = read::view(request);
            let text = match name {
                HeaderKey::Name(name) => {
                    let value = view.headers.get(name).map(http::HeaderValue::as_bytes);
                    value.map(|value| String::from_utf8_lossy(value).into_owned())
                }
                HeaderKey::Method => Some(view.method.to_owned()),
                HeaderKey::Path => Some(view.path.to_owned()),
                HeaderKey::Authority => Some(view.authority().to_owned()),
                HeaderKey::Scheme => Some(view.scheme().to_owned()),
            };
            found(key, *skip, text)
        }
        DescribeBy::Query(name, key, skip) => {
            found(key, *skip, query(path, name).map(str::to_owned))
        }
        DescribeBy::RemoteAddress => fixed("remote_address", client()?.to_string()),
        DescribeBy::MaskedAddress(v4, v6) => {
            fixed("masked_remote_address", masked(client()?, *v4, *v6)?)
        }
        DescribeBy::DestinationCluster => {
            fixed("destination_cluster", routed.cluster()?.to_string())
        }
        DescribeBy::SourceCluster => {
            fixed("source_cluster", exchange.connection.http.context.node_cluster.to_string())
        }
        DescribeBy::QueryMatch(key, value, matchers, expected) => {
            let (_, query) = path.split_once('?').unwrap_or((path, ""));
            let fits = matchers.iter().all(|matcher| query_fits(matcher, query));
            when(fits == *expected, key, value)
        }
        DescribeBy::HeaderMatch(key, value, matchers, expected) => {
            let view = read::view(request);
            let fits = matchers.iter().all(|matcher| matcher.matches(&view));
            when(fits == *expected, key, value)
        }
    }
}

fn query<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = path.split_once('?')?;
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

fn masked(client: IpAddr, v4: u8, v6: u8) -> Option<String> {
    let bits = if client.is_ipv4() { v4 } else { v6 };
    Some(IpNet::new(client, bits).ok()?.trunc().to_string())
}
