//! The sidecar of the Pillion mesh: a light proxy that speaks Envoy's xDS v3.
//!
//! Layers, each importing only from those before it (a test holds this):
//! [`model`], [`telemetry`] — [`net`], [`tls`] — [`http`], [`route`], [`policy`], [`cluster`] —
//! [`serve`], [`xds`] — [`admin`], [`app`].

pub mod admin;
pub mod app;
pub mod cluster;
pub mod http;
pub mod model;
pub mod net;
pub mod policy;
pub mod route;
pub mod serve;
pub mod telemetry;
pub mod tls;
pub mod xds;
