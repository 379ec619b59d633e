//! Weighted random choice in constant time (Walker's alias method, Vose's construction).

use super::below;

/// Each column holds its own index up to its threshold, and another index above it.
#[derive(Debug)]
pub(super) struct Alias {
    columns: Box<[(u32, u32)]>,
}

impl Alias {
    pub(super) fn new(shares: &[f64]) -> Self {
        let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
        let mut height: Vec<f64> = shares.iter().map(|share| share / mean).collect();
        let mut columns: Vec<(u32, u32)> =
            (0..shares.len()).map(|index| (u32::MAX, index as u32)).collect();
        let (mut low, mut high): (Vec<usize>, Vec<usize>) =
            (0..height.len()).partition(|index| height[*index] < 1.0);
        while let (Some(small), Some(large)) = (low.pop(), high.last().copied()) {
            columns[small] = ((height[small] * f64::from(u32::MAX)) as u32, large as u32);
            height[large] -= 1.0 - height[small];
            if height[large] < 1.0 {
                high.pop();
                low.push(large);
            }
        }
        Self { columns: columns.into() }
    }

    /// Index by weight; None if there is none.
    pub(super) fn pick(&self, random: u64) -> Option<usize> {
        let index = below(self.columns.len(), random);
        let (threshold, other) = *self.columns.get(index)?;
        // The upper bits chose the column; the lower ones are as good as independent of it.
        Some(if (random as u32) <= threshold { index } else { other as usize })
    }
}

#[cfg(test)]
mod tests {
    use super::super::mix;
    use super::*;

    #[test]
    fn chances_follow_weights() {
        assert_eq!(Alias::new(&[]).pick(1), None);
        let weights = [1.0, 2.0, 3.0, 0.5, 10.0];
        let alias = Alias::new(&weights);
        let mut hits = [0_u32; 5];
        for i in 0..200_000_u64 {
            hits[alias.pick(mix(i)).unwrap()] += 1;
        }
        for (weight, hits) in weights.iter().zip(hits) {
            let expected = 200_000.0 * weight / 16.5;
            assert!((f64::from(hits) - expected).abs() < expected * 0.05 + 100.0, "{hits}");
        }
    }
}
