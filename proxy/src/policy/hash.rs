//! The hash that ring hash and Maglev pick by (Envoy's `HashPolicyImpl`).

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use regex::Regex;
use xxhash_rust::xxh64::xxh64;

use crate::model::Name;
use crate::model::route::{HashPolicy, HashSource};

/// A cookie to be set on the response, so that the client comes back to the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCookie {
    /// Its name.
    pub name: Name,
    /// Its value.
    pub value: String,
    /// Its path; empty: none.
    pub path: Name,
    /// `Max-Age`; zero: a session cookie.
    pub ttl: Duration,
    /// Further attributes; an empty value: the name alone.
    pub attributes: Arc<[(Name, Name)]>,
}

/// The parts of a request that can be hashed.
#[derive(Clone, Copy, Debug)]
pub struct Hashed<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its target, with the query.
    pub target: &'a str,
    /// Address of the client.
    pub source: Option<IpAddr>,
}

/// The request's hash, and the cookies to set if some had to be made (`random` is their value).
pub fn hash(
    policies: &[HashPolicy],
    request: &Hashed<'_>,
    random: u64,
) -> (Option<u64>, Vec<NewCookie>) {
    let mut whole: Option<u64> = None;
    let mut made = Vec::new();
    for policy in policies {
        let one = match &policy.source {
            HashSource::Cookie { name, ttl, path, attributes } => {
                match cookie(request.headers, name) {
                    Some(value) => Some(xxh64(value.as_bytes(), 0)),
                    None => ttl.map(|ttl| {
                        let value = format!("{random:016x}");
                        let hash = xxh64(value.as_bytes(), 0);
                        made.push(NewCookie {
                            name: name.clone(),
                            value,
                            path: path.clone(),
                            ttl,
                            attributes: Arc::clone(attributes),
                        });
                        hash
                    }),
                }
            }
            HashSource::Header(name, rewrite) => header(request.headers, name, rewrite.as_ref()),
            HashSource::SourceIp => {
                request.source.map(|address| xxh64(address.to_string().as_bytes(), 0))
            }
            HashSource::Query(name) => {
                query(request.target, name).map(|value| xxh64(value.as_bytes(), 0))
            }
        };
        if let Some(one) = one {
            // Envoy: rotate, so that the same value in two policies does not cancel out.
            whole = Some(whole.map_or(one, |before| before.rotate_left(1) ^ one));
        }
        if policy.terminal && whole.is_some() {
            break;
        }
    }
    (whole, made)
}

/// Several lines of a header are hashed in sorted order, so that their order does not matter.
fn header(
    headers: &HeaderMap,
    name: &HeaderName,
    rewrite: Option<&(Regex, String)>,
) -> Option<u64> {
    let rewritten = |value| rewritten(value, rewrite);
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let Some(second) = values.next() else {
        return Some(xxh64(&rewritten(first), 0));
    };
    let mut all: Vec<Cow<'_, [u8]>> =
        [first, second].into_iter().chain(values).map(rewritten).collect();
    all.sort_unstable();
    Some(all.iter().fold(0, |seed, value| xxh64(value, seed)))
}

fn rewritten<'a>(value: &'a HeaderValue, rewrite: Option<&(Regex, String)>) -> Cow<'a, [u8]> {
    match (rewrite, value.to_str()) {
        (Some((regex, to)), Ok(text)) => match regex.replace_all(text, to) {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        },
        _ => Cow::Borrowed(value.as_bytes()),
    }
}

/// The value of the first cookie of this name.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim_matches('"'))
}

fn query<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_hashes_as_xxh64_and_a_terminal_policy_ends_the_list() {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from_static("eve"));
        let request = Hashed { headers: &headers, target: "/?k=v", source: None };
        let by_header = HashPolicy {
            source: HashSource::Header(HeaderName::from_static("x-user"), None),
            terminal: true,
        };
        let by_query = HashPolicy { source: HashSource::Query("k".into()), terminal: false };
        let eve = xxh64(b"eve", 0);
        let both = [by_header.clone(), by_query.clone()];
        assert_eq!(hash(&both, &request, 0), (Some(eve), vec![]));
        let both = [by_query, by_header];
        let v = xxh64(b"v", 0);
        assert_eq!(hash(&both, &request, 0), (Some(v.rotate_left(1) ^ eve), vec![]));
        assert_eq!(hash(&[], &request, 0), (None, vec![]));
    }

    #[test]
    fn a_header_may_be_rewritten_before_it_is_hashed() {
        let headers: HeaderMap =
            [(HeaderName::from_static("x-user"), HeaderValue::from_static("tenant-7/eve"))]
                .into_iter()
                .collect();
        let request = Hashed { headers: &headers, target: "/", source: None };
        let rewrite = (Regex::new("^([^/]*)/.*$").unwrap(), "${1}".to_owned());
        let source = HashSource::Header(HeaderName::from_static("x-user"), Some(rewrite));
        let policy = HashPolicy { source, terminal: false };
        assert_eq!(hash(&[policy], &request, 0), (Some(xxh64(b"tenant-7", 0)), vec![]));
    }

    #[test]
    fn a_missing_cookie_is_made_only_with_a_ttl() {
        let headers = HeaderMap::new();
        let request = Hashed { headers: &headers, target: "/", source: None };
        let policy = |ttl| HashPolicy {
            source: HashSource::Cookie {
                name: "s".into(),
                ttl,
                path: "/".into(),
                attributes: [].into(),
            },
            terminal: false,
        };
        assert_eq!(hash(&[policy(None)], &request, 7), (None, vec![]));
        let (hashed, cookie) = hash(&[policy(Some(Duration::ZERO))], &request, 7);
        assert_eq!(cookie[0].value, "0000000000000007");
        assert_eq!(hashed, Some(xxh64(b"0000000000000007", 0)));
    }
}
