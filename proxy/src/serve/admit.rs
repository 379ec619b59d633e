//! Steps four and five, route and admit: which cluster, under which limits, with which plan; and
//! what the request looks like towards the upstream.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};

use super::connection::Connection;
use super::exchange::Exchange;
use super::filter::Routed;
use super::headers;
use super::read;
use super::reply::{self, Answer};
use crate::cluster::{Cluster, Endpoint, Live, RequestPermit};
use crate::http::body::RequestBody;
use crate::http::{number, target};
use crate::model::balancing::SubsetMatch;
use crate::model::http::RouteSource;
use crate::model::matcher::RequestView;
use crate::model::names;
use crate::model::route::{
    Forward, HashPolicy, HostRewrite, RequireTls, RetryPolicy, Route, RouteTable, Target,
    VirtualCluster, VirtualHost, Weighted, WeightedCluster,
};
use crate::policy::hash::{self, Hashed};
use crate::policy::retry::Retries;
use crate::policy::timeout::{self, Timeouts};
use crate::route::{Given, replace_all, rewrite_path};
use crate::telemetry::reason::{Reason, Refusal};

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers that the router consumes (Envoy: router filter, "HTTP headers").
const RETRY_HEADERS: [HeaderName; 5] = [
    names::X_ENVOY_RETRY_ON,
    names::X_ENVOY_RETRY_GRPC_ON,
    names::X_ENVOY_MAX_RETRIES,
    names::X_ENVOY_RETRIABLE_STATUS_CODES,
    names::X_ENVOY_RETRIABLE_HEADER_NAMES,
];
const TIMEOUT_HEADERS: [HeaderName; 3] =
    [names::X_ENVOY_TIMEOUT, names::X_ENVOY_PER_TRY_TIMEOUT, names::X_ENVOY_HEDGE];

/// How one request is going to be forwarded.
pub(super) struct Plan<'a> {
    pub(super) table: &'a RouteTable,
    pub(super) host: &'a VirtualHost,
    pub(super) route: &'a Route,
    pub(super) forward: &'a Forward,
    /// The entry of a weighted route that was drawn.
    pub(super) weighted: Option<&'a WeightedCluster>,
    pub(super) cluster: Arc<Cluster>,
    /// The cluster that this try goes to: of an aggregate, one of those that it is made of, with a
    /// place among its requests.
    pub(super) leaf: (Arc<Cluster>, Option<RequestPermit>),
    /// The retry policy, if there is one.
    pub(super) policy: Option<&'a RetryPolicy>,
    pub(super) retries: Retries<'a>,
    /// Another try at a per-try timeout, beside the one that is late.
    hedge: bool,
    pub(super) timeouts: Timeouts,
    pub(super) hash: Option<u64>,
    /// Which endpoints of the cluster are meant.
    pub(super) subset: Option<&'a SubsetMatch>,
    /// The endpoints that the request itself names.
    pub(super) named: Option<NamedHosts>,
    pub(super) host_selection_attempts: u32,
    pub(super) avoid_previous_hosts: bool,
    /// Its place among the cluster's requests, until its answer has it.
    pub(super) permit: Option<RequestPermit>,
}

/// The routes of a connection manager in this snapshot.
///
/// # Errors
/// The route configuration has not arrived (404, as in Envoy).
pub(super) fn route_table<'a>(
    live: &'a Live,
    source: &'a RouteSource,
) -> Result<&'a RouteTable, Refusal> {
    match source {
        RouteSource::Inline(table) => Ok(table),
        RouteSource::Rds(name) => {
            live.snapshot.routes.get(name.key()).map(|table| &**table).ok_or_else(|| {
                let detail = format!("route configuration `{name}` has not arrived");
                Refusal::local(Reason::NoRoute, StatusCode::NOT_FOUND, detail)
            })
        }
    }
}

/// The redirect to https that `require_tls` asks for, if it does.
pub(super) fn tls_required(
    connection: &Connection,
    host: &VirtualHost,
    request: &Request<RequestBody>,
) -> Option<Answer> {
    let required = match host.require_tls {
        RequireTls::None => false,
        RequireTls::All => true,
        RequireTls::ExternalOnly => !request.headers().contains_key(names::X_ENVOY_INTERNAL),
    };
    if !required || connection.is_tls() {
        return None;
    }
    let view = read::view(request);
    (view.scheme() != "https").then(|| reply::to_https(view.authority(), view.path))
}

impl<'a> Plan<'a> {
    /// Draw the cluster, and take a place among its requests.
    ///
    /// # Errors
    /// The cluster does not exist, or a circuit breaker is open.
    pub(super) fn new(
        exchange: &mut Exchange,
        routed: Routed<'a>,
        (host, route): (&'a VirtualHost, &'a Route),
        forward: &'a Forward,
        request: &RequestView<'_>,
    ) -> Result<Self, Refusal> {
        let (name, weighted) = target_cluster(forward, routed.weighted, request)?;
        let noted = exchange.facts.cluster.take().filter(|noted| *noted.config.name == *name);
        let Some(cluster) = noted.or_else(|| exchange.live.cluster(name).cloned()) else {
            exchange.connection.http.stats.no_cluster.inc();
            let detail = format!("cluster `{name}` does not exist");
            return Err(Refusal::local(Reason::NoCluster, forward.cluster_not_found, detail));
        };
        exchange.facts.cluster = Some(Arc::clone(&cluster));
        let of = |one: &&Arc<VirtualCluster>| one.headers.iter().all(|h| h.matches(request));
        exchange.facts.virtual_cluster = host.virtual_clusters.iter().find(of).cloned();
        let permit = cluster.admit(forward.priority)?;
        let policy = policy(forward, host);
        let hashed = Hashed {
            headers: request.headers,
            target: request.path,
            source: exchange.connection.remote_ip(),
        };
        // Nobody else asks for it, and nobody else makes cookies.
        let hashes = cluster.config.balancer.hashes() || cluster.is_aggregate();
        let (hash, cookies) = if forward.hash.is_empty() || !hashes {
            (None, Vec::new())
        } else {
            hash::hash(&forward.hash, &hashed, fastrand::u64(..))
        };
        exchange.facts.cookies = cookies;
        let envoys = names::envoy(request.headers);
        let named = exchange.notes.named.take().or_else(|| named_hosts(&cluster, request.headers));
        Ok(Self {
            table: routed.table,
            host,
            route,
            forward,
            weighted,
            leaf: (Arc::clone(&cluster), None),
            cluster,
            policy,
            retries: Retries::new(policy, request, envoys),
            hedge: hedges(forward, host, envoys),
            timeouts: timeout::timeouts(forward, policy, request.headers, envoys),
            hash,
            named,
            subset: weighted.map_or(forward.subset.as_ref(), |entry| entry.subset.as_ref()),
            host_selection_attempts: policy.map_or(1, |policy| policy.host_selection_attempts),
            avoid_previous_hosts: policy.is_some_and(|policy| policy.avoid_previous_hosts),
            permit: Some(permit),
        })
    }
}

impl Plan<'_> {
    /// Tries may be made beside each other.
    pub(super) fn hedges(&self) -> bool {
        self.hedge && self.timeouts.per_try.is_some() && self.retries.possible()
    }

    /// Priorities that the next try leaves out, after these ones.
    pub(super) fn priorities_to_leave(&self, tried: &[Arc<Endpoint>]) -> Vec<u32> {
        let every = self.policy.and_then(|policy| policy.leave_priorities_after).unwrap_or(0);
        let every = usize::try_from(every).unwrap_or(usize::MAX);
        let counting = tried.len() - tried.len().checked_rem(every).unwrap_or(tried.len());
        tried.iter().take(counting).map(|endpoint| endpoint.priority).collect()
    }

    /// Bytes of a body that are kept, so that it can be sent again.
    pub(super) fn buffer_limit(&self) -> usize {
        self.forward.buffer_limit.unwrap_or(self.cluster.config.buffer_limit as usize)
    }
}

/// Endpoints that a request names.
#[derive(Debug)]
pub(super) struct NamedHosts {
    /// Separated by commas.
    pub(super) addresses: String,
    /// These or none.
    pub(super) strict: bool,
    /// Each try takes the next one; otherwise they are for the first try only.
    pub(super) every_try: bool,
}

/// What the headers say that the cluster's balancer looks at (`OverrideHost`).
fn named_hosts(cluster: &Cluster, headers: &HeaderMap) -> Option<NamedHosts> {
    let sources = &cluster.config.balancing.override_host.headers;
    let addresses = sources.iter().find_map(|name| headers.get(name)?.to_str().ok())?.to_owned();
    Some(NamedHosts { addresses, strict: false, every_try: true })
}

/// As the route says, else its virtual host, unless the request says otherwise.
fn hedges(forward: &Forward, host: &VirtualHost, headers: &HeaderMap) -> bool {
    match headers.get(names::X_ENVOY_HEDGE).map(HeaderValue::as_bytes) {
        Some(b"true") => true,
        Some(b"false") => false,
        _ => forward.hedge.unwrap_or(host.hedge),
    }
}

/// The route's retry policy, else its virtual host's.
fn policy<'a>(forward: &'a Forward, host: &'a VirtualHost) -> Option<&'a RetryPolicy> {
    forward.retry.as_deref().or(host.retry.as_deref())
}

fn target_cluster<'a: 'r, 'r>(
    forward: &'a Forward,
    drawn: Option<&'a WeightedCluster>,
    request: &RequestView<'r>,
) -> Result<(&'r str, Option<&'a WeightedCluster>), Refusal> {
    match &forward.target {
        Target::Cluster(name) => Ok((name, None)),
        Target::Header(header) => named_by(header, forward, request).map(|name| (name, None)),
        Target::Weighted(weighted) => {
            let drawn = drawn.unwrap_or_else(|| {
                let given = Given { random: fastrand::u64(..), ..Given::default() };
                draw(weighted, request, (given, &forward.hash))
            });
            let name = match &drawn.header {
                Some(header) => named_by(header, forward, request)?,
                None => &drawn.cluster,
            };
            Ok((name, Some(drawn)))
        }
    }
}

fn named_by<'r>(
    header: &HeaderName,
    forward: &Forward,
    request: &RequestView<'r>,
) -> Result<&'r str, Refusal> {
    let named = request.headers.get(header).and_then(|value| value.to_str().ok());
    named.ok_or_else(|| {
        let detail = format!("the request has no `{header}` header to name its cluster");
        Refusal::local(Reason::NoCluster, forward.cluster_not_found, detail)
    })
}

/// The entry of a weighted route that a request goes to.
pub(super) fn draw<'a>(
    weighted: &'a Weighted,
    request: &RequestView<'_>,
    (given, policies): (Given<'_>, &[HashPolicy]),
) -> &'a WeightedCluster {
    let by_header = weighted
        .header
        .as_ref()
        .and_then(|header| request.headers.get(header)?.to_str().ok()?.parse::<u64>().ok());
    let by_hash = || {
        let hashed =
            Hashed { headers: request.headers, target: request.path, source: given.source };
        // A cookie that has to be made first says nothing yet.
        let (hash, made) = hash::hash(policies, &hashed, given.random);
        hash.filter(|_| made.is_empty())
    };
    let number = by_header.or_else(|| if weighted.by_hash { by_hash() } else { None });
    // Another part of the number than shares of routes look at.
    let number = number.unwrap_or_else(|| given.random.rotate_left(32));
    let mut at = number % u64::from(weighted.total.max(1));
    for entry in &weighted.clusters {
        match at.checked_sub(u64::from(entry.weight)) {
            Some(rest) => at = rest,
            None => return entry,
        }
    }
    // The total is the sum of the weights, so the loop always returns before this.
    &weighted.clusters[weighted.clusters.len() - 1]
}

/// Rewrite a request for its way upstream.
///
/// # Errors
/// The rewritten path is no path.
pub(super) fn prepare(
    exchange: &mut Exchange,
    plan: &mut Plan<'_>,
    request: &mut Request<RequestBody>,
) -> Result<(), Refusal> {
    if !names::envoy(request.headers()).is_empty() {
        for name in TIMEOUT_HEADERS {
            request.headers_mut().remove(name);
        }
        // Nobody else has it by now, and nothing is counted under that name here.
        if exchange.facts.internal {
            request.headers_mut().remove("x-envoy-upstream-alt-stat-name");
        }
    }
    headers::to_upstream(exchange, plan, request);
    // After the route's changes: those may ask for retries too.
    let envoys = names::envoy(request.headers());
    if !envoys.is_empty() && RETRY_HEADERS.iter().any(|name| envoys.contains_key(name)) {
        let view = read::view(request);
        plan.retries = Retries::new(policy(plan.forward, plan.host), &view, envoys);
        for name in RETRY_HEADERS {
            request.headers_mut().remove(name);
        }
    }
    rewrite(plan, request)?;
    let timeout = plan.timeouts.per_try.or(plan.timeouts.global);
    if let Some(timeout) = timeout {
        let millis = crate::model::duration::millis(timeout);
        request.headers_mut().insert(names::X_ENVOY_EXPECTED_TIMEOUT, number::value(millis));
    }
    super::record::inject_span(exchange, request);
    super::record::keep_head(exchange, request);
    Ok(())
}

fn rewrite(plan: &Plan<'_>, request: &mut Request<RequestBody>) -> Result<(), Refusal> {
    // Hosts are made of the path as the client sent it.
    let original_path = match plan.forward.host_rewrite {
        HostRewrite::PathRegex(..) => target::path(request.uri()).to_owned(),
        _ => String::new(),
    };
    let before = target::path(request.uri());
    if let Some(path) = rewrite_path(&plan.forward.rewrite, &plan.route.matches.path, before) {
        let original = HeaderValue::from_str(before).ok();
        if !target::set_path(request, &path) {
            let detail = format!("the route's rewrite makes `{path}`, which is no path");
            return Err(Refusal::local(
                Reason::DownstreamProtocolError,
                StatusCode::BAD_REQUEST,
                detail,
            ));
        }
        if let Some(original) = original {
            request.headers_mut().entry(ORIGINAL_PATH).or_insert(original);
        }
    }
    let literal = plan.weighted.and_then(|entry| entry.host_rewrite.as_ref());
    let host = match (&plan.forward.host_rewrite, literal) {
        (_, Some(host)) | (HostRewrite::Literal(host), None) => Some(host.clone()),
        (HostRewrite::Header(name), None) => request.headers().get(name).cloned(),
        (HostRewrite::PathRegex(regex, substitution), None) => {
            let path = original_path.split('?').next().unwrap_or_default();
            HeaderValue::from_str(&replace_all(regex, substitution, path)).ok()
        }
        (HostRewrite::None | HostRewrite::Auto, None) => None,
    };
    if let Some(host) = host {
        set_host(plan, request, &host);
    }
    Ok(())
}

/// Replace the authority, telling the upstream the old one where the route asks for that.
pub(super) fn set_host(plan: &Plan<'_>, request: &mut Request<RequestBody>, host: &HeaderValue) {
    let before = target::authority(request.uri(), request.headers());
    if let Ok(before) = HeaderValue::from_str(before) {
        let headers = request.headers_mut();
        if plan.forward.append_x_forwarded_host {
            headers.append(FORWARDED_HOST, before.clone());
        }
        headers.entry(ORIGINAL_HOST).or_insert(before);
    }
    target::set_authority(request, host);
}

/// Tell the upstream which try it is, where the virtual host asks for that.
pub(super) fn count_attempt(plan: &Plan<'_>, attempt: u32, request: &mut Request<RequestBody>) {
    if plan.host.include_request_attempt_count {
        request.headers_mut().insert(ATTEMPT_COUNT, HeaderValue::from(attempt));
    }
}
