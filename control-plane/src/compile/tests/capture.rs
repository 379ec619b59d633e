//! Sidecars whose traffic is captured.

use pillion_xds::any::unpack;
use pillion_xds::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use pillion_xds::envoy::config::listener::v3::filter;
use pillion_xds::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};

use super::*;

const ADDRESSES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: redis}
spec: {clusterIP: 10.96.0.7, ports: [{name: redis, port: 6379}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIPs: [10.96.0.8, "fd00::8"], ports: [{name: http, port: 80, targetPort: 8080}]}
"#;

fn captured(service: &str, further: &[(&str, u16)]) -> Node {
    with_sidecar(sidecar(service), |sidecar| {
        sidecar.interception = Interception::Redirect;
        sidecar.app_ports =
            further.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect();
    })
}

fn tcp_cluster(listener: &Listener) -> String {
    let filter = &listener.filter_chains[0].filters[0];
    let Some(filter::ConfigType::TypedConfig(packed)) = &filter.config_type else { panic!() };
    let proxy: TcpProxy = unpack(packed).unwrap();
    match proxy.cluster_specifier {
        Some(tcp_proxy::ClusterSpecifier::Cluster(name)) => name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn addresses_of_services_have_listeners_that_look_at_no_byte() {
    let set = world(ADDRESSES).for_node(&captured("catalog", &[]));
    let redis = listener(&set, "outbound|redis.default:6379|10.96.0.7_6379");
    assert_eq!(socket(redis.address.as_ref().unwrap()), "10.96.0.7:6379");
    assert_eq!(redis.bind_to_port, Some(false));
    assert!(redis.listener_filters.is_empty());
    assert_eq!(tcp_cluster(&redis), "redis.default:6379");
    for name in ["10.96.0.8_80", "fd00::8_80"] {
        let web = listener(&set, &format!("outbound|web.default:80|{name}"));
        assert_eq!(web.bind_to_port, Some(false));
    }
    assert!(names(&set, ResourceType::Route).contains(&"web.default:80".to_owned()));
    let outbound = listener(&set, "outbound");
    assert_eq!(outbound.use_original_dst, Some(true));
    assert_eq!(outbound.listener_filters.len(), 3);
    assert_eq!(tcp_rest(&outbound), Some("passthrough".to_owned()));
}

fn tcp_rest(outbound: &Listener) -> Option<String> {
    let rest = outbound.default_filter_chain.clone()?;
    Some(tcp_cluster(&Listener { filter_chains: vec![rest], ..Listener::default() }))
}

#[test]
fn a_connection_to_one_workload_reaches_that_one_with_the_identity_of_its_service() {
    let mut one = registered("db", 1, &[("app", "db")]);
    one.ports = [("pg".to_owned(), 5432)].into();
    one.captured = true;
    let world = World::new(intent(""), workloads([one]));
    let set = world.for_node(&captured("catalog", &[]));
    let direct = listener(&set, "outbound|db.default:5432|10.0.0.1_5432");
    assert_eq!(tcp_cluster(&direct), "direct|db.default:5432");
    let cluster = cluster(&set, "direct|db.default:5432");
    let kind = ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into());
    assert_eq!(cluster.cluster_discovery_type, Some(kind));
    assert!(cluster.transport_socket.is_some(), "mTLS");
    assert_eq!(endpoints(&set, "db.default:5432"), ["10.0.0.1:5432"]);
}

#[test]
fn a_captured_workload_is_told_by_its_ports_apart() {
    let node = captured("cart", &[("grpc", 9000)]);
    let inbound = listener(&world("").for_node(&node), "inbound");
    let reached: Vec<_> = inbound
        .filter_chains
        .iter()
        .map(|chain| chain.filter_chain_match.as_ref().unwrap().destination_port)
        .collect();
    assert_eq!(reached, [Some(15006), Some(8080), Some(9000)]);
    assert_eq!(inbound.listener_filters.len(), 1, "where it was going");
    assert_eq!(inbound.transparent, None);
    let tproxy = with_sidecar(node, |sidecar| sidecar.interception = Interception::Tproxy);
    let inbound = listener(&world("").for_node(&tproxy), "inbound");
    assert_eq!(inbound.transparent, Some(true));
    assert_eq!(inbound.listener_filters.len(), 2, "and the client's address towards the workload");
}

#[test]
fn strangers_pass_or_are_refused() {
    let mesh = "apiVersion: pillion.io/v1alpha1\nkind: Mesh\nmetadata: {name: m}\nspec: {outbound: RegistryOnly}\n";
    let closed = world(mesh).for_node(&captured("catalog", &[]));
    assert_eq!(listener(&closed, "outbound").default_filter_chain, None);
    let routes = host_routes(&closed, "outbound", "passthrough");
    assert!(matches!(
        routes[0].action,
        Some(pillion_xds::envoy::config::route::v3::route::Action::DirectResponse(_))
    ));
    let open = world("").for_node(&captured("catalog", &[]));
    assert!(names(&open, ResourceType::Cluster).contains(&"passthrough".to_owned()));
}

#[test]
fn every_host_takes_tunnels() {
    use pillion_xds::envoy::config::route::v3::route_match::PathSpecifier;
    let set = world("").for_node(&sidecar("catalog"));
    let found: RouteConfiguration = decode(&set, ResourceType::Route, "outbound");
    for host in found.virtual_hosts {
        let first = host.routes.first().and_then(|route| route.r#match.clone());
        let path = first.and_then(|matched| matched.path_specifier);
        assert!(matches!(path, Some(PathSpecifier::ConnectMatcher(_))), "{}", host.name);
        assert_eq!(host.routes.len() == 1, host.name == "db.default:5432", "{}", host.name);
    }
    let passthrough = cluster(&set, "passthrough");
    let kind = passthrough.cluster_discovery_type;
    assert!(matches!(kind, Some(ClusterDiscoveryType::ClusterType(_))), "{kind:?}");
}
