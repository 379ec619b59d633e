//! Network filters that let a connection pass, or not, before the last filter of its chain has it.

use std::sync::Arc;
use std::time::Duration;

use super::Name;
use super::rate_limit::TokenBucket;
use super::rbac::Rbac;

/// One of them. What it counts lives as long as the filter chain that has it.
#[derive(Clone, Debug)]
pub enum NetworkFilter {
    /// `envoy.filters.network.rbac`
    Rbac(Arc<NetworkRbac>),
    /// `envoy.filters.network.connection_limit`
    ConnectionLimit(Arc<ConnectionLimit>),
    /// `envoy.filters.network.local_ratelimit`
    RateLimit(Arc<ConnectionRate>),
}

/// Who may connect.
#[derive(Debug)]
pub struct NetworkRbac {
    /// Enforced. None: everybody may.
    pub rules: Option<Rbac>,
    /// Only counted.
    pub shadow: Option<Rbac>,
    /// `<stat_prefix>.rbac.`
    pub stat_prefix: Name,
    /// In the names of counters of `shadow`, before `shadow_allowed`.
    pub shadow_prefix: Name,
}

/// How many connections a chain has at a time.
#[derive(Debug)]
pub struct ConnectionLimit {
    /// `connection_limit.<stat_prefix>.`
    pub stat_prefix: Name,
    /// At least 1.
    pub most: u64,
    /// How long a connection too many is kept before it is closed.
    pub delay: Duration,
}

/// How fast connections may come.
#[derive(Debug)]
pub struct ConnectionRate {
    /// `local_rate_limit.<stat_prefix>.`
    pub stat_prefix: Name,
    /// A token for each connection.
    pub bucket: TokenBucket,
}
