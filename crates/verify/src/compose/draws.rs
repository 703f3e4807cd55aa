//! Random numbers for drawing constraints: a counter and a mixing function, and what is made of
//! 64 random bits at a time.

/// Number `i` of the stream of a seed is the SplitMix64 mix (Steele, Lea and Flood 2014) of
/// `seed + (i + 1) * golden`, so equal seeds give equal draws on every machine.
#[derive(Debug, Clone)]
pub struct Draws {
    state: u64,
}

impl Draws {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Mixed once, so that the streams of neighbouring seeds do not overlap shifted by one.
        Self {
            state: mix(seed ^ 0x5851_f42d_4c95_7f2d),
        }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(Self::GOLDEN);
        mix(self.state)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number of `0..len`, `len` at least 1: the high half of a 64 by 64 bit product, whose bias is below 2^-50
/// for the short lists drawn from here.
pub fn below(bits: &mut dyn FnMut() -> u64, len: usize) -> usize {
    let product = u128::from(bits()) * len as u128;
    (product >> 64) as usize
}

/// A number of `low..=high`.
pub fn between(bits: &mut dyn FnMut() -> u64, low: usize, high: usize) -> usize {
    low + below(bits, high.saturating_sub(low) + 1)
}

/// One of a list that has at least one entry.
pub fn pick<T: Copy>(bits: &mut dyn FnMut() -> u64, list: &[T]) -> T {
    list[below(bits, list.len())]
}

/// A number from 0 to 1, 1 excluded: 53 bits.
pub fn unit(bits: &mut dyn FnMut() -> u64) -> f64 {
    (bits() >> 11) as f64 / (1_u64 << 53) as f64
}
