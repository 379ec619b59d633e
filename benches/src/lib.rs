//! Pillion beside real Envoy, nginx and haproxy: the same job for each, in one run, on one core.

pub mod backend;
pub mod config;
pub mod cpu;
pub mod growth;
pub mod load;
pub mod peer;
pub mod report;
pub mod scenario;
pub mod workers;
