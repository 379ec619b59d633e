//! The xDS server: one pure session per stream, and the services and sockets around them.

mod csds;
mod dump;
mod metrics;
mod server;
pub mod session;
mod streams;
mod transport;
mod vetting;
mod workloads;

/// How a client introduces itself.
pub use pillion_xds::envoy::config::core::v3::Node;

pub use csds::StatusApi;
pub use dump::{node_to_json, to_json};
pub use metrics::Metrics;
pub use server::{AdsApi, Published, World};
pub use streams::{StreamView, Streams};
pub use transport::{Services, TokenCheck, serve_plain, serve_tls};
pub use vetting::{Refusal, Validator, Vetting};
pub use workloads::{Lease, Registrar, WorkloadApi};
