//! A theme: its cases, and the configuration that they share.
//!
//! Every part is one pair of proxies and one test. The listener `http` has the filters of the part
//! and the virtual hosts of its cases; all parts have the clusters and the other listeners of
//! [`super::world`].

use std::any::Any;
use std::net::SocketAddr;

use futures_util::future::BoxFuture;

use super::case::Case;

/// What differs on purpose: the start of the request's name, the start of the line that says the
/// difference, and why that is so.
pub(crate) type OnPurpose = &'static [(&'static str, &'static str, &'static str)];

/// A theme. In its YAML `@a@` stands for the address of backend or server `a`, as an
/// `envoy.config.core.v3.Address`, `@a.port@` for its port, `@DIR@` for the folder of the proxy, and
/// `@server.chain@`, `@server.key@`, `@roots@`, `@other.roots@` and `@crl@` for files of [`super::world::Trust`].
#[derive(Default)]
pub(crate) struct Part {
    /// The cases, in the order in which they are played.
    pub(crate) cases: Vec<Case>,
    /// HTTP filters before the router: a YAML list.
    pub(crate) filters: &'static str,
    /// Laid over the connection manager of the listener `http`.
    pub(crate) manager: &'static str,
    /// More listeners: a YAML list of `envoy.config.listener.v3.Listener`. A listener without an
    /// address gets a port of its own; one whose name starts with `tcp` is talked to in bytes.
    pub(crate) listeners: &'static str,
    /// More clusters: a YAML list of `envoy.config.cluster.v3.Cluster`.
    pub(crate) clusters: &'static str,
    /// Laid over the whole bootstrap.
    pub(crate) bootstrap: &'static str,
    /// Operators at the end of the line of the access log; compared to the letter.
    pub(crate) log: &'static str,
    /// Counters and gauges whose names start so are compared at the end.
    pub(crate) metrics: &'static [&'static str],
    /// Gauges and counters, and what they come to before the first case is played.
    pub(crate) settled: &'static [(&'static str, u64)],
    /// The text of what the proxies answer of their own is compared too.
    pub(crate) texts: bool,
    /// Differences that are meant.
    pub(crate) on_purpose: OnPurpose,
    /// More servers. Each side has its own.
    pub(crate) servers: Vec<(&'static str, StartServer)>,
}

/// Starts a server.
pub(crate) type StartServer = fn() -> BoxFuture<'static, anyhow::Result<Server>>;

/// A server of a part. It ends when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) _keep: Box<dyn Any + Send + Sync>,
}
