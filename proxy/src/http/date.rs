//! `date` (RFC 9110 section 6.6.1), worked out once a second.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

thread_local! {
    static LAST: RefCell<Date> = RefCell::default();
}

/// The date of a moment. Each thread works it out for itself.
pub fn with<R>(now: SystemTime, read: impl FnOnce(&HeaderValue) -> R) -> R {
    LAST.with_borrow_mut(|last| read(last.at(now)))
}

/// The last date that was written.
#[derive(Clone, Debug)]
pub struct Date {
    second: Duration,
    value: HeaderValue,
}

impl Default for Date {
    fn default() -> Self {
        Self { second: Duration::MAX, value: HeaderValue::from_static("") }
    }
}

impl Date {
    /// `Sun, 06 Nov 1994 08:49:37 GMT`
    pub fn at(&mut self, now: SystemTime) -> &HeaderValue {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = Duration::from_secs(since.as_secs());
        if second != self.second
            && let Ok(value) = httpdate::fmt_http_date(now).try_into()
        {
            self.second = second;
            self.value = value;
        }
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_holds_for_its_second() {
        let mut date = Date::default();
        let then = UNIX_EPOCH + Duration::from_millis(784_111_777_900);
        assert_eq!(date.at(then), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.at(then + Duration::from_millis(99)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.at(then + Duration::from_millis(100)), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
