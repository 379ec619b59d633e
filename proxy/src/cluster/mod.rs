//! Live clusters: which endpoint a request goes to, on which connection, within which limits.
//!
//! A [`Cluster`] lives as long as its configuration does not change, and what can outlive that
//! (connections, ejections, permits, counters) does. Picking reads one pointer; each endpoint has
//! a pool for each worker, so that workers do not meet at any lock in the common case.

mod aggregate;
pub mod ask;
mod balance;
mod behalf;
mod body;
mod breaker;
mod check;
mod clock;
mod codes;
mod discovery;
mod elsewhere;
mod endpoint;
mod forward;
pub mod grpc;
mod health;
mod learn;
mod live;
mod members;
mod outlier;
mod pick;
mod pool;
mod publish;
mod send;
mod set;
mod spread;
mod stats;
mod status_codes;
mod subset;
pub mod unary;
pub mod view;
mod weights;
mod zone;

use std::cell::Cell;

pub use behalf::Behalf;
pub use body::ResponseBody;
pub use breaker::{RequestPermit, RetryPermit};
pub use discovery::resolve;
pub use endpoint::{Endpoint, EndpointCounters, Standing};
pub use health::Outcome;
pub use live::Cluster;
pub use pick::{Named, PickContext};
pub use pool::{Connection, ConnectionPermit};
pub use publish::{Clusters, Live};
pub use send::{SendError, SendOptions, SentOn};
pub use stats::ClusterStats;
pub use status_codes::Codes;

thread_local! {
    /// Threads that are no data worker share the last pools.
    static WORKER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Says which data worker this thread is, counted from 0, so that it has pools of its own. Called
/// once when the worker starts; the control thread does not call it.
pub fn set_worker(index: usize) {
    WORKER.set(index);
}

pub(crate) fn worker() -> usize {
    WORKER.get()
}
#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests;
