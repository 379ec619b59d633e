//! Network filters, and the last one of a filter chain.

use std::sync::Arc;

use pillion_xds::envoy::config::core::v3::RuntimeFeatureFlag;
use pillion_xds::envoy::config::listener::v3 as pb;
use pillion_xds::envoy::extensions::filters::network::connection_limit::v3 as connection_limit;
use pillion_xds::envoy::extensions::filters::network::local_ratelimit::v3 as local_ratelimit;
use pillion_xds::envoy::extensions::filters::network::rbac::v3 as rbac;
use pillion_xds::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3 as sni_forward;
use prost_types::Any;

use super::at::At;
use super::{common, filter, http_manager, tcp_proxy};
use crate::model::listener::{BySni, Terminal};
use crate::model::network_filter::{ConnectionLimit, ConnectionRate, NetworkFilter, NetworkRbac};
use crate::model::rate_limit::TokenBucket;

/// What a chain does with its connections.
pub(super) struct Filters {
    pub(super) filters: Vec<NetworkFilter>,
    pub(super) terminal: Terminal,
}

/// `FilterChain.filters`
pub(super) fn all(at: &At<'_>, filters: &[pb::Filter]) -> Option<Filters> {
    let Some((last, before)) = filters.split_last() else {
        return at.refuse("expected a network filter at least, found none");
    };
    let mut by_sni = None;
    let mut made = Vec::with_capacity(before.len());
    for (i, filter) in before.iter().enumerate() {
        let filter_at = at.index(i);
        let at = filter_at.field("typed_config");
        let packed = packed(&at, filter)?;
        match common::type_of(packed) {
            "envoy.extensions.filters.network.sni_cluster.v3.SniCluster" => {
                by_sni = Some(BySni::Cluster);
            }
            "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig" => {
                by_sni = Some(BySni::Host(sni_port(&at, packed)?));
            }
            _ => made.extend(one(&at, packed)?),
        }
    }
    let last_at = at.index(filters.len() - 1);
    let terminal = terminal(&last_at.field("typed_config"), last, by_sni)?;
    Some(Filters { filters: made, terminal })
}

fn packed<'a>(at: &At<'_>, filter: &'a pb::Filter) -> Option<&'a Any> {
    match &filter.config_type {
        Some(pb::filter::ConfigType::TypedConfig(packed)) => Some(packed),
        _ => at.refuse("is missing"),
    }
}

fn terminal(at: &At<'_>, filter: &pb::Filter, by_sni: Option<BySni>) -> Option<Terminal> {
    let packed = packed(at, filter)?;
    match common::type_of(packed) {
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            let manager = common::unpack(at, packed)?;
            http_manager::manager(at, &manager).map(|made| Terminal::Http(Arc::new(made)))
        }
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
            let proxy = common::unpack(at, packed)?;
            let mut made = tcp_proxy::tcp_proxy(at, &proxy)?;
            made.by_sni = by_sni;
            Some(Terminal::Tcp(Arc::new(made)))
        }
        other => at.refuse(format!("network filter `{other}` is not supported as the last one")),
    }
}

/// None inside: it is switched off.
#[expect(clippy::option_option, reason = "refused and switched off are two things")]
fn one(at: &At<'_>, packed: &Any) -> Option<Option<NetworkFilter>> {
    match common::type_of(packed) {
        "envoy.extensions.filters.network.rbac.v3.RBAC" => {
            let config: rbac::Rbac = common::unpack(at, packed)?;
            rbac(at, &config).map(Some)
        }
        "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit" => {
            let config: connection_limit::ConnectionLimit = common::unpack(at, packed)?;
            let limit = connection_limit(at, &config)?;
            Some(is_on(config.runtime_enabled.as_ref()).then_some(limit))
        }
        "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit" => {
            let config: local_ratelimit::LocalRateLimit = common::unpack(at, packed)?;
            let limit = rate_limit(at, &config)?;
            Some(is_on(config.runtime_enabled.as_ref()).then_some(limit))
        }
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        | "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
            at.refuse("expected to be the last filter of its chain")
        }
        other => at.refuse(format!("network filter `{other}` is not supported")),
    }
}

/// Runtime keys are never looked up.
fn is_on(flag: Option<&RuntimeFeatureFlag>) -> bool {
    flag.and_then(|flag| flag.default_value).unwrap_or(true)
}

fn rbac(at: &At<'_>, config: &rbac::Rbac) -> Option<NetworkFilter> {
    let rules = |name, rules: Option<&_>| match rules {
        None => Some(None),
        Some(rules) => filter::rbac_rules(&at.field(name), rules).map(Some),
    };
    let once = config.enforcement_type() == rbac::rbac::EnforcementType::OneTimeOnFirstByte;
    at.field("enforcement_type")
        .expect(once, "CONTINUOUS is not supported: expected ONE_TIME_ON_FIRST_BYTE")?;
    Some(NetworkFilter::Rbac(Arc::new(NetworkRbac {
        rules: rules("rules", config.rules.as_ref())?,
        shadow: rules("shadow_rules", config.shadow_rules.as_ref())?,
        stat_prefix: config.stat_prefix.trim_end_matches('.').into(),
        shadow_prefix: config.shadow_rules_stat_prefix.as_str().into(),
    })))
}

fn connection_limit(
    at: &At<'_>,
    config: &connection_limit::ConnectionLimit,
) -> Option<NetworkFilter> {
    let most = config.max_connections.unwrap_or(0);
    at.field("max_connections").expect(most > 0, "expected at least 1")?;
    let delay = at.field("delay").duration(config.delay).unwrap_or_default();
    let stat_prefix = config.stat_prefix.as_str().into();
    Some(NetworkFilter::ConnectionLimit(Arc::new(ConnectionLimit { stat_prefix, most, delay })))
}

fn rate_limit(at: &At<'_>, config: &local_ratelimit::LocalRateLimit) -> Option<NetworkFilter> {
    let at = at.field("token_bucket");
    let bucket = at.required(config.token_bucket.as_ref())?;
    let rate = filter::rate(&at, bucket)?;
    let stat_prefix = config.stat_prefix.as_str().into();
    let bucket = TokenBucket::new(rate);
    Some(NetworkFilter::RateLimit(Arc::new(ConnectionRate { stat_prefix, bucket })))
}

fn sni_port(at: &At<'_>, packed: &Any) -> Option<u16> {
    use sni_forward::filter_config::PortSpecifier;
    let config: sni_forward::FilterConfig = common::unpack(at, packed)?;
    match config.port_specifier {
        None => Some(443),
        Some(PortSpecifier::PortValue(port)) => u16::try_from(port)
            .ok()
            .filter(|port| *port > 0)
            .or_else(|| at.field("port_value").refuse(format!("{port} is no port"))),
    }
}
