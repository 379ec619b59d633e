//! `RouteMatch`

use pillion_xds::envoy::config::route::v3 as pb;

use super::at::At;
use super::{common, matcher};
use crate::model::route::{Case, PathMatch, RouteMatch};

/// `RouteMatch`
pub(super) fn matches(at: &At<'_>, route: &pb::RouteMatch) -> Option<RouteMatch> {
    Some(RouteMatch {
        path: path(at, route)?,
        headers: at.field("headers").each(&route.headers, matcher::header),
        query: at.field("query_parameters").each(&route.query_parameters, matcher::query),
        grpc: route.grpc.is_some(),
        fraction: route.runtime_fraction.as_ref().map(common::runtime_fraction),
    })
}

fn path(at: &At<'_>, route: &pb::RouteMatch) -> Option<PathMatch> {
    use pb::route_match::PathSpecifier as Spec;
    let case = match route.case_sensitive {
        Some(false) => Case::Insensitive,
        Some(true) | None => Case::Sensitive,
    };
    Some(match route.path_specifier.as_ref() {
        Some(Spec::Prefix(prefix)) => PathMatch::Prefix(prefix.clone(), case),
        Some(Spec::Path(path)) => {
            at.field("path").expect(!path.contains('?'), "a path has no query")?;
            PathMatch::Exact(path.clone(), case)
        }
        Some(Spec::PathSeparatedPrefix(prefix)) => {
            let fine = prefix.starts_with('/') && !prefix.ends_with('/');
            let at = at.field("path_separated_prefix");
            at.expect(fine, "expected a path that begins with `/` and does not end with it")?;
            PathMatch::SeparatedPrefix(prefix.clone(), case)
        }
        Some(Spec::SafeRegex(pattern)) => {
            PathMatch::Regex(matcher::regex(&at.field("safe_regex"), pattern)?)
        }
        Some(Spec::ConnectMatcher(_)) => PathMatch::Connect,
        Some(Spec::PathMatchPolicy(_)) => {
            return at.field("path_match_policy").refuse("is not supported");
        }
        None => {
            return at.refuse("expected prefix, path, path_separated_prefix or safe_regex");
        }
    })
}
