//! `Bootstrap`: what the proxy is started with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pillion_xds::envoy::config::bootstrap::v3 as pb;
use pillion_xds::envoy::config::core::v3 as core;
use prost::Message as _;

use super::at::At;
use super::{Refused, Resource, cluster, common, listener, message, overload, source, tls};
use crate::model::Name;
use crate::model::endpoint::Locality;
use crate::model::listener::Address;
use crate::model::overload::OverloadManager;
use crate::model::source::{Source, Stream};
use crate::telemetry::stats::Settings;
use crate::xds::kind::Kind;
use crate::xds::references;

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
    /// Where dynamic resources come from.
    pub dynamic: Dynamic,
    /// What is done when things become scarce. None: nothing.
    pub overload: Option<OverloadManager>,
    /// Who hears what the clusters take (`cluster_manager.load_stats_config`).
    pub load_stats: Option<Arc<Stream>>,
    /// How metrics are named, labelled and shown.
    pub stats: Settings,
    /// The message itself, encoded, for `/config_dump`.
    pub source: Bytes,
    /// How many fields of the text were passed over, because they are not known.
    pub unknown_fields: u64,
}

/// `dynamic_resources`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dynamic {
    /// `ads_config`
    pub ads: Option<Arc<Stream>>,
    /// Where clusters come from, and their `initial_fetch_timeout` (zero: for ever).
    pub clusters: Option<(Source, Duration)>,
    /// The same of listeners.
    pub listeners: Option<(Source, Duration)>,
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
        let made = Bootstrap {
            node: config.node.clone().unwrap_or_default(),
            locality: locality(config.node.as_ref()),
            local_cluster: local_cluster(at, config, &clusters)?,
            admin: match &config.admin {
                Some(admin) => self::admin(&at.field("admin"), admin)?,
                None => None,
            },
            dynamic: match &config.dynamic_resources {
                Some(dynamic) => {
                    dynamic_resources(&at.field("dynamic_resources"), dynamic, &clusters)?
                }
                None => Dynamic::default(),
            },
            load_stats: load_stats(at, config, &clusters)?,
            resources,
            overload: match &config.overload_manager {
                Some(manager) => Some(overload::manager(&at.field("overload_manager"), manager)?),
                None => None,
            },
            stats: match &config.stats_config {
                Some(stats) => super::stats::settings(&at.field("stats_config"), stats)?,
                None => Settings::default(),
            },
            source: config.encode_to_vec().into(),
            unknown_fields: 0,
        };
        sources(at, &made, &clusters)?;
        Some(made)
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

#[expect(clippy::option_option, reason = "refused, none and one are three things")]
fn load_stats(
    at: &At<'_>,
    config: &pb::Bootstrap,
    clusters: &[Name],
) -> Option<Option<Arc<Stream>>> {
    let config = config.cluster_manager.as_ref();
    let Some(config) = config.and_then(|manager| manager.load_stats_config.as_ref()) else {
        return Some(None);
    };
    let at = at.field("cluster_manager");
    let at = at.field("load_stats_config");
    let stream = Arc::new(source::stream(&at, config)?);
    known(&at, &Source::Stream(Arc::clone(&stream)), clusters)?;
    Some(Some(stream))
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
) -> Option<Dynamic> {
    let from = |field: &str, config: Option<&core::ConfigSource>| match config {
        None => Some(None),
        Some(_) => {
            let at = at.field(field);
            let made = source::source(&at, config)?;
            known(&at.field("api_config_source"), &made.0, clusters)?;
            Some(Some(made))
        }
    };
    let ads_at = at.field("ads_config");
    let ads = match &dynamic.ads_config {
        Some(config) => Some(Arc::new(source::stream(&ads_at, config)?)),
        None => None,
    };
    if let Some(stream) = &ads {
        known(&ads_at, &Source::Stream(Arc::clone(stream)), clusters)?;
    }
    Some(Dynamic {
        ads,
        clusters: from("cds_config", dynamic.cds_config.as_ref())?,
        listeners: from("lds_config", dynamic.lds_config.as_ref())?,
    })
}

/// As in Envoy, a management server is a cluster of the bootstrap.
fn known(at: &At<'_>, source: &Source, clusters: &[Name]) -> Option<()> {
    let Source::Stream(stream) = source else { return Some(()) };
    let name = &stream.service.cluster;
    at.field("grpc_services")
        .index(0)
        .field("envoy_grpc")
        .field("cluster_name")
        .expect(clusters.contains(name), format!("`{name}` is no cluster of static_resources"))
}

/// Whoever is asked has to be known.
fn sources(at: &At<'_>, made: &Bootstrap, clusters: &[Name]) -> Option<()> {
    let dynamic = [("lds_config", &made.dynamic.listeners), ("cds_config", &made.dynamic.clusters)];
    let dynamic_at = at.field("dynamic_resources");
    let ads = dynamic_at.field("ads_config");
    for (field, source) in dynamic {
        let asked = source.as_ref().is_some_and(|(source, _)| *source == Source::Ads);
        let why = format!("is missing, and {field} asks for it");
        ads.expect(!asked || made.dynamic.ads.is_some(), why)?;
    }
    let statics = at.field("static_resources");
    for (kind, reference) in made.resources.iter().flat_map(references::of) {
        let secret = kind == Kind::Secret;
        match reference.source() {
            // The bootstrap itself has it, or the proxy makes it.
            Source::Ads if secret => {}
            Source::Ads => {
                let why = format!("is missing, and {kind} of {reference} asks for it");
                ads.expect(made.dynamic.ads.is_some(), why)?;
            }
            Source::Stream(stream) => {
                let name = &stream.service.cluster;
                let why = format!("{kind} of {reference}: `{name}` is no cluster here");
                statics.field("clusters").expect(clusters.contains(name), why)?;
            }
            Source::File(_) => {}
        }
    }
    Some(())
}
