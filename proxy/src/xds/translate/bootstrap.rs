//! `Bootstrap`: what the proxy is started with.

use std::net::SocketAddr;

use bytes::Bytes;
use pillion_xds::envoy::config::bootstrap::v3 as pb;
use pillion_xds::envoy::config::core::v3 as core;
use prost::Message as _;

use super::at::At;
use super::{Refused, Resource, cluster, common, listener, message, tls};
use crate::model::Name;
use crate::model::endpoint::Locality;
use crate::model::listener::Address;
use crate::xds::session::Variant;

/// What a bootstrap says, with the static resources compiled.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Sent to the control plane as it is.
    pub node: core::Node,
    /// Where the proxy is.
    pub locality: Locality,
    /// The cluster of its own kind (`cluster_manager.local_cluster_name`), for zone-aware routing.
    pub local_cluster: Option<Name>,
    /// Where the admin endpoint binds. None: nowhere.
    pub admin: Option<SocketAddr>,
    /// Static listeners, clusters and secrets.
    pub resources: Vec<Resource>,
    /// Where dynamic resources come from. None: there are none.
    pub ads: Option<Ads>,
    /// The message itself, encoded, for `/config_dump`.
    pub source: Bytes,
}

/// `dynamic_resources.ads_config`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ads {
    /// Static cluster of the control plane.
    pub cluster: Name,
    /// Host name sent to it; empty: the cluster's name.
    pub authority: Name,
    /// Delta or state of the world.
    pub variant: Variant,
    /// Send the node in the first message of a stream only.
    pub node_on_first_message_only: bool,
    /// Listeners come over ADS.
    pub listeners: bool,
    /// Clusters come over ADS.
    pub clusters: bool,
    /// Headers of the stream.
    pub metadata: Vec<(String, String)>,
}

/// Compile a bootstrap.
///
/// # Errors
/// Everything in it that is wrong or not supported, each with its path.
pub fn bootstrap(config: &pb::Bootstrap) -> Result<Bootstrap, Vec<Refused>> {
    message(config, |at, config| {
        let statics = config.static_resources.clone().unwrap_or_default();
        let static_at = at.field("static_resources");
        let mut resources = static_at.field("clusters").each(&statics.clusters, cluster::cluster);
        resources.extend(static_at.field("listeners").each(&statics.listeners, |at, one| {
            listener::listener(at, one).map(|made| Resource::Listener(made.into()))
        }));
        resources.extend(static_at.field("secrets").each(&statics.secrets, |at, one| {
            tls::secret(at, one).map(|made| Resource::Secret(made.into()))
        }));
        let names = |resource: &Resource| match resource {
            Resource::Cluster(cluster, _) => Some(cluster.name.clone()),
            _ => None,
        };
        let clusters: Vec<Name> = resources.iter().filter_map(names).collect();
        Some(Bootstrap {
            node: config.node.clone().unwrap_or_default(),
            locality: locality(config.node.as_ref()),
            local_cluster: local_cluster(at, config, &clusters)?,
            admin: match &config.admin {
                Some(admin) => self::admin(&at.field("admin"), admin)?,
                None => None,
            },
            ads: match &config.dynamic_resources {
                Some(dynamic) => {
                    dynamic_resources(&at.field("dynamic_resources"), dynamic, &clusters)?
                }
                None => None,
            },
            resources,
            source: config.encode_to_vec().into(),
        })
    })
}

fn locality(node: Option<&core::Node>) -> Locality {
    let place = node.and_then(|node| node.locality.clone()).unwrap_or_default();
    Locality { region: place.region, zone: place.zone, sub_zone: place.sub_zone }
}

/// It has to be a static one, as in Envoy.
fn local_cluster(at: &At<'_>, config: &pb::Bootstrap, clusters: &[Name]) -> Option<Option<Name>> {
    let name =
        config.cluster_manager.as_ref().map_or("", |manager| manager.local_cluster_name.as_str());
    if name.is_empty() {
        return Some(None);
    }
    let known = clusters.iter().any(|cluster| **cluster == *name);
    at.field("cluster_manager")
        .field("local_cluster_name")
        .expect(known, format!("`{name}` is no cluster of static_resources"))?;
    Some(Some(name.into()))
}

fn admin(at: &At<'_>, admin: &pb::Admin) -> Option<Option<SocketAddr>> {
    if admin.address.is_none() {
        return Some(None);
    }
    match common::address(&at.field("address"), admin.address.as_ref())? {
        Address::Socket(address) => Some(Some(address)),
        Address::Pipe(_) => at.field("address").refuse("expected a socket_address"),
    }
}

fn dynamic_resources(
    at: &At<'_>,
    dynamic: &pb::bootstrap::DynamicResources,
    clusters: &[Name],
) -> Option<Option<Ads>> {
    let over_ads = |field: &str, source: Option<&core::ConfigSource>| match source {
        None => Some(false),
        Some(_) => common::ads(&at.field(field), source).map(|()| true),
    };
    let listeners = over_ads("lds_config", dynamic.lds_config.as_ref())?;
    let from_cds = over_ads("cds_config", dynamic.cds_config.as_ref())?;
    let ads_at = at.field("ads_config");
    let Some(config) = &dynamic.ads_config else {
        ads_at.expect(
            !listeners && !from_cds,
            "is missing, and lds_config or cds_config ask for it",
        )?;
        return Some(None);
    };
    use core::api_config_source::ApiType;
    let variant = match config.api_type() {
        ApiType::Grpc => Variant::World,
        ApiType::DeltaGrpc => Variant::Delta,
        other => {
            let name = other.as_str_name();
            return ads_at
                .field("api_type")
                .refuse(format!("{name} is not supported: expected GRPC or DELTA_GRPC"));
        }
    };
    let services = ads_at.field("grpc_services");
    let [service] = config.grpc_services.as_slice() else {
        return services.refuse("expected exactly one");
    };
    let Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(grpc)) = &service.target_specifier
    else {
        return services.index(0).refuse("expected envoy_grpc");
    };
    let known = clusters.iter().any(|name| **name == *grpc.cluster_name);
    services
        .index(0)
        .field("envoy_grpc")
        .field("cluster_name")
        .expect(known, format!("`{}` is no cluster of static_resources", grpc.cluster_name))?;
    let metadata = service.initial_metadata.iter();
    Some(Some(Ads {
        cluster: grpc.cluster_name.as_str().into(),
        authority: grpc.authority.as_str().into(),
        variant,
        node_on_first_message_only: config.set_node_on_first_message_only,
        listeners,
        clusters: from_cds,
        metadata: metadata.map(|one| (one.key.clone(), one.value.clone())).collect(),
    }))
}
