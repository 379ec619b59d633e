//! MurmurHash64A with the seed that libstdc++ uses for `std::hash`: `MURMUR_HASH_2` of ring hash.

const SEED: u64 = 0xc70f_6907;
const MULTIPLY: u64 = 0xc6a4_a793_5bd1_e995;

pub(super) fn hash(bytes: &[u8]) -> u64 {
    let scramble = |word: u64| {
        let word = word.wrapping_mul(MULTIPLY);
        (word ^ (word >> 47)).wrapping_mul(MULTIPLY)
    };
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MULTIPLY);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = (hash ^ scramble(u64::from_le_bytes(*word))).wrapping_mul(MULTIPLY);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(MULTIPLY);
    }
    hash = (hash ^ (hash >> 47)).wrapping_mul(MULTIPLY);
    hash ^ (hash >> 47)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_libstdcxx() {
        assert_eq!(hash(b""), 6_142_509_188_972_423_790);
        assert_eq!(hash(b"a"), 4_993_892_634_952_068_459);
        assert_eq!(hash(b"ab"), 5_498_234_120_169_091_963);
        assert_eq!(hash(b"abcdefgh"), 8_664_279_048_047_335_611);
    }
}
