//! For whom a connection to an endpoint is made, where the endpoint is to see that.

use std::net::SocketAddr;

use crate::model::cluster::Cluster;
use crate::net::Source;

/// What an upstream connection tells of the client that it is made for. Connections that tell something are never
/// shared between clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behalf {
    /// The connection comes from this address (`original_src`). None: from our own.
    pub source: Option<Source>,
    /// The client and the address that it connected to, for a PROXY header.
    pub ends: Option<(SocketAddr, SocketAddr)>,
}

impl Behalf {
    /// The same, without what connections of this cluster do not tell.
    pub(super) fn as_told_by(self, cluster: &Cluster) -> Self {
        Self { ends: self.ends.filter(|_| cluster.proxy_header.is_some()), ..self }
    }
}
