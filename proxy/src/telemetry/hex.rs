//! Lower-case hexadecimal for ids that every request carries: formatting machinery costs ten times that.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Fills `text` with the last digits of `value`.
pub(crate) fn put(text: &mut [u8], value: u128) {
    let mut rest = value;
    for slot in text.iter_mut().rev() {
        *slot = DIGITS[(rest & 0xf) as usize];
        rest >>= 4;
    }
}

/// What each byte is worth; more than 15: it is no digit.
const VALUES: [u8; 256] = {
    let mut values = [0xff; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// The number that up to 16 digits are. None: one of them is none.
pub(crate) fn read(digits: &[u8]) -> Option<u64> {
    let (mut number, mut seen) = (0, 0);
    for digit in digits {
        let value = VALUES[usize::from(*digit)];
        seen |= value;
        number = number << 4 | u64::from(value);
    }
    (seen < 16).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_digits_are_written() {
        let mut text = *b"-.......-";
        put(&mut text[1..8], 0x1234_5009_abcd);
        assert_eq!(&text, b"-009abcd-");
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        assert_eq!(read(b"fedcba9876543210"), Some(0xfedc_ba98_7654_3210));
        assert_eq!(read(b"00"), Some(0));
        for wrong in [&b"0g"[..], b"0A", b" 1", b"1-", &[0xff]] {
            assert_eq!(read(wrong), None);
        }
    }
}
