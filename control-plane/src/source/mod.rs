//! Where intent and workloads come from.

pub mod files;
pub mod kubernetes;
pub mod registry;
pub mod watch;
