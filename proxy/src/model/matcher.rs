//! String and header matchers (`envoy.type.matcher.v3`, `envoy.config.route.v3.HeaderMatcher`).

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};
use regex::Regex;

use super::names;

/// `StringMatcher`
#[derive(Clone, Debug)]
pub struct StringMatcher {
    /// How.
    pub kind: StringMatch,
    /// Compare without regard to ASCII case. Not for regexes.
    pub ignore_case: bool,
}

/// The patterns of a [`StringMatcher`]; lower case already where case is ignored.
#[derive(Clone, Debug)]
pub enum StringMatch {
    /// All of it.
    Exact(String),
    /// Its beginning.
    Prefix(String),
    /// Its end.
    Suffix(String),
    /// Any part.
    Contains(String),
    /// All of it, by regular expression (anchored at both ends when compiled).
    Regex(Regex),
}

impl StringMatcher {
    /// A case-sensitive comparison of the whole.
    pub fn exact(text: impl Into<String>) -> Self {
        Self { kind: StringMatch::Exact(text.into()), ignore_case: false }
    }

    /// Whether `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        match &self.kind {
            StringMatch::Regex(regex) => regex.is_match(text),
            _ if self.ignore_case => self.compare(&text.to_ascii_lowercase()),
            _ => self.compare(text),
        }
    }

    fn compare(&self, text: &str) -> bool {
        match &self.kind {
            StringMatch::Exact(want) => text == want,
            StringMatch::Prefix(want) => text.starts_with(want.as_str()),
            StringMatch::Suffix(want) => text.ends_with(want.as_str()),
            StringMatch::Contains(want) => text.contains(want.as_str()),
            StringMatch::Regex(regex) => regex.is_match(text),
        }
    }
}

impl PartialEq for StringMatcher {
    fn eq(&self, other: &Self) -> bool {
        self.ignore_case == other.ignore_case && self.kind == other.kind
    }
}

impl PartialEq for StringMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b))
            | (Self::Prefix(a), Self::Prefix(b))
            | (Self::Suffix(a), Self::Suffix(b))
            | (Self::Contains(a), Self::Contains(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// A regular expression that must match the whole text, as in Envoy (RE2 full match).
///
/// # Errors
/// The text is no regular expression, or one that compiles to more than 1 MiB.
pub fn full_regex(pattern: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(1 << 20)
        .dot_matches_new_line(true)
        .build()
}

/// `route.v3.HeaderMatcher`
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatcher {
    /// Which header; `:method`, `:path`, `:authority`, `:scheme` are allowed.
    pub name: HeaderKey,
    /// What it must be.
    pub kind: HeaderMatch,
    /// Turn the result round.
    pub invert: bool,
    /// A missing header counts as an empty one.
    pub treat_missing_as_empty: bool,
}

/// A header or a pseudo-header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderKey {
    /// An ordinary header.
    Name(HeaderName),
    /// `:method`
    Method,
    /// `:path`, with its query.
    Path,
    /// `:authority` (`host` means the same).
    Authority,
    /// `:scheme`
    Scheme,
}

/// What a header must be.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderMatch {
    /// Present (true) or absent (false).
    Present(bool),
    /// Its value (several lines joined by `,`).
    Text(StringMatcher),
    /// A whole number in `start..end`.
    Range(i64, i64),
}

/// The parts of a request that matchers see.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// `:method`
    pub method: &'a str,
    /// `:path` with its query.
    pub path: &'a str,
    /// `:authority`. None: as `host` says.
    pub authority: Option<&'a str>,
    /// `:scheme`. None: as `x-forwarded-proto` says.
    pub scheme: Option<&'a str>,
    /// Everything else.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestView<'a> {
    /// `:authority`: looked up only by those who ask. Empty: there is none.
    pub fn authority(&self) -> &'a str {
        let host = || self.headers.get(HOST)?.to_str().ok();
        self.authority.or_else(host).unwrap_or_default()
    }

    /// `:scheme`: looked up only by those who ask.
    pub fn scheme(&self) -> &str {
        self.scheme.unwrap_or_else(|| {
            let forwarded = self.headers.get(names::X_FORWARDED_PROTO);
            match forwarded.map(HeaderValue::as_bytes) {
                Some(b"https") => "https",
                _ => "http",
            }
        })
    }
}

impl HeaderMatcher {
    /// Whether the request has what this asks for.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        match &self.name {
            HeaderKey::Method => self.test(Some(request.method)),
            HeaderKey::Path => self.test(Some(request.path)),
            HeaderKey::Authority => self.test(Some(request.authority())),
            HeaderKey::Scheme => self.test(Some(request.scheme())),
            HeaderKey::Name(name) => self.matches_header(request.headers, name),
        }
    }

    /// Whether these (response) headers have what this asks for; pseudo-headers never match.
    pub fn matches_headers(&self, headers: &HeaderMap) -> bool {
        match &self.name {
            HeaderKey::Name(name) => self.matches_header(headers, name),
            _ => false,
        }
    }

    fn matches_header(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        if !headers.contains_key(name) {
            return self.test(None);
        }
        // Of several lines any may match, and an inverted matcher wants none that does.
        let lines =
            || headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
        if self.invert {
            lines().all(|line| self.test(Some(&line)))
        } else {
            lines().any(|line| self.test(Some(&line)))
        }
    }

    fn test(&self, value: Option<&str>) -> bool {
        if let HeaderMatch::Present(want) = self.kind {
            // A missing header that counts as empty counts as there.
            let there = value.is_some() || self.treat_missing_as_empty;
            return (there == want) != self.invert;
        }
        let value = match value {
            Some(value) => value,
            None if self.treat_missing_as_empty => "",
            // As in Envoy: nothing is compared, so there is no result to turn round.
            None => return false,
        };
        let matched = match &self.kind {
            HeaderMatch::Text(text) => text.matches(value),
            HeaderMatch::Range(start, end) => {
                value.parse::<i64>().is_ok_and(|number| (*start..*end).contains(&number))
            }
            HeaderMatch::Present(_) => return false,
        };
        matched != self.invert
    }
}

/// `route.v3.QueryParameterMatcher`
#[derive(Clone, Debug, PartialEq)]
pub struct QueryMatcher {
    /// Name of the parameter, as it is written in the URL.
    pub name: String,
    /// None: only presence counts.
    pub value: Option<StringMatcher>,
    /// It must not be there (`present_match: false`).
    pub absent: bool,
}

/// `route.v3.CookieMatcher`
#[derive(Clone, Debug, PartialEq)]
pub struct CookieMatcher {
    /// Name of the cookie.
    pub name: String,
    /// What it must be.
    pub value: StringMatcher,
    /// Turn the result round; a cookie that is not there does not match.
    pub invert: bool,
}

impl CookieMatcher {
    /// Whether the request brings what this asks for. The first cookie of the name counts.
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        let lines = headers.get_all(http::header::COOKIE).iter();
        let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        let found = pairs.find_map(|pair| {
            let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
            (name.trim() == self.name).then(|| unquoted(value.trim()))
        });
        found.is_some_and(|value| self.value.matches(value)) != self.invert
    }
}

fn unquoted(value: &str) -> &str {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    inner.unwrap_or(value)
}
