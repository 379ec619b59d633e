//! What one node shall have: encoded resources with versions that are hashes of their content.
//!
//! Pure data. The same content has the same version in every control plane and after every
//! restart, so nothing is sent again that a client already has (rule S19 of the xDS notes).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// The version of these bytes.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(body))
    }

    /// The version of several resources together: changes with every name and version in it.
    #[must_use]
    pub fn of_all<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Self {
        let mut hash = Xxh3::new();
        for resource in resources {
            hash.update(resource.name.as_bytes());
            hash.update(&[0]);
            hash.update(&resource.version.0.to_le_bytes());
        }
        Self(hash.digest())
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

/// Everything that one node shall have. Resources are shared between the sets of many nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceSet {
    by_type: BTreeMap<ResourceType, BTreeMap<Arc<str>, Arc<Resource>>>,
}

impl ResourceSet {
    /// Adds a resource, in place of an older one of the same type and name.
    pub fn insert(&mut self, resource: impl Into<Arc<Resource>>) {
        let resource = resource.into();
        self.by_type.entry(resource.kind).or_default().insert(Arc::clone(&resource.name), resource);
    }

    /// Takes a resource out.
    pub fn remove(&mut self, kind: ResourceType, name: &str) -> Option<Arc<Resource>> {
        self.by_type.get_mut(&kind)?.remove(name)
    }

    /// The resource with this type and name.
    #[must_use]
    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&Arc<Resource>> {
        self.by_type.get(&kind)?.get(name)
    }

    /// All resources of a type, by name.
    pub fn of_type(&self, kind: ResourceType) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_type.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    /// All resources, in push order, then by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_type.values().flat_map(BTreeMap::values)
    }

    /// How many resources there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_type.values().map(BTreeMap::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl FromIterator<Resource> for ResourceSet {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let mut set = Self::default();
        for resource in resources {
            set.insert(resource);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_follow_the_content_and_survive_the_round_trip() {
        let a = Resource::new(ResourceType::Cluster, "a", "one");
        let b = Resource::new(ResourceType::Cluster, "a", "two");
        assert_ne!(a.version, b.version);
        assert_eq!(a, Resource::new(ResourceType::Cluster, "a", "one"));
        assert_eq!(a.version.to_string().parse(), Ok(a.version));
        assert_eq!(a.version.to_string().len(), 16);
    }

    #[test]
    fn the_version_of_a_set_depends_on_names_and_content() {
        let one = Resource::new(ResourceType::Cluster, "a", "one");
        let same_body = Resource::new(ResourceType::Cluster, "b", "one");
        assert_ne!(Version::of_all([&one]), Version::of_all([&same_body]));
        assert_ne!(Version::of_all([&one]), Version::of_all([&one, &same_body]));
    }

    #[test]
    fn a_set_keeps_push_order_and_replaces_by_name() {
        let set: ResourceSet = [
            Resource::new(ResourceType::Route, "r", "1"),
            Resource::new(ResourceType::Cluster, "c", "1"),
            Resource::new(ResourceType::Cluster, "c", "2"),
        ]
        .into_iter()
        .collect();
        let names: Vec<&str> = set.iter().map(|r| &*r.name).collect();
        assert_eq!(names, ["c", "r"]);
        assert_eq!(set.get(ResourceType::Cluster, "c").unwrap().body, "2");
        assert_eq!(set.len(), 2);
    }

    #[test]
    fn type_urls_are_found_again() {
        for kind in ResourceType::ALL {
            assert_eq!(ResourceType::from_type_url(kind.type_url()), Some(kind));
        }
        assert_eq!(ResourceType::from_type_url("type.googleapis.com/x.Y"), None);
    }
}
