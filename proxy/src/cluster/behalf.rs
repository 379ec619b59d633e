//! For whom a connection to an endpoint is made, where the endpoint is to see that.

use crate::net::Source;

/// What an upstream connection tells of the client that it is made for. Connections that tell something are never
/// shared between clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behalf {
    /// The connection comes from this address (`original_src`). None: from our own.
    pub source: Option<Source>,
}
