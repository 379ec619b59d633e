//! What a proxy that runs a `Gateway` gets: its listeners, their routes by host, and certificates.

mod certificates;
mod connections;
mod edge;
mod hosts;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use pillion_xds::envoy::config::core::v3::{Address, TrafficDirection, TransportSocket};
use pillion_xds::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use pillion_xds::envoy::config::route::v3::RouteConfiguration;
use pillion_xds::envoy::extensions::transport_sockets::tls::v3::Secret;

use super::clusters::Flavor;
use super::external;
use super::http_manager::{base, over_rds};
use super::listeners::{chain, http, tls_inspector};
use super::node::{GatewayProxy, Node};
use super::proto::{everywhere, socket};
use super::shape::{Shape, targets};
use super::tls;
use crate::intent::{self, Gateway, HttpRoute, ListenerProtocol, Name, attach};
use certificates::Certificates;

/// The route configuration of what leaves the mesh.
const EGRESS: &str = "egress";

/// What is compiled for one proxy.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) routes: Vec<RouteConfiguration>,
    pub(crate) secrets: Vec<Secret>,
    /// Names of the clusters that routes lead to.
    pub(crate) backends: BTreeSet<String>,
    /// What is left out, and why.
    warnings: Vec<String>,
}

/// What a proxy that runs gateways gets.
pub(crate) fn compile(shape: &Shape, node: &Node, proxy: &GatewayProxy) -> Compiled {
    let mut made = Compiled::default();
    let mut certificates = Certificates::new(shape, proxy);
    let mut taken = BTreeSet::new();
    for gateway in chosen(shape, proxy) {
        let mut ports: BTreeMap<u16, Vec<&intent::Listener>> = BTreeMap::new();
        for listener in &gateway.listeners {
            ports.entry(listener.port).or_default().push(listener);
        }
        for (number, listeners) in ports {
            let addresses: Vec<Option<IpAddr>> = match gateway.addresses.as_slice() {
                [] => vec![None],
                some => some.iter().copied().map(Some).collect(),
            };
            let (free, not): (Vec<_>, Vec<_>) =
                addresses.into_iter().partition(|address| taken.insert((*address, number)));
            if !not.is_empty() {
                let name = &gateway.name;
                made.warnings.push(format!(
                    "Gateway {name}: port {number} belongs to another Gateway already, and is left out"
                ));
            }
            let port = Port { shape, node, proxy, gateway, number, listeners };
            port.compile(&free, &mut certificates, &mut made);
        }
    }
    if let (Some(at), Some(gateway)) = (proxy.inbound, &proxy.gateway) {
        made.add_egress(shape, (node, proxy), gateway, at);
    }
    let (secrets, mut warnings) = certificates.finish();
    made.secrets = secrets;
    made.warnings.append(&mut warnings);
    made
}

impl Compiled {
    /// The side towards the mesh: what leaves through this gateway, from workloads that show who they are.
    fn add_egress(
        &mut self,
        shape: &Shape,
        (node, proxy): (&Node, &GatewayProxy),
        gateway: &Name,
        (address, port): (IpAddr, u16),
    ) {
        let mesh = &shape.intent.mesh;
        let certificates = &proxy.proxy.certificates;
        let Some(secure) = tls::downstream(certificates, &mesh.trust_domain, tls::H2_OR_HTTP1)
        else {
            return;
        };
        let mut manager = base(mesh, node, &proxy.proxy, &format!("inbound_{port}"));
        manager.route_specifier = Some(over_rds(EGRESS));
        self.listeners.push(Listener {
            name: "inbound".to_owned(),
            address: Some(socket(address, port)),
            filter_chains: vec![chain(http(&manager), Some(secure), None)],
            traffic_direction: TrafficDirection::Inbound.into(),
            ..Listener::default()
        });
        let virtual_hosts = external::virtual_hosts_via(shape, gateway);
        self.backends.extend(virtual_hosts.iter().map(|host| host.name.clone()));
        self.routes.push(RouteConfiguration {
            name: EGRESS.to_owned(),
            virtual_hosts,
            ..RouteConfiguration::default()
        });
    }
}

/// What a proxy does not get, and why.
pub(crate) fn warnings(shape: &Shape, proxy: &GatewayProxy) -> Vec<String> {
    if let Some(name) = &proxy.gateway {
        match shape.intent.gateways.get(name) {
            None => return vec![format!("there is no Gateway {name}: it has nothing to do")],
            Some(gateway) if !gateway.is_ours() => {
                return vec![format!("Gateway {name} is of another class: it has nothing to do")];
            }
            Some(_) => {}
        }
    }
    let node = Node::of_gateway(proxy.clone());
    compile(shape, &node, proxy).warnings
}

/// How the clusters of a proxy are compiled.
pub(crate) fn flavor(proxy: &GatewayProxy) -> Flavor {
    if proxy.is_here { Flavor::Alone } else { Flavor::Proxy(proxy.proxy.certificates.clone()) }
}

fn chosen<'a>(shape: &'a Shape, proxy: &'a GatewayProxy) -> impl Iterator<Item = &'a Gateway> {
    let all = shape.intent.gateways.values().map(AsRef::as_ref);
    all.filter(|gateway: &&Gateway| {
        gateway.is_ours() && proxy.gateway.as_ref().is_none_or(|name| *name == gateway.name)
    })
}

/// One port of a gateway, with the listeners that share it.
struct Port<'a> {
    shape: &'a Shape,
    node: &'a Node,
    proxy: &'a GatewayProxy,
    gateway: &'a Gateway,
    number: u16,
    listeners: Vec<&'a intent::Listener>,
}

impl<'a> Port<'a> {
    fn compile(
        &self,
        addresses: &[Option<IpAddr>],
        certificates: &mut Certificates<'_>,
        made: &mut Compiled,
    ) {
        let is_http = self.listeners.iter().all(|one| one.protocol == ListenerProtocol::Http);
        let is_tls = self.listeners.iter().any(|one| one.protocol.is_tls());
        let chains = if is_http {
            vec![self.plain(made)]
        } else {
            let mut chains = Vec::new();
            for listener in &self.listeners {
                if listener.protocol == ListenerProtocol::Https {
                    chains.extend(self.secure(listener, certificates, made));
                } else {
                    chains.append(&mut connections::chains(self, listener, certificates, made));
                }
            }
            chains
        };
        if chains.is_empty() {
            return;
        }
        for address in addresses {
            made.listeners.push(Listener {
                name: match (address, addresses.len()) {
                    (Some(address), 2..) => format!("{}|{address}", self.name()),
                    _ => self.name(),
                },
                address: Some(self.address(*address)),
                filter_chains: chains.clone(),
                listener_filters: if is_tls { vec![tls_inspector()] } else { Vec::new() },
                ..Listener::default()
            });
        }
    }

    /// `gateway|namespace/name|port`
    fn name(&self) -> String {
        format!("gateway|{}|{}", self.gateway.name, self.number)
    }

    fn address(&self, address: Option<IpAddr>) -> Address {
        address.map_or_else(|| everywhere(self.number), |ip| socket(ip, self.number))
    }

    /// HTTP: one manager for all hosts.
    fn plain(&self, made: &mut Compiled) -> FilterChain {
        let name = self.name();
        let attached = self.attached(&self.listeners);
        let group = hosts::Group { port: self, listeners: &self.listeners, attached: &attached };
        made.routes.push(group.compile(&name));
        self.note_backends(&attached, made);
        chain(
            http(&edge::manager(self.shape, (self.node, self.proxy), self.number, &name)),
            None,
            None,
        )
    }

    /// A listener behind TLS: a chain of its own, found by server name.
    fn secure(
        &self,
        listener: &'a intent::Listener,
        certificates: &mut Certificates<'_>,
        made: &mut Compiled,
    ) -> Option<FilterChain> {
        let names = certificates.of(self.gateway, listener)?;
        let name = format!("{}|{}", self.name(), listener.name);
        let only = [listener];
        let attached = self.attached(&only);
        let group = hosts::Group { port: self, listeners: &only, attached: &attached };
        made.routes.push(group.compile(&name));
        self.note_backends(&attached, made);
        let manager = edge::manager(self.shape, (self.node, self.proxy), self.number, &name);
        let secure = tls::downstream_edge(&names, tls::H2_OR_HTTP1);
        let host = listener.hostname.clone();
        Some(by_server_name(&listener.name, host, http(&manager), Some(secure)))
    }

    /// The routes that are attached to any of these listeners.
    fn attached(&self, listeners: &[&intent::Listener]) -> Vec<&'a HttpRoute> {
        let all = self.shape.intent.routes.values().map(AsRef::as_ref);
        let is_attached = |route: &&HttpRoute| {
            let claim = route.claim();
            listeners.iter().any(|one| !attach::hosts(self.gateway, one, claim).is_empty())
        };
        all.filter(is_attached).collect()
    }

    fn note_backends(&self, attached: &[&HttpRoute], made: &mut Compiled) {
        let all = attached.iter().flat_map(|route| targets(route));
        made.backends.extend(all.filter_map(|target| self.shape.resolve(target).ok()));
    }
}

fn by_server_name(
    listener: &str,
    host: Option<String>,
    filter: Filter,
    secure: Option<TransportSocket>,
) -> FilterChain {
    let mut made = chain(filter, secure, None);
    made.name = match &host {
        Some(host) => format!("{listener}|{host}"),
        None => listener.to_owned(),
    };
    made.filter_chain_match = Some(FilterChainMatch {
        server_names: host.into_iter().collect(),
        transport_protocol: "tls".to_owned(),
        ..FilterChainMatch::default()
    });
    made
}
