//! Text of durations, for dumps and access logs.

use std::time::Duration;

/// Whole milliseconds, saturating: what Envoy's `x-envoy-*-ms` headers and `%DURATION%` carry.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
