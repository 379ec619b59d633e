//! `stateful_session`: the client says at which endpoint its session is, and is told when that is
//! another one now.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, Request};
use prost::Message;

use super::OnReply;
use crate::http::body::RequestBody;
use crate::http::target;
use crate::model::filter::{SessionState, StatefulSession};
use crate::policy::hash::{NewCookie, cookie};
use crate::serve::admit::NamedHosts;
use crate::serve::exchange::Exchange;
use crate::serve::reply::set_cookie;

/// What is in the cookie, in base64 (Envoy's `Cookie` message).
#[derive(Clone, PartialEq, Message)]
struct Place {
    #[prost(string, tag = "1")]
    address: String,
    /// Seconds since 1970; 0: never.
    #[prost(uint64, tag = "2")]
    expires: u64,
}

/// Where the request's session is.
pub(super) fn find(
    exchange: &mut Exchange,
    config: &Arc<StatefulSession>,
    request: &Request<RequestBody>,
) {
    let said = match &config.state {
        None => return,
        Some(SessionState::Cookie { name, path, ttl, .. }) => {
            if !covers(path, target::path(request.uri())) {
                return;
            }
            cookie(request.headers(), name).and_then(|value| read(value, *ttl, now()))
        }
        Some(SessionState::Header(name)) => request
            .headers()
            .get(name)
            .and_then(|value| STANDARD.decode(value.as_bytes()).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .filter(|address| !address.is_empty()),
    };
    if let Some(address) = &said {
        let addresses = address.clone();
        exchange.notes.named =
            Some(NamedHosts { addresses, strict: config.strict, every_try: false });
    }
    exchange.notes.on_reply(OnReply::Session(Arc::clone(config), said));
}

/// Tells the client where its session is now, if that is not where it said.
pub(super) fn tell(
    exchange: &Exchange,
    config: &StatefulSession,
    said: Option<String>,
    map: &mut HeaderMap,
) {
    let Some(endpoint) = &exchange.facts.endpoint else { return };
    let address = endpoint.address_text();
    if said.as_deref() == Some(address) {
        return;
    }
    match &config.state {
        None => {}
        Some(SessionState::Cookie { name, path, ttl, attributes }) => {
            let cookie = NewCookie {
                name: name.clone(),
                value: write(address, *ttl, now()),
                path: path.clone(),
                ttl: *ttl,
                attributes: Arc::clone(attributes),
            };
            if let Some(value) = set_cookie(&cookie) {
                map.append(SET_COOKIE, value);
            }
        }
        Some(SessionState::Header(name)) => {
            if let Ok(value) = HeaderValue::from_str(&STANDARD.encode(address)) {
                map.insert(name, value);
            }
        }
    }
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Whether a cookie with this path goes with this request (RFC 6265 section 5.1.4).
fn covers(cookie: &str, target: &str) -> bool {
    let path = target.split(['?', '#']).next().unwrap_or(target);
    match path.strip_prefix(cookie) {
        None => false,
        Some(rest) => {
            cookie.is_empty() || cookie.ends_with('/') || rest.is_empty() || rest.starts_with('/')
        }
    }
}

fn read(value: &str, ttl: Duration, now: Duration) -> Option<String> {
    let place = Place::decode(&*STANDARD.decode(value).ok()?).ok()?;
    let expired = !ttl.is_zero() && place.expires != 0 && place.expires < now.as_secs();
    (!expired && !place.address.is_empty()).then_some(place.address)
}

fn write(address: &str, ttl: Duration, now: Duration) -> String {
    let expires = if ttl.is_zero() { 0 } else { (now + ttl).as_secs() };
    STANDARD.encode(Place { address: address.to_owned(), expires }.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_its_cookie_until_it_expires() {
        let second = Duration::from_secs(1);
        let value = write("10.0.0.1:80", second * 60, second * 100);
        assert_eq!(read(&value, second * 60, second * 160).as_deref(), Some("10.0.0.1:80"));
        assert_eq!(read(&value, second * 60, second * 161), None);
        let forever = write("[::1]:80", Duration::ZERO, second);
        assert_eq!(forever, "CghbOjoxXTo4MA==");
        assert_eq!(read(&forever, Duration::ZERO, second * 1_000_000).as_deref(), Some("[::1]:80"));
        assert_eq!(read("!", Duration::ZERO, second), None);
        assert_eq!(read("", Duration::ZERO, second), None);
    }

    #[test]
    fn a_cookie_covers_what_is_below_its_path() {
        for (cookie, target, expected) in [
            ("", "/a", true),
            ("/", "/a", true),
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/a?x=/b", true),
            ("/a", "/ab", false),
            ("/a/", "/a", false),
            ("/a/", "/a/b", true),
        ] {
            assert_eq!(covers(cookie, target), expected, "{cookie} {target}");
        }
    }
}
