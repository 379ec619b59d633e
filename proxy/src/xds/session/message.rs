//! What goes into the session, and what comes out of it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::model::Name;
use crate::xds::kind::Kind;

/// Which variant of the protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Only what changed (`DELTA_GRPC`).
    Delta,
    /// Everything, each time (`GRPC`).
    World,
}

/// A message to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of which kind.
    pub kind: Kind,
    /// Whether this is the first message of the stream: then it must carry the node.
    pub first: bool,
    /// Nonce of the response that this answers (delta), or the last one seen (state of the world).
    pub nonce: String,
    /// What was wrong with that response. None: an ACK, or no answer at all.
    pub error: Option<String>,
    /// What is asked for.
    pub ask: Ask,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// State of the world: every name that is wanted (none: all), and the last accepted version.
    World {
        /// `version_info`
        version: String,
        /// `resource_names`
        names: Vec<Name>,
    },
    /// Delta: the difference.
    Delta {
        /// `resource_names_subscribe`
        subscribe: Vec<Name>,
        /// `resource_names_unsubscribe`
        unsubscribe: Vec<Name>,
        /// `initial_resource_versions`, in the first request of a type on a stream.
        initial: BTreeMap<Name, String>,
    },
}

/// A message from the server.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// Type of all its resources.
    pub type_url: String,
    /// To be answered with.
    pub nonce: String,
    /// Version of the whole (state of the world).
    pub version: String,
    /// What it brings.
    pub resources: Vec<Offer>,
    /// Names that are gone (delta).
    pub removed: Vec<String>,
    /// Who answers, as the server says (`control_plane.identifier`).
    pub identifier: String,
}

/// One resource of a response.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// Name on the wrapper. Empty where there is none: then the resource itself says it.
    pub name: String,
    /// Version on the wrapper; empty: the response's.
    pub version: String,
    /// Type of the body.
    pub type_url: String,
    /// The resource. None: a heartbeat.
    pub body: Option<Bytes>,
    /// Life, from now on. None: for ever.
    pub ttl: Option<Duration>,
}

/// What the proxy makes of the bytes of a resource.
#[derive(Debug)]
pub struct Judged<R> {
    /// Name that the resource gives itself. None: it could not be read at all.
    pub name: Option<String>,
    /// The compiled resource, or every reason against it.
    pub result: Result<R, Vec<String>>,
}

/// What a response changes.
#[derive(Debug)]
pub struct Received<R> {
    /// Kind of the response. None: a type that was never asked for; nothing else is set then.
    pub kind: Option<Kind>,
    /// Accepted, in order.
    pub accepted: Vec<Accepted<R>>,
    /// Held until now, and gone (clusters and listeners only).
    pub removed: Vec<Name>,
    /// The server says that they do not exist (or not any more). What is held stays in force; but
    /// nobody need wait for them.
    pub absent: Vec<Name>,
    /// Refused: name (empty if it could not be read) and reasons.
    pub refused: Vec<(String, Vec<String>)>,
    /// Version of the whole.
    pub version: String,
    /// The answer.
    pub reply: Option<Request>,
}

/// An accepted resource.
#[derive(Debug)]
pub struct Accepted<R> {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: String,
    /// Its bytes.
    pub body: Bytes,
    /// What they compiled to.
    pub resource: R,
}

/// What time brought about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Their time to live ended: they are gone.
    pub expired: Vec<(Kind, Name)>,
    /// Not answered within `initial_fetch_timeout`: nobody should wait any longer.
    pub missing: Vec<(Kind, Name)>,
    /// Kinds of which everything was asked for, without an answer within the timeout.
    pub silent: Vec<Kind>,
}

impl Due {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.expired.is_empty() && self.missing.is_empty() && self.silent.is_empty()
    }
}
