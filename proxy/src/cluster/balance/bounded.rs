//! Consistent hashing with bounded loads (Mirrokni and others, arXiv:1608.01350; Chen and others,
//! arXiv:1908.08762): an endpoint that has its share of the load already is passed over, in an order
//! that the hash decides. Who comes next is the same as in Envoy for the same hash and load.

use super::Load;

#[derive(Debug)]
pub(crate) struct Bound {
    /// They make one together.
    shares: Box<[f64]>,
    /// Percent of the mean load.
    factor: u32,
}

impl Bound {
    pub(super) fn new(shares: &[f64], factor: Option<u32>) -> Option<Self> {
        factor.map(|factor| Self { shares: shares.into(), factor })
    }

    /// `first`, or the next one that can take more; the least loaded one if nobody can.
    pub(super) fn pick(&self, hash: u64, first: usize, load: &impl Load) -> usize {
        let all = load.active_in_all();
        let overload = self.overload(first, all, load);
        if overload <= 1.0 {
            return first;
        }
        let (mut least, mut best) = (first, overload);
        let mut order: Vec<usize> = (0..self.shares.len()).collect();
        let mut random = Twister::new(hash);
        for at in 0..order.len() {
            let other = at + random.below((order.len() - at) as u32) as usize;
            order.swap(at, other);
            let candidate = order[at];
            if candidate == first {
                continue;
            }
            let overload = self.overload(candidate, all, load);
            if overload <= 1.0 {
                return candidate;
            }
            if overload < best {
                (least, best) = (candidate, overload);
            }
        }
        least
    }

    /// Requests under way there, by how many there may be.
    fn overload(&self, index: usize, all: u32, load: &impl Load) -> f64 {
        let slots = (u64::from(all) + 1).saturating_mul(self.factor.into()).div_ceil(100);
        let share = self.shares.get(index).copied().unwrap_or(0.0);
        let own = (slots as f64 * share).ceil().max(1.0);
        f64::from(load.active(index)) / own
    }
}

/// MT19937 (Matsumoto and Nishimura, 1998). Nothing but the reference generator gives Envoy's order.
struct Twister {
    state: [u32; 624],
    next: usize,
}

impl Twister {
    fn new(seed: u64) -> Self {
        let mut state = [0; 624];
        // Its seed has 32 bits.
        state[0] = seed as u32;
        for i in 1..624 {
            let before: u32 = state[i - 1];
            state[i] =
                1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: 624 }
    }

    fn turn(&mut self) {
        for i in 0..624 {
            let bits = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
            let odd = if bits & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + 397) % 624] ^ (bits >> 1) ^ odd;
        }
        self.next = 0;
    }

    fn draw(&mut self) -> u32 {
        if self.next == 624 {
            self.turn();
        }
        let mut bits = self.state[self.next];
        self.next += 1;
        bits ^= bits >> 11;
        bits ^= (bits << 7) & 0x9d2c_5680;
        bits ^= (bits << 15) & 0xefc6_0000;
        bits ^ (bits >> 18)
    }

    /// Evenly from `0..end`; `end` is at least 1.
    fn below(&mut self, end: u32) -> u32 {
        let bucket = (1_u64 << 32) / u64::from(end);
        loop {
            let drawn = u64::from(self.draw()) / bucket;
            if drawn < u64::from(end) {
                return drawn as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Busy;
    use super::*;

    #[test]
    fn the_generator_is_the_reference() {
        // The ten thousandth number of the default seed is in the C++ standard (rand.predef).
        let mut twister = Twister::new(5489);
        let last = (0..10_000).map(|_| twister.draw()).last();
        assert_eq!(last, Some(4_123_659_995));
        assert_eq!(Twister::new(5489).draw(), 3_499_211_612);
    }

    #[test]
    fn whoever_has_his_share_is_passed_over() {
        let bound = Bound::new(&[0.25; 4], Some(150)).unwrap();
        // (8 + 1) * 1.5 = 14 slots, of which a quarter is 4.
        assert_eq!(bound.pick(1, 0, &Busy(vec![4, 2, 1, 1])), 0);
        let other = bound.pick(1, 0, &Busy(vec![5, 1, 1, 1]));
        assert_ne!(other, 0);
        assert_eq!(bound.pick(1, 0, &Busy(vec![5, 1, 1, 1])), other);
        assert!(Bound::new(&[1.0], None).is_none());
    }
}
