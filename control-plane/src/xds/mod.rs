//! The xDS server: one pure session per stream, and the services and sockets around them.

mod metrics;
mod server;
pub mod session;
mod streams;
mod transport;
mod vetting;
mod workloads;

pub use metrics::Metrics;
pub use server::{AdsApi, Published, World};
pub use streams::{StreamView, Streams};
pub use transport::{Services, TokenCheck, serve_plain, serve_tls};
pub use vetting::{Refusal, Validator, Vetting};
pub use workloads::{Lease, Registrar, WorkloadApi};
