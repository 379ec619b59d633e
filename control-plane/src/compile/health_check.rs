//! Active health checks of a service's endpoints, as its policy asks for them.

use pillion_xds::any::unpack;
use pillion_xds::envoy::config::cluster::v3::Cluster;
use pillion_xds::envoy::config::core::v3::HealthCheck;
use pillion_xds::envoy::config::core::v3::health_check::{
    GrpcHealthCheck, HealthChecker, HttpHealthCheck, TcpHealthCheck,
};
use pillion_xds::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use pillion_xds::envoy::extensions::upstreams::http::v3::http_protocol_options::UpstreamProtocolOptions;
use pillion_xds::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use pillion_xds::envoy::r#type::v3::{CodecClientType, Int64Range};

use super::proto::duration;
use crate::intent::{AppProtocol, Probe, TrafficPolicy};

/// `cluster` says already what is spoken to the endpoints: checks speak the same.
pub(super) fn of(
    policy: Option<&TrafficPolicy>,
    protocol: AppProtocol,
    cluster: &Cluster,
) -> Vec<HealthCheck> {
    let Some(asked) = policy.and_then(|policy| policy.health_check.as_ref()) else {
        return Vec::new();
    };
    let http2 = speaks_http2(cluster);
    let checker = match &asked.probe {
        Probe::Http { path, host } if protocol.is_http() => {
            HealthChecker::HttpHealthCheck(HttpHealthCheck {
                path: path.clone(),
                host: host.clone().unwrap_or_default(),
                codec_client_type: i32::from(if http2 {
                    CodecClientType::Http2
                } else {
                    CodecClientType::Http1
                }),
                expected_statuses: vec![Int64Range { start: 200, end: 300 }],
                // Every failure counts by threshold: one bad moment takes nobody out.
                retriable_statuses: vec![Int64Range { start: 100, end: 600 }],
                ..HttpHealthCheck::default()
            })
        }
        Probe::Grpc(service) if http2 => HealthChecker::GrpcHealthCheck(GrpcHealthCheck {
            service_name: service.clone(),
            ..GrpcHealthCheck::default()
        }),
        Probe::Http { .. } | Probe::Grpc(_) | Probe::Tcp => {
            HealthChecker::TcpHealthCheck(TcpHealthCheck::default())
        }
    };
    vec![HealthCheck {
        timeout: Some(duration(asked.timeout)),
        interval: Some(duration(asked.interval)),
        // Every sidecar asks every endpoint: not all at the same moment.
        interval_jitter_percent: 10,
        unhealthy_threshold: Some(asked.unhealthy_threshold),
        healthy_threshold: Some(asked.healthy_threshold),
        health_checker: Some(checker),
        ..HealthCheck::default()
    }]
}

fn speaks_http2(cluster: &Cluster) -> bool {
    let options = cluster.typed_extension_protocol_options.values().next();
    let options = options.and_then(|packed| unpack::<HttpProtocolOptions>(packed).ok());
    let upstream = options.and_then(|options| options.upstream_protocol_options);
    matches!(
        upstream,
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(config))
            if matches!(config.protocol_config, Some(ProtocolConfig::Http2ProtocolOptions(_)))
    )
}
