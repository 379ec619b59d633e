//! Matching: authority to virtual host, then the first route that fits.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::CONTENT_TYPE;

use super::index::Index;
use crate::model::dynamic::Dynamic;
use crate::model::matcher::{QueryMatcher, RequestView};
use crate::model::route::{Case, Domains, PathMatch, Route, RouteMatch, RouteTable, VirtualHost};

/// What a request matched.
#[derive(Clone, Copy, Debug)]
pub struct Match<'a> {
    /// The virtual host.
    pub host: &'a Arc<VirtualHost>,
    /// The route in it. None: the host is known, but no route of it fits.
    pub route: Option<&'a Arc<Route>>,
}

/// What routes look at beside the request itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// Decides `runtime_fraction`.
    pub random: u64,
    /// The client showed a certificate.
    pub presented: bool,
    /// It was verified.
    pub validated: bool,
    /// What filters noted so far.
    pub dynamic: Option<&'a Dynamic>,
    /// The client's address, for hashes.
    pub source: Option<IpAddr>,
}

/// Find the virtual host and route for a request. None: no virtual host serves this authority.
pub fn select<'a>(
    table: &'a RouteTable,
    request: &RequestView<'_>,
    given: Given<'_>,
) -> Option<Match<'a>> {
    let authority = if table.ignore_port_in_host_matching {
        without_port(request.authority())
    } else {
        request.authority()
    };
    let host = table.hosts.get(find_host(&table.domains, authority)?)?;
    let mut path = split_query(request.path);
    if table.ignore_path_parameters {
        path.0 = path.0.split_once(';').map_or(path.0, |(before, _)| before);
    }
    let index = host.index.get(|| Index::new(&host.routes));
    let mut candidates = index.candidates(path.0).filter_map(|at| host.routes.get(at));
    let route = candidates.find(|route| fits_at(&route.matches, (request, path), given));
    Some(Match { host, route })
}

/// `host` of `host:port`; IPv6 literals keep their brackets.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(':') => {
            if host.contains(':') && !host.ends_with(']') {
                authority
            } else {
                host
            }
        }
        _ => authority,
    }
}

/// Envoy's order: exact, longest suffix wildcard, longest prefix wildcard, `*`.
fn find_host(domains: &Domains, authority: &str) -> Option<usize> {
    // Without a branch for each, so that many are looked at at once.
    let mixed = authority.bytes().fold(false, |mixed, b| mixed | b.is_ascii_uppercase());
    let authority =
        if mixed { Cow::Owned(authority.to_ascii_lowercase()) } else { Cow::Borrowed(authority) };
    if let Some(index) = domains.exact.get(&*authority) {
        return Some(*index);
    }
    let wildcard = domains.suffixes.at_end(&authority);
    wildcard.or_else(|| domains.prefixes.at_beginning(&authority)).or(domains.any)
}

/// Whether a request fits.
pub fn fits(matches: &RouteMatch, request: &RequestView<'_>, given: Given<'_>) -> bool {
    fits_at(matches, (request, split_query(request.path)), given)
}

fn fits_at(
    matches: &RouteMatch,
    (request, (path, query)): (&RequestView<'_>, (&str, &str)),
    given: Given<'_>,
) -> bool {
    path_fits(&matches.path, path, request.method)
        && (!matches.grpc || is_grpc(request))
        && matches.headers.iter().all(|header| header.matches(request))
        && matches.query.iter().all(|parameter| query_fits(parameter, query))
        && matches.cookies.iter().all(|cookie| cookie.matches(request.headers))
        && matches.client.presented.is_none_or(|wanted| wanted == given.presented)
        && matches.client.validated.is_none_or(|wanted| wanted == given.validated)
        && matches.metadata.iter().all(|wanted| wanted.matches(given.dynamic))
        && matches.state.iter().all(|wanted| wanted.matches(given.dynamic))
        && matches.fraction.is_none_or(|share| given.random % 1_000_000 < u64::from(share))
}

/// Path and query of a request target; a fragment, which clients must not send, is dropped.
fn split_query(target: &str) -> (&str, &str) {
    let Some(end) = memchr::memchr2(b'?', b'#', target.as_bytes()) else { return (target, "") };
    let (path, rest) = target.split_at(end);
    let query = rest.strip_prefix('?').unwrap_or_default();
    (path, query.split_once('#').map_or(query, |(before, _)| before))
}

fn path_fits(want: &PathMatch, path: &str, method: &str) -> bool {
    match want {
        PathMatch::Prefix(prefix, case) => starts_with(path, prefix, *case),
        PathMatch::Exact(exact, Case::Sensitive) => path == exact,
        PathMatch::Exact(exact, Case::Insensitive) => path.eq_ignore_ascii_case(exact),
        PathMatch::SeparatedPrefix(prefix, case) => {
            starts_with(path, prefix, *case)
                && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
        }
        PathMatch::Regex(regex) => regex.is_match(path),
        PathMatch::Connect => method == "CONNECT",
    }
}

fn starts_with(path: &str, prefix: &str, case: Case) -> bool {
    match case {
        Case::Sensitive => path.starts_with(prefix),
        Case::Insensitive => {
            path.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
        }
    }
}

/// `application/grpc`, also with a suffix such as `+proto`; not `application/grpc-web`.
fn is_grpc(request: &RequestView<'_>) -> bool {
    let Some(kind) = request.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else {
        return false;
    };
    kind.strip_prefix("application/grpc")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
}

/// Whether a query has a parameter that fits. The first of that name counts, as in Envoy.
pub fn query_fits(want: &QueryMatcher, query: &str) -> bool {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let Some((_, value)) = pairs.find(|(name, _)| *name == want.name) else {
        return want.absent;
    };
    if want.absent {
        return false;
    }
    want.value.as_ref().is_none_or(|matcher| matcher.matches(value))
}

#[cfg(test)]
#[path = "table_tests.rs"]
pub(super) mod tests;
