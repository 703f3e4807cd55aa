//! Random choices of one document.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The stream of one document: equal seed and index, equal choices on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// Stream `index` of `seed`; streams are independent of each other.
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        Self(rng)
    }

    /// Another stream, which the next draws do not touch.
    pub(crate) fn fork(&mut self) -> Self {
        Self(ChaCha8Rng::seed_from_u64(self.bits()))
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number of `0..len`; `len` is at least 1.
    pub(crate) fn below(&mut self, len: usize) -> usize {
        let product = u128::from(self.bits()) * len as u128;
        (product >> 64) as usize
    }

    /// A number of `low..=high`.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        // 53 bits: every multiple of 2^-53 below 1.
        ((self.bits() >> 11) as f64) < probability * (1_u64 << 53) as f64
    }

    /// One of a list that is not empty.
    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// Puts the list into random order.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.below(end + 1));
        }
    }

    /// An index, each as likely as its weight; 0 where no weight is positive.
    pub(crate) fn weighted(&mut self, weights: impl Iterator<Item = f64> + Clone) -> usize {
        let total: f64 = weights.clone().sum();
        let mut left = total * (self.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        let mut last = 0;
        for (index, weight) in weights.enumerate() {
            if weight > 0.0 {
                last = index;
                if left < weight {
                    return index;
                }
                left -= weight;
            }
        }
        last
    }
}

/// A number that depends on the text alone, for fixed assignments such as splits.
pub(crate) fn fixed(text: &str) -> u64 {
    let hash = blake3::hash(text.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_stay_in_range_and_follow_their_weights() {
        let mut dice = Dice::new(1, 2);
        let mut counts = [0; 3];
        for _ in 0..4000 {
            counts[dice.weighted([1.0, 0.0, 3.0].into_iter())] += 1;
            assert!((2..=5).contains(&dice.between(2, 5)));
        }
        assert_eq!(counts[1], 0);
        assert!((900..1100).contains(&counts[0]), "{counts:?}");
        let mut list = [1, 2, 3, 4];
        dice.shuffle(&mut list);
        list.sort_unstable();
        assert_eq!(list, [1, 2, 3, 4]);
        assert_ne!(Dice::new(1, 2).bits(), Dice::new(1, 3).bits());
    }
}
