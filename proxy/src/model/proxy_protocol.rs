//! The PROXY protocol (HAProxy's specification, versions 1 and 2).

use super::Name;

/// How the header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What a listener takes (`envoy.filters.listener.proxy_protocol`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Connections without a header are served as well.
    pub optional: bool,
    /// Headers of version 1 are taken.
    pub v1: bool,
    /// Headers of version 2 are taken.
    pub v2: bool,
    /// `proxy_proto.[<stat_prefix>.]`
    pub stat_prefix: Name,
}

/// What a cluster's connections begin with (`envoy.transport_sockets.upstream_proxy_protocol`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// How it is written.
    pub version: Version,
    /// Type and value of what is added to headers of version 2.
    pub tlvs: Vec<(u8, Vec<u8>)>,
}
