//! HTTP filters: what is asked of a request between its route and its admission. One filter a file.
//!
//! A filter either lets the request go on (and may change it), or answers it; what it has to say
//! about the answer it leaves in [`Exchange::on_reply`](super::exchange::Exchange).

mod cors;
mod fault;
mod rate_limit;
mod rbac;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request};

use super::exchange::Exchange;
use super::headers;
use super::reply::Answer;
use crate::http::body::RequestBody;
use crate::model::Name;
use crate::model::filter::{Cors, FilterKind, HttpFilter, Override};
use crate::model::rate_limit::{LocalRateLimit, Taken};
use crate::model::route::{Action, Route, RouteTable, Target, VirtualHost};
use crate::route::Match;
use crate::telemetry::reason::Refusal;
use crate::telemetry::stats::{Registry, Scope};

/// A filter as it lives: its configuration and its metrics.
#[derive(Debug)]
pub(super) struct Filter {
    config: HttpFilter,
    stats: Stats,
}

#[derive(Debug)]
enum Stats {
    Rbac(rbac::RbacStats),
    RateLimit(rate_limit::RateLimitStats),
    Fault(fault::FaultStats),
    Cors(cors::CorsStats),
}

/// What a filter changes about the answer.
#[derive(Debug)]
pub(super) enum OnReply {
    /// `access-control-*` for this origin.
    Cors(HeaderValue, Arc<Cors>),
    /// `x-ratelimit-*`
    RateLimit(Taken),
    /// `response_headers_to_add` of a limit that refused.
    Limited(Arc<LocalRateLimit>),
}

/// What is known about the route when the filters run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routed<'a> {
    table: &'a RouteTable,
    /// None: no route matches, and no settings but the filter's own hold (as in Envoy).
    found: Option<(&'a VirtualHost, &'a Route)>,
}

impl<'a> Routed<'a> {
    pub(super) fn of(table: &'a RouteTable, matched: Option<Match<'a>>) -> Self {
        let found = matched.and_then(|matched| Some((&**matched.host, &**matched.route?)));
        Self { table, found }
    }

    /// The cluster that the route leads to, if that is known beforehand.
    pub(super) fn cluster(self) -> Option<&'a Name> {
        match &self.found?.1.action {
            Action::Forward(forward) => match &forward.target {
                Target::Cluster(name) => Some(name),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The filters of a connection manager, with metrics under its prefix.
pub(super) fn all(filters: &[HttpFilter], registry: &Registry, prefix: &Name) -> Vec<Filter> {
    let label = ("envoy_http_conn_manager_prefix", Arc::clone(prefix));
    let scope = registry.scope("http", Some(label));
    let live = |config: &HttpFilter| Filter {
        stats: Stats::new(&config.kind, registry, &scope),
        config: config.clone(),
    };
    filters.iter().map(live).collect()
}

/// Every filter in order, until one of them answers.
///
/// # Errors
/// A filter refuses the request.
pub(super) async fn run(
    exchange: &mut Exchange,
    filters: &[Filter],
    routed: Routed<'_>,
    request: &mut Request<RequestBody>,
) -> Result<Option<Answer>, Refusal> {
    for filter in filters {
        let Some(kind) = effective(filter, routed) else { continue };
        match (kind, &filter.stats) {
            (FilterKind::Rbac(config), Stats::Rbac(stats)) => {
                rbac::check(exchange, config, stats, request)?;
            }
            (FilterKind::LocalRateLimit(config), Stats::RateLimit(stats)) => {
                rate_limit::check(exchange, config, stats, (routed, request))?;
            }
            (FilterKind::Fault(config), Stats::Fault(stats)) => {
                if let Some(drawn) = fault::draw(config, stats, routed, request) {
                    fault::inject(exchange, drawn, stats).await?;
                }
            }
            (FilterKind::Cors(Some(policy)), Stats::Cors(stats)) => {
                if let Some(answer) = cors::preflight(exchange, policy, stats, request) {
                    return Ok(Some(answer));
                }
            }
            // CORS without a policy, or settings of another filter's kind: nothing to do.
            _ => {}
        }
    }
    Ok(None)
}

/// What filters left to say about the answer, the last filter first.
pub(super) fn reply(exchange: &Exchange, map: &mut HeaderMap) {
    for what in exchange.on_reply.iter().rev() {
        match what {
            OnReply::Cors(origin, policy) => cors::allow(origin, policy, map),
            OnReply::RateLimit(taken) => rate_limit::tell(*taken, map),
            OnReply::Limited(config) => {
                headers::change(exchange, std::iter::once(&config.response_headers), map);
            }
        }
    }
}

/// The filter's settings for this route: the most specific that there are. None: it is off.
fn effective<'a>(filter: &'a Filter, routed: Routed<'a>) -> Option<&'a FilterKind> {
    let said =
        routed.found.map(|(host, route)| [&route.filters, &host.filters, &routed.table.filters]);
    let mut said = said.into_iter().flatten().flatten();
    match said.find(|(name, _)| *name == filter.config.name) {
        Some((_, Override::Off)) => None,
        Some((_, Override::Settings(kind))) => Some(kind),
        Some((_, Override::On)) => Some(&filter.config.kind),
        None => (!filter.config.disabled).then_some(&filter.config.kind),
    }
}

impl Stats {
    fn new(kind: &FilterKind, registry: &Registry, scope: &Scope) -> Self {
        match kind {
            FilterKind::Rbac(config) => Self::Rbac(rbac::RbacStats::new(scope, config)),
            FilterKind::LocalRateLimit(config) => {
                Self::RateLimit(rate_limit::RateLimitStats::new(registry, &config.stat_prefix))
            }
            FilterKind::Fault(_) => Self::Fault(fault::FaultStats::new(scope)),
            FilterKind::Cors(_) => Self::Cors(cors::CorsStats::new(scope)),
        }
    }
}
