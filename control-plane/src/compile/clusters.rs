//! Clusters (CDS).

use std::net::IpAddr;
use std::time::Duration;

use pillion_xds::any::pack;
use pillion_xds::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use pillion_xds::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget;
use pillion_xds::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DiscoveryType, EdsClusterConfig, LbPolicy, TransportSocketMatch,
};
use pillion_xds::envoy::config::cluster::v3::{CircuitBreakers, Cluster, OutlierDetection};
use pillion_xds::envoy::config::core::v3::{
    Address, Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpOptions, KeepaliveSettings,
};
use pillion_xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use pillion_xds::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use pillion_xds::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use pillion_xds::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};

use pillion_xds::envoy::extensions::clusters::dynamic_forward_proxy::v3::ClusterConfig;
use pillion_xds::envoy::extensions::clusters::dynamic_forward_proxy::v3::cluster_config::ClusterImplementationSpecifier;

use super::balancing;
use super::capture::PASSTHROUGH;
use super::health_check;
use super::http_manager::dns_cache;
use super::members::Wire;
use super::node::Certificates;
use super::proto::{duration, host_and_port, millis, over_ads, percent, pipe, text_struct};
use super::shape::{BYTES, Face, Shape, cluster_name};
use super::tls;
use crate::intent::{self, AppProtocol, Service, ServicePort, TrafficPolicy};

/// The cluster of the OTLP receiver.
pub(crate) const OTEL: &str = "otel";

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// To another sidecar, whose own side waits an hour.
pub(crate) const PEER_IDLE: Duration = Duration::from_secs(300);
/// To the workload: below the 5 s after which the servers of several languages hang up.
const WORKLOAD_IDLE: Duration = Duration::from_secs(4);

/// For whom a cluster is compiled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Flavor {
    /// A proxy with these certificates.
    Proxy(Certificates),
    /// Our proxy by itself, without a mesh: in plain text.
    Alone,
    /// A gRPC client, with the name of its certificate provider.
    Grpc(Option<String>),
}

/// The cluster of one service port.
pub(crate) fn of_port(
    shape: &Shape,
    service: &Service,
    port: &ServicePort,
    flavor: &Flavor,
) -> Cluster {
    let name = cluster_name(&service.name, port.port);
    let policy = shape.service_policy(&service.name);
    let connect = policy.and_then(|policy| policy.timeout.connect).unwrap_or(CONNECT_TIMEOUT);
    let mut cluster = Cluster {
        name: name.clone(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(over_ads()),
            service_name: name,
        }),
        connect_timeout: Some(duration(connect)),
        circuit_breakers: Some(circuit_breakers(policy)),
        ..Cluster::default()
    };
    let algorithm = policy.and_then(|policy| Some(policy.load_balancer.as_ref()?.algorithm));
    let trust_domain = &shape.intent.mesh.trust_domain;
    let face = shape.faces.get(&service.name);
    let ids =
        face.map(|face| tls::spiffe_ids(trust_domain, &service.name.namespace, &face.accounts));
    let ids = ids.unwrap_or_default();
    match flavor {
        Flavor::Proxy(certificates) => {
            balancing::for_proxy(&mut cluster, algorithm);
            cluster.outlier_detection = Some(outlier_detection(policy));
            let wire = match face
                .and_then(|face: &Face| face.wires.get(&port.port))
                .copied()
                .unwrap_or(Wire::Mtls)
            {
                // It gets those endpoints only that have a sidecar.
                Wire::Mixed if *certificates == Certificates::Own => Wire::Mtls,
                wire => wire,
            };
            speak(&mut cluster, (service, port), wire, (certificates, &ids));
            cluster.health_checks = health_check::of(policy, port.protocol, &cluster);
        }
        Flavor::Alone => {
            balancing::for_proxy(&mut cluster, algorithm);
            cluster.outlier_detection = Some(outlier_detection(policy));
            speak(&mut cluster, (service, port), Wire::Plain, (&Certificates::None, &[]));
            cluster.health_checks = health_check::of(policy, port.protocol, &cluster);
        }
        Flavor::Grpc(provider) => {
            // gRPC ejects by success rate and failure percentage only, which no policy asks for.
            balancing::for_grpc(&mut cluster, algorithm);
            cluster.transport_socket =
                provider.as_ref().map(|provider| tls::upstream_grpc(provider, &ids));
        }
    }
    cluster
}

/// The same for connections that are passed on as they are, with the same endpoints. Its TLS promises HTTP/2 only where
/// the service speaks nothing else: what comes is the client's to say.
pub(crate) fn of_port_for_bytes(
    shape: &Shape,
    service: &Service,
    port: &ServicePort,
    flavor: &Flavor,
) -> Cluster {
    let bytes = ServicePort { protocol: AppProtocol::Tcp, ..port.clone() };
    let port = if port.protocol.is_http2() { port } else { &bytes };
    let mut cluster = of_port(shape, service, port, flavor);
    cluster.typed_extension_protocol_options.clear();
    cluster.name.insert_str(0, BYTES);
    cluster
}

/// What is spoken to the endpoints: between sidecars HTTP/2 over mTLS; what the application speaks where some
/// endpoints have no sidecar.
fn speak(
    cluster: &mut Cluster,
    (service, port): (&Service, &ServicePort),
    wire: Wire,
    (certificates, ids): (&Certificates, &[String]),
) {
    let http2 =
        wire == Wire::Mtls && *certificates != Certificates::None || port.protocol.is_http2();
    let alpn = match port.protocol {
        AppProtocol::Tcp => tls::NO_ALPN,
        _ if http2 => tls::H2,
        _ => tls::HTTP1,
    };
    if port.protocol.is_http() {
        http_options(cluster, http2, PEER_IDLE);
    }
    let sni = format!("{}.{}", service.name.name, service.name.namespace);
    let Some(mtls) = tls::upstream(certificates, ids, &sni, alpn) else { return };
    match wire {
        Wire::Mtls => cluster.transport_socket = Some(mtls),
        Wire::Plain => {}
        // The last entry matches every endpoint: who is not known to be plain is spoken to by mTLS.
        Wire::Mixed => {
            cluster.transport_socket_matches = vec![
                TransportSocketMatch {
                    name: "plain".to_owned(),
                    r#match: Some(text_struct("wire", "plain")),
                    transport_socket: Some(tls::plain_text()),
                },
                TransportSocketMatch {
                    name: "mtls".to_owned(),
                    r#match: Some(prost_types::Struct::default()),
                    transport_socket: Some(mtls),
                },
            ];
        }
    }
}

pub(crate) fn http_options(cluster: &mut Cluster, http2: bool, idle: Duration) {
    let config = if http2 {
        // A peer whose link was cut says nothing: without a word from it, requests would wait for ever. What may be
        // repeated is soon tried elsewhere, and a connection that died while it was idle is not used again.
        ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions {
            connection_keepalive: Some(KeepaliveSettings {
                interval: Some(millis(3_000)),
                timeout: Some(millis(2_000)),
                ..KeepaliveSettings::default()
            }),
            ..Http2ProtocolOptions::default()
        })
    } else {
        ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())
    };
    let options = HttpProtocolOptions {
        common_http_protocol_options: Some(CommonHttpOptions {
            idle_timeout: Some(duration(idle)),
            ..CommonHttpOptions::default()
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig { protocol_config: Some(config) },
        )),
        ..HttpProtocolOptions::default()
    };
    cluster.typed_extension_protocol_options = [(HTTP_OPTIONS.to_owned(), pack(&options))].into();
}

/// No limits but those that are asked for, and a budget for retries in any case.
pub(crate) fn circuit_breakers(policy: Option<&TrafficPolicy>) -> CircuitBreakers {
    let limits = policy.and_then(|policy| policy.circuit_breaker).unwrap_or_default();
    let budget = policy.and_then(|policy| policy.retry.as_ref()?.budget);
    let (max_retries, retry_budget) = match (limits.max_retries, budget) {
        (Some(limit), None) => (Some(limit), None),
        (_, Some(budget)) => (None, Some(retry_budget(budget.percent, budget.min_per_second))),
        (None, None) => (None, Some(retry_budget(20.0, 10))),
    };
    CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: Some(limits.max_connections.unwrap_or(u32::MAX)),
            max_pending_requests: Some(limits.max_pending_requests.unwrap_or(u32::MAX)),
            max_requests: Some(limits.max_requests.unwrap_or(u32::MAX)),
            max_retries,
            retry_budget,
            ..Thresholds::default()
        }],
        ..CircuitBreakers::default()
    }
}

/// xDS knows no retries a second, only retries at once: what that rate keeps under way if a try takes 300 ms.
fn retry_budget(share: f64, min_per_second: u32) -> RetryBudget {
    RetryBudget {
        budget_percent: Some(percent(share)),
        min_retry_concurrency: Some((min_per_second.saturating_mul(3)).div_ceil(10).max(1)),
    }
}

/// By default only endpoints that cannot be reached are taken out, quickly and not for long. Errors that a
/// workload answers count when a policy says so: they may be the requests' fault.
fn outlier_detection(policy: Option<&TrafficPolicy>) -> OutlierDetection {
    let asked = policy.and_then(|policy| policy.outlier_detection);
    let settings = asked.unwrap_or(intent::OutlierDetection {
        consecutive_5xx: Some(0),
        consecutive_gateway_errors: Some(0),
        consecutive_local_origin_failures: Some(3),
        interval: Some(Duration::from_secs(1)),
        base_ejection_time: Some(Duration::from_secs(5)),
        max_ejection_time: Some(Duration::from_secs(30)),
        max_ejection_percent: Some(50),
    });
    // 0 means never, which xDS says by enforcing nothing.
    let enforced = |count: Option<u32>| count.map(|count| if count == 0 { 0 } else { 100 });
    let count = |count: Option<u32>| count.filter(|count| *count > 0);
    OutlierDetection {
        consecutive_5xx: count(settings.consecutive_5xx),
        enforcing_consecutive_5xx: enforced(settings.consecutive_5xx),
        consecutive_gateway_failure: count(settings.consecutive_gateway_errors),
        enforcing_consecutive_gateway_failure: enforced(settings.consecutive_gateway_errors),
        split_external_local_origin_errors: settings.consecutive_local_origin_failures.is_some(),
        consecutive_local_origin_failure: count(settings.consecutive_local_origin_failures),
        enforcing_consecutive_local_origin_failure: enforced(
            settings.consecutive_local_origin_failures,
        ),
        interval: settings.interval.map(duration),
        base_ejection_time: settings.base_ejection_time.map(duration),
        max_ejection_time: settings.max_ejection_time.map(duration),
        max_ejection_percent: settings.max_ejection_percent,
        // A small service would never be rid of a broken endpoint.
        always_eject_one_host: Some(true),
        // Nothing in a policy asks for this, which would be on.
        enforcing_success_rate: Some(0),
        enforcing_local_origin_success_rate: Some(0),
        ..OutlierDetection::default()
    }
}

/// A sidecar's own workload.
pub(crate) fn inbound(app_port: u16, socket: Option<&str>, protocol: AppProtocol) -> Cluster {
    let name = inbound_name(app_port);
    let address = socket.map_or_else(|| host_and_port("127.0.0.1".to_owned(), app_port), pipe);
    let mut cluster = fixed(&name, address);
    cluster.circuit_breakers = Some(circuit_breakers(None));
    cluster.connect_timeout = Some(millis(1000));
    if protocol.is_http() {
        http_options(&mut cluster, protocol.is_http2(), WORKLOAD_IDLE);
    }
    cluster
}

pub(crate) fn inbound_name(app_port: u16) -> String {
    format!("inbound:{app_port}")
}

/// Where a captured connection was going, or else where a request says that it goes; in whatever it speaks.
pub(crate) fn passthrough(captured: bool) -> Cluster {
    let discovery = if captured {
        ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into())
    } else {
        forward_proxy()
    };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(
            UseDownstreamHttpConfig {
                http_protocol_options: Some(Http1ProtocolOptions::default()),
                http2_protocol_options: Some(Http2ProtocolOptions::default()),
                ..UseDownstreamHttpConfig::default()
            },
        )),
        ..HttpProtocolOptions::default()
    };
    Cluster {
        name: PASSTHROUGH.to_owned(),
        cluster_discovery_type: Some(discovery),
        lb_policy: LbPolicy::ClusterProvided.into(),
        connect_timeout: Some(millis(10_000)),
        circuit_breakers: Some(circuit_breakers(None)),
        typed_extension_protocol_options: [(HTTP_OPTIONS.to_owned(), pack(&options))].into(),
        ..Cluster::default()
    }
}

fn forward_proxy() -> ClusterDiscoveryType {
    let config = ClusterConfig {
        cluster_implementation_specifier: Some(ClusterImplementationSpecifier::DnsCacheConfig(
            dns_cache(),
        )),
        // Envoy asks for certificate checks otherwise; but TLS here is the clients' own, and only passes.
        allow_insecure_cluster_options: true,
        ..ClusterConfig::default()
    };
    ClusterDiscoveryType::ClusterType(CustomClusterType {
        name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
        typed_config: Some(pack(&config)),
    })
}

/// The OTLP receiver.
pub(crate) fn otel(host: &str, port: u16) -> Cluster {
    let mut cluster = fixed(OTEL, host_and_port(host.to_owned(), port));
    if host.parse::<IpAddr>().is_err() {
        cluster.cluster_discovery_type =
            Some(ClusterDiscoveryType::Type(DiscoveryType::StrictDns.into()));
    }
    http_options(&mut cluster, true, PEER_IDLE);
    cluster
}

/// A cluster of one endpoint that is known beforehand.
fn fixed(name: &str, address: Address) -> Cluster {
    let endpoint = LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: Some(address),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        connect_timeout: Some(duration(CONNECT_TIMEOUT)),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: vec![endpoint],
                ..LocalityLbEndpoints::default()
            }],
            ..ClusterLoadAssignment::default()
        }),
        ..Cluster::default()
    }
}
