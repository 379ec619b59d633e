//! RANDOM: any endpoint. Weights play no part, as in Envoy.

use super::below;

pub(super) fn pick(len: usize, random: u64) -> Option<usize> {
    (len > 0).then(|| below(len, random))
}

#[cfg(test)]
mod tests {
    use super::super::mix;
    use super::*;

    #[test]
    fn everyone_has_the_same_chance() {
        assert_eq!(pick(0, 7), None);
        let mut hits = [0_u32; 5];
        for i in 0..50_000 {
            hits[pick(5, mix(i)).unwrap()] += 1;
        }
        assert!(hits.iter().all(|hits| (9_500..10_500).contains(hits)), "{hits:?}");
    }
}
