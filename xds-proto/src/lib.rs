//! The subset of Envoy's xDS v3 API that Pillion speaks, and Pillion's own services.
//!
//! The messages are generated from `proto/` and stand in modules that follow the packages:
//! `pillion_xds::envoy::config::listener::v3::Listener`. Beside them:
//!
//! * [`any`] packs and unpacks typed messages, [`type_url`] names the resource types,
//! * [`json`] reads YAML and JSON text into messages and writes messages as JSON,
//! * [`support`] finds what a message sets that Pillion refuses, by path,
//! * [`descriptors`] is the reflection behind both.

pub mod any;
mod debug;
pub mod descriptors;
pub mod json;
pub mod support;
pub mod type_url;

mod generated {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        elided_lifetimes_in_paths,
        clippy::all,
        clippy::too_many_lines,
        rustdoc::all
    )]
    include!(concat!(env!("OUT_DIR"), "/xds.rs"));
}

pub use generated::{envoy, google, opentelemetry, pillion, udpa, xds};
