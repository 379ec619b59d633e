//! Listener filters: what is done with a connection before its filter chain is chosen.

use pillion_xds::envoy::config::listener::v3 as pb;
use pillion_xds::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;

use super::at::At;
use super::common;
use crate::model::listener::Inspect;

/// All of a listener's filters. Their order does not matter here, unlike in Envoy.
#[derive(Default)]
pub(super) struct ListenerFilters {
    pub(super) inspect: Inspect,
    /// Mark of packets to endpoints, which come from the client's address.
    pub(super) original_src: Option<u32>,
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
