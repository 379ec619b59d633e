//! Filters of Gateway API routes.

use super::backend::{Backend, backend_target};
use super::decode::{At, Context, Object, any_text, choice, dns_name, port, quoted, text, whole};
use super::problem::nearest;

/// One filter of a rule or of a backend.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// `RequestHeaderModifier`
    RequestHeaders(HeaderChange),
    /// `ResponseHeaderModifier`
    ResponseHeaders(HeaderChange),
    /// `RequestRedirect`
    Redirect(Redirect),
    /// `URLRewrite`
    Rewrite(Rewrite),
    /// `RequestMirror`
    Mirror(Mirror),
    /// A filter that we cannot apply. The Gateway API forbids to skip it: what would have gone through it gets
    /// a 500.
    Unsupported(String),
}

/// Headers to set, add and remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChange {
    /// Name and value; replaces what is there.
    pub set: Vec<(String, String)>,
    /// Name and value; beside what is there.
    pub add: Vec<(String, String)>,
    /// Names.
    pub remove: Vec<String>,
}

/// `requestRedirect`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// New scheme, `http` or `https`.
    pub scheme: Option<String>,
    /// New host.
    pub hostname: Option<String>,
    /// New path.
    pub path: Option<PathChange>,
    /// New port.
    pub port: Option<u16>,
    /// 301, 302 (the default), 303, 307 or 308.
    pub status: u16,
}

/// `urlRewrite`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// New `Host`.
    pub hostname: Option<String>,
    /// New path.
    pub path: Option<PathChange>,
}

/// How a path changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// The whole path; the query stays.
    Full(String),
    /// The prefix that matched.
    Prefix(String),
}

/// `requestMirror`
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Who gets the copies.
    pub backend: Backend,
    /// Share of the requests that is copied, as numerator and denominator.
    pub share: (u32, u32),
}

/// The filters a rule may have; backends take only the first two.
const RULE_FILTERS: [&str; 5] = [
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestRedirect",
    "URLRewrite",
    "RequestMirror",
];

/// A filter of a rule.
pub(crate) fn rule_filter(cx: &mut Context, at: &At<'_>) -> Option<Filter> {
    filter(cx, at, &RULE_FILTERS)
}

/// A filter of one backend.
pub(crate) fn backend_filter(cx: &mut Context, at: &At<'_>) -> Option<Filter> {
    filter(cx, at, &RULE_FILTERS[..2])
}

fn filter(cx: &mut Context, at: &At<'_>, supported: &[&str]) -> Option<Filter> {
    let mut object = Object::open(cx, at)?;
    let kind = object.required(cx, "type", text)?;
    let filter = match kind.as_str() {
        name if !supported.contains(&name) => unsupported(cx, at, &kind, supported),
        "RequestHeaderModifier" => {
            object.required(cx, "requestHeaderModifier", header_change).map(Filter::RequestHeaders)
        }
        "ResponseHeaderModifier" => object
            .required(cx, "responseHeaderModifier", header_change)
            .map(Filter::ResponseHeaders),
        "RequestRedirect" => object.required(cx, "requestRedirect", redirect).map(Filter::Redirect),
        "URLRewrite" => object.required(cx, "urlRewrite", rewrite).map(Filter::Rewrite),
        _ => object.required(cx, "requestMirror", mirror).map(Filter::Mirror),
    };
    if !matches!(filter, Some(Filter::Unsupported(_))) {
        object.finish(cx);
    }
    filter
}

fn unsupported(cx: &mut Context, at: &At<'_>, kind: &str, supported: &[&str]) -> Option<Filter> {
    if let Some(meant) = nearest(kind, supported.iter().copied()) {
        return cx.error(at, format!("unknown filter type `{kind}`, did you mean `{meant}`?"));
    }
    let names = quoted(supported);
    cx.warn(
        at,
        format!("the filter `{kind}` is not supported here (only {names}): its requests get a 500"),
    );
    Some(Filter::Unsupported(kind.to_owned()))
}

fn header_change(cx: &mut Context, at: &At<'_>) -> Option<HeaderChange> {
    let mut object = Object::open(cx, at)?;
    let change = HeaderChange {
        set: object.list(cx, "set", header),
        add: object.list(cx, "add", header),
        remove: object.list(cx, "remove", header_name),
    };
    object.finish(cx);
    Some(change)
}

fn header(cx: &mut Context, at: &At<'_>) -> Option<(String, String)> {
    let mut object = Object::open(cx, at)?;
    let name = object.required(cx, "name", header_name);
    let value = object.required(cx, "value", |cx, at| {
        let value = any_text(cx, at)?;
        match http::HeaderValue::from_str(&value) {
            Ok(_) => Some(value),
            Err(_) => cx.expected(at, "a header value: visible ASCII, no line break"),
        }
    });
    object.finish(cx);
    Some((name?, value?))
}

/// A header's name, in lower case.
pub(crate) fn header_name(cx: &mut Context, at: &At<'_>) -> Option<String> {
    let written = text(cx, at)?;
    match http::HeaderName::try_from(written.as_str()) {
        Ok(name) => Some(name.as_str().to_owned()),
        Err(_) => cx.expected(at, "the name of an HTTP header"),
    }
}

fn redirect(cx: &mut Context, at: &At<'_>) -> Option<Redirect> {
    let mut object = Object::open(cx, at)?;
    let scheme = object.optional(cx, "scheme", choice(&[("http", "http"), ("https", "https")]));
    let redirect = Redirect {
        scheme: scheme.map(str::to_owned),
        hostname: object.optional(cx, "hostname", dns_name),
        path: object.optional(cx, "path", path_change),
        port: object.optional(cx, "port", port),
        status: object.optional(cx, "statusCode", redirect_status).unwrap_or(302),
    };
    object.finish(cx);
    Some(redirect)
}

fn redirect_status(cx: &mut Context, at: &At<'_>) -> Option<u16> {
    let status = whole(300..=399)(cx, at)?;
    match u16::try_from(status) {
        Ok(status @ (301 | 302 | 303 | 307 | 308)) => Some(status),
        _ => cx.expected(at, "one of 301, 302, 303, 307, 308"),
    }
}

fn rewrite(cx: &mut Context, at: &At<'_>) -> Option<Rewrite> {
    let mut object = Object::open(cx, at)?;
    let rewrite = Rewrite {
        hostname: object.optional(cx, "hostname", dns_name),
        path: object.optional(cx, "path", path_change),
    };
    object.finish(cx);
    Some(rewrite)
}

fn path_change(cx: &mut Context, at: &At<'_>) -> Option<PathChange> {
    let mut object = Object::open(cx, at)?;
    let full = object.required(
        cx,
        "type",
        choice(&[("ReplaceFullPath", true), ("ReplacePrefixMatch", false)]),
    )?;
    let change = if full {
        object.required(cx, "replaceFullPath", new_path).map(PathChange::Full)
    } else {
        object.required(cx, "replacePrefixMatch", new_path).map(PathChange::Prefix)
    };
    object.finish(cx);
    change
}

fn new_path(cx: &mut Context, at: &At<'_>) -> Option<String> {
    let path = any_text(cx, at)?;
    if path.is_empty() {
        return Some("/".to_owned());
    }
    if path.starts_with('/')
        && path.bytes().all(|c| c.is_ascii_graphic() && !matches!(c, b'?' | b'#'))
    {
        return Some(path);
    }
    cx.expected(at, "a path that begins with `/`, without query or fragment")
}

fn mirror(cx: &mut Context, at: &At<'_>) -> Option<Mirror> {
    let mut object = Object::open(cx, at)?;
    let target = object.required(cx, "backendRef", |cx, at| {
        let mut object = Object::open(cx, at)?;
        let target = backend_target(cx, at, &mut object);
        object.finish(cx);
        target
    });
    let percent = object.optional(cx, "percent", whole(0..=100));
    let fraction = object.optional(cx, "fraction", |cx, at| {
        let mut object = Object::open(cx, at)?;
        let numerator = object.required(cx, "numerator", whole(0..=1_000_000));
        let denominator = object.optional(cx, "denominator", whole(1..=1_000_000)).unwrap_or(100);
        object.finish(cx);
        match numerator? {
            numerator if numerator <= denominator => Some((numerator, denominator)),
            _ => cx.error(at, "the numerator is larger than the denominator"),
        }
    });
    object.finish(cx);
    if percent.is_some() && fraction.is_some() {
        return cx.error(at, "`percent` and `fraction` exclude each other");
    }
    let share = fraction.or_else(|| percent.map(|percent| (percent, 100))).unwrap_or((100, 100));
    Some(Mirror { backend: Backend { target: target?, weight: 1, filters: Vec::new() }, share })
}
