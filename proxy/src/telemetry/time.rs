//! Points in time as text, in UTC.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A civil date and time.
struct Civil {
    year: i64,
    month: u32,
    day: u32,
    hour: u64,
    minute: u64,
    second: u64,
}

/// Append `time`: by a strftime format with the additions of Envoy (`%3f`) and of its library
/// (`%E3S`, `%E4Y`, `%Ez`), in UTC; or as ISO 8601 in milliseconds.
pub fn write(time: SystemTime, format: Option<&str>, out: &mut String) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let civil = civil(since);
    let Some(format) = format else {
        date(&civil, out);
        out.push('T');
        clock(&civil, out);
        let _ = write!(out, ".{:03}Z", since.subsec_millis());
        return;
    };
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let Some(kind) = chars.next() else { break };
        directive(kind, &mut chars, (&civil, since), out);
    }
}

fn directive(
    kind: char,
    chars: &mut std::str::Chars<'_>,
    (civil, since): (&Civil, Duration),
    out: &mut String,
) {
    let written = match kind {
        'Y' => write!(out, "{:04}", civil.year),
        'm' => write!(out, "{:02}", civil.month),
        'd' => write!(out, "{:02}", civil.day),
        'y' => write!(out, "{:02}", civil.year.rem_euclid(100)),
        'C' => write!(out, "{:02}", civil.year.div_euclid(100)),
        'e' => write!(out, "{:2}", civil.day),
        'b' | 'h' => write!(out, "{:.3}", civil.month_name()),
        'B' => write!(out, "{}", civil.month_name()),
        'a' => write!(out, "{:.3}", weekday_name(since)),
        'A' => write!(out, "{}", weekday_name(since)),
        'u' => write!(out, "{}", (weekday(since) + 6) % 7 + 1),
        'w' => write!(out, "{}", weekday(since)),
        'j' => write!(out, "{:03}", civil.day_of_year()),
        'p' => write!(out, "{}", if civil.hour < 12 { "AM" } else { "PM" }),
        'I' => write!(out, "{:02}", (civil.hour + 11) % 12 + 1),
        'l' => write!(out, "{:2}", (civil.hour + 11) % 12 + 1),
        'k' => write!(out, "{:2}", civil.hour),
        'D' => write!(out, "{:02}/{:02}/{:02}", civil.month, civil.day, civil.year.rem_euclid(100)),
        'R' => write!(out, "{:02}:{:02}", civil.hour, civil.minute),
        'n' => out.write_char('\n'),
        't' => out.write_char('\t'),
        'E' => extended(chars, (civil, since), out),
        'H' => write!(out, "{:02}", civil.hour),
        'M' => write!(out, "{:02}", civil.minute),
        'S' => write!(out, "{:02}", civil.second),
        's' => write!(out, "{}", since.as_secs()),
        'z' => write!(out, "+0000"),
        'Z' => write!(out, "UTC"),
        'F' => {
            date(civil, out);
            Ok(())
        }
        'T' => {
            clock(civil, out);
            Ok(())
        }
        'f' => write!(out, "{:09}", since.subsec_nanos()),
        '1'..='9' if chars.as_str().starts_with('f') => {
            chars.next();
            let digits = kind.to_digit(10).unwrap_or(9);
            let nanos = since.subsec_nanos() / 10_u32.pow(9 - digits);
            write!(out, "{nanos:0width$}", width = digits as usize)
        }
        '%' => write!(out, "%"),
        other => write!(out, "%{other}"),
    };
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
}

/// What follows `%E`: `4Y`, `z`, and seconds or their fraction with so many digits, `*` for as many as
/// there are.
fn extended(
    chars: &mut std::str::Chars<'_>,
    (civil, since): (&Civil, Duration),
    out: &mut String,
) -> std::fmt::Result {
    let rest = chars.as_str();
    for (text, written) in [("z", "+00:00"), ("*z", "+00:00:00"), ("T", "T")] {
        if let Some(rest) = rest.strip_prefix(text) {
            *chars = rest.chars();
            return out.write_str(written);
        }
    }
    if let Some(rest) = rest.strip_prefix("4Y") {
        *chars = rest.chars();
        return write!(out, "{:04}", civil.year);
    }
    let digits_end = rest.find(|c: char| !c.is_ascii_digit() && c != '*').unwrap_or(rest.len());
    let (digits, tail) = rest.split_at(digits_end);
    let nanos = format!("{:09}", since.subsec_nanos());
    let fraction = match digits {
        "*" => nanos.trim_end_matches('0'),
        digits => match digits.parse::<usize>() {
            Ok(digits) => &nanos[..digits.min(9)],
            Err(_) => return out.write_str("%E"),
        },
    };
    match tail.chars().next() {
        Some('S') => {
            let dot = if fraction.is_empty() { "" } else { "." };
            write!(out, "{:02}{dot}{fraction}", civil.second)?;
        }
        Some('f') => out.write_str(if fraction.is_empty() { "0" } else { fraction })?,
        _ => return out.write_str("%E"),
    }
    *chars = tail[1..].chars();
    Ok(())
}

/// 0 is Sunday.
fn weekday(since: Duration) -> u64 {
    (since.as_secs() / 86_400 + 4) % 7
}

fn weekday_name(since: Duration) -> &'static str {
    const NAMES: [&str; 7] =
        ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    usize::try_from(weekday(since)).ok().and_then(|day| NAMES.get(day)).copied().unwrap_or("")
}

impl Civil {
    fn month_name(&self) -> &'static str {
        const NAMES: [&str; 12] = [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ];
        NAMES.get(self.month as usize - 1).copied().unwrap_or("")
    }

    /// From 1.
    fn day_of_year(&self) -> u32 {
        const BEFORE: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let before = BEFORE.get(self.month as usize - 1).copied().unwrap_or(0);
        before + self.day + u32::from(leap && self.month > 2)
    }
}

fn date(civil: &Civil, out: &mut String) {
    let _ = write!(out, "{:04}-{:02}-{:02}", civil.year, civil.month, civil.day);
}

fn clock(civil: &Civil, out: &mut String) {
    let _ = write!(out, "{:02}:{:02}:{:02}", civil.hour, civil.minute, civil.second);
}

/// Days to a date of the proleptic Gregorian calendar, counted in eras of 400 years from 1 March.
fn civil(since: Duration) -> Civil {
    let seconds = since.as_secs();
    let days = i64::try_from(seconds / 86_400).unwrap_or(0) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Civil {
        year,
        month: u32::try_from(month).unwrap_or(1),
        day: u32::try_from(day_of_year - (153 * month_index + 2) / 5 + 1).unwrap_or(1),
        hour: seconds / 3600 % 24,
        minute: seconds / 60 % 60,
        second: seconds % 60,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: u64, format: Option<&str>) -> String {
        let mut out = String::new();
        write(UNIX_EPOCH + Duration::new(seconds, 5_600_000), format, &mut out);
        out
    }

    #[test]
    fn leap_days_and_year_ends_are_right() {
        assert_eq!(text(0, None), "1970-01-01T00:00:00.005Z");
        assert_eq!(text(951_782_400, Some("%F")), "2000-02-29");
        assert_eq!(text(4_107_542_399, Some("%F %T")), "2100-02-28 23:59:59");
        assert_eq!(text(1_735_689_599, Some("%Y/%m/%d %H.%M.%S.%3f")), "2024/12/31 23.59.59.005");
        assert_eq!(text(7, Some("%s %6f")), "7 005600");
        let friday = 1_735_689_599 + 3 * 86_400;
        let parts = "%a|%A|%b|%B|%p|%I|%j|%y|%e|%u|%w|%D|%R";
        let want = "Fri|Friday|Jan|January|PM|11|003|25| 3|5|5|01/03/25|23:59";
        assert_eq!(text(friday, Some(parts)), want);
        let extended = "%Y-%m-%dT%H:%M:%E3S%Ez %E*S %E4Y %E6f %E0S %EX";
        assert_eq!(
            text(friday, Some(extended)),
            "2025-01-03T23:59:59.005+00:00 59.0056 2025 005600 59 %EX"
        );
    }
}
