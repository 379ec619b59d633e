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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_digits_are_written() {
        let mut text = *b"-.......-";
        put(&mut text[1..8], 0x1234_5009_abcd);
        assert_eq!(&text, b"-009abcd-");
    }
}
