//! An answer on its way back through the filters.

use std::sync::Arc;

use http::Response;

use super::{Filter, OnReply, Routed, Stats, effective};
use super::{
    adaptive, bandwidth, compress, cors, decompress, discovered, ext_authz, global_limit,
    grpc_stats, grpc_web, health_check, mutate, rate_limit, stateful_session,
};
use crate::model::filter::FilterKind;
use crate::serve::body::AnswerBody;
use crate::serve::exchange::Exchange;
use crate::serve::headers;

/// Whether a filter has something to do about an answer.
pub(in super::super) fn wants_reply(exchange: &Exchange) -> bool {
    let http = &exchange.connection.http;
    let by_itself = |filter: &Filter| {
        matches!(filter.config.kind, FilterKind::HeaderMutation(_) | FilterKind::Discovered(_))
    };
    !exchange.notes.on_reply.is_empty()
        || http.filters.iter().any(by_itself)
        || (!http.filters.is_empty() && http.context.own.is_failing())
}

/// Every filter in reverse order, on any answer.
pub(in super::super) async fn reply(exchange: &mut Exchange, response: &mut Response<AnswerBody>) {
    let connection = Arc::clone(&exchange.connection);
    let filters = &connection.http.filters;
    let mut left = std::mem::take(&mut exchange.notes.on_reply);
    if connection.http.context.own.is_failing() {
        health_check::tell_failure(exchange, &left, response.headers_mut());
    }
    for (at, filter) in filters.iter().enumerate().rev() {
        let held;
        let (filters, filter) = match &filter.config.kind {
            FilterKind::Discovered(found) => {
                // Without settings it did nothing, so there is nothing to do about the answer.
                held = discovered::find(exchange, filter, found).ok().flatten();
                let Some(filter) = held.as_deref() else { continue };
                (std::slice::from_ref(filter), filter)
            }
            _ => (filters.as_slice(), filter),
        };
        while let Some((_, what)) = left.pop_if(|(of, _)| *of == at) {
            let whole = std::mem::replace(response, Response::new(AnswerBody::Empty));
            *response = noted(exchange, (filters, filter), what, whole).await;
        }
        if matches!(filter.config.kind, FilterKind::HeaderMutation(_)) {
            let routed = Routed::again(exchange);
            if effective(filter, routed).is_some() {
                let whole = std::mem::replace(response, Response::new(AnswerBody::Empty));
                *response = mutate::response(exchange, &mutate::levels(filter, routed), whole);
            }
        }
    }
}

/// What a filter wanted to do about the answer.
async fn noted(
    exchange: &Exchange,
    (filters, filter): (&[Filter], &Filter),
    what: OnReply,
    mut response: Response<AnswerBody>,
) -> Response<AnswerBody> {
    let status = response.status();
    let map = response.headers_mut();
    match (what, &filter.stats) {
        (OnReply::Cors(origin, policy), _) => cors::allow(&origin, &policy, map),
        (OnReply::RateLimit(taken), _) => rate_limit::tell(taken, map),
        (OnReply::Changes(changes), _) => ext_authz::on_reply(&changes, map),
        (OnReply::Session(config, said), _) => {
            stateful_session::tell(exchange, &config, said, map);
        }
        (OnReply::Add(headers, ours), _) => global_limit::add(&headers, ours, map),
        (OnReply::Limited(config), _) => {
            headers::change(exchange, std::iter::once(&config.response_headers), map);
        }
        (OnReply::Checked(time), Stats::HealthCheck(cache)) => {
            health_check::checked(exchange, (cache, time), (status, map));
        }
        (OnReply::Outstanding(one), _) => return adaptive::measure(one, response),
        (OnReply::Admitted(config), Stats::Admission(stats)) => {
            return adaptive::judge(config, stats, response);
        }
        (OnReply::Slow(kbps, held), _) => return bandwidth::alone(kbps, response, held),
        (OnReply::GrpcWeb(text, call), _) => {
            return grpc_web::response((text, call), response).await;
        }
        (OnReply::GrpcStats(call), _) => return grpc_stats::response(call, response),
        (OnReply::Compress(asked), Stats::Compress(stats)) => {
            let routed = Routed::again(exchange);
            return compress::response(&asked, stats, (filters, routed), response);
        }
        (OnReply::Decompress, Stats::Decompress(stats)) => {
            if let FilterKind::Decompressor(config) = &filter.config.kind {
                return decompress::response(config, stats, response);
            }
        }
        (OnReply::Bandwidth(limited), _) => {
            let registry = &exchange.connection.http.context.registry;
            return bandwidth::response(&limited, registry, response);
        }
        // Of a filter of another kind: there is none.
        _ => {}
    }
    response
}
