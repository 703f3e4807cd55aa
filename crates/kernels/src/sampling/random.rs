//! Random numbers by counting: the same (seed, position) gives the same number anywhere.

/// A number in [0, 1), 53 bits of it random, for one position of one sequence:
/// Philox 4x32-10 (Salmon et al. 2011) with `seed` as key and `position` as counter.
pub fn uniform(seed: u64, position: u64) -> f64 {
    let words = |x: u64| [x as u32, (x >> 32) as u32];
    let [low, high] = words(position);
    let out = philox([low, high, 0, 0], words(seed));
    let bits = u64::from(out[0]) | u64::from(out[1]) << 32;
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Four numbers for a counter and a key (Philox 4x32-10).
pub(crate) fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_vectors() {
        // Random123's kat_vectors.
        let all = u32::MAX;
        for (counter, key, expected) in [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [all; 4],
                [all; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn uniform_fills_the_unit_interval_evenly() {
        let mut counts = [0u32; 16];
        for position in 0..160_000 {
            counts[(uniform(7, position) * 16.0) as usize] += 1;
        }
        let chi_squared: f64 = counts
            .iter()
            .map(|&n| (f64::from(n) - 10_000.0).powi(2) / 10_000.0)
            .sum();
        assert!(chi_squared < 37.7, "{chi_squared}"); // 15 degrees of freedom, p = 0.001
    }

    #[test]
    fn seed_and_position_both_matter() {
        let numbers = [
            uniform(0, 0),
            uniform(1, 0),
            uniform(0, 1),
            uniform(1 << 32, 0),
        ];
        for (i, a) in numbers.iter().enumerate() {
            assert!(numbers[i + 1..].iter().all(|b| a != b));
        }
    }
}
