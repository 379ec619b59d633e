//! What becomes of a request that matched: forwarded, redirected, or answered.

use pillion_xds::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use pillion_xds::envoy::config::core::v3::{HeaderValueOption, RuntimeFractionalPercent};
use pillion_xds::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use pillion_xds::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy,
};
use pillion_xds::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use pillion_xds::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, RouteAction, WeightedCluster,
};
use pillion_xds::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::proto::{fraction, header, inline, regex};
use super::shape::Shape;
use crate::intent::{
    Backend, BackendTarget, Filter, HeaderChange, Match, Mirror, PathChange, PathMatch, Redirect,
    Rewrite, Rule,
};

/// What a rule does with a request, as far as it does not depend on timeouts and retries.
#[derive(Debug)]
pub(crate) enum Action {
    Forward(Box<Forward>),
    Redirect(Box<RedirectAction>),
    Answer(DirectResponseAction),
}

/// A rule that forwards.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) route: RouteAction,
    /// Share of the requests (part, whole) that has no backend to go to, and the answer it gets.
    pub(crate) unresolved: Option<((u64, u64), DirectResponseAction)>,
}

/// Header changes of a rule or of one backend.
#[derive(Debug, Default)]
pub(crate) struct Headers {
    pub(crate) request_add: Vec<HeaderValueOption>,
    pub(crate) request_remove: Vec<String>,
    pub(crate) response_add: Vec<HeaderValueOption>,
    pub(crate) response_remove: Vec<String>,
}

impl Headers {
    pub(crate) fn of(filters: &[Filter]) -> Self {
        let mut headers = Self::default();
        for filter in filters {
            match filter {
                Filter::RequestHeaders(change) => {
                    headers.request_add.extend(added(change));
                    headers.request_remove.extend(change.remove.iter().cloned());
                }
                Filter::ResponseHeaders(change) => {
                    headers.response_add.extend(added(change));
                    headers.response_remove.extend(change.remove.iter().cloned());
                }
                _ => {}
            }
        }
        headers
    }
}

fn added(change: &HeaderChange) -> impl Iterator<Item = HeaderValueOption> {
    // `%` begins a command operator in Envoy's header values; people write plain text here.
    let escape = |value: &str| value.replace('%', "%%");
    let set = change.set.iter().map(move |(name, value)| {
        header(name, &escape(value), HeaderAppendAction::OverwriteIfExistsOrAdd)
    });
    let add = change.add.iter().map(move |(name, value)| {
        header(name, &escape(value), HeaderAppendAction::AppendIfExistsOrAdd)
    });
    set.chain(add)
}

/// The action of one match of a rule. `whose` names the rule in answers, for whoever debugs them.
pub(crate) fn action(shape: &Shape, rule: &Rule, found: &Match, whose: &str) -> Action {
    let all = rule.filters.iter().chain(rule.backends.iter().flat_map(|backend| &backend.filters));
    for filter in all {
        if let Filter::Unsupported(kind) = filter {
            return Action::Answer(answer(whose, &format!("the filter {kind} is not supported")));
        }
    }
    let redirect = rule.filters.iter().find_map(|filter| match filter {
        Filter::Redirect(redirect) => Some(redirect),
        _ => None,
    });
    match redirect {
        Some(redirect) => Action::Redirect(Box::new(redirection(redirect, found))),
        None => forward(shape, rule, found, whose),
    }
}

fn forward(shape: &Shape, rule: &Rule, found: &Match, whose: &str) -> Action {
    let mut clusters = Vec::new();
    let (mut total, mut lost, mut reason) = (0, 0, String::new());
    for backend in &rule.backends {
        total += u64::from(backend.weight);
        match shape.resolve(&backend.target) {
            Ok(cluster) => clusters.push((cluster, backend)),
            Err(why) => {
                lost += u64::from(backend.weight);
                reason = why;
            }
        }
    }
    clusters.retain(|(_, backend)| backend.weight > 0);
    if clusters.is_empty() {
        let why = match (rule.backends.is_empty(), lost) {
            (true, _) => "the rule has no backendRefs",
            (false, 0) => "the weights of the rule add up to 0",
            (false, _) => reason.as_str(),
        };
        return Action::Answer(answer(whose, why));
    }
    let mut route = RouteAction {
        cluster_specifier: Some(split(clusters)),
        request_mirror_policies: mirrors(shape, &rule.filters),
        ..RouteAction::default()
    };
    for filter in &rule.filters {
        if let Filter::Rewrite(rewrite) = filter {
            apply_rewrite(&mut route, rewrite, found);
        }
    }
    let unresolved = (lost > 0).then(|| ((lost, total), answer(whose, &reason)));
    Action::Forward(Box::new(Forward { route, unresolved }))
}

/// A 500 that says why.
fn answer(whose: &str, why: &str) -> DirectResponseAction {
    DirectResponseAction {
        status: 500,
        body: Some(inline(format!("pillion: {whose}: {why}\n"))),
        ..DirectResponseAction::default()
    }
}

fn split(clusters: Vec<(String, &Backend)>) -> ClusterSpecifier {
    if let [(cluster, backend)] = clusters.as_slice()
        && backend.filters.is_empty()
    {
        return ClusterSpecifier::Cluster(cluster.clone());
    }
    let weight = |(name, backend): (String, &Backend)| {
        let headers = Headers::of(&backend.filters);
        ClusterWeight {
            name,
            weight: Some(backend.weight),
            request_headers_to_add: headers.request_add,
            request_headers_to_remove: headers.request_remove,
            response_headers_to_add: headers.response_add,
            response_headers_to_remove: headers.response_remove,
            ..ClusterWeight::default()
        }
    };
    ClusterSpecifier::WeightedClusters(WeightedCluster {
        clusters: clusters.into_iter().map(weight).collect(),
        ..WeightedCluster::default()
    })
}

/// Copies to services that do not exist are not made; the reference check has said so.
fn mirrors(shape: &Shape, filters: &[Filter]) -> Vec<RequestMirrorPolicy> {
    let mirror = |filter: &Filter| match filter {
        Filter::Mirror(Mirror { backend: Backend { target, .. }, share: (part, whole) }) => {
            Some(RequestMirrorPolicy {
                cluster: shape.resolve(target).ok()?,
                runtime_fraction: Some(RuntimeFractionalPercent {
                    default_value: Some(fraction(u64::from(*part), u64::from(*whole))),
                    ..RuntimeFractionalPercent::default()
                }),
                ..RequestMirrorPolicy::default()
            })
        }
        _ => None,
    };
    filters.iter().filter_map(mirror).collect()
}

fn apply_rewrite(route: &mut RouteAction, rewrite: &Rewrite, found: &Match) {
    if let Some(hostname) = &rewrite.hostname {
        route.host_rewrite_specifier =
            Some(HostRewriteSpecifier::HostRewriteLiteral(hostname.clone()));
    }
    match rewrite.path.as_ref().map(|change| new_path(change, found)) {
        Some(NewPath::Prefix(prefix)) => route.prefix_rewrite = prefix,
        Some(NewPath::Regex(regex)) => route.regex_rewrite = Some(regex),
        Some(NewPath::Full(path)) => {
            route.regex_rewrite = Some(substitute("^/.*$", &path));
        }
        None => {}
    }
}

enum NewPath {
    Full(String),
    Prefix(String),
    Regex(RegexMatchAndSubstitute),
}

fn new_path(change: &PathChange, found: &Match) -> NewPath {
    let replacement = match change {
        PathChange::Full(path) => return NewPath::Full(path.clone()),
        PathChange::Prefix(prefix) => prefix.trim_end_matches('/'),
    };
    // The intent has checked that the match is a prefix.
    let matched = match &found.path {
        PathMatch::Prefix(prefix) => prefix.as_str(),
        PathMatch::Exact(_) | PathMatch::Regex(_) => "/",
    };
    match (matched, replacement) {
        ("/", "") => NewPath::Prefix("/".to_owned()),
        // `/x` to `/new/x`: the prefix that is cut off is the slash.
        ("/", new) => NewPath::Prefix(format!("{new}/")),
        // `/old/x` to `/x`, and `/old` to `/`: cutting off `/old` alone would leave `//x` or nothing.
        (old, "") => NewPath::Regex(substitute(&format!("^{}/?", escape(old)), "/")),
        (_, new) => NewPath::Prefix(new.to_owned()),
    }
}

fn substitute(pattern: &str, substitution: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute {
        pattern: Some(regex(pattern)),
        // `\` begins a group reference in RE2 substitutions.
        substitution: substitution.replace('\\', "\\\\"),
    }
}

/// Paths hold few characters that mean something to RE2.
fn escape(path: &str) -> String {
    ::regex::escape(path)
}

fn redirection(redirect: &Redirect, found: &Match) -> RedirectAction {
    let code = match redirect.status {
        301 => RedirectResponseCode::MovedPermanently,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::Found,
    };
    let path = redirect.path.as_ref().map(|change| match new_path(change, found) {
        NewPath::Full(path) => PathRewriteSpecifier::PathRedirect(path),
        NewPath::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix),
        NewPath::Regex(regex) => PathRewriteSpecifier::RegexRewrite(regex),
    });
    RedirectAction {
        host_redirect: redirect.hostname.clone().unwrap_or_default(),
        port_redirect: redirect.port.map(u32::from).unwrap_or_default(),
        scheme_rewrite_specifier: redirect
            .scheme
            .clone()
            .map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path,
        response_code: code.into(),
        ..RedirectAction::default()
    }
}

/// Why a target cannot get requests.
pub(crate) fn unsupported_target(target: &BackendTarget) -> String {
    match target {
        BackendTarget::Unsupported(kind) => format!("a {kind} cannot be a backend"),
        BackendTarget::NotPermitted(what) => {
            format!("no ReferenceGrant of its namespace lets the route lead to {what}")
        }
        BackendTarget::Service { service, .. } => format!("there is no Service {service}"),
        BackendTarget::External { service, .. } => {
            format!("ExternalService {service} does not exist, or has no such port")
        }
    }
}
