//! `RouteMatch`

use pillion_xds::envoy::config::route::v3 as pb;
use pillion_xds::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;

use super::at::At;
use super::{common, matcher};
use crate::model::matcher::CookieMatcher;
use crate::model::route::{Case, ClientMatch, PathMatch, RouteMatch};
use crate::route::template_to_regex;

/// `RouteMatch`
pub(super) fn matches(at: &At<'_>, route: &pb::RouteMatch) -> Option<RouteMatch> {
    Some(RouteMatch {
        path: path(at, route)?,
        headers: at.field("headers").each(&route.headers, matcher::header),
        query: at.field("query_parameters").each(&route.query_parameters, matcher::query),
        cookies: at.field("cookies").each(&route.cookies, cookie),
        client: match &route.tls_context {
            Some(wanted) => {
                ClientMatch { presented: wanted.presented, validated: wanted.validated }
            }
            None => ClientMatch::default(),
        },
        grpc: route.grpc.is_some(),
        metadata: at.field("dynamic_metadata").each(&route.dynamic_metadata, matcher::metadata),
        state: at.field("filter_state").each(&route.filter_state, matcher::state),
        fraction: route.runtime_fraction.as_ref().map(common::runtime_fraction),
    })
}

fn uri_template(at: &At<'_>, template: &str) -> Option<regex::Regex> {
    let pattern = match template_to_regex(template) {
        Ok(pattern) => pattern,
        Err(error) => return at.refuse(error),
    };
    match regex::Regex::new(&pattern) {
        Ok(regex) => Some(regex),
        Err(error) => at.refuse(error),
    }
}

fn cookie(at: &At<'_>, cookie: &pb::CookieMatcher) -> Option<CookieMatcher> {
    at.field("name").expect(!cookie.name.is_empty(), "is empty")?;
    let value_at = at.field("string_match");
    let value = value_at.required(cookie.string_match.as_ref())?;
    Some(CookieMatcher {
        name: cookie.name.clone(),
        value: matcher::string(&value_at, value)?,
        invert: cookie.invert_match,
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
        Some(Spec::PathMatchPolicy(policy)) => {
            let at = at.field("path_match_policy");
            let at = at.field("typed_config");
            let packed = at.required(policy.typed_config.as_ref())?;
            let config: UriTemplateMatchConfig = common::unpack(&at, packed)?;
            let at = at.field("path_template");
            PathMatch::Regex(uri_template(&at, &config.path_template)?)
        }
        None => {
            return at.refuse("expected prefix, path, path_separated_prefix or safe_regex");
        }
    })
}
