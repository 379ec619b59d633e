//! The admin interface: Envoy's endpoints and answers, over HTTP/1.1.
//!
//! It has no authentication, as Envoy's has none: bind it to loopback. What it shows and does
//! comes from a [`Source`], so that this part knows nothing of the others.

mod answer;
mod clusters;
mod commands;
mod dump;
mod memory;
mod metrics;
mod server;
mod source;

pub use memory::{Memory, memory_now};
pub use server::serve;
pub use source::{
    ClusterView, DrainListeners, HostView, ListenerView, Readiness, ServerInfo, ServerState,
    Source, Thresholds,
};

#[cfg(test)]
mod tests;
