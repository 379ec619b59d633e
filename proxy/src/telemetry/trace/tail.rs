//! The second look: whether the span of an exchange that is over is kept, though the decision at the head left
//! it out. Pure, the clock is the caller's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::tracing::Tail;

/// Response flags that say that the upstream failed, or the way there. They also tell of answers that began well.
/// Those of idle and long streams are not among them: many end so.
const UPSTREAM_FAILED: [&str; 10] = ["UH", "UF", "UC", "UR", "UO", "UT", "UPE", "URX", "DF", "DO"];
/// Codes of gRPC that are a server's failure (OpenTelemetry: "Semantic conventions for gRPC spans"): UNKNOWN,
/// DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS. Others blame the request.
const SERVER_FAILED: [u32; 6] = [2, 4, 12, 13, 14, 15];

/// What came of an exchange.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome<'a> {
    /// Status of the answer. None: the client left before there was one.
    pub status: Option<u16>,
    /// `grpc-status`, as it was told.
    pub grpc: Option<u32>,
    /// Response flags.
    pub flags: &'a [&'static str],
    /// From the head of the request to the last byte of the answer.
    pub took: Duration,
    /// It became a tunnel or a WebSocket: how long such a one lasts says nothing.
    pub is_session: bool,
    /// It was a health check, which is never kept.
    pub is_health_check: bool,
}

/// Why a span is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The exchange failed.
    Failed,
    /// It was slow.
    Slow,
}

impl Why {
    /// As the attribute `pillion.tail` says it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Slow => "slow",
        }
    }
}

/// Whether an exchange is one of those that are kept.
pub(super) fn look(tail: &Tail, outcome: &Outcome<'_>) -> Option<Why> {
    if outcome.is_health_check {
        return None;
    }
    if tail.failed && failed(outcome) {
        return Some(Why::Failed);
    }
    let slow = tail.slower_than.is_some_and(|limit| outcome.took > limit);
    (slow && !outcome.is_session).then_some(Why::Slow)
}

fn failed(outcome: &Outcome<'_>) -> bool {
    outcome.status.is_none_or(|status| status >= 500)
        || outcome.grpc.is_some_and(|code| SERVER_FAILED.contains(&code))
        || outcome.flags.iter().any(|flag| UPSTREAM_FAILED.contains(flag))
}

/// Counts what is kept in the current second. One for the whole process.
#[derive(Debug, Default)]
pub(super) struct Cap {
    /// The second in the upper half, and how many in the lower.
    state: AtomicU64,
}

impl Cap {
    /// Whether one more is within `limit` in this second. Seconds are only compared: any clock does.
    pub(super) fn take(&self, second: u64, limit: u32) -> bool {
        const LOW: u64 = 0xffff_ffff;
        let second = second & LOW;
        let next = |state: u64| {
            let count = if state >> 32 == second { state & LOW } else { 0 };
            (count < u64::from(limit)).then_some(second << 32 | (count + 1))
        };
        self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Tail =
        Tail { slower_than: Some(Duration::from_millis(500)), failed: true, per_second: 1 };

    fn status(status: u16) -> Outcome<'static> {
        Outcome { status: Some(status), ..Outcome::default() }
    }

    #[test]
    fn failed_ones_are_kept() {
        let grpc = |code| Outcome { grpc: Some(code), ..status(200) };
        let flag = |flags| Outcome { flags, ..status(200) };
        let slow = |millis| Outcome { took: Duration::from_millis(millis), ..status(200) };
        let table: [(&str, Outcome<'_>, Option<Why>); 19] = [
            ("fine", status(200), None),
            ("the client's fault", status(404), None),
            ("too many", status(429), None),
            ("a server's failure", status(500), Some(Why::Failed)),
            ("a gateway's", status(503), Some(Why::Failed)),
            ("no answer", Outcome::default(), Some(Why::Failed)),
            ("gRPC, fine", grpc(0), None),
            ("gRPC, cancelled", grpc(1), None),
            ("gRPC, not found", grpc(5), None),
            ("gRPC, no quota", grpc(8), None),
            ("gRPC, unknown", grpc(2), Some(Why::Failed)),
            ("gRPC, unavailable", grpc(14), Some(Why::Failed)),
            ("cut off in the middle", flag(&["UC"]), Some(Why::Failed)),
            ("the client left in the middle", flag(&["DC"]), None),
            ("not slow yet", slow(500), None),
            ("slow", slow(501), Some(Why::Slow)),
            ("a session", Outcome { is_session: true, ..slow(9000) }, None),
            (
                "a session that broke",
                Outcome { is_session: true, ..flag(&["UC"]) },
                Some(Why::Failed),
            ),
            ("a health check", Outcome { is_health_check: true, ..status(503) }, None),
        ];
        for (name, outcome, want) in table {
            assert_eq!(look(&BOTH, &outcome), want, "{name}");
        }
    }

    #[test]
    fn only_what_is_asked_for_is_kept() {
        let slow_only = Tail { failed: false, ..BOTH };
        let failed_only = Tail { slower_than: None, ..BOTH };
        let slow = Outcome { took: Duration::from_secs(5), ..status(200) };
        let failed = Outcome { took: Duration::from_secs(5), ..status(500) };
        assert_eq!(look(&slow_only, &failed), Some(Why::Slow));
        assert_eq!(look(&slow_only, &status(500)), None);
        assert_eq!(look(&failed_only, &slow), None);
        assert_eq!(look(&failed_only, &failed), Some(Why::Failed));
    }

    #[test]
    fn a_second_has_room_for_so_many() {
        let cap = Cap::default();
        let taken = |second, limit| (0..5).filter(|_| cap.take(second, limit)).count();
        assert_eq!(taken(1_700_000_000, 3), 3);
        assert_eq!(taken(1_700_000_000, 3), 0);
        // Another sampler of the process may keep more.
        assert_eq!(taken(1_700_000_000, 4), 1);
        assert_eq!(taken(1_700_000_001, 3), 3);
        // A clock that is set back does not stop it for ever.
        assert_eq!(taken(1_600_000_000, 2), 2);
    }
}
