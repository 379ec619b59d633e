//! Matches of routes, and which of several comes first.

use std::cmp::Reverse;

use pillion_xds::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use pillion_xds::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use pillion_xds::envoy::config::route::v3::route_match::PathSpecifier;
use pillion_xds::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use pillion_xds::envoy::r#type::matcher::v3::StringMatcher;

use super::proto::{exact, matching, regex};
use crate::intent::{HttpRoute, Match, PathMatch, TextMatch, ValueMatch};

/// Place of a match among all matches of a host, smaller first (Gateway API, `HTTPRouteRule.matches`): exact
/// path, then (our choice) regular expression, then the longer prefix; a method; more headers; more query
/// parameters; the older route, the first by name; the first rule, the first match.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Precedence<'a> {
    path: (u8, Reverse<usize>),
    no_method: bool,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    route: (bool, Option<&'a str>, &'a crate::intent::Name),
    place: (usize, usize),
}

impl<'a> Precedence<'a> {
    pub(crate) fn new(route: &'a HttpRoute, found: &Match, place: (usize, usize)) -> Self {
        let path = match &found.path {
            PathMatch::Exact(path) => (0, Reverse(path.len())),
            PathMatch::Regex(pattern) => (1, Reverse(pattern.len())),
            PathMatch::Prefix(prefix) => (2, Reverse(prefix.len())),
        };
        Self {
            path,
            no_method: found.method.is_none(),
            headers: Reverse(found.headers.len()),
            query: Reverse(found.query.len()),
            route: (route.created.is_none(), route.created.as_deref(), &route.name),
            place,
        }
    }
}

/// A match in the words of xDS.
pub(crate) fn route_match(found: &Match) -> RouteMatch {
    let path = match &found.path {
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern)),
        PathMatch::Prefix(prefix) if prefix == "/" => PathSpecifier::Prefix(prefix.clone()),
        PathMatch::Prefix(prefix) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
    };
    with_path(found, path)
}

/// A match for a gRPC client, which does not know prefixes of whole path elements: `/a` becomes `/a` itself
/// and `/a/`.
pub(crate) fn grpc_matches(found: &Match) -> Vec<RouteMatch> {
    match &found.path {
        PathMatch::Prefix(prefix) if prefix != "/" => vec![
            with_path(found, PathSpecifier::Path(prefix.clone())),
            with_path(found, PathSpecifier::Prefix(format!("{prefix}/"))),
        ],
        _ => vec![route_match(found)],
    }
}

fn with_path(found: &Match, path: PathSpecifier) -> RouteMatch {
    let method = found.method.as_deref().map(|method| header_matcher(":method", exact(method)));
    let headers = found.headers.iter().map(|header| header_matcher(&header.name, text(header)));
    let query = found.query.iter().map(|parameter| QueryParameterMatcher {
        name: parameter.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(text(
            parameter,
        ))),
    });
    RouteMatch {
        path_specifier: Some(path),
        headers: method.into_iter().chain(headers).collect(),
        query_parameters: query.collect(),
        ..RouteMatch::default()
    }
}

/// A matcher of one header.
pub(crate) fn header_matcher(name: &str, value: StringMatcher) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(value)),
        ..HeaderMatcher::default()
    }
}

fn text(value: &ValueMatch) -> StringMatcher {
    match &value.value {
        TextMatch::Exact(text) => exact(text),
        TextMatch::Regex(pattern) => matching(pattern),
    }
}
