//! Resources as a static bootstrap: what came by name stands in the place of the name.

use pillion_xds::any::pack;
use pillion_xds::envoy::config::bootstrap::v3::Bootstrap;
use pillion_xds::envoy::config::bootstrap::v3::bootstrap::StaticResources;
use pillion_xds::envoy::config::cluster::v3::Cluster;
use pillion_xds::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use pillion_xds::envoy::config::core::v3::{Node, TransportSocket, data_source, transport_socket};
use pillion_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use pillion_xds::envoy::config::listener::v3::{Filter, Listener, filter};
use pillion_xds::envoy::config::route::v3::RouteConfiguration;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use pillion_xds::envoy::extensions::transport_sockets::tls::v3::{
    DownstreamTlsContext, Secret, secret,
};
use pillion_xds::json;
use prost::Message;
use prost_types::Any;
use serde_json::Value;

use crate::snapshot::{Resource, ResourceSet, ResourceType};

/// The bootstrap of a proxy that has these resources from the start and never gets others.
///
/// # Errors
/// A secret holds a private key, which is never printed; the text names it.
pub fn bootstrap(resources: &ResourceSet, id: &str) -> Result<Value, String> {
    let mut fixed = StaticResources::default();
    for resource in resources.iter() {
        match resource.kind {
            ResourceType::Listener => fixed.listeners.push(listener(resource, resources)),
            ResourceType::Cluster => fixed.clusters.push(cluster(resource, resources)),
            ResourceType::Secret => fixed.secrets.push(of_files(read(resource))?),
            ResourceType::Endpoint | ResourceType::Route => {}
        }
    }
    let node = Node { id: id.to_owned(), cluster: id.to_owned(), ..Node::default() };
    let bootstrap =
        Bootstrap { node: Some(node), static_resources: Some(fixed), ..Bootstrap::default() };
    Ok(json::to_json(&bootstrap))
}

/// It was encoded by this process.
fn read<M: Message + Default>(resource: &Resource) -> M {
    M::decode(resource.body.as_ref()).unwrap_or_default()
}

fn cluster(resource: &Resource, all: &ResourceSet) -> Cluster {
    let mut cluster: Cluster = read(resource);
    let Some(eds) = cluster.eds_cluster_config.take() else { return cluster };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
    let assignment = all.get(ResourceType::Endpoint, &eds.service_name);
    let mut assignment: ClusterLoadAssignment =
        assignment.map(|found| read(found)).unwrap_or_default();
    assignment.cluster_name.clone_from(&cluster.name);
    cluster.load_assignment = Some(assignment);
    cluster
}

fn listener(resource: &Resource, all: &ResourceSet) -> Listener {
    let mut listener: Listener = read(resource);
    for chain in listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain) {
        for filter in &mut chain.filters {
            with_routes(filter, all);
        }
        if let Some(socket) = &mut chain.transport_socket {
            without_source(socket);
        }
    }
    listener
}

fn with_routes(filter: &mut Filter, all: &ResourceSet) {
    let Some(filter::ConfigType::TypedConfig(packed)) = &mut filter.config_type else { return };
    change(packed, |manager: &mut HttpConnectionManager| {
        let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier else { return };
        let routes = all.get(ResourceType::Route, &rds.route_config_name);
        let routes: RouteConfiguration = routes.map(|found| read(found)).unwrap_or_default();
        manager.route_specifier = Some(RouteSpecifier::RouteConfig(routes));
    });
}

/// A secret without a source is one of the bootstrap's own.
fn without_source(socket: &mut TransportSocket) {
    let Some(transport_socket::ConfigType::TypedConfig(packed)) = &mut socket.config_type else {
        return;
    };
    change(packed, |context: &mut DownstreamTlsContext| {
        let common = context.common_tls_context.iter_mut();
        for config in common.flat_map(|common| &mut common.tls_certificate_sds_secret_configs) {
            config.sds_config = None;
        }
    });
}

fn change<M: pillion_xds::any::Packable>(packed: &mut Any, change: impl FnOnce(&mut M)) {
    if let Ok(mut message) = M::unpack(packed) {
        change(&mut message);
        *packed = pack(&message);
    }
}

fn of_files(found: Secret) -> Result<Secret, String> {
    let Some(secret::Type::TlsCertificate(certificate)) = &found.r#type else { return Ok(found) };
    let key = certificate.private_key.as_ref().and_then(|key| key.specifier.as_ref());
    match key {
        Some(data_source::Specifier::Filename(_)) => Ok(found),
        _ => Err(format!(
            "{}: a private key is not printed: name its files by the annotations pillion.io/cert-file and key-file",
            found.name
        )),
    }
}
