//! Numbers in headers.

use std::cell::RefCell;

use http::HeaderValue;

/// The digits of a number, at the end of some room for them.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    room: [u8; 20],
    from: usize,
}

impl Digits {
    /// Decimal.
    pub fn of(number: u64) -> Self {
        let mut room = [0; 20];
        let mut from = room.len();
        let mut rest = number;
        loop {
            from -= 1;
            room[from] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return Self { room, from };
            }
        }
    }

    /// As text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.room[self.from..]
    }
}

thread_local! {
    static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static("0"))) };
}

/// A number as the value of a header, without an allocation for one digit, as most times in milliseconds have, and for the
/// number that was wanted last: timeouts are mostly the same.
pub fn value(number: u64) -> HeaderValue {
    const SMALL: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    match usize::try_from(number).ok().and_then(|number| SMALL.get(number)) {
        Some(digit) => HeaderValue::from_static(digit),
        None => LAST.with_borrow_mut(|last| {
            if last.0 != number {
                let value = HeaderValue::from_bytes(Digits::of(number).as_bytes());
                *last = (number, value.unwrap_or_else(|_| HeaderValue::from(number)));
            }
            last.1.clone()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_library_does() {
        for number in [0, 7, 9, 10, 10, 15_000, u64::from(u32::MAX), u64::MAX, 15_000] {
            assert_eq!(value(number), HeaderValue::from(number));
        }
    }
}
