//! The control plane of the Pillion service mesh, and the person's command line.
//!
//! Layers, imports only go downwards: `map`, `identity`, `intent` (0) <- `compile`, `snapshot` (1) <-
//! `source`, `store`, `xds`, `ca` (2) <- `inject`, `install` (3) <- `admin`, `app`, `cli` (4).

pub mod admin;
pub mod app;
pub mod ca;
pub mod cli;
pub mod compile;
pub mod identity;
pub mod inject;
pub mod install;
pub mod intent;
pub mod map;
pub mod snapshot;
pub mod source;
pub mod store;
pub mod xds;
