//! `Listener` and its filter chains.

use std::sync::Arc;
use std::time::Duration;

use pillion_xds::envoy::config::core::v3::TrafficDirection;
use pillion_xds::envoy::config::listener::v3 as pb;

use prost::Message;
use xxhash_rust::xxh64::xxh64;

use super::at::At;
use super::{access_log, common, filter, listener_filters, network_filter, tls};
use crate::model::listener::{
    Address, ChainMatch, Direction, FilterChain, Listener, SourceType, Transport,
};
use crate::model::rbac::Matcher;

/// Envoy's default for `listener_filters_timeout`.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Ours for `transport_socket_connect_timeout`: a handshake that takes longer is an attack.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// `Listener`
pub(super) fn listener(at: &At<'_>, config: &pb::Listener) -> Option<Listener> {
    at.field("name").expect(!config.name.is_empty(), "is empty")?;
    let address = common::address(&at.field("address"), config.address.as_ref())?;
    let chains_at = at.field("filter_chains");
    let filter_chains = chains_at.each(&config.filter_chains, chain);
    let default = match &config.default_filter_chain {
        Some(default) => Some(chain(&at.field("default_filter_chain"), default)?),
        None => None,
    };
    let any = !filter_chains.is_empty() || default.is_some();
    let refused = filter_chains.len() != config.filter_chains.len();
    chains_at.expect(any || refused, "expected at least one filter chain")?;
    let chain_tree = chain_tree(at, config, &filter_chains)?;
    let mut filters = listener_filters::all(at, &config.listener_filters)?;
    let inspect = &mut filters.inspect;
    inspect.original_dst |= config.use_original_dst == Some(true);
    // A chain that asks for SNI or the transport needs the ClientHello, as in Envoy.
    inspect.tls |= filter_chains.iter().any(|chain| needs_hello(&chain.matches));
    let stat_prefix = if config.stat_prefix.is_empty() {
        address.to_string().replace(':', "_")
    } else {
        config.stat_prefix.replace(':', "_")
    };
    Some(Listener {
        name: config.name.as_str().into(),
        stat_prefix: stat_prefix.into(),
        frame: fingerprint(&frame(config)),
        additional: additional(at, config),
        bind_to_port: config.bind_to_port != Some(false),
        use_original_dst: config.use_original_dst == Some(true),
        dual_stack: common::is_dual_stack(config.address.as_ref()),
        transparent: config.transparent == Some(true),
        bypass_overload: config.bypass_overload_manager,
        ignore_connection_limit: config.ignore_global_conn_limit,
        direction: match config.traffic_direction() {
            TrafficDirection::Unspecified => Direction::Unspecified,
            TrafficDirection::Inbound => Direction::Inbound,
            TrafficDirection::Outbound => Direction::Outbound,
        },
        filter_chains,
        chain_tree,
        default_filter_chain: default,
        original_src: filters.original_src,
        proxy_protocol: filters.proxy_protocol,
        inspect: filters.inspect,
        inspect_timeout: at
            .field("listener_filters_timeout")
            .duration(config.listener_filters_timeout)
            .unwrap_or(INSPECT_TIMEOUT),
        continue_on_inspect_timeout: config.continue_on_listener_filters_timeout,
        buffer_limit: config.per_connection_buffer_limit_bytes.unwrap_or(1 << 20),
        backlog: config.tcp_backlog_size.unwrap_or(1024),
        access_log: access_log::all(&at.field("access_log"), &config.access_log),
        address,
    })
}

/// `filter_chain_matcher`. None inside: chains say themselves which connections they are for.
#[expect(clippy::option_option, reason = "refused and not there are two things")]
fn chain_tree(
    at: &At<'_>,
    config: &pb::Listener,
    chains: &[Arc<FilterChain>],
) -> Option<Option<Matcher>> {
    let chains_at = at.field("filter_chains");
    let Some(tree) = &config.filter_chain_matcher else {
        refuse_equal_matches(&chains_at, chains)?;
        return Some(None);
    };
    refuse_equal_names(&chains_at, chains)?;
    filter::of_chains(&at.field("filter_chain_matcher"), tree).map(Some)
}

/// All but the filter chains.
fn frame(config: &pb::Listener) -> pb::Listener {
    let mut frame = config.clone();
    frame.filter_chains.clear();
    frame.default_filter_chain = None;
    frame
}

/// The same for the same bytes. (Messages that differ in the order of a map only are taken for different ones.)
fn fingerprint(message: &impl Message) -> u128 {
    let bytes = message.encode_to_vec();
    u128::from(xxh64(&bytes, 0)) << 64 | u128::from(xxh64(&bytes, 1))
}

fn additional(at: &At<'_>, config: &pb::Listener) -> Vec<(Address, bool)> {
    at.field("additional_addresses").each(&config.additional_addresses, |at, one| {
        let address = common::address(&at.field("address"), one.address.as_ref())?;
        Some((address, common::is_dual_stack(one.address.as_ref())))
    })
}

fn needs_hello(matches: &ChainMatch) -> bool {
    !matches.server_names.is_empty() || matches.transport_protocol.is_some()
}

/// Two chains for the very same connections cannot both be meant.
fn refuse_equal_matches(at: &At<'_>, chains: &[Arc<FilterChain>]) -> Option<()> {
    for (i, chain) in chains.iter().enumerate() {
        let twin = chains.iter().take(i).position(|other| other.matches == chain.matches);
        if let Some(twin) = twin {
            return at
                .index(i)
                .field("filter_chain_match")
                .refuse(format!("is the same as that of filter_chains[{twin}]"));
        }
    }
    Some(())
}

/// A tree says names: each has to mean one chain.
fn refuse_equal_names(at: &At<'_>, chains: &[Arc<FilterChain>]) -> Option<()> {
    for (i, chain) in chains.iter().enumerate() {
        let at = at.index(i);
        let at = at.field("name");
        at.expect(!chain.name.is_empty(), "is empty, beside a filter_chain_matcher")?;
        let twin = chains.iter().take(i).any(|other| other.name == chain.name);
        at.expect(!twin, format!("`{}` is the name of another chain too", chain.name))?;
    }
    Some(())
}

fn chain(at: &At<'_>, config: &pb::FilterChain) -> Option<Arc<FilterChain>> {
    let matches = match &config.filter_chain_match {
        Some(matches) => chain_match(&at.field("filter_chain_match"), matches)?,
        None => ChainMatch::default(),
    };
    let tls = match &config.transport_socket {
        Some(socket) => tls::downstream(&at.field("transport_socket"), socket)?,
        None => None,
    };
    let filters = network_filter::all(&at.field("filters"), &config.filters)?;
    Some(Arc::new(FilterChain {
        name: config.name.as_str().into(),
        matches,
        tls,
        transport_connect_timeout: at
            .field("transport_socket_connect_timeout")
            .duration(config.transport_socket_connect_timeout)
            .unwrap_or(HANDSHAKE_TIMEOUT),
        filters: filters.filters,
        terminal: filters.terminal,
        fingerprint: fingerprint(config),
    }))
}

fn chain_match(at: &At<'_>, config: &pb::FilterChainMatch) -> Option<ChainMatch> {
    use pb::filter_chain_match::ConnectionSourceType as Source;
    let port = |at: &At<'_>, port: u32| {
        u16::try_from(port).ok().or_else(|| at.refuse(format!("{port} is no port")))
    };
    let destination_port = match config.destination_port {
        Some(wanted) => Some(port(&at.field("destination_port"), wanted)?),
        None => None,
    };
    let transport_protocol = match config.transport_protocol.as_str() {
        "" => None,
        "tls" => Some(Transport::Tls),
        "raw_buffer" => Some(Transport::RawBuffer),
        other => {
            let at = at.field("transport_protocol");
            return at.refuse(format!("`{other}`: expected `tls` or `raw_buffer`"));
        }
    };
    let names_at = at.field("server_names");
    Some(ChainMatch {
        destination_port,
        prefix_ranges: at.field("prefix_ranges").each(&config.prefix_ranges, common::cidr),
        server_names: names_at.each(&config.server_names, |at, name| {
            let inner = name.strip_prefix("*.").unwrap_or(name);
            at.expect(!inner.contains('*'), "a wildcard may only be the first label")?;
            Some(name.to_ascii_lowercase())
        }),
        transport_protocol,
        application_protocols: config.application_protocols.clone(),
        direct_source_prefix_ranges: at
            .field("direct_source_prefix_ranges")
            .each(&config.direct_source_prefix_ranges, common::cidr),
        source_type: match config.source_type() {
            Source::Any => SourceType::Any,
            Source::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            Source::External => SourceType::External,
        },
        source_prefix_ranges: at
            .field("source_prefix_ranges")
            .each(&config.source_prefix_ranges, common::cidr),
        source_ports: at
            .field("source_ports")
            .each(&config.source_ports, |at, wanted| port(at, *wanted)),
    })
}
