//! Route configurations (`envoy.config.route.v3`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use regex::Regex;

use super::balancing::SubsetMatch;
use super::dynamic::{MetadataMatcher, StateMatcher};
use super::filter::Overrides;
use super::headers::HeaderOps;
use super::kept::Kept;
use super::local_reply::BodyFormat;
use super::matcher::{CookieMatcher, HeaderMatcher, QueryMatcher};
use super::rate_limit::Rule;
pub use super::retry::{RetryOn, RetryPolicy};
use super::tracing::RouteTracing;
use super::wildcards::Wildcards;
use super::{Map, Name};

/// A `RouteConfiguration`, ready to be matched against.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// Its name.
    pub name: Name,
    /// In order of configuration.
    pub hosts: Vec<Arc<VirtualHost>>,
    /// Which host serves which domain.
    pub domains: Domains,
    /// Drop the port of `:authority` before domains are compared.
    pub ignore_port_in_host_matching: bool,
    /// Header changes towards the upstream.
    pub request_headers: HeaderOps,
    /// Header changes towards the downstream.
    pub response_headers: HeaderOps,
    /// `;key=value` at the end of a path is not looked at.
    pub ignore_path_parameters: bool,
    /// A route has sampling of its own, or names its spans.
    pub traces: bool,
    /// Headers that only requests from inside may have (`internal_only_headers`).
    pub internal_only: Vec<HeaderName>,
    /// Apply the table's header changes first and the route's last, so that the route's win.
    pub most_specific_header_mutations_wins: bool,
    /// What it changes about HTTP filters.
    pub filters: Overrides,
    /// Its changes of answers tell something about the request.
    pub tells_request: bool,
}

/// Domains of all virtual hosts, lower case, each pointing into [`RouteTable::hosts`].
#[derive(Clone, Debug, Default)]
pub struct Domains {
    /// `shop.example`
    pub exact: Map<usize>,
    /// `*.example`, as `.example`.
    pub suffixes: Wildcards,
    /// `shop.*`, as `shop.`.
    pub prefixes: Wildcards,
    /// `*`
    pub any: Option<usize>,
}

/// `VirtualHost`
#[derive(Debug, Default)]
pub struct VirtualHost {
    /// Its name.
    pub name: Name,
    /// The first that matches wins.
    pub routes: Vec<Arc<Route>>,
    /// Header changes towards the upstream.
    pub request_headers: HeaderOps,
    /// Header changes towards the downstream.
    pub response_headers: HeaderOps,
    /// Requests that are counted together; the last takes all that no other one does. Empty:
    /// nothing is counted so.
    pub virtual_clusters: Vec<Arc<VirtualCluster>>,
    /// Used by routes that have none of their own.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Another try at a per-try timeout, without giving up the one that is late.
    pub hedge: bool,
    /// Redirect plain text to https.
    pub require_tls: RequireTls,
    /// Tell the upstream which try it is (`x-envoy-attempt-count`).
    pub include_request_attempt_count: bool,
    /// Tell the upstream of a retry whether it follows a timeout (`x-envoy-is-timeout-retry`).
    pub include_is_timeout_retry: bool,
    /// Tell the downstream how many tries it took.
    pub include_attempt_count_in_response: bool,
    /// What rate limits are asked, as routes let them.
    pub rate_limits: Vec<Rule>,
    /// What it changes about HTTP filters; wins over the table's.
    pub filters: Overrides,
    /// Its changes of answers tell something about the request.
    pub tells_request: bool,
    /// What finds its routes faster, made of them at the first request.
    pub index: Kept,
}

/// `VirtualCluster`: requests that are counted together.
#[derive(Debug)]
pub struct VirtualCluster {
    /// `vhost.<host>.vcluster.<name>.`
    pub name: Name,
    /// All must match.
    pub headers: Vec<HeaderMatcher>,
    /// Its metrics.
    pub kept: Kept,
}

impl VirtualCluster {
    /// Its name, for logs. None: it takes what no other one does.
    pub fn told(&self) -> Option<&str> {
        (!self.headers.is_empty()).then_some(&*self.name)
    }
}

/// `stat_prefix` of a route: its requests are counted by themselves.
#[derive(Debug)]
pub struct Counted {
    /// `vhost.<host>.route.<prefix>.`
    pub prefix: Name,
    /// Its metrics.
    pub kept: Kept,
}

/// `VirtualHost.TlsRequirementType`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequireTls {
    /// No.
    #[default]
    None,
    /// Only from other hosts.
    ExternalOnly,
    /// Always.
    All,
}

/// `Route`
#[derive(Clone, Debug)]
pub struct Route {
    /// For `%ROUTE_NAME%`. May be empty.
    pub name: Name,
    /// Which requests.
    pub matches: RouteMatch,
    /// What to do with them.
    pub action: Action,
    /// Header changes towards the upstream.
    pub request_headers: HeaderOps,
    /// Header changes towards the downstream.
    pub response_headers: HeaderOps,
    /// What spans call it, and who else is told so.
    pub decorator: Option<Arc<Decorator>>,
    /// Sampling and tags of its own. None: the connection manager's.
    pub tracing: Option<Arc<RouteTracing>>,
    /// Metrics of its own.
    pub counted: Option<Arc<Counted>>,
    /// What it changes about HTTP filters; wins over the virtual host's.
    pub filters: Overrides,
    /// Its changes of answers, or those of its weighted clusters, tell something about the request.
    pub tells_request: bool,
}

/// `Decorator`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decorator {
    /// Name of the span. Not empty.
    pub operation: Name,
    /// The other side is told, in `x-envoy-decorator-operation`. Default true.
    pub propagate: bool,
}

/// `RouteMatch`
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// Path, without its query.
    pub path: PathMatch,
    /// All must match.
    pub headers: Vec<HeaderMatcher>,
    /// All must match.
    pub query: Vec<QueryMatcher>,
    /// All must match.
    pub cookies: Vec<CookieMatcher>,
    /// What the client's certificate must be.
    pub client: ClientMatch,
    /// Only gRPC requests (by content type).
    pub grpc: bool,
    /// What filters must have noted. All must match.
    pub metadata: Vec<MetadataMatcher>,
    /// Objects of the filter state. All must match.
    pub state: Vec<StateMatcher>,
    /// Share of requests, out of a million; the rest goes on to the next route. None: all.
    pub fraction: Option<u32>,
}

/// `TlsContextMatchOptions`. None: it does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientMatch {
    /// Whether it showed one.
    pub presented: Option<bool>,
    /// Whether that was verified.
    pub validated: Option<bool>,
}

/// Path specifiers. Lower case already where case is ignored.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// `prefix`
    Prefix(String, Case),
    /// `path`
    Exact(String, Case),
    /// `path_separated_prefix`: the path is it, or goes on with `/`.
    SeparatedPrefix(String, Case),
    /// `safe_regex`, on the whole path.
    Regex(Regex),
    /// `connect_matcher`
    Connect,
}

/// Whether case matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Case {
    /// It does.
    #[default]
    Sensitive,
    /// It does not.
    Insensitive,
}

/// What a route does.
#[derive(Clone, Debug)]
pub enum Action {
    /// `route`
    Forward(Box<Forward>),
    /// `redirect`
    Redirect(Box<Redirect>),
    /// `direct_response`
    Direct(DirectResponse),
    /// `non_forwarding_action`: nothing (proxyless servers); a proxy answers 404.
    NonForwarding,
}

impl Action {
    /// Whether an answer of it tells something about the request.
    pub fn tells_request(&self) -> bool {
        let forward = match self {
            Self::Forward(forward) => forward,
            Self::Direct(direct) => return direct.format.is_some(),
            Self::Redirect(_) | Self::NonForwarding => return false,
        };
        let Target::Weighted(weighted) = &forward.target else { return false };
        weighted.clusters.iter().any(|entry| {
            entry.response_headers.tells_request()
                || entry.filters.iter().any(|(_, said)| said.tells_request())
        })
    }
}

/// `RouteAction`
#[derive(Clone, Debug)]
pub struct Forward {
    /// Where to.
    pub target: Target,
    /// Which endpoints of the cluster are meant (`metadata_match`).
    pub subset: Option<SubsetMatch>,
    /// What an unknown cluster is answered with. Default 503.
    pub cluster_not_found: StatusCode,
    /// Change of the path.
    pub rewrite: PathRewrite,
    /// Change of the authority.
    pub host_rewrite: HostRewrite,
    /// Put the authority that was replaced into `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// Whole exchange, from the end of the request to the end of the response. Default 15 s; None: no limit.
    pub timeout: Option<Duration>,
    /// Without a byte either way. None: the connection manager's.
    pub idle_timeout: Option<Duration>,
    /// Whole stream. None: no limit of the route's own.
    pub max_stream_duration: Option<Duration>,
    /// Taken off the client's `grpc-timeout`.
    pub grpc_timeout_offset: Duration,
    /// The same bound for the deprecated `max_grpc_timeout`, which limits the exchange, not the
    /// stream.
    pub max_grpc_timeout: Option<Duration>,
    /// Upper bound for the client's `grpc-timeout`. None: it is not looked at; zero: no bound.
    pub grpc_timeout_header_max: Option<Duration>,
    /// When to try again. None: the virtual host's.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Another try at a per-try timeout, without giving up the one that is late
    /// (`hedge_on_per_try_timeout`). None: as the virtual host says.
    pub hedge: Option<bool>,
    /// What is hashed for ring hash and Maglev.
    pub hash: Vec<HashPolicy>,
    /// Which limits apply.
    pub priority: Priority,
    /// Copies that nobody waits for.
    pub mirrors: Vec<Mirror>,
    /// Redirects that are followed here. None: they are the client's affair.
    pub internal_redirect: Option<Box<InternalRedirect>>,
    /// Bytes of a body that are kept for retries, mirrors and internal redirects. None: what the
    /// cluster says.
    pub buffer_limit: Option<usize>,
    /// A CONNECT request opens a tunnel to an endpoint (`connect_config`).
    pub connect: bool,
    /// What rate limits are asked.
    pub rate_limits: Vec<Rule>,
    /// Rate limits of the virtual host count too (`include_vh_rate_limits`).
    pub include_host_rate_limits: bool,
    /// Upgrades turned on or off here. Empty: the connection manager's.
    pub upgrades: Vec<(Name, bool)>,
}

/// Which cluster.
#[derive(Clone, Debug)]
pub enum Target {
    /// This one.
    Cluster(Name),
    /// The one that this request header names.
    Header(HeaderName),
    /// One of several.
    Weighted(Weighted),
}

/// `WeightedCluster`
#[derive(Clone, Debug)]
pub struct Weighted {
    /// At least one.
    pub clusters: Vec<WeightedCluster>,
    /// Sum of their weights, at least 1.
    pub total: u32,
    /// Header whose number picks instead of chance (`header_name`).
    pub header: Option<HeaderName>,
    /// The hash of the route's policies picks instead of chance, where there is one (`use_hash_policy`).
    pub by_hash: bool,
}

/// `WeightedCluster.ClusterWeight`
#[derive(Clone, Debug)]
pub struct WeightedCluster {
    /// Name of the cluster. Empty: `header` names it.
    pub cluster: Name,
    /// Request header that names it.
    pub header: Option<HeaderName>,
    /// Its share.
    pub weight: u32,
    /// Which of its endpoints are meant: what the route says, and what its entry says on top.
    pub subset: Option<SubsetMatch>,
    /// Header changes towards the upstream.
    pub request_headers: HeaderOps,
    /// Header changes towards the downstream.
    pub response_headers: HeaderOps,
    /// Change of the authority.
    pub host_rewrite: Option<HeaderValue>,
    /// What it changes about HTTP filters; wins over the route's.
    pub filters: Overrides,
}

/// Change of the path.
#[derive(Clone, Debug, Default)]
pub enum PathRewrite {
    /// None.
    #[default]
    None,
    /// Put this in place of what matched (`prefix_rewrite`).
    Prefix(String),
    /// `path_rewrite_policy`: what the route matched, with its groups in other places.
    Template(String),
    /// `regex_rewrite`: replace every match in the path by this (`\1` is a group).
    Regex(Regex, String),
}

/// Change of the authority.
#[derive(Clone, Debug, Default)]
pub enum HostRewrite {
    /// None.
    #[default]
    None,
    /// This.
    Literal(HeaderValue),
    /// Value of that request header.
    Header(HeaderName),
    /// Host name of the endpoint that was picked.
    Auto,
    /// The path, without its query, with every match replaced (`host_rewrite_path_regex`).
    PathRegex(Regex, String),
}

/// `RoutingPriority`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// DEFAULT
    #[default]
    Default = 0,
    /// HIGH
    High = 1,
}

/// `RedirectAction`
#[derive(Clone, Debug)]
pub struct Redirect {
    /// `scheme_redirect`, or `https_redirect`.
    pub scheme: Option<Name>,
    /// `host_redirect`
    pub host: Option<Name>,
    /// `port_redirect`
    pub port: Option<u16>,
    /// `path_redirect` (may carry a query), `prefix_rewrite` or `regex_rewrite`.
    pub path: RedirectPath,
    /// 301, 302, 303, 307 or 308. Default 301.
    pub status: StatusCode,
    /// Drop the query.
    pub strip_query: bool,
}

/// Path of a redirect.
#[derive(Clone, Debug, Default)]
pub enum RedirectPath {
    /// As it was.
    #[default]
    Keep,
    /// This.
    Full(String),
    /// Put this in place of what matched.
    Prefix(String),
    /// Replace every match by this.
    Regex(Regex, String),
}

/// `DirectResponseAction`
#[derive(Clone, Debug)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: StatusCode,
    /// May be empty.
    pub body: Bytes,
    /// What the body looks like. None: as it is.
    pub format: Option<Box<BodyFormat>>,
}

/// `RequestMirrorPolicy`
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Where the copy goes. Empty: `header` names it.
    pub cluster: Name,
    /// Request header that names it.
    pub header: Option<HeaderName>,
    /// Out of a million.
    pub parts_per_million: u32,
    /// The copy's host ends with `-shadow`. Default true.
    pub shadow_host: bool,
    /// The copy's host.
    pub host: Option<HeaderValue>,
}

/// `InternalRedirectPolicy`
#[derive(Clone, Debug)]
pub struct InternalRedirect {
    /// How many in a row. Default 1.
    pub max: u32,
    /// Which answers are followed. Default 302.
    pub codes: Vec<u16>,
    /// Never twice from one route to the same other one.
    pub previous_routes: bool,
    /// Only to routes of these names.
    pub allow_listed: Option<Vec<Name>>,
    /// Not from http to https.
    pub safe_cross_scheme: bool,
    /// From one scheme to the other.
    pub cross_scheme: bool,
    /// Headers of the answer that the next request has.
    pub copy: Vec<HeaderName>,
}

/// `RouteAction.HashPolicy`
#[derive(Clone, Debug)]
pub struct HashPolicy {
    /// What is hashed.
    pub source: HashSource,
    /// Stop here if there is a hash already.
    pub terminal: bool,
}

/// What is hashed.
#[derive(Clone, Debug)]
pub enum HashSource {
    /// A header, after its value was rewritten.
    Header(HeaderName, Option<(Regex, String)>),
    /// A cookie, made (with path and attributes) if it is missing and `ttl` is given.
    Cookie {
        /// Its name.
        name: Name,
        /// Life of a made one. Zero: a session cookie. None: never made.
        ttl: Option<Duration>,
        /// Its path.
        path: Name,
        /// Further attributes, such as `SameSite` and its value. An empty value: the name alone.
        attributes: Arc<[(Name, Name)]>,
    },
    /// Address of the peer.
    SourceIp,
    /// A query parameter.
    Query(Name),
}
