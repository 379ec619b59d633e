//! HTTP filters: what is asked of a request between its route and its admission, and of its answer
//! on the way back. One filter a file.
//!
//! A request meets the filters in their order ([`run`]). A filter lets it go on, and may change its
//! head and body, or answers it. It may wait: for a time, or for a service that it calls. Every
//! answer, of an endpoint or of this proxy's own, meets the same filters in reverse order
//! ([`reply`]): those that left a note about it in [`Notes`], and those that look at every answer.
//!
//! Without filters nothing here costs anything.

mod accept_encoding;
mod adaptive;
mod answer;
mod bandwidth;
mod buffer;
mod compress;
mod cors;
mod csrf;
mod decompress;
mod denial;
mod describe;
mod discovered;
mod ext_authz;
mod fault;
mod global_limit;
mod grpc_stats;
mod grpc_web;
mod health_check;
mod jwt;
mod mutate;
mod note;
mod rate_limit;
mod rbac;
mod request;
mod rls;
mod stateful_session;
mod whole;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

pub(super) use answer::{reply, wants_reply};
pub(super) use request::run;

use super::admit::{self, NamedHosts};
use super::exchange::Exchange;
use super::reply::Answer;
use crate::cluster::Clusters;
use crate::model::Name;
use crate::model::adaptive::Admission;
use crate::model::ext_authz::Change;
use crate::model::filter::{Cors, FilterKind, HttpFilter, Override, Overrides, StatefulSession};
use crate::model::matcher::RequestView;
use crate::model::rate_limit::{LocalRateLimit, Taken};
use crate::model::route::{Action, RouteTable, Target, WeightedCluster};
use crate::route::{self, Given, Match};
use crate::telemetry::stats::{GaugeGuard, Registry, Scope};

/// Namespace of what RBAC notes.
pub(super) const RBAC: &str = "envoy.filters.http.rbac";

/// A filter as it lives: its configuration and its metrics.
#[derive(Debug)]
pub(super) struct Filter {
    config: HttpFilter,
    stats: Stats,
}

#[derive(Debug)]
enum Stats {
    Rbac(Box<rbac::RbacStats>),
    Fault(fault::FaultStats),
    Cors(cors::CorsStats),
    HealthCheck(health_check::Cache),
    Jwt(jwt::JwtStats),
    Csrf(csrf::CsrfStats),
    Adaptive(Scope),
    Admission(adaptive::AdmissionStats),
    GrpcWeb(grpc_stats::Known),
    Compress(compress::CompressStats),
    Decompress(decompress::DecompressStats),
    ExtAuthz(ext_authz::ExtAuthzStats),
    /// It counts nothing.
    None,
}

/// What filters remember of a request until its answer.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// `grpc-status` of a refusal, where a filter chose it.
    pub(super) grpc_status: Option<u16>,
    /// A filter changed what routes match on: the route is chosen again before the next filter
    /// (Envoy: `clear_route_cache`).
    pub(super) reroute: bool,
    /// Endpoints that a filter wants the request to go to.
    pub(super) named: Option<NamedHosts>,
    /// Place of the filter that is at work.
    at: usize,
    /// Of a weighted route: the place of the entry that was drawn.
    weighted: Option<usize>,
    /// By the place of the filter, in order.
    on_reply: Vec<(usize, OnReply)>,
}

/// What a filter that saw the request has to do about its answer.
#[derive(Debug)]
pub(super) enum OnReply {
    /// `access-control-*` for this origin.
    Cors(HeaderValue, Arc<Cors>),
    /// `x-ratelimit-*`
    RateLimit(Taken),
    /// Measured to its end.
    Outstanding(adaptive::Outstanding),
    /// Judged, for those that come after.
    Admitted(Arc<Admission>),
    /// These headers; true: into an answer of our own, whose type they may replace.
    Add(HeaderMap, bool),
    /// `response_headers_to_add` of a limit that refused.
    Limited(Arc<LocalRateLimit>),
    /// Tell the client where its session is, if that is not here, where it said.
    Session(Arc<StatefulSession>, Option<String>),
    /// At so many KiB a second; counted as an active fault while it lasts.
    Slow(u64, GaugeGuard),
    /// gRPC-Web; true: in base64.
    GrpcWeb(bool, Option<grpc_stats::Call>),
    /// Counts messages and status.
    GrpcStats(grpc_stats::Call),
    /// Compressed, if the client takes that.
    Compress(compress::Asked),
    /// Decompressed.
    Decompress,
    /// Slower.
    Bandwidth(bandwidth::Limited),
    /// Headers that an authorization service wants.
    Changes(Vec<Change>),
    /// It is a health check; an answer of the upstream is kept for so long.
    Checked(Option<Duration>),
}

impl Notes {
    /// Have the filter that is at work do this about the answer.
    pub(super) fn on_reply(&mut self, what: OnReply) {
        self.on_reply.push((self.at, what));
    }
}

/// What filters made of a request.
pub(super) enum Passed<'a> {
    /// It goes on, by this route.
    On(Routed<'a>),
    /// One of them answers it.
    Answered(Answer),
}

/// The route as it was chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routed<'a> {
    pub(super) table: &'a RouteTable,
    /// None: no virtual host. Without a route no settings but the filter's own hold (as in Envoy).
    pub(super) matched: Option<Match<'a>>,
    /// Of a weighted route: where this request goes.
    pub(super) weighted: Option<&'a WeightedCluster>,
}

impl<'a> Routed<'a> {
    /// Whether an answer by this route may tell something about the request.
    pub(super) fn tells_request(&self) -> bool {
        self.table.tells_request
            || self.matched.is_some_and(|matched| {
                matched.host.tells_request || matched.route.is_some_and(|r| r.tells_request)
            })
    }

    /// Choose. The same luck chooses the same for the same request.
    pub(super) fn choose(table: &'a RouteTable, view: &RequestView<'_>, given: Given<'_>) -> Self {
        let matched = route::select(table, view, given);
        let weighted = match matched.and_then(|matched| Some(&matched.route?.action)) {
            Some(Action::Forward(forward)) => match &forward.target {
                // Another part of the number than shares of routes look at.
                Target::Weighted(all) => Some(admit::draw(all, view, (given, &forward.hash))),
                _ => None,
            },
            _ => None,
        };
        Self { table, matched, weighted }
    }

    /// What was chosen when the request went by; settings of the connection manager alone hold
    /// where it did not come so far.
    fn again(exchange: &'a Exchange) -> Self {
        static NO_TABLE: LazyLock<RouteTable> = LazyLock::new(RouteTable::default);
        let routes = &exchange.connection.http.manager.routes;
        let table = admit::route_table(&exchange.live, routes).unwrap_or(&NO_TABLE);
        let facts = &exchange.facts;
        let matched = facts.host.as_ref().map(|host| Match { host, route: facts.route.as_ref() });
        let weighted = match facts.route.as_ref().map(|route| &route.action) {
            Some(Action::Forward(forward)) => match &forward.target {
                Target::Weighted(all) => {
                    exchange.notes.weighted.and_then(|at| all.clusters.get(at))
                }
                _ => None,
            },
            _ => None,
        };
        Self { table, matched, weighted }
    }

    /// The place of the entry of a weighted route.
    fn drawn_at(self) -> Option<usize> {
        let drawn = self.weighted?;
        let Action::Forward(forward) = &self.matched?.route?.action else { return None };
        let Target::Weighted(all) = &forward.target else { return None };
        all.clusters.iter().position(|entry| std::ptr::eq(entry, drawn))
    }

    /// The cluster that the route leads to, if that is known beforehand.
    pub(super) fn cluster(self) -> Option<&'a Name> {
        match &self.matched?.route?.action {
            Action::Forward(forward) => match &forward.target {
                Target::Cluster(name) => Some(name),
                Target::Weighted(_) => self.weighted.map(|entry| &entry.cluster),
                Target::Header(_) => None,
            },
            _ => None,
        }
    }

    /// What the route says about the filter of this name, the most specific first: weighted
    /// cluster, route, virtual host, route configuration.
    pub(super) fn said(self, filter: &'a Name) -> impl Iterator<Item = &'a Override> {
        let of_filter = move |overrides: &'a Overrides| {
            overrides.iter().find(|(name, _)| name == filter).map(|(_, said)| said)
        };
        let route = self.matched.and_then(|matched| Some((matched.host, matched.route?)));
        let weighted = self.weighted.map(|entry| &entry.filters);
        let levels = route.map(|(host, route)| {
            [weighted, Some(&route.filters), Some(&host.filters), Some(&self.table.filters)]
        });
        levels.into_iter().flatten().flatten().filter_map(of_filter)
    }
}

/// The filters of a connection manager, with metrics under its prefix.
pub(super) fn all(filters: &[HttpFilter], registry: &Registry, prefix: &Name) -> Vec<Filter> {
    filters.iter().map(|config| built(config, registry, prefix)).collect()
}

fn built(config: &HttpFilter, registry: &Registry, prefix: &Name) -> Filter {
    let label = ("envoy_http_conn_manager_prefix", Arc::clone(prefix));
    let scope = registry.scope("http", Some(label));
    Filter { stats: Stats::new(&config.kind, registry, &scope), config: config.clone() }
}

/// What filters do before the first request comes. Without a runtime, as in `--mode validate`,
/// nothing.
pub(super) fn begin(filters: &[Filter], clusters: &Arc<Clusters>) {
    for filter in filters {
        if let (FilterKind::Jwt(config), Stats::Jwt(stats)) = (&filter.config.kind, &filter.stats) {
            jwt::fetch_ahead(config, stats, clusters);
        }
    }
}

/// Whether a filter will want to read the request's head when its answer comes.
pub(super) fn wants_head(filters: &[Filter]) -> bool {
    filters.iter().any(|filter| filter.config.kind.tells_request())
}

/// Whether a request is of the share, out of a million.
fn drawn(share: u32) -> bool {
    share >= 1_000_000 || fastrand::u32(..1_000_000) < share
}

/// The filter's settings for this route: the most specific that there are. None: it is off.
fn effective<'a>(filter: &'a Filter, routed: Routed<'a>) -> Option<&'a FilterKind> {
    match routed.said(&filter.config.name).next() {
        Some(Override::Off) => None,
        Some(Override::Settings(kind)) => Some(kind),
        Some(Override::On) => Some(&filter.config.kind),
        None => (!filter.config.disabled).then_some(&filter.config.kind),
    }
}

impl Stats {
    fn new(kind: &FilterKind, registry: &Registry, scope: &Scope) -> Self {
        match kind {
            FilterKind::Rbac(config) => Self::Rbac(Box::new(rbac::RbacStats::new(scope, config))),
            FilterKind::LocalRateLimit(config) => {
                // Shown from the start, not from the first request on.
                rate_limit::counters(config, registry);
                Self::None
            }
            FilterKind::Fault(_) => Self::Fault(fault::FaultStats::new(scope)),
            FilterKind::Cors(_) => Self::Cors(cors::CorsStats::new(scope)),
            FilterKind::StatefulSession(_) => Self::None,
            FilterKind::HealthCheck(_) => Self::HealthCheck(health_check::Cache::default()),
            FilterKind::Jwt(config) => Self::Jwt(jwt::JwtStats::new(scope, &config.stat_prefix)),
            FilterKind::GrpcWeb => Self::GrpcWeb(grpc_stats::Known::default()),
            FilterKind::AdaptiveConcurrency(_) => Self::Adaptive(scope.clone()),
            FilterKind::Admission(_) => Self::Admission(adaptive::AdmissionStats::new(scope)),
            FilterKind::Csrf(_) => Self::Csrf(csrf::CsrfStats::new(scope)),
            FilterKind::Compressor(config) => {
                Self::Compress(compress::CompressStats::new(scope, config))
            }
            FilterKind::Decompressor(config) => {
                Self::Decompress(decompress::DecompressStats::new(scope, config))
            }
            FilterKind::Buffer(_)
            | FilterKind::JwtRoute(_)
            | FilterKind::ExtAuthzRoute(_)
            | FilterKind::HeaderMutation(_)
            | FilterKind::Discovered(_)
            | FilterKind::GrpcStats(_)
            | FilterKind::SetState(_)
            | FilterKind::HeaderToMetadata(_)
            | FilterKind::CompressorRoute(_)
            | FilterKind::GlobalRateLimit(_)
            | FilterKind::GlobalRateLimitRoute(_)
            | FilterKind::BandwidthLimit(_) => Self::None,
            FilterKind::ExtAuthz(config) => {
                Self::ExtAuthz(ext_authz::ExtAuthzStats::new(scope, &config.stat_prefix))
            }
        }
    }
}
