//! Times as Kubernetes writes them (RFC 3339, UTC).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// `2026-01-02T03:04:05Z`; times before 1970 are 1970.
pub(super) fn rfc3339(at: SystemTime) -> String {
    let (date, seconds) = parts(at.duration_since(UNIX_EPOCH).unwrap_or_default());
    format!("{date}T{seconds}Z")
}

/// The same with microseconds (`metav1.MicroTime`).
pub(super) fn micro(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (date, seconds) = parts(since);
    format!("{date}T{seconds}.{:06}Z", since.subsec_micros())
}

fn parts(since: Duration) -> (String, String) {
    let (days, rest) = (since.as_secs() / DAY, since.as_secs() % DAY);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    (format!("{year:04}-{month:02}-{day:02}"), format!("{hour:02}:{minute:02}:{second:02}"))
}

/// Days since 1970-01-01 in the Gregorian calendar, counted in years that begin in March: there, a leap day is the
/// last day.
fn date(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, of_era) = (days / ERA, days % ERA);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA - 1)) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_other_programs_read_them() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_767_323_045), "2026-01-02T03:04:05Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        let later = UNIX_EPOCH + Duration::from_micros(1_000_042);
        assert_eq!(micro(later), "1970-01-01T00:00:01.000042Z");
    }
}
