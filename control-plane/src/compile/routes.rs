//! Routes of host names: `HTTPRoute`, `GRPCRoute` and the policies on them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use pillion_xds::envoy::config::core::v3::RuntimeFractionalPercent;
use pillion_xds::envoy::config::route::v3::route_action::upgrade_config::ConnectConfig;
use pillion_xds::envoy::config::route::v3::route_action::{
    ClusterSpecifier, MaxStreamDuration, UpgradeConfig,
};
use pillion_xds::envoy::config::route::v3::route_match::{ConnectMatcher, PathSpecifier};
use pillion_xds::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route,
};
use prost::Message;

use super::action::{Action, Forward, Headers, action};
use super::balancing::hash_policy;
use super::capture::PASSTHROUGH;
use super::external;
use super::proto::{duration, fraction, inline, matching};
use super::rate_limit;
use super::retry::{self, Plan};
use super::route_match::{Precedence, grpc_matches, header_matcher, route_match};
use super::session;
use super::shape::{Client, Shape, cluster_name};
use crate::intent::{
    AppProtocol, HashOn, HttpRoute, Match, Outbound, RateLimit, Rule, Service, ServicePort,
    TrafficPolicy,
};

/// The route configuration behind the one outbound port.
pub(crate) const OUTBOUND: &str = "outbound";

/// The upgrade that opens tunnels.
pub(crate) const CONNECT: &str = "CONNECT";

/// The answer for hosts outside, where the mesh allows none.
const NOT_IN_MESH: &str = "no service of the mesh has this host name, and the mesh allows no other hosts (Mesh outbound: RegistryOnly)\n";

/// Methods that may be repeated whatever became of the first try (RFC 9110, 9.2.1).
const SAFE_METHODS: &str = "GET|HEAD|OPTIONS|TRACE";

/// Who shall read the routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reader {
    Proxy,
    Grpc,
}

/// All host names that a client sees, for the outbound port.
pub(crate) fn outbound(shape: &Shape, client: &Client<'_>) -> RouteConfiguration {
    let mut virtual_hosts = Vec::new();
    let mut taken = BTreeSet::new();
    for service in shape.visible(client).into_values() {
        for port in &service.ports {
            let cluster = cluster_name(&service.name, port.port);
            let mut found = vec![tunnel(to_cluster(&cluster))];
            if port.protocol.is_http() {
                let namespace = client.namespace;
                found.append(&mut routes(shape, (service, port), namespace, Reader::Proxy));
            }
            let mut domains = domains(service, port, client.namespace);
            // One name twice, such as an address that two services claim, would cost all of them: Envoy refuses
            // the whole configuration. The first keeps it.
            domains.retain(|domain| taken.insert(domain.clone()));
            if domains.is_empty() {
                continue;
            }
            virtual_hosts.push(VirtualHost {
                name: cluster,
                domains,
                routes: found,
                ..VirtualHost::default()
            });
        }
    }
    virtual_hosts.append(&mut external::virtual_hosts(shape, &mut taken));
    virtual_hosts.push(strangers(shape.intent.mesh.outbound));
    RouteConfiguration { name: OUTBOUND.to_owned(), virtual_hosts, ..RouteConfiguration::default() }
}

/// The names of the routes of an encoded route configuration, by virtual host. None of one that cannot be read.
pub(crate) fn route_names(encoded: &[u8]) -> Vec<Vec<String>> {
    let hosts = RouteConfiguration::decode(encoded).map(|config| config.virtual_hosts);
    let names = |host: VirtualHost| host.routes.into_iter().map(|route| route.name).collect();
    hosts.unwrap_or_default().into_iter().map(names).collect()
}

/// Hosts that no service of the mesh has.
fn strangers(outbound: Outbound) -> VirtualHost {
    let action = match outbound {
        // Nobody here knows how long such a request may take.
        Outbound::Passthrough => to_cluster(PASSTHROUGH),
        Outbound::RegistryOnly => route::Action::DirectResponse(DirectResponseAction {
            status: 502,
            body: Some(inline(NOT_IN_MESH.to_owned())),
            ..DirectResponseAction::default()
        }),
    };
    VirtualHost {
        name: PASSTHROUGH.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![
            tunnel(action.clone()),
            Route {
                name: PASSTHROUGH.to_owned(),
                r#match: Some(RouteMatch {
                    path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
                    ..RouteMatch::default()
                }),
                action: Some(action),
                ..Route::default()
            },
        ],
        ..VirtualHost::default()
    }
}

/// Without a time limit.
pub(crate) fn to_cluster(name: &str) -> route::Action {
    route::Action::Route(RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(name.to_owned())),
        timeout: Some(prost_types::Duration::default()),
        ..RouteAction::default()
    })
}

/// For CONNECT requests: bytes both ways, from who names the outbound port as an HTTP proxy.
pub(crate) fn tunnel(mut action: route::Action) -> Route {
    if let route::Action::Route(action) = &mut action {
        // As of any other TCP connection.
        action.idle_timeout = Some(duration(Duration::from_secs(3600)));
        action.upgrade_configs = vec![UpgradeConfig {
            upgrade_type: CONNECT.to_owned(),
            connect_config: Some(ConnectConfig::default()),
            ..UpgradeConfig::default()
        }];
    }
    Route {
        name: "tunnel".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::ConnectMatcher(ConnectMatcher::default())),
            ..RouteMatch::default()
        }),
        action: Some(action),
        ..Route::default()
    }
}

/// One service port alone, whatever host name the request bears.
pub(crate) fn of_port(
    shape: &Shape,
    (service, port): (&Service, &ServicePort),
    namespace: &str,
    reader: Reader,
) -> RouteConfiguration {
    let name = cluster_name(&service.name, port.port);
    RouteConfiguration {
        name: name.clone(),
        virtual_hosts: vec![VirtualHost {
            name,
            domains: vec!["*".to_owned()],
            routes: routes(shape, (service, port), namespace, reader),
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}

/// Host names of a service port, as seen from a namespace. Without a port they mean the service's only port,
/// or 80.
pub(crate) fn domains(service: &Service, port: &ServicePort, namespace: &str) -> Vec<String> {
    let (name, own) = (&service.name.name, &service.name.namespace);
    let mut hosts = Vec::new();
    if own == namespace {
        hosts.push(name.clone());
    }
    hosts.push(format!("{name}.{own}"));
    hosts.push(format!("{name}.{own}.svc"));
    hosts.push(format!("{name}.{own}.svc.cluster.local"));
    hosts.extend(service.addresses.iter().map(|address| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }));
    let bare = service.default_port().is_some_and(|default| default.port == port.port);
    let with_port: Vec<String> = hosts.iter().map(|host| format!("{host}:{}", port.port)).collect();
    if !bare {
        hosts.clear();
    }
    hosts.extend(with_port);
    hosts
}

/// The routes of one service port, the first match first. Without a route everything goes to the service; with
/// one, what matches no rule gets a 404.
fn routes(
    shape: &Shape,
    (service, port): (&Service, &ServicePort),
    namespace: &str,
    reader: Reader,
) -> Vec<Route> {
    let attached = shape.routes(service, port, namespace);
    let on_service = shape.service_policy(&service.name);
    let context = |on_route| Context {
        reader,
        protocol: port.protocol,
        on_route,
        on_service,
        at_gateway: false,
    };
    if attached.is_empty() {
        return all_to(&cluster_name(&service.name, port.port), context(None));
    }
    of_attached(shape, &attached, |route, _| context(shape.route_policy(route.kind, &route.name)))
}

/// Everything to one cluster, with the default retries.
pub(crate) fn whole(cluster: &str, protocol: AppProtocol) -> Vec<Route> {
    let context = Context {
        reader: Reader::Proxy,
        protocol,
        on_route: None,
        on_service: None,
        at_gateway: false,
    };
    all_to(cluster, context)
}

fn all_to(cluster: &str, context: Context<'_>) -> Vec<Route> {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..RouteAction::default()
    };
    let forward = Forward { route: action, unresolved: None };
    let everything = Match::default();
    context.forward(&Entry { name: cluster.to_owned(), found: &everything, rule: None }, forward)
}

/// The rules of several routes as one list, the first match first (Gateway API, `HTTPRouteRule.matches`).
pub(crate) fn of_attached<'a>(
    shape: &'a Shape,
    attached: &[&'a HttpRoute],
    context: impl Fn(&'a HttpRoute, &'a Rule) -> Context<'a>,
) -> Vec<Route> {
    let mut entries: Vec<(Precedence<'_>, &HttpRoute, &Rule, usize, &Match)> = Vec::new();
    for route in attached {
        for (index, rule) in route.rules.iter().enumerate() {
            for (place, found) in rule.matches.iter().enumerate() {
                let precedence = Precedence::new(route, found, (index, place));
                entries.push((precedence, route, rule, index, found));
            }
        }
    }
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    let compile =
        |(_, route, rule, index, found): (_, &'a HttpRoute, &'a Rule, usize, &'a Match)| {
            let name = match &rule.name {
                Some(name) => format!("{}/{name}", route.name),
                None => format!("{}/{index}", route.name),
            };
            let kind = if route.kind == crate::intent::RouteKind::Http {
                "HTTPRoute"
            } else {
                "GRPCRoute"
            };
            let action = action(shape, rule, found, &format!("{kind} {name}"));
            let entry = Entry { name, found, rule: Some(rule) };
            context(route, rule).compile(&entry, action)
        };
    entries.into_iter().flat_map(compile).collect()
}

/// One match of one rule.
struct Entry<'a> {
    name: String,
    found: &'a Match,
    rule: Option<&'a Rule>,
}

/// What holds for all routes of one host from one `HTTPRoute`.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) reader: Reader,
    pub(crate) protocol: AppProtocol,
    pub(crate) on_route: Option<&'a TrafficPolicy>,
    pub(crate) on_service: Option<&'a TrafficPolicy>,
    /// Rate limits of routes hold here.
    pub(crate) at_gateway: bool,
}

impl<'a> Context<'a> {
    fn compile(&self, entry: &Entry<'a>, action: Action) -> Vec<Route> {
        match action {
            Action::Forward(forward) => self.forward(entry, *forward),
            Action::Redirect(redirect) => {
                self.with_matches(entry, &route::Action::Redirect(*redirect))
            }
            Action::Answer(answer) => {
                self.with_matches(entry, &route::Action::DirectResponse(answer))
            }
        }
    }

    fn forward(&self, entry: &Entry<'a>, forward: Forward) -> Vec<Route> {
        let mut found = Vec::new();
        if let Some(((lost, total), answer)) = forward.unresolved {
            // That share of the requests first, the rest falls through to the backends that there are.
            let share = RuntimeFractionalPercent {
                default_value: Some(fraction(lost, total)),
                ..RuntimeFractionalPercent::default()
            };
            let mut routes = self.with_matches(entry, &route::Action::DirectResponse(answer));
            for route in &mut routes {
                if let Some(matched) = &mut route.r#match {
                    matched.runtime_fraction = Some(share.clone());
                }
            }
            found.append(&mut routes);
        }
        match self.reader {
            Reader::Proxy => found.append(&mut self.for_proxy(entry, forward.route)),
            Reader::Grpc => found.append(&mut self.for_grpc(entry, forward.route)),
        }
        found
    }

    /// With the default retries, methods that may be repeated get a route of their own: more can be tried
    /// again for them.
    fn for_proxy(&self, entry: &Entry<'a>, mut action: RouteAction) -> Vec<Route> {
        let plan = self.retry_plan(entry);
        let per_try = self.per_try_timeout(entry, plan);
        action.timeout = Some(duration(self.request_timeout(entry).unwrap_or_default()));
        action.idle_timeout = self.setting(|policy| policy.timeout.idle).map(duration);
        action.hash_policy = self.hash_on().map(hash_policy).into_iter().collect();
        if self.protocol == AppProtocol::Grpc {
            // The client's own deadline holds, however long.
            action.max_stream_duration = Some(MaxStreamDuration {
                grpc_timeout_header_max: Some(prost_types::Duration::default()),
                ..MaxStreamDuration::default()
            });
        }
        let mut with = |repeatable: Option<bool>| {
            action.retry_policy = Some(match repeatable {
                Some(repeatable) => retry::safe(repeatable, per_try),
                None => retry::explicit(plan, per_try),
            });
            self.with_matches(entry, &route::Action::Route(action.clone()))
        };
        if !matches!(plan, Plan::Default) {
            return with(None);
        }
        match entry.found.method.as_deref() {
            _ if self.protocol == AppProtocol::Grpc => with(Some(false)),
            // Each route has buckets of its own.
            _ if self.limit().is_some() => with(Some(false)),
            Some("GET" | "HEAD" | "OPTIONS" | "TRACE") => with(Some(true)),
            Some(_) => with(Some(false)),
            None => {
                let mut routes = with(Some(true));
                for route in &mut routes {
                    if let Some(matched) = &mut route.r#match {
                        matched
                            .headers
                            .insert(0, header_matcher(":method", matching(SAFE_METHODS)));
                    }
                }
                routes.append(&mut with(Some(false)));
                routes
            }
        }
    }

    /// gRPC clients know fewer fields, and skip whole routes because of some that they do not know.
    fn for_grpc(&self, entry: &Entry<'a>, mut action: RouteAction) -> Vec<Route> {
        let timeout = self.request_timeout(entry).filter(|timeout| !timeout.is_zero());
        action.max_stream_duration = timeout.map(|timeout| MaxStreamDuration {
            max_stream_duration: Some(duration(timeout)),
            ..MaxStreamDuration::default()
        });
        action.retry_policy = retry::for_grpc(self.retry_plan(entry));
        let hashes = self.hash_on().filter(|on| matches!(on, HashOn::Header(_)));
        action.hash_policy = hashes.map(hash_policy).into_iter().collect();
        self.with_matches(entry, &route::Action::Route(action))
    }

    fn with_matches(&self, entry: &Entry<'a>, action: &route::Action) -> Vec<Route> {
        let matches: Vec<RouteMatch> = match self.reader {
            Reader::Proxy => vec![route_match(entry.found)],
            Reader::Grpc => grpc_matches(entry.found),
        };
        let filters = entry.rule.map_or(&[][..], |rule| &rule.filters);
        let session = entry.rule.and_then(|rule| rule.session.as_ref());
        let session = session.filter(|_| self.at_gateway);
        let route = |matched| {
            let headers = Headers::of(filters);
            let mut per_filter = rate_limit::per_filter(self.limit(), &entry.name);
            per_filter.extend(session.map(session::per_filter));
            Route {
                name: entry.name.clone(),
                r#match: Some(matched),
                action: Some(action.clone()),
                request_headers_to_add: headers.request_add,
                request_headers_to_remove: headers.request_remove,
                response_headers_to_add: headers.response_add,
                response_headers_to_remove: headers.response_remove,
                typed_per_filter_config: per_filter,
                ..Route::default()
            }
        };
        matches.into_iter().map(route).collect()
    }

    fn limit(&self) -> Option<&'a RateLimit> {
        self.on_route.filter(|_| self.at_gateway)?.rate_limit.as_ref()
    }

    /// A policy on the route wins over one on the service, setting by setting.
    fn setting<T>(&self, of: impl Fn(&'a TrafficPolicy) -> Option<T>) -> Option<T> {
        self.on_route.and_then(&of).or_else(|| self.on_service.and_then(&of))
    }

    fn hash_on(&self) -> Option<&'a HashOn> {
        self.setting(|policy| policy.load_balancer.as_ref()?.hash_on.as_ref())
    }

    fn request_timeout(&self, entry: &Entry<'_>) -> Option<Duration> {
        let of_rule = entry.rule.and_then(|rule| rule.timeouts.request);
        of_rule.or_else(|| self.setting(|policy| policy.timeout.request))
    }

    fn retry_plan(&self, entry: &Entry<'a>) -> Plan<'a> {
        if let Some(retry) = entry.rule.and_then(|rule| rule.retry.as_ref()) {
            return Plan::Rule(retry);
        }
        self.setting(|policy| policy.retry.as_ref()).map_or(Plan::Default, Plan::Policy)
    }

    fn per_try_timeout(&self, entry: &Entry<'_>, plan: Plan<'_>) -> Option<Duration> {
        let of_rule = entry.rule.and_then(|rule| rule.timeouts.backend_request);
        let of_policy = || match plan {
            Plan::Policy(retry) => retry.per_try_timeout,
            Plan::Default | Plan::Rule(_) => None,
        };
        of_rule.or_else(of_policy).filter(|timeout| !timeout.is_zero())
    }
}
