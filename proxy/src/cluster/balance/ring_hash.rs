//! RING_HASH: the endpoint that follows the request's hash on a ring. The ring is the one that
//! Envoy makes of the same endpoints (xxHash64 of `address_0`, `address_1`, …), so a fleet of
//! both sends a key to the same place.

use xxhash_rust::xxh64::xxh64;

use super::murmur;
use crate::model::balancing::HashFunction;

#[derive(Debug)]
pub(crate) struct Ring {
    /// Ordered by hash.
    entries: Box<[(u64, u32)]>,
}

impl Ring {
    /// `shares` make one together.
    pub(super) fn new(
        shares: &[f64],
        key: impl Fn(usize) -> String,
        (minimum_size, maximum_size): (u64, u64),
        function: HashFunction,
    ) -> Self {
        let smallest = shares.iter().copied().filter(|share| *share > 0.0).fold(1.0, f64::min);
        // The lightest endpoint gets a whole number of entries, if the ring may be that long.
        let scale = ((smallest * minimum_size as f64).ceil() / smallest).min(maximum_size as f64);
        let hash = |text: &[u8]| match function {
            HashFunction::XxHash => xxh64(text, 0),
            HashFunction::Murmur2 => murmur::hash(text),
        };
        let mut entries = Vec::new();
        let mut wanted = 0.0;
        for (index, share) in shares.iter().enumerate() {
            wanted += scale * share;
            let mut text = key(index);
            text.push('_');
            let stem = text.len();
            let mut number = 0_u64;
            while (entries.len() as f64) < wanted {
                text.truncate(stem);
                text.push_str(&number.to_string());
                entries.push((hash(text.as_bytes()), index as u32));
                number += 1;
            }
        }
        entries.sort_unstable();
        Self { entries: entries.into() }
    }

    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<usize> {
        let after = self.entries.partition_point(|(entry, _)| *entry < hash);
        let first = after.checked_rem(self.entries.len())?;
        let at = (first + attempt as usize) % self.entries.len();
        self.entries.get(at).map(|(_, index)| *index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::super::mix;
    use super::*;

    fn address(index: usize) -> String {
        format!("127.0.0.1:{}", 90 + index)
    }

    fn made(shares: &[f64], sizes: (u64, u64)) -> Ring {
        let total: f64 = shares.iter().sum();
        let shares: Vec<f64> = shares.iter().map(|share| share / total).collect();
        Ring::new(&shares, address, sizes, HashFunction::XxHash)
    }

    #[test]
    fn the_ring_is_the_one_in_envoys_own_test() {
        let ring = made(&[1.0; 6], (12, 8_388_608));
        let of_90: Vec<u64> =
            ring.entries.iter().filter(|(_, index)| *index == 0).map(|(hash, _)| *hash).collect();
        assert_eq!(of_90, [1_033_482_794_131_418_490, 16_117_243_373_044_804_889]);
        let order: Vec<u32> = ring.entries.iter().map(|(_, index)| 90 + index).collect();
        assert_eq!(order, [94, 92, 90, 95, 93, 91, 91, 93, 95, 92, 94, 90]);
        for (hash, attempt, expected) in [
            (0, 0, 4),
            (u64::MAX, 0, 4),
            (3_551_244_743_356_806_947, 0, 5),
            (3_551_244_743_356_806_948, 0, 3),
            (3_551_244_743_356_806_947, 1, 3),
        ] {
            assert_eq!(ring.pick(hash, attempt), Some(expected), "{hash} {attempt}");
        }
        assert_eq!(made(&[], (4, 8)).pick(1, 0), None);
    }

    #[test]
    fn weights_are_entries_and_the_maximum_holds() {
        let ring = made(&[1.0, 2.0, 5.0], (1024, 8_388_608));
        let count = |index| ring.entries.iter().filter(|(_, at)| *at == index).count();
        assert_eq!([count(0), count(1), count(2)], [128, 256, 640]);
        assert_eq!(made(&[1.0; 4], (1024, 6)).entries.len(), 6);
    }

    #[test]
    fn losing_an_endpoint_moves_only_its_keys() {
        // The same number of entries for each.
        let all = made(&[1.0; 5], (1000, 8_388_608));
        let fewer = made(&[1.0; 4], (800, 8_388_608));
        let moved = (0..10_000_u64)
            .map(mix)
            .filter(|hash| all.pick(*hash, 0) != Some(4))
            .filter(|hash| all.pick(*hash, 0) != fewer.pick(*hash, 0))
            .count();
        assert_eq!(moved, 0);
    }
}
