//! The kinds of resource that come over xDS.

use std::fmt;

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `envoy.config.cluster.v3.Cluster` (CDS)
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS)
    Endpoints,
    /// `envoy.config.listener.v3.Listener` (LDS)
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS)
    Routes,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS)
    Secret,
    /// `envoy.config.core.v3.TypedExtensionConfig` (ECDS)
    Extension,
}

impl Kind {
    /// All of them, in the order in which they are asked for: what is referred to comes before
    /// what refers to it.
    pub const ALL: [Self; 6] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Routes,
        Self::Secret,
        Self::Extension,
    ];
    /// Those that others name.
    pub const NAMED: [Self; 4] = [Self::Endpoints, Self::Routes, Self::Secret, Self::Extension];

    /// Its type URL.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        }
    }

    /// The kind of a type URL. None: one that the proxy does not know.
    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// Its name as Envoy's users say it: `CDS`, `EDS`, `LDS`, `RDS`, `SDS`, `ECDS`.
    pub fn short(self) -> &'static str {
        match self {
            Self::Cluster => "CDS",
            Self::Endpoints => "EDS",
            Self::Listener => "LDS",
            Self::Routes => "RDS",
            Self::Secret => "SDS",
            Self::Extension => "ECDS",
        }
    }

    /// Whether a resource that a full answer does not hold is gone. True of clusters and
    /// listeners only: the others live as long as something refers to them (xDS protocol,
    /// "Deleting resources").
    pub fn absence_deletes(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// Whether a resource is gone when a delta answer says so. The others stay as they were: nothing
    /// would be gained by serving without them. A filter without settings has its default, or says
    /// that it has none.
    pub fn removal_deletes(self) -> bool {
        self.absence_deletes() || self == Self::Extension
    }

    /// Position in [`Kind::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}
