//! `GRPCRoute` (Gateway API v1). A gRPC method is a path (`/package.Service/Method`), so it becomes the same
//! data as an `HTTPRoute`.

use super::backend::backend;
use super::decode::{At, Context, Object, choice, dns_name, text};
use super::filter::{header_name, rule_filter};
use super::http_route::{
    HttpRoute, Match, Parents, PathMatch, RouteKind, Rule, Timeouts, check_rule, parents, regex,
    value_match, warn_of_sessions,
};
use super::meta::Meta;
use super::session::session;

impl HttpRoute {
    /// Reads a `GRPCRoute`.
    pub(crate) fn decode_grpc(cx: &mut Context, meta: &Meta, spec: &At<'_>) -> Option<Self> {
        let mut object = Object::open(cx, spec)?;
        let Parents { services, gateways, hostnames } = parents(cx, &mut object);
        let rules = object.list(cx, "rules", rule);
        object.finish(cx);
        let (name, created) = (meta.name.clone(), meta.created.clone());
        warn_of_sessions(cx, spec, &services, &rules);
        let (kind, parents) = (RouteKind::Grpc, services);
        Some(Self { kind, name, created, parents, gateways, hostnames, rules })
    }
}

fn rule(cx: &mut Context, at: &At<'_>) -> Option<Rule> {
    let mut object = Object::open(cx, at)?;
    let name = object.optional(cx, "name", dns_name);
    let mut matches = object.list(cx, "matches", grpc_match);
    if matches.is_empty() {
        matches.push(Match::default());
    }
    let filters = object.list(cx, "filters", rule_filter);
    let backends = object.list(cx, "backendRefs", backend);
    let session = object.optional(cx, "sessionPersistence", session);
    object.finish(cx);
    let timeouts = Timeouts::default();
    let rule = Rule { name, matches, filters, backends, timeouts, retry: None, session };
    check_rule(cx, at, &rule);
    Some(rule)
}

fn grpc_match(cx: &mut Context, at: &At<'_>) -> Option<Match> {
    let mut object = Object::open(cx, at)?;
    let path = object.optional(cx, "method", method).unwrap_or_else(|| Match::default().path);
    let headers = object.list(cx, "headers", |cx, at| value_match(cx, at, header_name));
    object.finish(cx);
    Some(Match { path, headers, query: Vec::new(), method: None })
}

fn method(cx: &mut Context, at: &At<'_>) -> Option<PathMatch> {
    let mut object = Object::open(cx, at)?;
    let exact = choice(&[("Exact", true), ("RegularExpression", false)]);
    let exact = object.optional(cx, "type", exact).unwrap_or(true);
    let part = if exact { grpc_name } else { regex };
    let service = object.optional(cx, "service", part);
    let method = object.optional(cx, "method", part);
    object.finish(cx);
    match (service, method, exact) {
        (None, None, _) => cx.expected(at, "`service`, `method` or both"),
        (Some(service), Some(method), true) => {
            Some(PathMatch::Exact(format!("/{service}/{method}")))
        }
        (Some(service), None, true) => Some(PathMatch::Prefix(format!("/{service}"))),
        (None, Some(method), true) => {
            Some(PathMatch::Regex(format!("/[^/]+/{}", regex::escape(&method))))
        }
        (service, method, false) => {
            let any = || "[^/]+".to_owned();
            let (service, method) = (service.unwrap_or_else(any), method.unwrap_or_else(any));
            Some(PathMatch::Regex(format!("/(?:{service})/(?:{method})")))
        }
    }
}

fn grpc_name(cx: &mut Context, at: &At<'_>) -> Option<String> {
    let name = text(cx, at)?;
    let letter = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.');
    if name.bytes().all(letter) {
        return Some(name);
    }
    cx.expected(at, "a gRPC service or method name, such as `shop.v1.Catalog`")
}
