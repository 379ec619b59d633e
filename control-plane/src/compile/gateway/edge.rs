//! The HTTP connection manager at the edge: peers are strangers (Envoy, "Configuring Envoy as an edge proxy").

use std::time::Duration;

use pillion_xds::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use pillion_xds::envoy::config::core::v3::{Http2ProtocolOptions, HttpProtocolOptions};
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::PathWithEscapedSlashesAction;

use super::super::http_manager::{base, over_rds};
use super::super::node::{GatewayProxy, Node};
use super::super::proto::duration;
use super::super::rate_limit;
use super::super::session;
use super::super::shape::Shape;

/// A client that does not finish its headers is given up.
const HEADERS_LIMIT: Duration = Duration::from_secs(10);
/// Streams of one client connection at a time.
const STREAMS: u32 = 100;
/// Bytes that a client may send ahead: on a stream, and on a connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// The manager of one route configuration.
pub(super) fn manager(
    shape: &Shape,
    (node, proxy): (&Node, &GatewayProxy),
    port: u16,
    routes: &str,
) -> HttpConnectionManager {
    let stat_prefix = format!("gateway_{port}");
    let mut common = base(&shape.intent.mesh, node, &proxy.proxy, &stat_prefix);
    common.http_filters.insert(0, rate_limit::filter());
    common.http_filters.insert(1, session::filter());
    HttpConnectionManager {
        route_specifier: Some(over_rds(routes)),
        // `x-forwarded-for` tells what this proxy saw; `x-envoy-*` from outside is nobody's.
        use_remote_address: Some(true),
        normalize_path: Some(true),
        merge_slashes: true,
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::UnescapeAndRedirect.into(),
        request_headers_timeout: Some(duration(HEADERS_LIMIT)),
        common_http_protocol_options: Some(HttpProtocolOptions {
            headers_with_underscores_action: HeadersWithUnderscoresAction::RejectRequest.into(),
            ..HttpProtocolOptions::default()
        }),
        http2_protocol_options: Some(Http2ProtocolOptions {
            max_concurrent_streams: Some(STREAMS),
            initial_stream_window_size: Some(STREAM_WINDOW),
            initial_connection_window_size: Some(CONNECTION_WINDOW),
            allow_connect: true,
            ..Http2ProtocolOptions::default()
        }),
        ..common
    }
}
