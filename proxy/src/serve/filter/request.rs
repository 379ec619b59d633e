//! A request on its way through the filters.

use http::Request;

use super::{Filter, OnReply, Passed, Routed, Stats, effective};
use super::{
    adaptive, bandwidth, buffer, compress, cors, csrf, decompress, discovered, ext_authz, fault,
    global_limit, grpc_stats, grpc_web, health_check, jwt, mutate, note, rate_limit, rbac,
    stateful_session,
};
use crate::http::body::RequestBody;
use crate::model::filter::FilterKind;
use crate::serve::exchange::Exchange;
use crate::serve::record;
use crate::serve::reply::Answer;
use crate::telemetry::reason::Refusal;

/// Every filter in order, until one of them answers.
///
/// # Errors
/// A filter refuses the request.
pub(in super::super) async fn run<'a>(
    exchange: &mut Exchange,
    filters: &[Filter],
    routed: Routed<'a>,
    request: &mut Request<RequestBody>,
) -> Result<Passed<'a>, Refusal> {
    let mut routed = routed;
    note(exchange, routed);
    for (at, filter) in filters.iter().enumerate() {
        exchange.notes.at = at;
        let Some(kind) = effective(filter, routed) else { continue };
        let answer = match at_once(exchange, (filter, kind), routed, request)? {
            Done::On => None,
            Done::Answered(answer) => Some(*answer),
            // In a box, so that requests whose filters do not wait stay small.
            Done::Waits(wait) => {
                Box::pin(waiting(exchange, (filter, kind), wait, (routed, request))).await?
            }
        };
        if let Some(answer) = answer {
            return Ok(Passed::Answered(answer));
        }
        if std::mem::take(&mut exchange.notes.reroute) {
            routed = exchange.choose(routed.table, request);
            note(exchange, routed);
        }
    }
    // Logs tell the request as it went on.
    record::keep_head(exchange, request);
    Ok(Passed::On(routed))
}

fn note(exchange: &mut Exchange, routed: Routed<'_>) {
    exchange.notes.weighted = routed.drawn_at();
    exchange.note(routed);
}

/// What a filter makes of a request without waiting for anything.
enum Done {
    /// The request goes on.
    On,
    /// It is answered.
    Answered(Box<Answer>),
    /// It has to wait.
    Waits(Wait),
}

/// What a filter that waits has found out before.
enum Wait {
    Fault(fault::Drawn),
    Other,
}

impl From<Option<Answer>> for Done {
    fn from(answer: Option<Answer>) -> Self {
        answer.map_or(Self::On, |answer| Self::Answered(Box::new(answer)))
    }
}

/// One filter, as far as it gets at once.
///
/// # Errors
/// It refuses the request.
fn at_once(
    exchange: &mut Exchange,
    (filter, kind): (&Filter, &FilterKind),
    routed: Routed<'_>,
    request: &mut Request<RequestBody>,
) -> Result<Done, Refusal> {
    // Whatever a route says of it, it has to be found first.
    if matches!(filter.config.kind, FilterKind::Discovered(_)) {
        return Ok(Done::Waits(Wait::Other));
    }
    match (kind, &filter.stats) {
        (FilterKind::Rbac(config), Stats::Rbac(stats)) => {
            return Ok(rbac::check(exchange, config, stats, request).into());
        }
        (FilterKind::LocalRateLimit(config), _) => {
            rate_limit::check(exchange, config, (routed, request))?;
        }
        (FilterKind::Fault(config), Stats::Fault(stats)) => {
            let drawn = fault::draw(config, stats, routed, request);
            return Ok(drawn.map_or(Done::On, |drawn| Done::Waits(Wait::Fault(drawn))));
        }
        (FilterKind::Cors(Some(policy)), Stats::Cors(stats)) => {
            return Ok(cors::preflight(exchange, policy, stats, request).into());
        }
        (FilterKind::HealthCheck(config), Stats::HealthCheck(cache)) => {
            return Ok(health_check::check(exchange, config, cache, request).into());
        }
        (FilterKind::StatefulSession(config), _) => {
            stateful_session::find(exchange, config, request);
        }
        (FilterKind::AdaptiveConcurrency(config), Stats::Adaptive(scope)) => {
            adaptive::limit(exchange, config, scope)?;
        }
        (FilterKind::Admission(config), Stats::Admission(stats)) => {
            adaptive::admit(exchange, config, stats)?;
        }
        (FilterKind::Csrf(policy), Stats::Csrf(stats)) => csrf::check(policy, stats, request)?,
        (
            FilterKind::ExtAuthz(_)
            | FilterKind::ExtAuthzRoute(_)
            | FilterKind::Jwt(_)
            | FilterKind::JwtRoute(_)
            | FilterKind::GlobalRateLimit(_)
            | FilterKind::GlobalRateLimitRoute(_)
            | FilterKind::Buffer(_)
            | FilterKind::GrpcWeb,
            _,
        ) => return Ok(Done::Waits(Wait::Other)),
        _ => change(exchange, (filter, kind), routed, request),
    }
    Ok(Done::On)
}

/// The same for filters that never answer by themselves.
fn change(
    exchange: &mut Exchange,
    (filter, kind): (&Filter, &FilterKind),
    routed: Routed<'_>,
    request: &mut Request<RequestBody>,
) {
    match (kind, &filter.stats) {
        (FilterKind::HeaderMutation(_), _) => {
            mutate::request(exchange, &mutate::levels(filter, routed), request);
        }
        (FilterKind::GrpcStats(config), _) => {
            if let Some(call) = grpc_stats::request(exchange, config, request) {
                exchange.notes.on_reply(OnReply::GrpcStats(call));
            }
        }
        (FilterKind::Compressor(config), Stats::Compress(stats)) => {
            let asked = compress::request(config, None, stats, request);
            exchange.notes.on_reply(OnReply::Compress(asked));
        }
        (FilterKind::CompressorRoute(route), Stats::Compress(stats)) => {
            let FilterKind::Compressor(config) = &filter.config.kind else { return };
            let asked = compress::request(config, Some(route), stats, request);
            exchange.notes.on_reply(OnReply::Compress(asked));
        }
        (FilterKind::SetState(all), _) => note::state(exchange, all, request),
        (FilterKind::HeaderToMetadata(rules), _) => note::headers(exchange, rules, request),
        (FilterKind::Decompressor(config), Stats::Decompress(stats)) => {
            decompress::request(config, stats, request);
            exchange.notes.on_reply(OnReply::Decompress);
        }
        (FilterKind::BandwidthLimit(config), _) => {
            let registry = &exchange.connection.http.context.registry;
            let limited = bandwidth::request(config, registry, request);
            exchange.notes.on_reply(OnReply::Bandwidth(limited));
        }
        // CORS without a policy, or settings of another filter's kind: nothing to do.
        _ => {}
    }
}

/// One filter that waits.
///
/// # Errors
/// It refuses the request.
async fn waiting(
    exchange: &mut Exchange,
    (filter, kind): (&Filter, &FilterKind),
    wait: Wait,
    (routed, request): (Routed<'_>, &mut Request<RequestBody>),
) -> Result<Option<Answer>, Refusal> {
    if let FilterKind::Discovered(found) = &filter.config.kind {
        let held = discovered::find(exchange, filter, found)?;
        let Some(filter) = held.as_deref() else { return Ok(None) };
        let Some(kind) = effective(filter, routed) else { return Ok(None) };
        return match at_once(exchange, (filter, kind), routed, request)? {
            Done::On => Ok(None),
            Done::Answered(answer) => Ok(Some(*answer)),
            Done::Waits(wait) => {
                Box::pin(waiting(exchange, (filter, kind), wait, (routed, request))).await
            }
        };
    }
    match (kind, &filter.stats, wait) {
        (_, Stats::Fault(stats), Wait::Fault(drawn)) => {
            return Ok(fault::inject(exchange, drawn, stats).await);
        }
        (FilterKind::ExtAuthz(_) | FilterKind::ExtAuthzRoute(_), Stats::ExtAuthz(stats), _) => {
            if let FilterKind::ExtAuthz(config) = &filter.config.kind {
                let asked = (routed, request);
                return ext_authz::check(exchange, (config, filter), stats, asked).await;
            }
        }
        (FilterKind::Jwt(config), Stats::Jwt(stats), _) => {
            return jwt::check(exchange, (config, None), stats, request).await;
        }
        (FilterKind::JwtRoute(route), Stats::Jwt(stats), _) => {
            if let FilterKind::Jwt(config) = &filter.config.kind {
                return jwt::check(exchange, (config, Some(route)), stats, request).await;
            }
        }
        (FilterKind::GlobalRateLimit(config), ..) => {
            return global_limit::check(exchange, (config, None), routed, request).await;
        }
        (FilterKind::GlobalRateLimitRoute(route), ..) => {
            if let FilterKind::GlobalRateLimit(config) = &filter.config.kind {
                let asked = (&**config, Some(&**route));
                return global_limit::check(exchange, asked, routed, request).await;
            }
        }
        (FilterKind::Buffer(most), ..) => buffer::fill(exchange, *most, request).await?,
        (FilterKind::GrpcWeb, Stats::GrpcWeb(known), _) => {
            grpc_web::request(exchange, known, request).await?;
        }
        // Settings of another filter's kind: nothing to do.
        _ => {}
    }
    Ok(None)
}
