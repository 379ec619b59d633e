//! The compiled configuration: plain, immutable data that requests read and nobody writes.
//!
//! `xds::translate` makes these types from protobuf; `serve` and `cluster` read them. Everything
//! here is already parsed: a value that exists is valid.

pub mod access_log;
pub mod adaptive;
pub mod balancing;
pub mod cluster;
pub mod collector;
pub mod compression;
pub mod duration;
pub mod dynamic;
pub mod endpoint;
pub mod ext_authz;
pub mod extension;
pub mod filter;
pub mod format;
pub mod global_rate_limit;
pub mod grpc_stats;
pub mod headers;
pub mod health_check;
pub mod http;
pub mod jwt;
pub mod kept;
pub mod listener;
pub mod local_reply;
pub mod matcher;
pub mod metadata;
pub mod mutation;
pub mod names;
pub mod network_filter;
pub mod overload;
pub mod protection;
pub mod proxy_protocol;
pub mod rate_limit;
pub mod rbac;
pub mod retry;
pub mod route;
pub mod service;
pub mod source;
pub mod tls;
pub mod tracing;
pub mod wildcards;

use std::sync::Arc;

/// An interned name: made once when configuration is compiled, shared by everything that says it.
pub type Name = Arc<str>;

/// A persistent map: cloning it is O(1) and changing one entry O(log n), so that a snapshot of
/// ten thousand clusters costs no more to update than one of ten.
pub type Map<V> = rpds::HashTrieMapSync<Name, V, foldhash::fast::RandomState>;

/// Everything the proxy serves by, at one moment. An exchange holds one for its whole life.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Listeners by name.
    pub listeners: Map<Arc<listener::Listener>>,
    /// Route configurations by name (RDS). Inline ones live in their connection manager.
    pub routes: Map<Arc<route::RouteTable>>,
    /// Clusters by name.
    pub clusters: Map<Arc<cluster::Cluster>>,
    /// Endpoints by cluster name: from EDS, or from the cluster's own `load_assignment`.
    pub assignments: Map<Arc<endpoint::Assignment>>,
    /// Secrets by name: from SDS, from the bootstrap, or from the proxy's own identity.
    pub secrets: Map<Arc<tls::Secret>>,
    /// Settings of HTTP filters by name (ECDS).
    pub extensions: Map<Arc<extension::Extension>>,
}

/// The names that differ between two snapshots, so that applying one costs what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Listeners added, replaced or removed.
    pub listeners: Vec<Name>,
    /// Route configurations added, replaced or removed.
    pub routes: Vec<Name>,
    /// Clusters added, replaced or removed.
    pub clusters: Vec<Name>,
    /// Clusters whose assignment was added, replaced or removed.
    pub assignments: Vec<Name>,
    /// Secrets added, replaced or removed.
    pub secrets: Vec<Name>,
    /// Settings of filters added, replaced or removed.
    pub extensions: Vec<Name>,
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
            && self.routes.is_empty()
            && self.clusters.is_empty()
            && self.assignments.is_empty()
            && self.secrets.is_empty()
            && self.extensions.is_empty()
    }

    /// Every name of `new`: what the very first publication changes.
    pub fn all(new: &Snapshot) -> Self {
        fn names<V>(map: &Map<V>) -> Vec<Name> {
            map.keys().cloned().collect()
        }
        Self {
            listeners: names(&new.listeners),
            routes: names(&new.routes),
            clusters: names(&new.clusters),
            assignments: names(&new.assignments),
            secrets: names(&new.secrets),
            extensions: names(&new.extensions),
        }
    }
}
