//! The virtual hosts of listeners that share a route configuration.
//!
//! A request belongs to the listener with the most specific host name that is its own, and there to the routes with
//! the most specific host name (Gateway API, `Listener.hostname` and `HTTPRoute.hostnames`).

use std::collections::BTreeMap;

use pillion_xds::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, Route, RouteConfiguration, RouteMatch, VirtualHost,
    redirect_action::SchemeRewriteSpecifier, route, route_match::PathSpecifier,
};

use super::super::rate_limit;
use super::super::routes::{Context, Reader, of_attached};
use super::Port;
use crate::intent::hostname::{covers, specificity};
use crate::intent::{
    self, AppProtocol, BackendTarget, HttpRoute, ListenerProtocol, RouteKind, Rule, ServicePort,
    Target, TrafficPolicy, attach,
};

/// Listeners that share a route configuration, and the routes that are attached to any of them.
pub(super) struct Group<'g, 'a> {
    pub(super) port: &'g Port<'a>,
    pub(super) listeners: &'g [&'a intent::Listener],
    pub(super) attached: &'g [&'a HttpRoute],
}

/// `None` is every host.
type Host = Option<String>;

impl<'a> Group<'_, 'a> {
    pub(super) fn compile(&self, name: &str) -> RouteConfiguration {
        let mut virtual_hosts: Vec<VirtualHost> = self
            .hosts()
            .into_iter()
            .map(|(host, routes)| virtual_host(host, self.routes(&routes)))
            .collect();
        virtual_hosts.extend(self.misdirected().into_iter().map(|host| {
            let routes = vec![misdirected()];
            virtual_host(host, routes)
        }));
        let gateway = &self.port.gateway.name;
        let policy = self.port.shape.intent.policies.get(&Target::Gateway(gateway.clone()));
        let limit = policy.and_then(|policy| policy.rate_limit.as_ref());
        RouteConfiguration {
            name: name.to_owned(),
            virtual_hosts,
            typed_per_filter_config: rate_limit::per_filter(limit, &gateway.to_string()),
            // `shop.example.com:8080` is `shop.example.com`.
            ignore_port_in_host_matching: true,
            ..RouteConfiguration::default()
        }
    }

    /// Every host with its routes. A listener's own name is there even without routes, so that a less specific
    /// listener does not answer for it.
    fn hosts(&self) -> BTreeMap<Host, Vec<&'a HttpRoute>> {
        let own = self.listeners.iter().map(|one| (one.hostname.clone(), Vec::new()));
        let mut found: BTreeMap<Host, Vec<&'a HttpRoute>> = own.collect();
        for (index, listener) in self.listeners.iter().enumerate() {
            for route in self.attached {
                for host in attach::hosts(self.port.gateway, listener, route.claim()) {
                    if self.owner(host.as_deref()) == Some(index) {
                        let routes = found.entry(host).or_default();
                        if !routes.iter().any(|known| std::ptr::eq(*known, *route)) {
                            routes.push(route);
                        }
                    }
                }
            }
        }
        found
    }

    /// The listener that answers for a host.
    fn owner(&self, host: Option<&str>) -> Option<usize> {
        let mine = |one: &intent::Listener| match (&one.hostname, host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(pattern), Some(host)) => covers(pattern, host),
        };
        let fit = self.listeners.iter().enumerate().filter(|(_, one)| mine(one));
        let best = fit.max_by_key(|(_, one)| specificity(one.hostname.as_deref()));
        best.map(|(index, _)| index)
    }

    /// Hosts for which a client that came here by its server name is at the wrong place: behind TLS each listener has
    /// connections of its own (RFC 9110, 15.5.20).
    fn misdirected(&self) -> Vec<Host> {
        let [only] = self.listeners else { return Vec::new() };
        if !only.protocol.is_tls() {
            return Vec::new();
        }
        let is_inside = |name: &String| match &only.hostname {
            None => true,
            Some(own) => own != name && covers(own, name),
        };
        let others = self.port.listeners.iter().filter_map(|one| one.hostname.clone());
        let mut found: Vec<Host> = others.filter(is_inside).map(Some).collect();
        if only.hostname.is_some() {
            found.push(None);
        }
        let taken = self.hosts();
        found.retain(|host| !taken.contains_key(host));
        found.sort();
        found.dedup();
        found
    }

    fn routes(&self, attached: &[&'a HttpRoute]) -> Vec<Route> {
        let mut routes =
            of_attached(self.port.shape, attached, |route, rule| self.context(route, rule));
        let protocol = self.listeners.first().map(|one| one.protocol);
        let is_tls = protocol == Some(ListenerProtocol::Https);
        for route in &mut routes {
            if let Some(route::Action::Redirect(redirect)) = &mut route.action {
                set_port(redirect, is_tls, self.port.number);
            }
        }
        routes
    }

    /// What a policy says about the one service behind a rule holds for the rule.
    fn context(&self, route: &'a HttpRoute, rule: &'a Rule) -> Context<'a> {
        let shape = self.port.shape;
        let mut services = rule.backends.iter().filter_map(|backend| match &backend.target {
            BackendTarget::Service { service, port } => Some((service, port)),
            _ => None,
        });
        let first = services.next();
        let only = first.filter(|first| services.all(|other| other.0 == first.0));
        let on_service: Option<&'a TrafficPolicy> =
            only.and_then(|(service, _)| shape.service_policy(service));
        let spoken = only.and_then(|(name, number)| {
            let service = shape.intent.services.get(name)?;
            let port: Option<&ServicePort> = match number {
                Some(number) => service.port(*number),
                None => service.default_port(),
            };
            port.map(|port| port.protocol)
        });
        let protocol = match (route.kind, spoken) {
            (RouteKind::Grpc, _) => AppProtocol::Grpc,
            (RouteKind::Http, Some(spoken)) if spoken.is_http() => spoken,
            (RouteKind::Http, _) => AppProtocol::Http,
        };
        Context {
            reader: Reader::Proxy,
            protocol,
            on_route: shape.route_policy(route.kind, &route.name),
            on_service,
            at_gateway: true,
        }
    }
}

fn virtual_host(host: Host, routes: Vec<Route>) -> VirtualHost {
    let domain = host.unwrap_or_else(|| "*".to_owned());
    VirtualHost { name: domain.clone(), domains: vec![domain], routes, ..VirtualHost::default() }
}

/// 421: the client has to come again, over a connection for that host.
fn misdirected() -> Route {
    Route {
        name: "misdirected".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(route::Action::DirectResponse(DirectResponseAction {
            status: 421,
            ..DirectResponseAction::default()
        })),
        ..Route::default()
    }
}

/// A redirect that names no port means the well-known one of the scheme that it names, or else the listener's own
/// (Gateway API, `HTTPRequestRedirectFilter.port`). Where the listener's port is the well-known one too, it need not be
/// written.
fn set_port(redirect: &mut RedirectAction, is_tls: bool, listener: u16) {
    let well_known = |tls: bool| if tls { 443 } else { 80 };
    if redirect.port_redirect != 0 || listener == well_known(is_tls) {
        return;
    }
    match &redirect.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            redirect.port_redirect = well_known(scheme == "https").into();
        }
        Some(_) => {}
        None if !redirect.host_redirect.is_empty() => redirect.port_redirect = listener.into(),
        None => {}
    }
}
