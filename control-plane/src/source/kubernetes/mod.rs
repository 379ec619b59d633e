//! The Kubernetes API as a source of intent and workloads.

pub mod access;
