//! Listener filters: what is done with a connection before its filter chain is chosen.

use pillion_xds::envoy::config::core::v3::proxy_protocol_config::Version;
use pillion_xds::envoy::config::listener::v3 as pb;
use pillion_xds::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use pillion_xds::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;

use super::at::At;
use super::common;
use crate::model::listener::Inspect;
use crate::model::proxy_protocol::Accept;

/// All of a listener's filters, applied in the order in which they only make sense.
#[derive(Default)]
pub(super) struct ListenerFilters {
    pub(super) inspect: Inspect,
    /// Mark of packets to endpoints, which come from the client's address.
    pub(super) original_src: Option<u32>,
    pub(super) proxy_protocol: Option<Accept>,
}

/// `Listener.listener_filters`
pub(super) fn all(at: &At<'_>, filters: &[pb::ListenerFilter]) -> Option<ListenerFilters> {
    let list = at.field("listener_filters");
    let mut all = ListenerFilters::default();
    for (i, filter) in filters.iter().enumerate() {
        one(&list.index(i), filter, &mut all)?;
    }
    Some(all)
}

fn one(at: &At<'_>, filter: &pb::ListenerFilter, all: &mut ListenerFilters) -> Option<()> {
    use pb::listener_filter::ConfigType;
    let at = at.field("typed_config");
    let Some(ConfigType::TypedConfig(packed)) = &filter.config_type else {
        return at.refuse("is missing");
    };
    match common::type_of(packed) {
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => {
            all.inspect.original_dst = true;
        }
        "envoy.extensions.filters.listener.original_src.v3.OriginalSrc" => {
            let source: OriginalSrc = common::unpack(&at, packed)?;
            all.original_src = Some(source.mark);
        }
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" => {
            let early = all.original_src.is_none() && !all.inspect.tls && !all.inspect.http;
            at.expect(
                early,
                "expected before filters that look at what it takes off or finds out",
            )?;
            let config: ProxyProtocol = common::unpack(&at, packed)?;
            all.proxy_protocol = Some(proxy_protocol(&at, &config)?);
        }
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
            all.inspect.tls = true;
        }
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
            all.inspect.http = true;
        }
        other => return at.refuse(format!("`{other}` is not supported")),
    }
    Some(())
}

fn proxy_protocol(at: &At<'_>, config: &ProxyProtocol) -> Option<Accept> {
    let is_taken = |version| !config.disallowed_versions().any(|one| one == version);
    let accept = Accept {
        optional: config.allow_requests_without_proxy_protocol,
        v1: is_taken(Version::V1),
        v2: is_taken(Version::V2),
        stat_prefix: config.stat_prefix.as_str().into(),
    };
    at.field("disallowed_versions").expect(accept.v1 || accept.v2, "leaves no version")?;
    Some(accept)
}
