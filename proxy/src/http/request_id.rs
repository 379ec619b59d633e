//! `x-request-id`: a version 4 UUID whose 15th digit says whether the request is traced, as
//! Envoy's `UuidRequestIdConfig` packs it.

use http::HeaderValue;

/// Why a request is traced, as the id says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traced {
    /// Not.
    No,
    /// By chance.
    Sampled,
}

/// A new id from 128 random bits.
pub fn generate(random: u128, traced: Traced) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut nibbles = (0..32).rev().map(|i| ((random >> (i * 4)) & 0xf) as usize);
    for (at, slot) in text.iter_mut().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            continue;
        }
        let nibble = nibbles.next().unwrap_or(0);
        *slot = match at {
            14 if traced == Traced::Sampled => b'9',
            14 => b'4',
            19 => DIGITS[8 | (nibble & 3)],
            _ => DIGITS[nibble],
        };
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_4_uuids() {
        let id = generate(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, Traced::No);
        assert_eq!(id.to_str().unwrap(), "01234567-89ab-4def-8123-456789abcdef");
        let traced = generate(u128::MAX, Traced::Sampled);
        assert_eq!(traced.to_str().unwrap(), "ffffffff-ffff-9fff-bfff-ffffffffffff");
    }
}
