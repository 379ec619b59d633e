//! What one node shall have: encoded resources with versions that are hashes of their content.
//!
//! Pure data. The same content has the same version in every control plane and after every
//! restart, so nothing is sent again that a client already has (rule S19 of the xDS notes).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::map::{self, Map};

/// The resource types that the control plane serves, in the order in which one push sends them:
/// what is referred to comes before what refers to it (Envoy, "xDS protocol, eventual
/// consistency considerations").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    Endpoint,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    Route,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
    Secret,
}

impl ResourceType {
    /// All types, in push order.
    pub const ALL: [Self; 5] =
        [Self::Cluster, Self::Endpoint, Self::Listener, Self::Route, Self::Secret];

    /// The type URL, as discovery requests and `google.protobuf.Any` carry it.
    #[must_use]
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }

    /// The type with this URL, if it is one that the control plane serves.
    #[must_use]
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// The short name that people use: `cds`, `eds`, `lds`, `rds`, `sds`.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Self::Cluster => "cds",
            Self::Endpoint => "eds",
            Self::Listener => "lds",
            Self::Route => "rds",
            Self::Secret => "sds",
        }
    }
}

/// The hash of a resource's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// The version of these bytes.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self(xxh3_64(body))
    }

    /// The version of several resources together: changes with every name and version in it. Their order does not matter,
    /// so that one that comes, goes or changes is [added](Self::with) or [taken out](Self::without) by itself.
    #[must_use]
    pub fn of_all<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Self {
        let all = resources.into_iter();
        all.fold(Self::default(), |sum, resource| sum.with(&resource.name, resource.version))
    }

    /// The version with one resource more.
    #[must_use]
    pub fn with(self, name: &str, version: Self) -> Self {
        Self(self.0.wrapping_add(xxh3_64_with_seed(name.as_bytes(), version.0)))
    }

    /// The version with one resource less.
    #[must_use]
    pub fn without(self, name: &str, version: Self) -> Self {
        Self(self.0.wrapping_sub(xxh3_64_with_seed(name.as_bytes(), version.0)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Version {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// One encoded resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its type.
    pub kind: ResourceType,
    /// Its name, unique within the type.
    pub name: Arc<str>,
    /// The hash of `body`.
    pub version: Version,
    /// The protobuf message, as `google.protobuf.Any.value` carries it.
    pub body: Bytes,
}

impl Resource {
    /// A resource of an encoded message; its version follows from the bytes.
    #[must_use]
    pub fn new(kind: ResourceType, name: impl Into<Arc<str>>, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { kind, name: name.into(), version: Version::of(&body), body }
    }
}

/// Everything that one node shall have.
///
/// Copies share what they have in common: thousands of sidecars have the same clusters, endpoints and routes, and
/// a copy of the set of these adds the few resources that are a sidecar's own (its listeners). Two sets that came from
/// one another are compared in proportion to what differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceSet {
    /// In the order of [`ResourceType::ALL`].
    kinds: [Map<Arc<str>, Arc<Resource>>; ResourceType::ALL.len()],
}

impl ResourceSet {
    /// Adds a resource, in place of an older one of the same type and name.
    pub fn insert(&mut self, resource: impl Into<Arc<Resource>>) {
        let resource = resource.into();
        self.kinds[resource.kind as usize].insert(Arc::clone(&resource.name), resource);
    }

    /// Takes out a resource.
    pub fn remove(&mut self, kind: ResourceType, name: &str) -> Option<Arc<Resource>> {
        self.kinds[kind as usize].remove(name)
    }

    /// The resource with this type and name.
    #[must_use]
    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&Arc<Resource>> {
        self.kinds[kind as usize].get(name)
    }

    /// All resources of a type, by name.
    pub fn of_type(&self, kind: ResourceType) -> impl Iterator<Item = &Arc<Resource>> {
        self.kinds[kind as usize].values()
    }

    /// All resources, in push order, then by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.kinds.iter().flat_map(Map::values)
    }

    /// How many resources there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kinds.iter().map(Map::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.iter().all(Map::is_empty)
    }

    /// What has to be sent to someone who has this set so that he has `newer`, by type. Types without a
    /// difference are left out.
    #[must_use]
    pub fn diff(&self, newer: &Self) -> BTreeMap<ResourceType, Diff> {
        let diff = |kind| (kind, self.diff_of(newer, kind));
        ResourceType::ALL.into_iter().map(diff).filter(|(_, diff)| !diff.is_empty()).collect()
    }

    fn diff_of(&self, newer: &Self, kind: ResourceType) -> Diff {
        let mut diff = Diff::default();
        for change in map::changes(&self.kinds[kind as usize], &newer.kinds[kind as usize]) {
            match change.after {
                Some(resource) => diff.changed.push(Arc::clone(resource)),
                None => diff.removed.push(Arc::clone(change.key)),
            }
        }
        diff
    }
}

/// What changed of one resource type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// New resources, and those with a new version, by name.
    pub changed: Vec<Arc<Resource>>,
    /// Names of resources that are gone.
    pub removed: Vec<Arc<str>>,
}

impl Diff {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Of two resources of one type and name, the last.
impl<R: Into<Arc<Resource>>> FromIterator<R> for ResourceSet {
    fn from_iter<I: IntoIterator<Item = R>>(resources: I) -> Self {
        let mut kinds = ResourceType::ALL.map(|_| BTreeMap::<Arc<str>, Arc<Resource>>::new());
        for resource in resources {
            let resource = resource.into();
            kinds[resource.kind as usize].insert(Arc::clone(&resource.name), resource);
        }
        Self { kinds: kinds.map(Map::from) }
    }
}

#[cfg(test)]
mod tests;
