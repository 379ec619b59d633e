//! Nodes as they introduce themselves, and the listeners that they get.

use pillion_xds::any::unpack;
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::config::listener::v3::filter;
use pillion_xds::envoy::config::trace::v3::OpenTelemetryConfig;
use pillion_xds::envoy::config::trace::v3::tracing::http;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, RouteSpecifier,
};
use pillion_xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use pillion_xds::pillion::trace::v1::TailSampler;
use prost_types::{Struct, Value, value::Kind};

use super::*;

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

fn node(metadata: &[(&str, &str)]) -> core::Node {
    let fields = metadata.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
    core::Node { id: "n".to_owned(), metadata: Some(Struct { fields }), ..core::Node::default() }
}

fn manager(listener: &Listener, chain: usize) -> HttpConnectionManager {
    match &listener.filter_chains[chain].filters[0].config_type {
        Some(filter::ConfigType::TypedConfig(any)) => unpack(any).unwrap(),
        other => panic!("a typed config, not {other:?}"),
    }
}

#[test]
fn a_node_says_who_it_is() {
    let mut given = node(&[
        ("SERVICE", "cart"),
        ("NAMESPACE", "shop"),
        ("SERVICE_ACCOUNT", "cart"),
        ("ADDRESS", "10.0.0.9"),
        ("INBOUND_PORT", "15006"),
        ("OUTBOUND_PORT", "15001"),
        ("APP_PORT", "8080"),
        ("PROXY", "pillion"),
        ("OTLP_ENDPOINT", "http://[::1]:4317"),
    ]);
    let upstreams = Struct { fields: [("db.shop:5432".to_owned(), text("9001"))].into() };
    let metadata = given.metadata.as_mut().unwrap();
    metadata
        .fields
        .insert("UPSTREAM_PORTS".to_owned(), Value { kind: Some(Kind::StructValue(upstreams)) });
    let parsed = Node::parse(&given).unwrap();
    let NodeKind::Sidecar(sidecar) = parsed.kind else { panic!("a sidecar") };
    assert_eq!((parsed.namespace.as_str(), parsed.service.as_deref()), ("shop", Some("cart")));
    assert_eq!(sidecar.inbound, Some(([10, 0, 0, 9].into(), 15006)));
    assert_eq!(sidecar.certificates, Certificates::Own);
    assert_eq!(sidecar.upstream_ports["db.shop:5432"], loopback(9001));
    assert_eq!(sidecar.otlp, Some(("::1".to_owned(), 4317)));
}

#[test]
fn grpc_clients_are_known_by_their_user_agent() {
    for agent in ["gRPC C-core linux", "gRPC Go", "gRPC Java", "grpc-node-js"] {
        let mut given = node(&[("CERT_PROVIDER", "files")]);
        given.user_agent_name = agent.to_owned();
        let expected = NodeKind::Grpc { certificate_provider: Some("files".to_owned()) };
        assert_eq!(Node::parse(&given).unwrap().kind, expected, "{agent}");
    }
}

/// Metadata, the field that is wrong, and a part of the message.
type Row = (&'static [(&'static str, &'static str)], &'static str, &'static str);

#[test]
fn what_cannot_be_understood_is_named() {
    let table: [Row; 5] = [
        (&[("OUTBOUND_PORT", "http")], "node.metadata.OUTBOUND_PORT", "1 to 65535"),
        (&[("APP_PORT", "80")], "node.metadata.INBOUND_PORT", "missing"),
        (&[("APP_PORT", "80"), ("INBOUND_PORT", "81")], "node.metadata.ADDRESS", "IP address"),
        (&[("TLS_PRIVATE_KEY", "/k")], "node.metadata", "all or none"),
        (&[("OTLP_ENDPOINT", "jaeger")], "node.metadata.OTLP_ENDPOINT", "http://"),
    ];
    for (metadata, field, message) in table {
        let error = Node::parse(&node(metadata)).unwrap_err();
        assert_eq!(error.field, field);
        assert!(error.message.contains(message), "{error}");
    }
    assert_eq!(Node::parse(&core::Node::default()).unwrap_err().field, "node.id");
}

#[test]
fn a_strict_mesh_takes_mtls_only() {
    let set = world(&mesh("Strict")).for_node(&sidecar("catalog"));
    let inbound = listener(&set, "inbound");
    assert_eq!(socket(inbound.address.as_ref().unwrap()), "10.0.0.9:15006");
    assert_eq!(inbound.traffic_direction, 1);
    assert_eq!(inbound.filter_chains.len(), 1);
    assert!(inbound.filter_chains[0].transport_socket.is_some());
    let manager = manager(&inbound, 0);
    assert_eq!(manager.stat_prefix, "inbound_15006");
    assert_eq!(manager.forward_client_cert_details(), ForwardClientCertDetails::SanitizeSet);
    let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else {
        panic!("inline")
    };
    assert_eq!(routes.virtual_hosts[0].name, "inbound|catalog");
    assert_eq!(names(&set, ResourceType::Listener), ["inbound", "outbound"]);
    assert!(set.get(ResourceType::Cluster, "inbound:8080").is_some());
}

#[test]
fn a_permissive_mesh_tells_tls_from_plain_text() {
    let set = world(&mesh("Permissive")).for_node(&sidecar("catalog"));
    let inbound = listener(&set, "inbound");
    let transports: Vec<_> = inbound
        .filter_chains
        .iter()
        .map(|chain| {
            let matched = chain.filter_chain_match.as_ref().unwrap();
            (matched.transport_protocol.as_str(), chain.transport_socket.is_some())
        })
        .collect();
    assert_eq!(transports, [("tls", true), ("raw_buffer", false)]);
    assert_eq!(inbound.listener_filters.len(), 1);
    assert_eq!(
        manager(&inbound, 1).forward_client_cert_details(),
        ForwardClientCertDetails::Sanitize
    );
}

#[test]
fn a_sidecar_without_certificates_is_told_what_it_misses() {
    let node =
        with_sidecar(sidecar("catalog"), |sidecar| sidecar.certificates = Certificates::None);
    let strict = world(&mesh("Strict"));
    assert_eq!(names(&strict.for_node(&node), ResourceType::Listener), ["outbound"]);
    assert!(strict.warnings_for(&node)[0].contains("TLS_CERTIFICATE_CHAIN"));
    let permissive = world(&mesh("Permissive"));
    assert!(permissive.warnings_for(&node).is_empty());
    assert_eq!(listener(&permissive.for_node(&node), "inbound").filter_chains.len(), 1);
}

#[test]
fn bytes_are_copied_both_ways() {
    let node = with_sidecar(sidecar("db"), |sidecar| {
        sidecar.app_port = Some(5433);
        sidecar.upstream_ports = [
            ("db.default:5432".to_owned(), loopback(9001)),
            ("catalog.default:80".to_owned(), loopback(9002)),
        ]
        .into();
    });
    let set = world("").for_node(&node);
    let tcp = |name: &str| -> TcpProxy {
        match &listener(&set, name).filter_chains[0].filters[0].config_type {
            Some(filter::ConfigType::TypedConfig(any)) => unpack(any).unwrap(),
            other => panic!("a typed config, not {other:?}"),
        }
    };
    assert!(format!("{:?}", tcp("inbound")).contains("inbound:5433"));
    assert!(format!("{:?}", tcp("outbound|db.default:5432")).contains("db.default:5432"));
    let http = listener(&set, "outbound|catalog.default:80");
    assert_eq!(socket(http.address.as_ref().unwrap()), "127.0.0.1:9002");
    assert_eq!(host_routes(&set, "catalog.default:80", "catalog.default:80").len(), 2);
}

#[test]
fn spans_go_to_the_sidecars_own_receiver_or_the_meshs() {
    let traced = "apiVersion: pillion.io/v1alpha1\nkind: Mesh\nmetadata: {name: m}\nspec: {tracing: {otlp: \"http://otel.example:4317\", samplingPercent: 5}}\n";
    let set = world(traced).for_node(&sidecar("cart"));
    let sampling =
        manager(&listener(&set, "outbound"), 0).tracing.unwrap().random_sampling.unwrap();
    assert_eq!(sampling.value, 5.0);
    assert!(format!("{:?}", cluster(&set, "otel")).contains("otel.example"));
    let own =
        with_sidecar(sidecar("cart"), |sidecar| sidecar.otlp = Some(("::1".to_owned(), 4318)));
    assert!(format!("{:?}", cluster(&world(traced).for_node(&own), "otel")).contains("4318"));
    let silent = world("").for_node(&sidecar("cart"));
    assert!(manager(&listener(&silent, "outbound"), 0).tracing.is_none());
    assert!(silent.get(ResourceType::Cluster, "otel").is_none());
}

#[test]
fn only_our_proxy_is_asked_for_a_second_look_at_spans() {
    let text = "apiVersion: pillion.io/v1alpha1\nkind: Mesh\nmetadata: {name: m}\nspec: {tracing: {otlp: \"http://otel.example\", tail: {slowerThan: 500ms, perSecond: 20}}}\n";
    let sampler = |node: &Node| {
        let set = world(text).for_node(node);
        let provider = manager(&listener(&set, "outbound"), 0).tracing.unwrap().provider.unwrap();
        let Some(http::ConfigType::TypedConfig(packed)) = provider.config_type else {
            panic!("a typed config")
        };
        unpack::<OpenTelemetryConfig>(&packed).unwrap().sampler
    };
    let packed = sampler(&sidecar("cart")).unwrap().typed_config.unwrap();
    let tail: TailSampler = unpack(&packed).unwrap();
    let half = prost_types::Duration { seconds: 0, nanos: 500_000_000 };
    assert_eq!((tail.slower_than, tail.failed, tail.per_second), (Some(half), true, Some(20)));
    let files = Certificates::Files {
        chain: "/c".to_owned(),
        key: "/k".to_owned(),
        bundle: "/b".to_owned(),
    };
    for other in [files, Certificates::None] {
        let envoy = with_sidecar(sidecar("cart"), |sidecar| sidecar.certificates = other);
        assert_eq!(sampler(&envoy), None);
    }
}

#[test]
fn a_grpc_client_finds_every_name_of_a_service() {
    let set = world("").for_node(&grpc_client(None));
    let found = names(&set, ResourceType::Listener);
    for name in
        ["catalog", "catalog.default", "catalog.default:80", "cart.default:9000", "pay.bank"]
    {
        assert!(found.iter().any(|known| known == name), "{name} in {found:?}");
    }
    assert!(
        !found.iter().any(|known| known == "pay" || known == "cart" || known.starts_with("db"))
    );
    assert!(listener(&set, "catalog").api_listener.is_some());
    assert!(set.get(ResourceType::Route, "catalog.default:80").is_some());
}
