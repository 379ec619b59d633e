//! HTTP mechanics: bodies, headers that belong to one hop, paths.

pub mod body;
