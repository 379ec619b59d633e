//! What the tests of Pillion are made of: backends, certificates, clients, and the processes under
//! test, ours and the real Envoy.
//!
//! Everything binds loopback ports that the kernel chose, and every process ends when its handle is
//! dropped. Nothing here measures time: [`wait::until`] waits for conditions, with a generous limit.

#![allow(clippy::large_futures, reason = "a test waits for one future; its size does not matter")]

pub mod ads;
pub mod backend;
pub mod ca;
pub mod client;
pub mod collector;
pub mod kubelet;
pub mod kubernetes;
pub mod load;
pub mod mesh;
pub mod netns;
pub mod port;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod script;
pub mod venv;
pub mod wait;
pub mod xds_server;
pub mod yaml;
