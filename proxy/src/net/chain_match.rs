//! Choosing the filter chain of a connection, by Envoy's rules.
//!
//! Criteria are looked at one after another; each keeps the chains with the most specific value that
//! fits the connection, and drops the others for good. There is no going back: where a chain asks for
//! the very port, a chain without a port is out, even if the former then fails on something else
//! (Envoy, "Filter chain match").

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::listener::{ChainMatch, FilterChain, Listener, SourceType, Transport};

/// What is known of a connection when its chain is chosen.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFacts<'a> {
    /// Where it was going: before any redirection, where that is known. None: a Unix socket.
    pub destination: Option<SocketAddr>,
    /// Where it comes from. None: a Unix socket.
    pub source: Option<SocketAddr>,
    /// The peer of the socket itself, before any PROXY protocol.
    pub direct_source: Option<SocketAddr>,
    /// Server name of the ClientHello, in lower case.
    pub sni: Option<&'a str>,
    /// What is spoken below the application.
    pub transport: Transport,
    /// In the client's order.
    pub application_protocols: &'a [String],
}

/// The chain for a connection; the default chain when none fits. None: close the connection.
pub fn select(listener: &Listener, facts: &ConnectionFacts<'_>) -> Option<Arc<FilterChain>> {
    // The usual listener of a sidecar: nothing to weigh.
    if let [only] = listener.filter_chains.as_slice()
        && only.matches == ChainMatch::default()
    {
        return Some(only.clone());
    }
    let mut left: Vec<&Arc<FilterChain>> = listener.filter_chains.iter().collect();
    let port = facts.destination.map(|address| address.port());
    keep_best(&mut left, |chain| match chain.destination_port {
        None => Some(0),
        wanted => (wanted == port).then_some(1),
    });
    let destination = facts.destination.map(|address| address.ip());
    keep_best(&mut left, |chain| longest_prefix(&chain.prefix_ranges, destination));
    keep_best(&mut left, |chain| best_name(&chain.server_names, facts.sni));
    keep_best(&mut left, |chain| match chain.transport_protocol {
        None => Some(0),
        Some(wanted) => (wanted == facts.transport).then_some(1),
    });
    keep_best(&mut left, |chain| {
        first_protocol(&chain.application_protocols, facts.application_protocols)
    });
    let direct = facts.direct_source.map(|address| address.ip());
    keep_best(&mut left, |chain| longest_prefix(&chain.direct_source_prefix_ranges, direct));
    let local = is_local(facts);
    keep_best(&mut left, |chain| match chain.source_type {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => local.then_some(1),
        SourceType::External => (!local).then_some(1),
    });
    let source = facts.source.map(|address| address.ip());
    keep_best(&mut left, |chain| longest_prefix(&chain.source_prefix_ranges, source));
    let port = facts.source.map(|address| address.port());
    keep_best(&mut left, |chain| match chain.source_ports.as_slice() {
        [] => Some(0),
        ports => port.is_some_and(|port| ports.contains(&port)).then_some(1),
    });
    left.first().map(|chain| Arc::clone(chain)).or_else(|| listener.default_filter_chain.clone())
}

/// Keeps the chains with the highest rank; None does not fit at all.
fn keep_best(left: &mut Vec<&Arc<FilterChain>>, rank: impl Fn(&ChainMatch) -> Option<usize>) {
    let best = left.iter().filter_map(|chain| rank(&chain.matches)).max();
    left.retain(|chain| best.is_some() && rank(&chain.matches) == best);
}

/// No ranges at all are as good as `0.0.0.0/0`.
fn longest_prefix(ranges: &[IpNet], address: Option<IpAddr>) -> Option<usize> {
    if ranges.is_empty() {
        return Some(0);
    }
    let address = address?;
    let fits = ranges.iter().filter(|range| range.contains(&address));
    fits.map(|range| usize::from(range.prefix_len())).max()
}

/// An exact name before `*.` suffixes, the longer of those before the shorter, no names last.
fn best_name(names: &[String], sni: Option<&str>) -> Option<usize> {
    if names.is_empty() {
        return Some(0);
    }
    let sni = sni?;
    let rank = |name: &String| match name.strip_prefix('*') {
        None => (name == sni).then_some(usize::MAX),
        Some(suffix) => {
            (suffix.starts_with('.') && sni.len() > suffix.len() && sni.ends_with(suffix))
                .then_some(suffix.len())
        }
    };
    names.iter().filter_map(rank).max()
}

/// The client's first choice wins.
fn first_protocol(wanted: &[String], offered: &[String]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    let at = offered.iter().position(|one| wanted.contains(one))?;
    Some(offered.len() - at)
}

/// What Envoy takes for loopback: not the rest of 127.0.0.0/8.
const HOME: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

fn is_local(facts: &ConnectionFacts<'_>) -> bool {
    match (facts.source, facts.destination) {
        (Some(source), destination) => {
            HOME.contains(&source.ip())
                || destination.is_some_and(|destination| destination.ip() == source.ip())
        }
        (None, _) => true,
    }
}

#[cfg(test)]
#[path = "chain_match_tests.rs"]
mod tests;
