//! Clusters, endpoints and who speaks what to whom.

use pillion_xds::any::unpack;
use pillion_xds::envoy::config::cluster::v3::Cluster;
use pillion_xds::envoy::config::cluster::v3::cluster::LbPolicy;
use pillion_xds::envoy::config::core::v3::{TransportSocket, transport_socket};
use pillion_xds::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use pillion_xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, UpstreamTlsContext,
};
use pillion_xds::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use pillion_xds::envoy::extensions::upstreams::http::v3::http_protocol_options::UpstreamProtocolOptions;
use pillion_xds::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use pillion_xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::*;

const PLAIN_DB: &str = "apiVersion: pillion.io/v1alpha1\nkind: Workload\nmetadata: {name: db-1, labels: {app: db}}\nspec: {address: 10.1.0.1, ports: {pg: 5433}}\n---\n";

fn files() -> Certificates {
    Certificates::Files {
        chain: "/c/chain.pem".to_owned(),
        key: "/c/key.pem".to_owned(),
        bundle: "/c/roots.pem".to_owned(),
    }
}

fn tls(socket: &TransportSocket) -> UpstreamTlsContext {
    let Some(transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type else {
        panic!("a typed config")
    };
    unpack(any).unwrap()
}

fn expected_ids(context: &CertificateValidationContext) -> Vec<String> {
    let typed = context.match_typed_subject_alt_names.iter().filter_map(|san| san.matcher.as_ref());
    let all = typed.chain(&context.match_subject_alt_names);
    all.map(|matcher| match &matcher.match_pattern {
        Some(MatchPattern::Exact(id)) => id.clone(),
        other => panic!("an exact name, not {other:?}"),
    })
    .collect()
}

fn speaks_http2(cluster: &Cluster) -> bool {
    let any = cluster.typed_extension_protocol_options.values().next().expect("HTTP options");
    let options: HttpProtocolOptions = unpack(any).unwrap();
    match options.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => {
            matches!(config.protocol_config, Some(ProtocolConfig::Http2ProtocolOptions(_)))
        }
        other => panic!("explicit, not {other:?}"),
    }
}

#[test]
fn our_proxy_speaks_h2_over_mtls_to_the_accounts_of_the_service() {
    let mut canary = registered("catalog", 2, &[]);
    canary.service_account = "canary".to_owned();
    let all = workloads([registered("catalog", 1, &[]), canary]);
    let world = World::new(intent(&mesh("Strict")), all);
    let set = world.for_node(&sidecar("cart"));
    let cluster = cluster(&set, "catalog.default:80");
    assert!(speaks_http2(&cluster));
    assert_eq!(cluster.lb_policy(), LbPolicy::LeastRequest);
    let common = tls(cluster.transport_socket.as_ref().unwrap()).common_tls_context.unwrap();
    assert_eq!(common.alpn_protocols, ["h2"]);
    assert_eq!(common.tls_certificate_sds_secret_configs[0].name, "default");
    let Some(ValidationContextType::CombinedValidationContext(validation)) =
        common.validation_context_type
    else {
        panic!("a combined context")
    };
    assert_eq!(validation.validation_context_sds_secret_config.unwrap().name, "ROOTCA");
    assert_eq!(
        expected_ids(&validation.default_validation_context.unwrap()),
        ["spiffe://shop.local/ns/default/sa/canary", "spiffe://shop.local/ns/default/sa/catalog"]
    );
    assert_eq!(endpoints(&set, "catalog.default:80"), ["10.0.0.1:15006", "10.0.0.2:15006"]);
}

#[test]
fn a_service_without_workloads_still_expects_a_name() {
    let set = world(&mesh("Strict")).for_node(&sidecar("cart"));
    let cluster = cluster(&set, "pay.bank:8443");
    let common = tls(cluster.transport_socket.as_ref().unwrap()).common_tls_context.unwrap();
    let Some(ValidationContextType::CombinedValidationContext(validation)) =
        common.validation_context_type
    else {
        panic!("a combined context")
    };
    assert_eq!(
        expected_ids(&validation.default_validation_context.unwrap()),
        ["spiffe://shop.local/ns/bank/sa/pay"]
    );
    assert_eq!(endpoints(&set, "pay.bank:8443"), Vec::<String>::new());
}

#[test]
fn accounts_that_the_service_does_not_allow_get_no_traffic() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: vault, annotations: {pillion.io/service-accounts: \"vault\"}}\nspec: {ports: [{port: 80}]}\n";
    let mut rogue = registered("vault", 2, &[]);
    rogue.service_account = "rogue".to_owned();
    let world = World::new(intent(service), workloads([registered("vault", 1, &[]), rogue]));
    let set = world.for_node(&sidecar("cart"));
    assert_eq!(endpoints(&set, "vault.default:80"), ["10.0.0.1:15006"]);
    assert!(world.problems()[0].message.contains("`rogue`"), "{:?}", world.problems());
}

#[test]
fn an_envoy_with_certificate_files_gets_paths_and_no_secrets() {
    let node = with_sidecar(sidecar("cart"), |sidecar| sidecar.certificates = files());
    let set = world(&mesh("Strict")).for_node(&node);
    let cluster = cluster(&set, "catalog.default:80");
    let common = tls(cluster.transport_socket.as_ref().unwrap()).common_tls_context.unwrap();
    assert!(common.tls_certificate_sds_secret_configs.is_empty());
    let text = format!("{common:?}");
    for path in ["/c/chain.pem", "/c/key.pem", "/c/roots.pem"] {
        assert!(text.contains(path), "{text}");
    }
}

#[test]
fn a_permissive_mesh_speaks_plain_text_to_who_has_no_sidecar() {
    let more = format!("{}{PLAIN_DB}", mesh("Permissive"));
    // All plain: no TLS at all.
    let all_plain = world(&more).for_node(&sidecar("cart"));
    assert_eq!(endpoints(&all_plain, "db.default:5432"), ["10.1.0.1:5433"]);
    assert_eq!(cluster(&all_plain, "db.default:5432").transport_socket, None);

    // Mixed: our proxy sends to those with a sidecar, and someone is told.
    let world = World::new(intent(&more), workloads([registered("db", 3, &[])]));
    let ours = world.for_node(&sidecar("cart"));
    assert_eq!(endpoints(&ours, "db.default:5432"), ["10.0.0.3:15006"]);
    assert!(cluster(&ours, "db.default:5432").transport_socket.is_some());
    assert_eq!(world.problems()[0].object, "Workload default/db-1");

    // An Envoy chooses by endpoint, and speaks mTLS unless the endpoint is known to be plain.
    let mixed =
        world.for_node(&with_sidecar(sidecar("cart"), |sidecar| sidecar.certificates = files()));
    let cluster = cluster(&mixed, "db.default:5432");
    assert_eq!(cluster.transport_socket, None);
    let matches: Vec<_> =
        cluster.transport_socket_matches.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(matches, ["plain", "mtls"]);
    assert!(cluster.transport_socket_matches[1].r#match.as_ref().unwrap().fields.is_empty());
    let assignment: ClusterLoadAssignment =
        decode(&mixed, ResourceType::Endpoint, "db.default:5432");
    let marked: Vec<bool> =
        assignment.endpoints[0].lb_endpoints.iter().map(|found| found.metadata.is_some()).collect();
    assert_eq!(endpoints(&mixed, "db.default:5432"), ["10.1.0.1:5433", "10.0.0.3:15006"]);
    assert_eq!(marked, [true, false]);
}

#[test]
fn a_strict_mesh_leaves_out_who_has_no_sidecar_and_says_so() {
    let world = world(&format!("{}{PLAIN_DB}", mesh("Strict")));
    assert_eq!(
        endpoints(&world.for_node(&sidecar("cart")), "db.default:5432"),
        Vec::<String>::new()
    );
    assert!(
        world.problems()[0].to_string().contains("Workload default/db-1"),
        "{:?}",
        world.problems()
    );
}

#[test]
fn selectors_and_registration_by_name_both_count() {
    let mut away = registered("catalog", 4, &[]);
    away.ready = false;
    let all = workloads([
        registered("catalog", 1, &[("version", "v1")]),
        registered("catalog", 2, &[("version", "v2")]),
        registered("nobody", 3, &[]),
        away,
    ]);
    let world = World::new(intent(""), all);
    let set = world.for_node(&sidecar("cart"));
    assert_eq!(endpoints(&set, "catalog.default:80"), ["10.0.0.1:15006", "10.0.0.2:15006"]);
    assert_eq!(endpoints(&set, "catalog-v2.default:80"), ["10.0.0.2:15006"]);
    assert_eq!(world.members(&Name::new("default", "catalog")).len(), 3, "ready or not");
    let problems: Vec<_> = world.problems().iter().map(|problem| problem.object.as_str()).collect();
    assert_eq!(problems, ["Workload default/nobody-3"]);
}

#[test]
fn localities_carry_their_weight_and_no_address_stands_twice() {
    let at = |last, zone: &str, weight| Workload {
        locality: Locality {
            region: "eu".to_owned(),
            zone: zone.to_owned(),
            ..Locality::default()
        },
        weight,
        ..registered("catalog", last, &[])
    };
    let mut twin = at(1, "b", 1);
    twin.name = Name::new("default", "catalog-twin");
    let all = workloads([at(1, "a", 3), at(2, "a", 2), at(3, "b", 1), twin]);
    let set = World::new(intent(""), all).for_node(&sidecar("cart"));
    let found: ClusterLoadAssignment = decode(&set, ResourceType::Endpoint, "catalog.default:80");
    let summary: Vec<_> = found
        .endpoints
        .iter()
        .map(|group| {
            let zone = group.locality.as_ref().unwrap().zone.as_str();
            (zone, group.load_balancing_weight.unwrap(), group.lb_endpoints.len())
        })
        .collect();
    assert_eq!(summary, [("a", 5, 2), ("b", 1, 1)]);
}

const POLICY: &str = r#"
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: p}
spec:
  targetRefs: [{kind: Service, name: catalog}]
  loadBalancer: {type: Maglev, hashOn: {header: x-user}}
  circuitBreaker: {maxConnections: 100, maxRequests: 200}
  outlierDetection: {consecutive5xx: 5, consecutiveGatewayErrors: 0, interval: 10s, baseEjectionTime: 30s, maxEjectionPercent: 60}
  retry: {on: [unavailable], budget: {percent: 25, minPerSecond: 40}}
  timeout: {connect: 250ms}
"#;

#[test]
fn a_policy_shapes_the_cluster_of_its_service_only() {
    let set = world(POLICY).for_node(&sidecar("cart"));
    let ours = cluster(&set, "catalog.default:80");
    assert_eq!(ours.lb_policy(), LbPolicy::Maglev);
    assert_eq!(ours.connect_timeout.as_ref().unwrap().nanos, 250_000_000);
    let limits = &ours.circuit_breakers.as_ref().unwrap().thresholds[0];
    assert_eq!((limits.max_connections, limits.max_requests), (Some(100), Some(200)));
    assert_eq!(limits.max_pending_requests, Some(u32::MAX));
    let budget = limits.retry_budget.as_ref().unwrap();
    assert_eq!(budget.min_retry_concurrency, Some(12));
    let outlier = ours.outlier_detection.as_ref().unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.enforcing_consecutive_5xx), (Some(5), Some(100)));
    assert_eq!(outlier.enforcing_consecutive_gateway_failure, Some(0), "0 is never");
    assert_eq!(outlier.max_ejection_percent, Some(60));
    assert!(!outlier.split_external_local_origin_errors);

    let other = cluster(&set, "catalog-v2.default:80");
    assert_eq!(other.lb_policy(), LbPolicy::LeastRequest);
    let budget = other.circuit_breakers.unwrap().thresholds[0].retry_budget.unwrap();
    assert_eq!(budget.budget_percent.unwrap().value, 20.0);
    assert_eq!(budget.min_retry_concurrency, Some(3));
    let outlier = other.outlier_detection.unwrap();
    assert_eq!(outlier.enforcing_consecutive_5xx, Some(0), "an answer is no reason to eject");
    assert_eq!(outlier.consecutive_local_origin_failure, Some(3));
}

#[test]
fn a_policy_has_endpoints_checked_in_what_they_speak() {
    use pillion_xds::envoy::config::core::v3::health_check::HealthChecker;
    let policy = |check: &str| {
        format!(
            "\napiVersion: pillion.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p}}\n\
             spec: {{targetRefs: [{{kind: Service, name: catalog}}], healthCheck: {check}}}\n"
        )
    };
    let checked = |check: &str| {
        let set = world(&policy(check)).for_node(&sidecar("cart"));
        assert!(cluster(&set, "catalog-v2.default:80").health_checks.is_empty());
        cluster(&set, "catalog.default:80").health_checks.remove(0)
    };
    let http = checked("{http: {path: /healthz}, interval: 3s, unhealthyThreshold: 5}");
    assert_eq!((http.interval.unwrap().seconds, http.timeout.unwrap().seconds), (3, 1));
    assert_eq!((http.unhealthy_threshold, http.healthy_threshold), (Some(5), Some(2)));
    let Some(HealthChecker::HttpHealthCheck(probe)) = http.health_checker else {
        panic!("by HTTP")
    };
    assert_eq!(probe.path, "/healthz");
    // Between sidecars HTTP/2 is spoken.
    assert_eq!(probe.codec_client_type, 1);
    let grpc = checked("{grpc: {service: shop}}").health_checker;
    assert!(
        matches!(grpc, Some(HealthChecker::GrpcHealthCheck(probe)) if probe.service_name == "shop")
    );
    let tcp = checked("{tcp: {}}").health_checker;
    assert!(matches!(tcp, Some(HealthChecker::TcpHealthCheck(_))));
}

#[test]
fn a_grpc_client_gets_what_it_understands() {
    let more = format!("{}{POLICY}", mesh("Permissive"));
    let world = World::new(intent(&more), workloads([registered("catalog", 1, &[])]));
    let plain = world.for_node(&grpc_client(None));
    let ours = cluster(&plain, "catalog.default:80");
    assert_eq!(ours.transport_socket, None);
    assert_eq!(ours.outlier_detection, None);
    let policies: Vec<_> = ours
        .load_balancing_policy
        .as_ref()
        .unwrap()
        .policies
        .iter()
        .map(|policy| policy.typed_extension_config.as_ref().unwrap().name.as_str())
        .collect();
    assert_eq!(
        policies,
        ["envoy.load_balancing_policies.maglev", "envoy.load_balancing_policies.round_robin"]
    );
    assert_eq!(endpoints(&plain, "catalog.default:80"), ["10.0.0.1:3001"], "the workload itself");
    assert_eq!(cluster(&plain, "cart.default:9000").lb_policy(), LbPolicy::RoundRobin);

    let secure = world.for_node(&grpc_client(Some("files")));
    let ours = cluster(&secure, "catalog.default:80");
    let common = tls(ours.transport_socket.as_ref().unwrap()).common_tls_context.unwrap();
    assert_eq!(common.tls_certificate_provider_instance.unwrap().instance_name, "files");
    let Some(ValidationContextType::ValidationContext(validation)) = common.validation_context_type
    else {
        panic!("a validation context")
    };
    assert_eq!(expected_ids(&validation), ["spiffe://shop.local/ns/default/sa/catalog"]);
    assert_eq!(endpoints(&secure, "catalog.default:80"), ["10.0.0.1:15006"], "its sidecar");

    let strict = World::new(intent(&mesh("Strict")), workloads([registered("catalog", 1, &[])]));
    let set = strict.for_node(&grpc_client(None));
    assert_eq!(endpoints(&set, "catalog.default:80"), Vec::<String>::new());
    assert!(strict.warnings_for(&grpc_client(None))[0].contains("CERT_PROVIDER"));
}

#[test]
fn a_port_that_leads_past_the_sidecar_is_spoken_to_in_plain_text() {
    const TWO: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: two}\nspec: {ports: [{name: http, port: 80, targetPort: 8080}, {name: metrics, port: 9000, appProtocol: http}]}\n";
    let mut workload = registered("two", 7, &[]);
    workload.app_port = None;
    workload.ports = [("http".to_owned(), 8080), ("metrics".to_owned(), 9000)].into();
    (workload.captured, workload.open_ports) = (true, vec![(9000, 9100)]);
    let with = |mtls: &str| {
        let more = format!("{}{TWO}", mesh(mtls));
        World::new(intent(&more), workloads([workload.clone()]))
    };
    let permissive = with("Permissive").for_node(&sidecar("cart"));
    assert_eq!(endpoints(&permissive, "two.default:80"), ["10.0.0.7:8080"]);
    assert!(cluster(&permissive, "two.default:80").transport_socket.is_some());
    assert_eq!(endpoints(&permissive, "two.default:9000"), ["10.0.0.7:9000"]);
    assert_eq!(cluster(&permissive, "two.default:9000").transport_socket, None);

    let world = with("Strict");
    let strict = world.for_node(&sidecar("cart"));
    assert_eq!(endpoints(&strict, "two.default:80"), ["10.0.0.7:8080"]);
    assert_eq!(endpoints(&strict, "two.default:9000"), Vec::<String>::new());
    let problem = world.problems()[0].to_string();
    assert!(problem.contains("port 9000 of Service default/two leads past"), "{problem}");
}
