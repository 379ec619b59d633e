//! Durations as the Gateway API writes them (GEP-2257): one to four numbers of up to five digits, each with
//! `h`, `m`, `s` or `ms`: `1h30m`, `10s`, `250ms`.

use std::time::Duration;

/// Reads a duration.
///
/// # Errors
/// Says in a few words what is wrong with `text`.
pub(crate) fn parse(text: &str) -> Result<Duration, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err("a number is missing");
        }
        if digits > 5 {
            return Err("a number has more than five digits");
        }
        let number: u64 = rest[..digits].parse().map_err(|_| "a number is missing")?;
        rest = &rest[digits..];
        let (unit, length) = unit(rest).ok_or("a unit is missing (`h`, `m`, `s` or `ms`)")?;
        total += Duration::from_millis(number * unit);
        rest = &rest[length..];
        if rest.is_empty() {
            return Ok(total);
        }
    }
    Err("it has more than four parts")
}

/// Milliseconds in the unit that `text` begins with, and the unit's length.
fn unit(text: &str) -> Option<(u64, usize)> {
    match text.as_bytes() {
        [b'm', b's', ..] => Some((1, 2)),
        [b'h', ..] => Some((3_600_000, 1)),
        [b'm', ..] => Some((60_000, 1)),
        [b's', ..] => Some((1000, 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_gateway_api_allows() {
        for (text, millis) in [
            ("10s", 10_000),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("1h1m1s1ms", 3_661_001),
            ("99999h", 359_996_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "1.5s", "-1s", "1d", "100000s", "1s1s1s1s1s", " 1s", "1s "] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
