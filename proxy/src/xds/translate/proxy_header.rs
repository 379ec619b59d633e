//! `ProxyProtocolUpstreamTransport`: a PROXY header ahead of another transport socket.

use std::sync::Arc;

use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;

use super::at::At;
use super::{common, tls};
use crate::model::proxy_protocol::{Header, Version};
use crate::model::tls::UpstreamTls;

/// What connections of a cluster begin with, and the TLS on top.
type Upstream = (Option<Arc<Header>>, Option<Arc<UpstreamTls>>);

/// The transport socket of a cluster.
pub(super) fn upstream(at: &At<'_>, socket: &core::TransportSocket) -> Option<Upstream> {
    let Some(core::transport_socket::ConfigType::TypedConfig(packed)) = &socket.config_type else {
        return Some((None, tls::upstream(at, socket)?));
    };
    let kind =
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
    if common::type_of(packed) != kind {
        return Some((None, tls::upstream(at, socket)?));
    }
    let at = at.field("typed_config");
    let wrapped: ProxyProtocolUpstreamTransport = common::unpack(&at, packed)?;
    let header = header(&at.field("config"), wrapped.config.as_ref())?;
    let inner_at = at.field("transport_socket");
    let inner = inner_at.required(wrapped.transport_socket.as_ref())?;
    Some((Some(Arc::new(header)), tls::upstream(&inner_at, inner)?))
}

fn header(at: &At<'_>, config: Option<&core::ProxyProtocolConfig>) -> Option<Header> {
    let Some(config) = config else {
        return Some(Header { version: Version::V1, tlvs: Vec::new() });
    };
    let tlvs = at.field("added_tlvs").each(&config.added_tlvs, |at, entry| {
        let kind = u8::try_from(entry.r#type).ok();
        let kind = kind.or_else(|| at.field("type").refuse("expected 0 to 255"))?;
        let fits = entry.value.len() <= 1024;
        at.field("value").expect(fits, "is longer than 1024 bytes")?;
        Some((kind, entry.value.clone()))
    });
    let version = match config.version() {
        core::proxy_protocol_config::Version::V1 => Version::V1,
        core::proxy_protocol_config::Version::V2 => Version::V2,
    };
    Some(Header { version, tlvs })
}
