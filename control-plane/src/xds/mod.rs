//! The xDS server: one session per stream, and the services that carry them.

pub mod session;
