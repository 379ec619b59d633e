//! Where intent and workloads come from.

pub mod registry;
