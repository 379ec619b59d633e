//! Filters that guard an upstream or a browser's user.

use std::time::Duration;

use super::Name;
use super::kept::Kept;
use super::matcher::StringMatcher;

/// `csrf.v3.CsrfPolicy`
#[derive(Clone, Debug, Default)]
pub struct Csrf {
    /// Enforced for this share of requests, out of a million.
    pub enabled: u32,
    /// Only counted, for this share.
    pub shadow: u32,
    /// Origins that may beside the request's own.
    pub origins: Vec<StringMatcher>,
}

/// `bandwidth_limit.v3.BandwidthLimit`
#[derive(Debug)]
pub struct BandwidthLimit {
    /// `<stat_prefix>.http_bandwidth_limit.`
    pub stat_prefix: Name,
    /// Request bodies.
    pub request: bool,
    /// Bodies of answers.
    pub response: bool,
    /// KiB a second.
    pub kbps: u64,
    /// How often there is more. Default 50 ms.
    pub interval: Duration,
    /// Tell the client how long the filter held things up, in trailers with this prefix.
    pub trailers: Option<String>,
    /// What is left of the limit, shared by all requests.
    pub kept: Kept,
}
