//! `x-request-id`: a version 4 UUID whose 15th digit says whether the request is traced, as
//! Envoy's `UuidRequestIdConfig` packs it.

use http::HeaderValue;

use crate::telemetry::hex;
use crate::telemetry::trace::TraceReason;

/// Place of the digit that says why.
const REASON: usize = 14;

/// A new id from 128 random bits.
pub fn generate(random: u128, reason: TraceReason) -> HeaderValue {
    // RFC 9562 section 4.1: the variant is `10` in binary.
    let random = (random & !(3 << 62)) | (2 << 62);
    let mut text = [b'-'; 36];
    let (high, low) = ((random >> 64) as u64, random as u64);
    hex::put(&mut text[..8], u128::from(high >> 32));
    hex::put(&mut text[9..13], u128::from(high >> 16));
    hex::put(&mut text[14..18], u128::from(high));
    hex::put(&mut text[19..23], u128::from(low >> 48));
    hex::put(&mut text[24..], u128::from(low));
    text[REASON] = digit(reason);
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Why the request of this id is traced, and a number that is the same wherever the id is seen. None:
/// the id is no UUID, and says nothing.
pub fn read(id: &HeaderValue) -> Option<(TraceReason, u64)> {
    let id = Some(id.as_bytes()).filter(|id| id.len() == 36)?;
    let mut digits = *id.first_chunk::<8>()?;
    digits.make_ascii_lowercase();
    let number = hex::read(&digits)?;
    let reason = match id.get(REASON)? {
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
