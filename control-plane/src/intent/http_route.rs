//! `HTTPRoute` (Gateway API v1), and the data that `GRPCRoute` is read into as well.

use std::time::Duration;

use super::attach::Claim;
use super::backend::{Backend, BackendTarget, backend};
use super::decode::{
    At, Context, Object, any_text, choice, dns_label, dns_name, duration, port, text, whole,
};
use super::document::Referent;
use super::filter::{Filter, PathChange, header_name, rule_filter};
use super::gateway::GatewayRef;
use super::hostname::hostname;
use super::meta::{Kind, Meta, Name};
use super::session::{Session, session};

/// A route attached to services or gateways: `HTTPRoute` or `GRPCRoute`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRoute {
    /// Which of the two it was written as.
    pub kind: RouteKind,
    /// Namespace and name.
    pub name: Name,
    /// `creationTimestamp`: of two equal matches the older route's wins.
    pub created: Option<String>,
    /// The services whose traffic it routes. If the service is in the route's own namespace, everybody's
    /// traffic; else only that of clients in the route's namespace.
    pub parents: Vec<ParentRef>,
    /// The gateways through which it brings traffic in.
    pub gateways: Vec<GatewayRef>,
    /// The hosts that it is for at gateways; empty is every host of the listener. Services have names of their own.
    pub hostnames: Vec<String>,
    /// Rules, as written.
    pub rules: Vec<Rule>,
}

/// Which kind a route was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// `HTTPRoute`
    Http,
    /// `GRPCRoute`
    Grpc,
}

impl RouteKind {
    /// The kind that it was written as.
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Http => Kind::HttpRoute,
            Self::Grpc => Kind::GrpcRoute,
        }
    }
}

/// Everything that a route names as backend or mirror.
pub(crate) fn targets(route: &HttpRoute) -> impl Iterator<Item = &BackendTarget> {
    let backends = route.rules.iter().flat_map(|rule| &rule.backends);
    let filters = route.rules.iter().flat_map(|rule| &rule.filters);
    let mirrors = filters.filter_map(|filter| match filter {
        Filter::Mirror(mirror) => Some(&mirror.backend.target),
        _ => None,
    });
    backends.map(|backend| &backend.target).chain(mirrors)
}

/// The same, to be changed.
pub(crate) fn targets_mut(route: &mut HttpRoute) -> impl Iterator<Item = &mut BackendTarget> {
    route.rules.iter_mut().flat_map(|rule| {
        let mirrors = rule.filters.iter_mut().filter_map(|filter| match filter {
            Filter::Mirror(mirror) => Some(&mut mirror.backend.target),
            _ => None,
        });
        rule.backends.iter_mut().map(|backend| &mut backend.target).chain(mirrors)
    })
}

/// A service that a route is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentRef {
    /// Which.
    pub service: Name,
    /// Only this port of it.
    pub port: Option<u16>,
    /// Only the port of this name.
    pub section: Option<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Name, for people and statistics.
    pub name: Option<String>,
    /// Any of these; never empty (no match written is one that matches everything).
    pub matches: Vec<Match>,
    /// Filters, in order.
    pub filters: Vec<Filter>,
    /// Where the requests go.
    pub backends: Vec<Backend>,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Retries.
    pub retry: Option<RouteRetry>,
    /// Sessions, at gateways.
    pub session: Option<Session>,
}

/// A match: all its parts must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Path.
    pub path: PathMatch,
    /// Headers.
    pub headers: Vec<ValueMatch>,
    /// Query parameters.
    pub query: Vec<ValueMatch>,
    /// Method, in upper case.
    pub method: Option<String>,
}

/// How a path is matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// The same path.
    Exact(String),
    /// Whole path elements from the left: `/a` matches `/a`, `/a/` and `/a/b`, not `/ab`.
    Prefix(String),
    /// The whole path matches this regular expression (RE2 syntax).
    Regex(String),
}

/// A header or query parameter and what its value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueMatch {
    /// Name; of a header in lower case.
    pub name: String,
    /// Value.
    pub value: TextMatch,
}

/// What a text must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    /// The same.
    Exact(String),
    /// Wholly matched by this regular expression.
    Regex(String),
}

/// Timeouts of a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// For the whole request with its retries. 0 is none.
    pub request: Option<Duration>,
    /// For one try. 0 is none.
    pub backend_request: Option<Duration>,
}

/// `retry` of a rule (GEP-1731).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRetry {
    /// Answers that are tried again.
    pub codes: Vec<u32>,
    /// How many times more. Default 2.
    pub attempts: u32,
    /// Shortest pause between two tries.
    pub backoff: Option<Duration>,
}

impl HttpRoute {
    pub(crate) fn decode(cx: &mut Context, meta: &Meta, spec: &At<'_>) -> Option<Self> {
        let mut object = Object::open(cx, spec)?;
        let Parents { services, gateways, hostnames } = parents(cx, &mut object);
        let rules = object.list(cx, "rules", rule);
        object.finish(cx);
        warn_of_sessions(cx, spec, &services, &rules);
        let (name, created) = (meta.name.clone(), meta.created.clone());
        let (kind, parents) = (RouteKind::Http, services);
        Some(Self { kind, name, created, parents, gateways, hostnames, rules })
    }

    /// What decides to which listeners it is attached.
    pub(crate) fn claim(&self) -> Claim<'_> {
        let kind = match self.kind {
            RouteKind::Http => "HTTPRoute",
            RouteKind::Grpc => "GRPCRoute",
        };
        Claim { kind, name: &self.name, hostnames: &self.hostnames, gateways: &self.gateways }
    }
}

/// What a route is attached to.
pub(crate) struct Parents {
    pub(crate) services: Vec<ParentRef>,
    pub(crate) gateways: Vec<GatewayRef>,
    pub(crate) hostnames: Vec<String>,
}

/// One of them.
enum Parent {
    Service(ParentRef),
    Gateway(GatewayRef),
    /// Left out with a warning.
    Other,
}

/// `parentRefs` and `hostnames` (which have no meaning for a parent that is a Service).
pub(crate) fn parents<'n>(cx: &mut Context, object: &mut Object<'n>) -> Parents {
    object.ignore(&["useDefaultGateways"]);
    let hostnames = object.list(cx, "hostnames", hostname);
    let mut found = Parents { services: Vec::new(), gateways: Vec::new(), hostnames };
    for parent in object.list(cx, "parentRefs", parent) {
        match parent {
            Parent::Service(service) => found.services.push(service),
            Parent::Gateway(gateway) => found.gateways.push(gateway),
            Parent::Other => {}
        }
    }
    found
}

fn parent(cx: &mut Context, at: &At<'_>) -> Option<Parent> {
    let mut object = Object::open(cx, at)?;
    let group = object.optional(cx, "group", any_text);
    let kind = object.optional(cx, "kind", any_text).unwrap_or_else(|| "Gateway".to_owned());
    let name_at = object.field("name");
    let name = object.required(cx, "name", dns_name)?;
    let namespace =
        object.optional(cx, "namespace", dns_label).unwrap_or_else(|| cx.namespace.clone());
    let port = object.optional(cx, "port", port);
    let section = object.optional(cx, "sectionName", text);
    object.finish(cx);
    let name = Name::new(namespace, name);
    let (parent, referent) = match (kind.as_str(), group.as_deref()) {
        ("Service", None | Some("" | "core")) => {
            let parent = ParentRef { service: name, port, section };
            (Parent::Service(parent.clone()), Referent::Parent(parent))
        }
        ("Gateway", None | Some("gateway.networking.k8s.io")) => {
            let parent = GatewayRef { gateway: name, port, section };
            (Parent::Gateway(parent.clone()), Referent::Gateway(parent))
        }
        _ => {
            let message = format!(
                "a {kind} cannot be a parent here, only a Gateway or a Service: this parent is left out"
            );
            cx.warn(at, message);
            return Some(Parent::Other);
        }
    };
    if let Some(at) = name_at {
        cx.refer(&at, referent);
    }
    Some(parent)
}

fn rule(cx: &mut Context, at: &At<'_>) -> Option<Rule> {
    let mut object = Object::open(cx, at)?;
    let name = object.optional(cx, "name", dns_name);
    let mut matches = object.list(cx, "matches", route_match);
    if matches.is_empty() {
        matches.push(Match::default());
    }
    let filters = object.list(cx, "filters", rule_filter);
    let backends = object.list(cx, "backendRefs", backend);
    let timeouts = object.optional(cx, "timeouts", timeouts).unwrap_or_default();
    let retry = object.optional(cx, "retry", retry);
    let session = object.optional(cx, "sessionPersistence", session);
    object.finish(cx);
    let rule = Rule { name, matches, filters, backends, timeouts, retry, session };
    check_rule(cx, at, &rule);
    Some(rule)
}

/// Sidecars have no sessions: whoever calls a Service is no browser.
pub(crate) fn warn_of_sessions(
    cx: &mut Context,
    at: &At<'_>,
    services: &[ParentRef],
    rules: &[Rule],
) {
    if !services.is_empty() && rules.iter().any(|rule| rule.session.is_some()) {
        cx.warn(at, "`sessionPersistence` has an effect at gateways only, not for a Service");
    }
}

/// What a rule's parts must be to each other.
pub(crate) fn check_rule(cx: &mut Context, at: &At<'_>, rule: &Rule) {
    let redirects =
        rule.filters.iter().filter(|filter| matches!(filter, Filter::Redirect(_))).count();
    let rewrites =
        rule.filters.iter().filter(|filter| matches!(filter, Filter::Rewrite(_))).count();
    if redirects > 1 || rewrites > 1 || redirects + rewrites > 1 {
        cx.error::<()>(at, "a rule takes one RequestRedirect or one URLRewrite, not both");
    }
    let prefix_only =
        rule.matches.iter().all(|route_match| matches!(route_match.path, PathMatch::Prefix(_)));
    let changes_prefix = rule.filters.iter().any(|filter| match filter {
        Filter::Redirect(redirect) => matches!(redirect.path, Some(PathChange::Prefix(_))),
        Filter::Rewrite(rewrite) => matches!(rewrite.path, Some(PathChange::Prefix(_))),
        _ => false,
    });
    if changes_prefix && !prefix_only {
        cx.error::<()>(at, "ReplacePrefixMatch needs matches of type PathPrefix");
    }
    let answers = rule.filters.iter().any(|filter| matches!(filter, Filter::Redirect(_)));
    if answers && !rule.backends.is_empty() {
        cx.error::<()>(at, "a rule that redirects cannot have backendRefs");
    } else if !answers && rule.backends.is_empty() {
        cx.warn(at, "the rule has no backendRefs: what it matches gets a 500");
    } else if !answers && rule.backends.iter().all(|backend| backend.weight == 0) {
        cx.warn(at, "the weights of the rule add up to 0: what it matches gets a 500");
    }
    if let (Some(request), Some(each)) = (rule.timeouts.request, rule.timeouts.backend_request)
        && each > request
        && !request.is_zero()
    {
        cx.error::<()>(at, "timeouts.backendRequest is longer than timeouts.request");
    }
}

fn timeouts(cx: &mut Context, at: &At<'_>) -> Option<Timeouts> {
    let mut object = Object::open(cx, at)?;
    let timeouts = Timeouts {
        request: object.optional(cx, "request", duration),
        backend_request: object.optional(cx, "backendRequest", duration),
    };
    object.finish(cx);
    Some(timeouts)
}

fn retry(cx: &mut Context, at: &At<'_>) -> Option<RouteRetry> {
    let mut object = Object::open(cx, at)?;
    let retry = RouteRetry {
        codes: object.list(cx, "codes", whole(400..=599)),
        attempts: object.optional(cx, "attempts", whole(0..=100)).unwrap_or(2),
        backoff: object.optional(cx, "backoff", duration),
    };
    object.finish(cx);
    Some(retry)
}

impl Default for Match {
    /// Matches everything.
    fn default() -> Self {
        let path = PathMatch::Prefix("/".to_owned());
        Self { path, headers: Vec::new(), query: Vec::new(), method: None }
    }
}

fn route_match(cx: &mut Context, at: &At<'_>) -> Option<Match> {
    let mut object = Object::open(cx, at)?;
    let method = choice(&[
        ("GET", "GET"),
        ("HEAD", "HEAD"),
        ("POST", "POST"),
        ("PUT", "PUT"),
        ("DELETE", "DELETE"),
        ("CONNECT", "CONNECT"),
        ("OPTIONS", "OPTIONS"),
        ("TRACE", "TRACE"),
        ("PATCH", "PATCH"),
    ]);
    let found = Match {
        path: object.optional(cx, "path", path_match).unwrap_or_else(|| Match::default().path),
        headers: object.list(cx, "headers", |cx, at| value_match(cx, at, header_name)),
        query: object.list(cx, "queryParams", |cx, at| value_match(cx, at, text)),
        method: object.optional(cx, "method", method).map(str::to_owned),
    };
    object.finish(cx);
    Some(found)
}

#[derive(Clone, Copy)]
enum PathType {
    Exact,
    Prefix,
    Regex,
}

fn path_match(cx: &mut Context, at: &At<'_>) -> Option<PathMatch> {
    let mut object = Object::open(cx, at)?;
    let types = choice(&[
        ("Exact", PathType::Exact),
        ("PathPrefix", PathType::Prefix),
        ("RegularExpression", PathType::Regex),
    ]);
    let kind = object.optional(cx, "type", types).unwrap_or(PathType::Prefix);
    let value = match kind {
        PathType::Regex => object.required(cx, "value", regex),
        _ => object.required(cx, "value", path),
    };
    object.finish(cx);
    let value = value?;
    Some(match kind {
        PathType::Exact => PathMatch::Exact(value),
        PathType::Regex => PathMatch::Regex(value),
        // `/a/` and `/a` are the same prefix (Gateway API).
        PathType::Prefix => match value.trim_end_matches('/') {
            "" => PathMatch::Prefix("/".to_owned()),
            prefix => PathMatch::Prefix(prefix.to_owned()),
        },
    })
}

fn path(cx: &mut Context, at: &At<'_>) -> Option<String> {
    let path = text(cx, at)?;
    let odd = ["//", "/./", "/../", "%2f", "%2F", "#", "?"].iter().any(|part| path.contains(part));
    if !path.starts_with('/') || odd || path.ends_with("/..") || path.ends_with("/.") {
        return cx.expected(
            at,
            "a path that begins with `/`, without `//`, `/./`, `/../`, `%2f`, `?` or `#`",
        );
    }
    Some(path)
}

/// A regular expression in RE2 syntax.
pub(crate) fn regex(cx: &mut Context, at: &At<'_>) -> Option<String> {
    let pattern = text(cx, at)?;
    match regex::Regex::new(&pattern) {
        Ok(_) => Some(pattern),
        Err(error) => {
            let reason = error.to_string();
            let reason =
                reason.lines().last().unwrap_or("it does not parse").trim_start_matches("error: ");
            cx.error(at, format!("{pattern:?} is not a regular expression: {reason}"))
        }
    }
}

/// A header or query parameter match.
pub(crate) fn value_match(
    cx: &mut Context,
    at: &At<'_>,
    name: impl FnOnce(&mut Context, &At<'_>) -> Option<String>,
) -> Option<ValueMatch> {
    let mut object = Object::open(cx, at)?;
    let exact = choice(&[("Exact", true), ("RegularExpression", false)]);
    let exact = object.optional(cx, "type", exact).unwrap_or(true);
    let name = object.required(cx, "name", name);
    let value = if exact {
        object.required(cx, "value", any_text).map(TextMatch::Exact)
    } else {
        object.required(cx, "value", regex).map(TextMatch::Regex)
    };
    object.finish(cx);
    Some(ValueMatch { name: name?, value: value? })
}
