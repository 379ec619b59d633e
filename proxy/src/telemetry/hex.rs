//! Lower-case hexadecimal for ids that every request carries: formatting machinery costs ten times that.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The two digits of each byte.
const PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0xf]];
        byte += 1;
    }
    pairs
};

/// Fills `text` with the last digits of `value`.
pub(crate) fn put(text: &mut [u8], value: u128) {
    let mut rest = value;
    let mut pairs = text.rchunks_exact_mut(2);
    for pair in &mut pairs {
        pair.copy_from_slice(&PAIRS[(rest & 0xff) as usize]);
        rest >>= 8;
    }
    if let [first] = pairs.into_remainder() {
        *first = DIGITS[(rest & 0xf) as usize];
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
        put(&mut text[1..3], 0x1234_5009_abcd);
        assert_eq!(&text, b"-cd9abcd-");
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
