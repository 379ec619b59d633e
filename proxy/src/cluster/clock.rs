//! The time of this module as a duration: it fits into an atomic number, where an `Instant` does
//! not.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// So much was over when somebody first asked: there is room for the past.
const PAST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Since some moment that is always the same.
pub(super) fn now() -> Duration {
    START.elapsed() + PAST
}
