//! The time of this module as a duration: it fits into an atomic number, where an `Instant` does
//! not.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Since somebody first asked.
pub(super) fn now() -> Duration {
    START.elapsed()
}
