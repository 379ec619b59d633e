//! The HTTP connection manager of every listener: codec, tracing, access log, router.

use pillion_xds::any::pack;
use pillion_xds::envoy::config::accesslog::v3::{AccessLog, access_log};
use pillion_xds::envoy::config::cluster::v3::cluster::DnsLookupFamily;
use pillion_xds::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use pillion_xds::envoy::config::core::v3::substitution_format_string::Format;
use pillion_xds::envoy::config::core::v3::{
    GrpcService, Http2ProtocolOptions, SubstitutionFormatString, TypedExtensionConfig,
};
use pillion_xds::envoy::config::trace::v3::tracing::{Http, http};
use pillion_xds::envoy::config::trace::v3::OpenTelemetryConfig;
use pillion_xds::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use pillion_xds::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use pillion_xds::envoy::extensions::filters::http::dynamic_forward_proxy::v3::FilterConfig;
use pillion_xds::envoy::extensions::filters::http::dynamic_forward_proxy::v3::filter_config::ImplementationSpecifier;
use pillion_xds::envoy::extensions::filters::http::router::v3::Router;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    RouteSpecifier, ServerHeaderTransformation, Tracing, UpgradeConfig,
};
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use pillion_xds::pillion::trace::v1::TailSampler;
use prost_types::{Struct, Value, value};

use super::capture::PASSTHROUGH;
use super::clusters::OTEL;
use super::node::{Node, Sidecar};
use super::proto::{duration, millis, over_ads, percent};
use super::routes::CONNECT;
use crate::intent::{AccessLogFormat, Mesh};

/// Fields of a JSON access log line and the operators that fill them.
const JSON_LOG: [(&str, &str); 17] = [
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("downstream_peer", "%DOWNSTREAM_PEER_URI_SAN%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("traceparent", "%REQ(TRACEPARENT)%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
];

/// A manager with what all of a sidecar's listeners have in common.
pub(crate) fn base(
    mesh: &Mesh,
    node: &Node,
    sidecar: &Sidecar,
    stat_prefix: &str,
) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: stat_prefix.to_owned(),
        http_filters: vec![router()],
        tracing: tracing(mesh, node, sidecar),
        access_log: access_log(mesh),
        server_name: "pillion".to_owned(),
        // Services may speak WebSocket without saying so; sidecars speak HTTP/2 to each other.
        upgrade_configs: vec![websocket()],
        http2_protocol_options: Some(Http2ProtocolOptions {
            allow_connect: true,
            ..Http2ProtocolOptions::default()
        }),
        // The workload's own `server` header survives.
        server_header_transformation: ServerHeaderTransformation::AppendIfAbsent.into(),
        ..HttpConnectionManager::default()
    }
}

/// Routes that come over ADS under this name.
pub(crate) fn over_rds(name: &str) -> RouteSpecifier {
    RouteSpecifier::Rds(Rds { config_source: Some(over_ads()), route_config_name: name.to_owned() })
}

/// CONNECT requests are taken, where a route has tunnels for them.
pub(crate) fn connect() -> UpgradeConfig {
    UpgradeConfig { upgrade_type: CONNECT.to_owned(), ..UpgradeConfig::default() }
}

/// WebSocket requests are passed on.
fn websocket() -> UpgradeConfig {
    UpgradeConfig { upgrade_type: "websocket".to_owned(), ..UpgradeConfig::default() }
}

/// Looks up hosts outside of the mesh, for the cluster of the same addresses.
pub(crate) fn forward_proxy() -> HttpFilter {
    let config = FilterConfig {
        implementation_specifier: Some(ImplementationSpecifier::DnsCacheConfig(dns_cache())),
        ..FilterConfig::default()
    };
    HttpFilter {
        name: "envoy.filters.http.dynamic_forward_proxy".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack(&config))),
        ..HttpFilter::default()
    }
}

/// Filter and cluster of this name share their addresses.
pub(crate) fn dns_cache() -> DnsCacheConfig {
    DnsCacheConfig {
        name: PASSTHROUGH.to_owned(),
        dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
        ..DnsCacheConfig::default()
    }
}

pub(crate) fn router() -> HttpFilter {
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack(&Router::default()))),
        ..HttpFilter::default()
    }
}

/// Where a sidecar's spans go: its own receiver, or the mesh's.
pub(crate) fn otlp<'a>(mesh: &'a Mesh, sidecar: &'a Sidecar) -> Option<(&'a str, u16)> {
    let own = sidecar.otlp.as_ref().map(|(host, port)| (host.as_str(), *port));
    own.or_else(|| mesh.tracing.as_ref().map(|tracing| (tracing.host.as_str(), tracing.port)))
}

fn tracing(mesh: &Mesh, node: &Node, sidecar: &Sidecar) -> Option<Tracing> {
    otlp(mesh, sidecar)?;
    // Who gave one sidecar a receiver of its own, in a mesh without tracing, wants to see everything.
    let sampling = mesh.tracing.as_ref().map_or(100.0, |tracing| tracing.sampling_percent);
    let config = OpenTelemetryConfig {
        grpc_service: Some(GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
                cluster_name: OTEL.to_owned(),
                ..EnvoyGrpc::default()
            })),
            timeout: Some(millis(1000)),
            ..GrpcService::default()
        }),
        service_name: node.service_name(),
        sampler: tail(mesh, sidecar),
        ..OpenTelemetryConfig::default()
    };
    Some(Tracing {
        random_sampling: Some(percent(sampling)),
        provider: Some(Http {
            name: "envoy.tracers.opentelemetry".to_owned(),
            config_type: Some(http::ConfigType::TypedConfig(pack(&config))),
        }),
        ..Tracing::default()
    })
}

/// The second look at spans, for proxies that know it: Envoy would refuse the listener.
fn tail(mesh: &Mesh, sidecar: &Sidecar) -> Option<TypedExtensionConfig> {
    let tail = mesh.tracing.as_ref()?.tail.filter(|_| sidecar.is_ours())?;
    let config = TailSampler {
        head: None,
        slower_than: tail.slower_than.map(duration),
        failed: tail.failed,
        per_second: Some(tail.per_second),
    };
    Some(TypedExtensionConfig {
        name: "pillion.samplers.tail".to_owned(),
        typed_config: Some(pack(&config)),
    })
}

/// The mesh's access log, for HTTP and TCP alike.
pub(crate) fn access_log(mesh: &Mesh) -> Vec<AccessLog> {
    let Some(log) = &mesh.access_log else { return Vec::new() };
    let format = match log.format {
        AccessLogFormat::Text => None,
        AccessLogFormat::Json => {
            Some(file_access_log::AccessLogFormat::LogFormat(SubstitutionFormatString {
                format: Some(Format::JsonFormat(json_format())),
                ..SubstitutionFormatString::default()
            }))
        }
    };
    let config = FileAccessLog { path: log.file.clone(), access_log_format: format };
    vec![AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(pack(&config))),
        ..AccessLog::default()
    }]
}

fn json_format() -> Struct {
    let field = |(name, operator): (&str, &str)| {
        let value = Value { kind: Some(value::Kind::StringValue(operator.to_owned())) };
        (name.to_owned(), value)
    };
    Struct { fields: JSON_LOG.into_iter().map(field).collect() }
}
