//! `/config_dump`: every resource as it came, without secrets (`envoy.admin.v3.ConfigDump`).

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use bytes::Bytes;
use pillion_xds::envoy::config::bootstrap::v3::Bootstrap;
use pillion_xds::envoy::config::cluster::v3::Cluster;
use pillion_xds::envoy::config::core::v3::{Node, TypedExtensionConfig};
use pillion_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use pillion_xds::envoy::config::listener::v3::{Filter, Listener, filter};
use pillion_xds::envoy::config::route::v3::RouteConfiguration;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use pillion_xds::envoy::extensions::transport_sockets::tls::v3::Secret;
use pillion_xds::json;
use prost::{Message, Name as _};
use serde_json::{Map, Value, json};

use super::kind::Kind;
use super::status::{Held, Status};
use crate::cluster::Live;
use crate::cluster::view::ClusterView;
use crate::model::endpoint::{Health, Locality, LocalityEndpoints};
use crate::model::source::plain;
use crate::model::tls::{self, DataSource, SecretKind};
use crate::model::{Name, Snapshot};
use crate::telemetry::time;

const PREFIX: &str = "type.googleapis.com/envoy.admin.v3.";
const HTTP_MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// Envoy's dumps, and ours of the control plane at the end.
pub fn configs(status: &Status, bootstrap: &Bytes, started: SystemTime) -> Vec<Value> {
    // It was made by encoding one.
    let bootstrap = &Bootstrap::decode(bootstrap.as_ref()).unwrap_or_default();
    let since = stamp(started);
    let statics = bootstrap.static_resources.as_ref();
    let clusters = statics.map(|all| all.clusters.as_slice()).unwrap_or_default();
    let listeners = statics.map(|all| all.listeners.as_slice()).unwrap_or_default();
    let fixed = |field: &str, value: Value| json!({field: value, "last_updated": since});
    let kind = |name: &str| format!("{PREFIX}{name}");
    let bootstrap_dump = json!({
        "@type": kind("BootstrapConfigDump"),
        "bootstrap": json::to_redacted_json(bootstrap),
        "last_updated": since,
    });
    let clusters_dump = json!({
        "@type": kind("ClustersConfigDump"),
        "version_info": status.version(Kind::Cluster),
        "static_clusters":
            clusters.iter().map(|one| fixed("cluster", typed(one))).collect::<Vec<_>>(),
        "dynamic_active_clusters": each(status, Kind::Cluster, |held| {
            held.wrap("cluster", read::<Cluster>(&held.kept.body))
        }),
    });
    let listeners_dump = json!({
        "@type": kind("ListenersConfigDump"),
        "version_info": status.version(Kind::Listener),
        "static_listeners":
            listeners.iter().map(|one| fixed("listener", typed(one))).collect::<Vec<_>>(),
        "dynamic_listeners": each(status, Kind::Listener, |held| {
            let active = held.wrap("listener", read::<Listener>(&held.kept.body));
            json!({"name": *held.kept.name, "active_state": active})
        }),
    });
    let held = status.held(Kind::Listener);
    let held = held.iter().filter_map(|held| Listener::decode(held.kept.body.as_ref()).ok());
    let tables = listeners.iter().cloned().chain(held).flat_map(|one| inline_routes(&one));
    let tables: Vec<Value> = tables.map(|one| fixed("route_config", typed(&one))).collect();
    let secrets = statics.map(|all| all.secrets.as_slice()).unwrap_or_default();
    let secret = |one: &Secret| json!({"name": one.name, "secret": typed(one)});
    let secrets: Vec<Value> = secrets.iter().map(secret).collect();
    let mut all = vec![bootstrap_dump, clusters_dump, listeners_dump];
    for dump in all.iter_mut().filter_map(Value::as_object_mut) {
        if dump.get("version_info").is_some_and(|version| version == "") {
            dump.remove("version_info");
        }
    }
    all.extend(referred(status, tables, secrets));
    // A dump of settings is there where there are any.
    all.retain(|dump| dump["ecds_filters"].as_array().is_none_or(|list| !list.is_empty()));
    all.push(json!({
        "@type": "type.googleapis.com/pillion.v1.ControlPlaneStatus",
        "control_plane": status.to_json(),
    }));
    all
}

/// Give back the memory that only dumps need.
pub fn forget() {
    pillion_xds::descriptors::forget();
}

/// Names of the clusters that a server told of.
pub fn discovered_clusters(status: &Status) -> HashSet<String> {
    status.held(Kind::Cluster).iter().map(|held| held.kept.name.to_string()).collect()
}

/// A node as JSON, and what it is.
pub fn node(node: &Node) -> Value {
    let mut dumped = json::to_redacted_json(node);
    dumped["user_agent_name"] = "pillion-proxy".into();
    let number = |text: &str| text.parse::<u32>().unwrap_or_default();
    dumped["user_agent_build_version"] = json!({"version": {
        "major_number": number(env!("CARGO_PKG_VERSION_MAJOR")),
        "minor_number": number(env!("CARGO_PKG_VERSION_MINOR")),
        "patch": number(env!("CARGO_PKG_VERSION_PATCH")),
    }});
    dumped
}

/// Endpoints are told as they are now, those of clusters of the bootstrap as well.
pub fn add_endpoints(configs: &mut [Value], status: &Status, live: &Live) {
    let is_endpoints = |dump: &&mut Value| dump["@type"] == format!("{PREFIX}EndpointsConfigDump");
    let Some(dump) = configs.iter_mut().find(is_endpoints) else { return };
    let mut dynamic = dump["dynamic_endpoint_configs"].as_array().cloned().unwrap_or_default();
    let mut fixed = Vec::new();
    let of_server = discovered_clusters(status);
    for cluster in live.view() {
        let config = assignment(&cluster, live);
        let name = config["cluster_name"].clone();
        let same = |one: &Value| one["endpoint_config"]["cluster_name"] == name;
        if !of_server.contains(&*cluster.name) {
            dynamic.retain(|one| !same(one));
            fixed.push(json!({"endpoint_config": config}));
        } else if let Some(one) = dynamic.iter_mut().find(|one| same(one)) {
            one["endpoint_config"] = config;
        } else {
            dynamic.push(json!({"endpoint_config": config}));
        }
    }
    dump["dynamic_endpoint_configs"] = dynamic.into();
    dump["static_endpoint_configs"] = fixed.into();
}

/// Secrets that came from elsewhere, without what is secret of them.
pub fn add_secrets(configs: &mut [Value], snapshot: &Snapshot) {
    let lists = configs
        .iter_mut()
        .filter_map(|dump| dump.get_mut("dynamic_active_secrets")?.as_array_mut());
    for dumped in lists.flatten() {
        let named = |key: &&Name| dumped["name"] == *plain(key);
        if let Some(secret) = snapshot.secrets.iter().find(|(key, _)| named(key)) {
            dumped["secret"] = public_part(secret.1);
        }
    }
}

fn public_part(secret: &tls::Secret) -> Value {
    let source = |source: &DataSource, is_secret: bool| match source {
        DataSource::File(path) => json!({"filename": path}),
        DataSource::Inline(_) if is_secret => json!({"inline_string": "[redacted]"}),
        DataSource::Inline(bytes) => json!({"inline_string": String::from_utf8_lossy(bytes)}),
    };
    let mut dumped = json!({"@type": Secret::type_url(), "name": *plain(&secret.name)});
    match &secret.kind {
        SecretKind::Certificate(one) => {
            dumped["tls_certificate"] = json!({
                "certificate_chain": source(&one.chain, false),
                "private_key": source(&one.key, true),
            });
        }
        SecretKind::Validation(one) => {
            dumped["validation_context"] =
                json!({"trusted_ca": one.trusted_ca.as_ref().map(|ca| source(ca, false))});
        }
    }
    dumped
}

/// `ClusterLoadAssignment` of what is in use.
fn assignment(cluster: &ClusterView, live: &Live) -> Value {
    let mut groups: BTreeMap<(u32, &Locality), Vec<Value>> = BTreeMap::new();
    for one in &cluster.endpoints {
        let mut endpoint = json!({"address": address(&one.address), "health_check_config": {}});
        if !one.hostname.is_empty() {
            endpoint["hostname"] = (*one.hostname).into();
        }
        let said = if one.found.failed_active || one.found.ejected {
            "UNHEALTHY"
        } else {
            match one.health {
                Health::Unhealthy | Health::Draining => "UNHEALTHY",
                Health::Degraded => "DEGRADED",
                Health::Healthy if one.found.degraded_active => "DEGRADED",
                Health::Healthy => "HEALTHY",
            }
        };
        groups.entry((one.priority, &one.locality)).or_default().push(json!({
            "endpoint": endpoint,
            "health_status": said,
            "load_balancing_weight": one.weight,
        }));
    }
    let configured = live.snapshot.assignments.get(&cluster.name);
    let group = |((priority, locality), endpoints): ((u32, &Locality), Vec<Value>)| {
        let named = [
            ("region", &locality.region),
            ("zone", &locality.zone),
            ("sub_zone", &locality.sub_zone),
        ];
        let named = named.into_iter().filter(|(_, name)| !name.is_empty());
        let named: Map<String, Value> =
            named.map(|(key, name)| (key.to_owned(), name.as_str().into())).collect();
        let mut group = json!({"lb_endpoints": endpoints, "locality": named});
        if priority > 0 {
            group["priority"] = priority.into();
        }
        let same =
            |one: &&LocalityEndpoints| one.priority == priority && *one.locality == *locality;
        let found = configured.and_then(|all| all.localities.iter().find(same));
        group["load_balancing_weight"] = found.and_then(|one| one.weight).unwrap_or(0).into();
        group
    };
    let name = cluster.eds_service_name.as_ref().unwrap_or(&cluster.name);
    let mut assignment = json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": **name,
        "policy": {
            "overprovisioning_factor": configured.map_or(140, |all| all.overprovisioning_factor),
        },
    });
    if !groups.is_empty() {
        assignment["endpoints"] = groups.into_iter().map(group).collect();
    }
    assignment
}

fn address(text: &str) -> Value {
    match text.parse::<std::net::SocketAddr>() {
        Ok(address) => json!({
            "socket_address": {"address": address.ip().to_string(), "port_value": address.port()}
        }),
        Err(_) => json!({"pipe": {"path": text}}),
    }
}

/// Route tables that connection managers of a listener carry themselves.
fn inline_routes(listener: &Listener) -> Vec<RouteConfiguration> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let filters = chains.flat_map(|chain| &chain.filters);
    let table = |filter: &Filter| {
        let Some(filter::ConfigType::TypedConfig(packed)) = &filter.config_type else {
            return None;
        };
        if !packed.type_url.ends_with(HTTP_MANAGER) {
            return None;
        }
        match HttpConnectionManager::decode(packed.value.as_slice()).ok()?.route_specifier? {
            RouteSpecifier::RouteConfig(table) => Some(table),
            _ => None,
        }
    };
    filters.filter_map(table).collect()
}

/// What clusters and listeners refer to.
fn referred(status: &Status, tables: Vec<Value>, secrets: Vec<Value>) -> Vec<Value> {
    vec![
        json!({
            "@type": format!("{PREFIX}EndpointsConfigDump"),
            "dynamic_endpoint_configs": each(status, Kind::Endpoints, |held| {
                held.wrap("endpoint_config", read::<ClusterLoadAssignment>(&held.kept.body))
            }),
        }),
        json!({
            "@type": format!("{PREFIX}ScopedRoutesConfigDump"),
        }),
        json!({
            "@type": format!("{PREFIX}RoutesConfigDump"),
            "static_route_configs": tables,
            "dynamic_route_configs": each(status, Kind::Routes, |held| {
                held.wrap("route_config", read::<RouteConfiguration>(&held.kept.body))
            }),
        }),
        json!({
            "@type": format!("{PREFIX}SecretsConfigDump"),
            "static_secrets": secrets,
            "dynamic_active_secrets": each(status, Kind::Secret, |held| {
                let (version, at) = (&*held.kept.version, stamp(held.at));
                let name = plain(&held.kept.name);
                json!({"name": name, "version_info": version, "last_updated": at})
            }),
        }),
        json!({
            "@type": format!("{PREFIX}EcdsConfigDump"),
            "ecds_filters": each(status, Kind::Extension, |held| {
                held.wrap("ecds_filter", read::<TypedExtensionConfig>(&held.kept.body))
            }),
        }),
    ]
}

/// What is held of this kind, and then what was refused of it.
fn each(status: &Status, kind: Kind, dump: impl Fn(&Held) -> Value) -> Vec<Value> {
    let mut all: Vec<Value> = status.held(kind).iter().map(dump).collect();
    for (name, reasons) in status.refused(kind) {
        let error = json!({"details": reasons.join("; ")});
        match all.iter_mut().find(|one| names(one, &name)) {
            Some(one) => one["error_state"] = error,
            None => all.push(json!({"name": name, "error_state": error})),
        }
    }
    all
}

fn names(dumped: &Value, name: &str) -> bool {
    let own = |value: &Value| value["name"] == name || value["cluster_name"] == name;
    own(dumped) || dumped.as_object().is_some_and(|fields| fields.values().any(own))
}

impl Held {
    fn wrap(&self, field: &str, resource: Value) -> Value {
        json!({
            "version_info": *self.kept.version,
            field: resource,
            "last_updated": stamp(self.at),
        })
    }
}

fn read<M: Message + Default + prost::Name>(body: &Bytes) -> Value {
    // It was accepted once, so it can be decoded.
    M::decode(body.as_ref()).map_or(Value::Null, |message| typed(&message))
}

/// With its type, as everything is that stands in a dump as `google.protobuf.Any`.
fn typed<M: prost::Name>(message: &M) -> Value {
    let mut dumped = json::to_redacted_json(message);
    dumped["@type"] = M::type_url().into();
    dumped
}

fn stamp(at: SystemTime) -> String {
    let mut text = String::new();
    time::write(at, None, &mut text);
    text
}
