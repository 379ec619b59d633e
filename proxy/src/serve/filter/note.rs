//! Filters that note things about a request for those who come after them (Envoy: set filter state
//! and header to metadata filters).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::COOKIE;
use http::{HeaderMap, Request};

use super::super::exchange::Exchange;
use super::super::record;
use crate::http::body::RequestBody;
use crate::model::dynamic::{HeaderOrCookie, HeaderRule, Noted, NotedKind, SetState, State};
use crate::model::metadata::{Fields, Value};
use crate::telemetry::format;

/// Longer values are not noted (Envoy has the same limit).
const LONGEST: usize = 8 * 1024;

/// `set_filter_state`
pub(super) fn state(exchange: &mut Exchange, all: &[SetState], request: &Request<RequestBody>) {
    for one in all {
        let mut value = String::new();
        record::with(exchange, Some(request), None, |record| {
            format::write(&one.value, record, &mut value);
        });
        if value.is_empty() && one.skip_if_empty {
            continue;
        }
        let state = State { value, read_only: one.read_only };
        exchange.facts.dynamic_mut().set(&one.key, state);
    }
}

/// `header_to_metadata`
pub(super) fn headers(
    exchange: &mut Exchange,
    rules: &[HeaderRule],
    request: &mut Request<RequestBody>,
) {
    for rule in rules {
        let found = match &rule.from {
            HeaderOrCookie::Header(name) => joined(request.headers(), name),
            HeaderOrCookie::Cookie(name) => cookie(request.headers(), name),
        };
        let (noted, value) = match &found {
            Some(value) => (&rule.present, value.as_str()),
            None => (&rule.missing, ""),
        };
        if let Some(noted) = noted
            && let Some(value) = value_of(noted, value)
        {
            let fields = Fields::from([(noted.key.clone(), value)]);
            exchange.facts.dynamic_mut().note(&noted.namespace, fields);
        }
        if let (true, Some(_), HeaderOrCookie::Header(name)) = (rule.remove, &found, &rule.from) {
            request.headers_mut().remove(name);
        }
    }
}

/// What is noted of a header's value. None: nothing, for it is empty, too long or makes no sense.
fn value_of(noted: &Noted, found: &str) -> Option<Value> {
    let text = if noted.value.is_empty() { found } else { &noted.value };
    let text = match &noted.rewrite {
        Some((regex, substitution)) => crate::route::replace_all(regex, substitution, text),
        None => text.to_owned(),
    };
    if text.is_empty() || text.len() > LONGEST {
        return None;
    }
    let text =
        if noted.base64 { String::from_utf8(STANDARD.decode(text).ok()?).ok()? } else { text };
    match noted.kind {
        NotedKind::Text => Some(Value::Text(text)),
        NotedKind::Number => text.parse().ok().map(Value::Number),
    }
}

fn joined(map: &HeaderMap, name: &http::HeaderName) -> Option<String> {
    let mut lines = map.get_all(name).iter().filter_map(|line| line.to_str().ok());
    let mut all = lines.next()?.to_owned();
    for line in lines {
        all.push(',');
        all.push_str(line);
    }
    Some(all)
}

fn cookie(map: &HeaderMap, name: &str) -> Option<String> {
    let lines = map.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';'));
    pairs.find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then(|| value.trim_matches('"').to_owned())
    })
}
