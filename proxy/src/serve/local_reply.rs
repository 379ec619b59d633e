//! What becomes of the proxy's own answers (`local_reply_config`), before they are put into the
//! protocol that the client speaks.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};

use super::exchange::Exchange;
use super::{headers, record};
use crate::model::local_reply::{BodyFormat, LocalReplies, Mapper};
use crate::model::route::Action;
use crate::telemetry::access_log;
use crate::telemetry::format::Record;
use crate::telemetry::reason::Reason;

/// Rewrite an answer as the connection manager wants it, and say what its text is.
pub(super) fn rewrite(
    exchange: &mut Exchange,
    reason: Reason,
    mut response: Response<Bytes>,
) -> Response<Bytes> {
    let spelled_out = format_of_route(exchange, reason, &response);
    let http = std::sync::Arc::clone(&exchange.connection.http);
    let kind = match (&http.manager.local_replies, spelled_out) {
        (None, None) => None,
        (None, Some((text, kind))) => {
            *response.body_mut() = text;
            Some(kind)
        }
        (Some(config), spelled_out) => {
            if let Some((text, kind)) = spelled_out {
                *response.body_mut() = text;
                response.headers_mut().entry(CONTENT_TYPE).or_insert(kind);
            }
            return by_config(exchange, config, response);
        }
    };
    if !response.body().is_empty() {
        let kind = kind.unwrap_or(TEXT);
        response.headers_mut().entry(CONTENT_TYPE).or_insert(kind);
    }
    response
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain");

/// `body_format` of a direct response.
fn format_of_route(
    exchange: &Exchange,
    reason: Reason,
    response: &Response<Bytes>,
) -> Option<(Bytes, HeaderValue)> {
    let route = exchange.facts.route.as_ref().filter(|_| reason == Reason::DirectResponse)?;
    let Action::Direct(direct) = &route.action else { return None };
    let format = direct.format.as_deref()?;
    let text = fill(exchange, format, response.headers(), response.body());
    Some((text, format.content_type.clone()))
}

fn by_config(
    exchange: &mut Exchange,
    config: &LocalReplies,
    response: Response<Bytes>,
) -> Response<Bytes> {
    let (mut head, before) = response.into_parts();
    let said = head.headers.get(CONTENT_TYPE).cloned();
    let passes = |mapper: &&Mapper| {
        let mut passes = false;
        record::with(exchange, None, Some(&head.headers), |record| {
            passes = access_log::passes(&mapper.filter, record);
        });
        passes
    };
    let mapper = config.mappers.iter().find(passes);
    let mut text = before.clone();
    if let Some(mapper) = mapper {
        if let Some(body) = &mapper.body {
            text = body.clone();
        }
        headers::change(exchange, std::iter::once(&mapper.headers), &mut head.headers);
        if let Some(status) = mapper.status {
            head.status = status;
            exchange.facts.status = Some(status);
        }
    }
    let format = mapper.and_then(|mapper| mapper.format.as_ref()).or(config.format.as_ref());
    if let Some(format) = format {
        text = fill(exchange, format, &head.headers, &text);
    }
    if text.is_empty() {
        head.headers.remove(CONTENT_TYPE);
    } else {
        let chosen = head.headers.get(CONTENT_TYPE) != said.as_ref();
        if !head.headers.contains_key(CONTENT_TYPE) || (text != before && !chosen) {
            let kind = format.map_or(TEXT, |format| format.content_type.clone());
            head.headers.insert(CONTENT_TYPE, kind);
        }
    }
    Response::from_parts(head, text)
}

fn fill(exchange: &Exchange, format: &BodyFormat, headers: &HeaderMap, text: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(text);
    let mut made = String::new();
    record::with(exchange, None, Some(headers), |record| {
        let record = Record { local_reply: Some(&text), ..*record };
        made = access_log::line(&format.format, &record);
    });
    Bytes::from(made)
}
