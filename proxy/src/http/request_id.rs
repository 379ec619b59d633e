//! `x-request-id`: a version 4 UUID whose 15th digit says whether the request is traced, as
//! Envoy's `UuidRequestIdConfig` packs it.

use http::HeaderValue;

use crate::telemetry::trace::TraceReason;

/// Place of the digit that says why.
const REASON: usize = 14;

/// A new id from 128 random bits.
pub fn generate(random: u128, reason: TraceReason) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut nibbles = (0..32).rev().map(|i| ((random >> (i * 4)) & 0xf) as usize);
    for (at, slot) in text.iter_mut().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            continue;
        }
        let nibble = nibbles.next().unwrap_or(0);
        *slot = match at {
            REASON => digit(reason),
            19 => DIGITS[8 | (nibble & 3)],
            _ => DIGITS[nibble],
        };
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Why the request of this id is traced, and a number that is the same wherever the id is seen. None:
/// the id is no UUID, and says nothing.
pub fn read(id: &HeaderValue) -> Option<(TraceReason, u64)> {
    let id = id.to_str().ok().filter(|id| id.len() == 36)?;
    let number = u64::from_str_radix(id.get(..8)?, 16).ok()?;
    let reason = match id.as_bytes().get(REASON)? {
        b'9' => TraceReason::Sampled,
        b'a' => TraceReason::Forced,
        b'b' => TraceReason::Client,
        _ => TraceReason::No,
    };
    Some((reason, number))
}

/// The same id with another reason.
pub fn pack(id: &HeaderValue, reason: TraceReason) -> Option<HeaderValue> {
    let mut bytes = id.as_bytes().to_vec();
    *bytes.get_mut(REASON)? = digit(reason);
    HeaderValue::from_bytes(&bytes).ok()
}

fn digit(reason: TraceReason) -> u8 {
    match reason {
        TraceReason::No => b'4',
        TraceReason::Sampled => b'9',
        TraceReason::Forced => b'a',
        TraceReason::Client => b'b',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_4_uuids() {
        let id = generate(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, TraceReason::No);
        assert_eq!(id.to_str().unwrap(), "01234567-89ab-4def-8123-456789abcdef");
        let traced = generate(u128::MAX, TraceReason::Sampled);
        assert_eq!(traced.to_str().unwrap(), "ffffffff-ffff-9fff-bfff-ffffffffffff");
    }

    #[test]
    fn an_id_carries_its_reason_from_hop_to_hop() {
        let id = generate(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, TraceReason::No);
        let packed = pack(&id, TraceReason::Client).unwrap();
        assert_eq!(packed, "01234567-89ab-bdef-8123-456789abcdef");
        assert_eq!(read(&packed), Some((TraceReason::Client, 0x0123_4567)));
        assert_eq!(read(&HeaderValue::from_static("not-a-uuid")), None);
    }
}
