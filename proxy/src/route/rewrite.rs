//! What becomes of the path: rewrites towards the upstream, locations of redirects.

use crate::model::matcher::RequestView;
use crate::model::route::{PathMatch, PathRewrite, Redirect, RedirectPath};

/// The new request target. None: it stays as it is.
pub fn rewrite_path(rewrite: &PathRewrite, matched: &PathMatch, target: &str) -> Option<String> {
    match rewrite {
        PathRewrite::None => None,
        PathRewrite::Prefix(prefix) => Some(replace_matched(matched, prefix, target)),
        PathRewrite::Template(expansion) => {
            let PathMatch::Regex(regex) = matched else { return None };
            let (path, query) = split(target);
            Some(format!("{}{query}", regex.replace(path, expansion.as_str())))
        }
        PathRewrite::Regex(regex, substitution) => {
            let (path, query) = split(target);
            let path = regex.replace_all(path, to_rust_groups(substitution).as_str());
            Some(format!("{path}{query}"))
        }
    }
}

/// Every match in `text` replaced; `substitution` names groups as RE2 does (`\1`).
pub fn replace_all(regex: &regex::Regex, substitution: &str, text: &str) -> String {
    regex.replace_all(text, to_rust_groups(substitution).as_str()).into_owned()
}

/// `location` of a redirect (RFC 9110 section 10.2.2), as Envoy builds it.
pub fn redirect_location(
    redirect: &Redirect,
    matched: &PathMatch,
    request: &RequestView<'_>,
) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or_else(|| request.scheme());
    let (host, port) = split_port(request.authority());
    let authority = match (&redirect.host, redirect.port) {
        (Some(new), Some(port)) => format!("{new}:{port}"),
        (Some(new), None) => new.to_string(),
        (None, Some(port)) => format!("{host}:{port}"),
        // A default port that belonged to the old scheme would be wrong for the new one.
        (None, None) if redirect.scheme.is_some() && is_default(request.scheme(), port) => {
            host.to_owned()
        }
        (None, None) => request.authority().to_owned(),
    };
    let target = match &redirect.path {
        RedirectPath::Keep => request.path.to_owned(),
        RedirectPath::Full(path) if path.contains('?') => path.clone(),
        RedirectPath::Full(path) => format!("{path}{}", split(request.path).1),
        RedirectPath::Prefix(prefix) => replace_matched(matched, prefix, request.path),
        RedirectPath::Regex(regex, substitution) => {
            let (path, query) = split(request.path);
            format!("{}{query}", regex.replace_all(path, to_rust_groups(substitution).as_str()))
        }
    };
    let target = if redirect.strip_query { split(&target).0 } else { target.as_str() };
    format!("{scheme}://{authority}{target}")
}

/// Replace the part of the path that the route matched; the query stays.
fn replace_matched(matched: &PathMatch, replacement: &str, target: &str) -> String {
    let (path, query) = split(target);
    let rest = match matched {
        PathMatch::Prefix(prefix, _) | PathMatch::SeparatedPrefix(prefix, _) => {
            path.get(prefix.len()..).unwrap_or("")
        }
        PathMatch::Exact(..) | PathMatch::Regex(_) | PathMatch::Connect => "",
    };
    format!("{replacement}{rest}{query}")
}

/// The path, and the query with its `?`.
fn split(target: &str) -> (&str, &str) {
    target.find('?').map_or((target, ""), |at| target.split_at(at))
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => {
            (host, Some(port))
        }
        _ => (authority, None),
    }
}

fn is_default(scheme: &str, port: Option<&str>) -> bool {
    matches!((scheme, port), ("http", Some("80")) | ("https", Some("443")))
}

/// RE2 writes groups as `\1` and a backslash as `\\`; the regex crate as `${1}`, a dollar as `$$`.
pub fn to_rust_groups(substitution: &str) -> String {
    let mut out = String::with_capacity(substitution.len() + 4);
    let mut chars = substitution.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some(digit) if digit.is_ascii_digit() => {
                    out.push_str("${");
                    out.push(digit);
                    out.push('}');
                }
                Some(other) => out.push(other),
                None => {}
            },
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::model::route::Case;

    fn prefix(text: &str) -> PathMatch {
        PathMatch::Prefix(text.into(), Case::Sensitive)
    }

    #[test]
    fn rewrites_replace_what_matched_and_keep_the_query() {
        let to = |p: &str| PathRewrite::Prefix(p.into());
        let new = |rewrite: &PathRewrite, matched: &PathMatch, target| {
            rewrite_path(rewrite, matched, target).unwrap()
        };
        assert_eq!(new(&to("/v2/"), &prefix("/v1/"), "/v1/a?b=c"), "/v2/a?b=c");
        let exact = PathMatch::Exact("/x".into(), Case::Sensitive);
        assert_eq!(new(&to("/y"), &exact, "/x?q"), "/y?q");
        let regex = regex::Regex::new("^/user/([^/]+)").unwrap();
        let swap = PathRewrite::Regex(regex, r"/u/\1$".into());
        assert_eq!(new(&swap, &prefix("/"), "/user/eve/z?k"), "/u/eve$/z?k");
        assert_eq!(rewrite_path(&PathRewrite::None, &exact, "/x"), None);
    }

    #[test]
    fn locations_are_built_from_what_the_redirect_changes() {
        let headers = HeaderMap::new();
        let request = RequestView {
            method: "GET",
            path: "/old/a?q=1",
            authority: Some("shop.example:80"),
            scheme: Some("http"),
            headers: &headers,
        };
        let plain = Redirect {
            scheme: None,
            host: None,
            port: None,
            path: RedirectPath::Keep,
            status: StatusCode::MOVED_PERMANENTLY,
            strip_query: false,
        };
        let go = |redirect: &Redirect| redirect_location(redirect, &prefix("/old"), &request);
        assert_eq!(go(&plain), "http://shop.example:80/old/a?q=1");
        let https = Redirect { scheme: Some("https".into()), ..plain.clone() };
        assert_eq!(go(&https), "https://shop.example/old/a?q=1");
        let port = Redirect { port: Some(8443), strip_query: true, ..https };
        assert_eq!(go(&port), "https://shop.example:8443/old/a");
        let path = RedirectPath::Prefix("/new".into());
        let host = Redirect { host: Some("b.example".into()), path, ..plain.clone() };
        assert_eq!(go(&host), "http://b.example/new/a?q=1");
        let full = Redirect { path: RedirectPath::Full("/z?own".into()), ..plain };
        assert_eq!(go(&full), "http://shop.example:80/z?own");
    }
}
