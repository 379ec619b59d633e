//! MAGLEV: a table of prime size, filled by each endpoint's own permutation (Eisenbud and others,
//! NSDI 2016, listing 1; weights as Envoy adds them). The table equals Envoy's for the same
//! endpoints.

use xxhash_rust::xxh64::xxh64;

#[derive(Debug)]
pub(crate) struct Table {
    slots: Box<[u32]>,
}

struct Claim {
    index: u32,
    offset: u64,
    skip: u64,
    next: u64,
    weight: f64,
    target: f64,
}

const FREE: u32 = u32::MAX;

impl Table {
    pub(super) fn new(shares: &[f64], key: impl Fn(usize) -> String, size: u64) -> Self {
        let heaviest = shares.iter().copied().fold(0.0, f64::max);
        if heaviest <= 0.0 || size < 2 {
            return Self { slots: Box::default() };
        }
        let mut claims: Vec<(String, Claim)> = shares
            .iter()
            .enumerate()
            .filter(|(_, share)| **share > 0.0)
            .map(|(index, share)| {
                let key = key(index);
                let claim = Claim {
                    index: index as u32,
                    offset: xxh64(key.as_bytes(), 0) % size,
                    skip: xxh64(key.as_bytes(), 1) % (size - 1) + 1,
                    next: 0,
                    weight: *share,
                    target: 0.0,
                };
                (key, claim)
            })
            .collect();
        // The order decides who gets a contested slot: it must not depend on the order of the list.
        claims.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self { slots: fill(&mut claims, size, heaviest).into() }
    }

    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<usize> {
        // Another endpoint for a retry: by changing most bits, as Envoy does.
        let hash = match attempt.checked_sub(1) {
            None => hash,
            Some(again) => hash ^ (u64::MAX - u64::from(again)),
        };
        let at = hash.checked_rem(self.slots.len() as u64)?;
        self.slots.get(at as usize).map(|index| *index as usize)
    }
}

fn fill(claims: &mut [(String, Claim)], size: u64, heaviest: f64) -> Vec<u32> {
    let mut slots = vec![FREE; size as usize];
    let mut filled = 0;
    let mut round = 0.0;
    while filled < size {
        round += 1.0;
        for (_, claim) in claims.iter_mut() {
            if filled == size {
                break;
            }
            if round * claim.weight < claim.target {
                continue;
            }
            claim.target += heaviest;
            loop {
                let at = (claim.offset + claim.skip * claim.next) % size;
                claim.next += 1;
                if let Some(slot) = slots.get_mut(at as usize).filter(|slot| **slot == FREE) {
                    *slot = claim.index;
                    break;
                }
            }
            filled += 1;
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::super::mix;
    use super::*;

    fn address(index: usize) -> String {
        format!("127.0.0.1:{}", 90 + index)
    }

    #[test]
    fn the_table_is_the_one_in_envoys_own_test() {
        let table = Table::new(&[1.0; 6], address, 7);
        let ports: Vec<u32> = table.slots.iter().map(|index| 90 + index).collect();
        assert_eq!(ports, [92, 94, 90, 91, 95, 90, 93]);
        assert_eq!(table.pick(14, 0), Some(2));
        assert_eq!([0, 1, 2].map(|attempt| table.pick(10, attempt)), [Some(1), Some(0), Some(5)]);
        assert_eq!(Table::new(&[], address, 7).pick(3, 0), None);
    }

    #[test]
    fn the_weighted_table_is_the_one_in_envoys_own_test() {
        let table = Table::new(&[1.0, 2.0], address, 17);
        let ports: Vec<u32> = table.slots.iter().map(|index| 90 + index).collect();
        assert_eq!(ports, [91, 90, 90, 91, 90, 91, 91, 90, 91, 91, 91, 91, 91, 90, 91, 90, 91],);
    }

    #[test]
    fn the_order_of_the_list_does_not_matter_and_retries_move() {
        let straight = Table::new(&[1.0; 5], address, 65_537);
        let reversed = Table::new(&[1.0; 5], |index| address(4 - index), 65_537);
        for hash in (0..1000_u64).map(mix) {
            assert_eq!(straight.pick(hash, 0), reversed.pick(hash, 0).map(|index| 4 - index));
        }
        assert!((0..1000_u64).any(|hash| straight.pick(hash, 0) != straight.pick(hash, 1)));
        let count = |of| straight.slots.iter().filter(|index| **index == of).count();
        assert!((0..5).all(|index| (13_000..13_200).contains(&count(index))));
    }
}
