//! Where tokens stand in a request.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use crate::model::Name;
use crate::model::jwt::Provider;

/// A token as it stands in a request.
#[derive(Clone, PartialEq, Eq)]
pub struct Found {
    /// The token.
    pub text: String,
    /// Where.
    pub place: Place,
    /// Names of the providers whose tokens may stand there.
    pub of: Vec<Name>,
}

/// A token is nobody's business.
impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Where a token stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this header.
    Header(HeaderName),
    /// In this query parameter.
    Param(String),
    /// In this cookie.
    Cookie(String),
}

/// Every token in the places of these providers: headers, then parameters, then cookies, each by
/// name. Of a parameter or cookie that comes twice both are found: the upstream may read either.
pub fn find(providers: &[Arc<Provider>], headers: &HeaderMap, path: &str) -> Vec<Found> {
    let mut found = Vec::new();
    let of = |read: &dyn Fn(&Provider) -> bool| -> Vec<Name> {
        providers.iter().filter(|one| read(one)).map(|one| Arc::clone(&one.name)).collect()
    };
    let mut header_places = BTreeMap::new();
    let mut params: Vec<&String> = Vec::new();
    let mut cookies: Vec<&String> = Vec::new();
    for provider in providers {
        for (name, prefix) in &provider.places.headers {
            header_places.insert(format!("{name}{prefix}"), (name, prefix));
        }
        params.extend(&provider.places.params);
        cookies.extend(&provider.places.cookies);
    }
    for (name, prefix) in header_places.values() {
        let of = of(&|one| {
            one.places.headers.iter().any(|place| place == &((*name).clone(), (*prefix).clone()))
        });
        for line in headers.get_all(*name) {
            let line = String::from_utf8_lossy(line.as_bytes());
            if let Some(text) = after(&line, prefix) {
                let place = Place::Header((*name).clone());
                found.push(Found { text: text.to_owned(), place, of: of.clone() });
            }
        }
    }
    params.sort();
    params.dedup();
    for param in params {
        let of = of(&|one| one.places.params.contains(param));
        for text in values_of(path, param) {
            found.push(Found { text, place: Place::Param(param.clone()), of: of.clone() });
        }
    }
    cookies.sort();
    cookies.dedup();
    for cookie in cookies {
        let of = of(&|one| one.places.cookies.contains(cookie));
        for text in cookies_of(headers, cookie) {
            found.push(Found { text, place: Place::Cookie(cookie.clone()), of: of.clone() });
        }
    }
    found
}

/// Take a token out of the request. The path comes back if it changes. A cookie stays, as in
/// Envoy.
pub fn remove(place: &Place, headers: &mut HeaderMap, path: &str) -> Option<String> {
    match place {
        Place::Header(name) => {
            headers.remove(name);
            None
        }
        Place::Cookie(_) => None,
        Place::Param(param) => {
            let (before, query) = path.split_once('?')?;
            let others: Vec<&str> =
                query.split('&').filter(|pair| name_of(pair) != *param).collect();
            Some(match others[..] {
                [] => before.to_owned(),
                _ => format!("{before}?{}", others.join("&")),
            })
        }
    }
}

/// The token after a prefix: what follows from the first character that a token may have. None:
/// the prefix is not there.
fn after<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() {
        return Some(line);
    }
    let (_, rest) = line.split_once(prefix)?;
    let of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    Some(rest.find(of_token).map_or(line, |start| &rest[start..]))
}

fn name_of(pair: &str) -> String {
    decoded(pair.split_once('=').map_or(pair, |(name, _)| name))
}

fn values_of<'a>(path: &'a str, param: &'a str) -> impl Iterator<Item = String> + 'a {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    let pairs = query.split('&').filter(|pair| !pair.is_empty() && name_of(pair) == *param);
    pairs.map(|pair| decoded(pair.split_once('=').map_or("", |(_, value)| value)))
}

fn cookies_of(headers: &HeaderMap, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in headers.get_all(COOKIE) {
        let line = String::from_utf8_lossy(line.as_bytes());
        for pair in line.split(';') {
            if let Some((key, value)) = pair.trim().split_once('=')
                && key.trim_end() == name
            {
                let value = value.trim_start();
                let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                found.push(inner.unwrap_or(value).to_owned());
            }
        }
    }
    found
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
