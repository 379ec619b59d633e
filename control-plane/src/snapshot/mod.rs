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

/// Everything that one node shall have.
///
/// A set may stand on a shared one: thousands of sidecars share one base (clusters, endpoints, routes) and
/// add the few resources that are theirs alone (their listeners). A resource of the set hides one of the same
/// type and name in the base.
#[derive(Clone, Debug, Default)]
pub struct ResourceSet {
    base: Option<Arc<Self>>,
    own: BTreeMap<ResourceType, BTreeMap<Arc<str>, Arc<Resource>>>,
}

impl ResourceSet {
    /// An empty set on a shared one. The base is not copied.
    #[must_use]
    pub fn on(base: Arc<Self>) -> Self {
        Self { base: Some(base), own: BTreeMap::new() }
    }

    /// Adds a resource, in place of an older one of the same type and name.
    pub fn insert(&mut self, resource: impl Into<Arc<Resource>>) {
        let resource = resource.into();
        self.own.entry(resource.kind).or_default().insert(Arc::clone(&resource.name), resource);
    }

    /// Takes out a resource that this set adds; one of the same name in the base comes to light.
    pub fn remove(&mut self, kind: ResourceType, name: &str) -> Option<Arc<Resource>> {
        self.own.get_mut(&kind)?.remove(name)
    }

    /// The resource with this type and name.
    #[must_use]
    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&Arc<Resource>> {
        let own = self.own.get(&kind).and_then(|resources| resources.get(name));
        own.or_else(|| self.base.as_deref().and_then(|base| base.get(kind, name)))
    }

    /// All resources of a type, by name.
    pub fn of_type(&self, kind: ResourceType) -> impl Iterator<Item = &Arc<Resource>> {
        let own = self.own.get(&kind).into_iter().flat_map(BTreeMap::values);
        let base: Box<dyn Iterator<Item = &Arc<Resource>>> = match &self.base {
            Some(base) => Box::new(base.of_type(kind)),
            None => Box::new(std::iter::empty()),
        };
        Merged { own: own.peekable(), base: base.peekable() }
    }

    /// All resources, in push order, then by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        ResourceType::ALL.into_iter().flat_map(|kind| self.of_type(kind))
    }

    /// How many resources there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// What has to be sent to someone who has this set so that he has `newer`, by type. Types without a
    /// difference are left out.
    #[must_use]
    pub fn diff(&self, newer: &Self) -> BTreeMap<ResourceType, Diff> {
        let mut found = BTreeMap::new();
        let same_base = match (&self.base, &newer.base) {
            (Some(left), Some(right)) => Arc::ptr_eq(left, right),
            (None, None) => true,
            _ => false,
        };
        for kind in ResourceType::ALL {
            // Of two sets on one base only what they add can differ, unless it hides something.
            let diff = if same_base && self.base.is_some() {
                self.diff_of_own(newer, kind)
            } else {
                Diff::between(self.of_type(kind), newer.of_type(kind))
            };
            if !diff.is_empty() {
                found.insert(kind, diff);
            }
        }
        found
    }

    fn diff_of_own(&self, newer: &Self, kind: ResourceType) -> Diff {
        let names = |set: &Self| -> Vec<Arc<str>> {
            set.own.get(&kind).into_iter().flat_map(BTreeMap::keys).map(Arc::clone).collect()
        };
        let mut touched = names(self);
        touched.append(&mut names(newer));
        touched.sort();
        touched.dedup();
        let pick = |set: &Self| -> Vec<Arc<Resource>> {
            touched.iter().filter_map(|name| set.get(kind, name).map(Arc::clone)).collect()
        };
        Diff::between(pick(self).iter(), pick(newer).iter())
    }
}

/// Two sets are equal if they hold the same resources, whatever stands in their bases.
impl PartialEq for ResourceSet {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ResourceSet {}

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

    /// Compares two runs of resources, each by name.
    fn between<'a>(
        older: impl Iterator<Item = &'a Arc<Resource>>,
        newer: impl Iterator<Item = &'a Arc<Resource>>,
    ) -> Self {
        let mut diff = Self::default();
        let mut older = older.peekable();
        for resource in newer {
            while let Some(gone) = older.next_if(|old| old.name < resource.name) {
                diff.removed.push(Arc::clone(&gone.name));
            }
            match older.next_if(|old| old.name == resource.name) {
                Some(old) if Arc::ptr_eq(old, resource) || old.version == resource.version => {}
                _ => diff.changed.push(Arc::clone(resource)),
            }
        }
        diff.removed.extend(older.map(|gone| Arc::clone(&gone.name)));
        diff
    }
}

/// Two runs by name as one; of two resources with one name, the own one.
struct Merged<O: Iterator, B: Iterator> {
    own: std::iter::Peekable<O>,
    base: std::iter::Peekable<B>,
}

impl<'a, O, B> Iterator for Merged<O, B>
where
    O: Iterator<Item = &'a Arc<Resource>>,
    B: Iterator<Item = &'a Arc<Resource>>,
{
    type Item = &'a Arc<Resource>;

    fn next(&mut self) -> Option<Self::Item> {
        let (Some(own), Some(base)) = (self.own.peek(), self.base.peek()) else {
            return self.own.next().or_else(|| self.base.next());
        };
        match own.name.cmp(&base.name) {
            std::cmp::Ordering::Less => self.own.next(),
            std::cmp::Ordering::Greater => self.base.next(),
            std::cmp::Ordering::Equal => {
                self.base.next();
                self.own.next()
            }
        }
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
mod tests;
