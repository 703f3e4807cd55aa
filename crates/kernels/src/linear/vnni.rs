//! Products of a tile of 16 weight rows with up to 8 activation rows by `vpdpbusd`.
//!
//! A weight line is loaded and unpacked once for all rows of the call. Integer sums are exact, so
//! the AMX kernel gets the same ones in another order; what follows them (`simd::add_*`) is shared.

use core::arch::x86_64::*;

use super::activations::{COARSE_SUMS, RowBlock, Words};
use super::memory::Line;
use super::packed::{Halves, Q4Meta, Q6Meta};
use super::simd::{
    add_q4, add_q6, add_q8, load_halves, load_i8, load_line, load_pairs, load_u8, min_sums,
    nibbles, q6_groups,
};

/// Most rows of one call: their sums, and a tile's weights, stay in registers.
pub(super) const MAX_ROWS: usize = 8;

/// `R` values from `at` on.
#[inline]
fn run<T, const R: usize>(values: &[T], at: usize) -> &[T; R] {
    values[at..at + R].try_into().expect("R values were sliced")
}

/// Q8_0: quants and scales of a tile, rows `first .. first + R` of the block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn q8_rows<const R: usize>(
    quants: &[Line],
    meta: &[Halves],
    x: RowBlock<'_>,
    first: usize,
) -> [__m512; R] {
    let mut acc = [_mm512_setzero_ps(); R];
    for (b, (lines, d)) in quants.chunks_exact(8).zip(meta).enumerate() {
        let words: &[Words; R] = run(x.lines, b / 2 * x.rows + first);
        let offsets: &[i32; R] = run(x.sums, b * x.rows + first);
        let scales: &[f32; R] = run(x.scales, b * x.rows + first);
        let mut sum = [_mm512_setzero_si512(); R];
        for r in 0..R {
            sum[r] = _mm512_set1_epi32(offsets[r]);
        }
        let half = b % 2 * 8;
        for (g, line) in lines.iter().enumerate() {
            let weights = load_line(line);
            for r in 0..R {
                sum[r] =
                    _mm512_dpbusd_epi32(sum[r], weights, _mm512_set1_epi32(words[r].0[half + g]));
            }
        }
        let d = load_halves(d);
        for r in 0..R {
            acc[r] = add_q8(acc[r], sum[r], d, scales[r]);
        }
    }
    acc
}

/// Q4_K, as [`q8_rows`].
///
/// The integer total of 256 products is formed in f32: four 32-blocks stay below
/// 4 * 63 * 32 * 15 * 127 < 2^24 and are exact, and the sum of the two halves is rounded once, as
/// the conversion of the integer would be.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn q4_rows<const R: usize>(
    quants: &[Line],
    meta: &[Q4Meta],
    x: RowBlock<'_>,
    first: usize,
) -> [__m512; R] {
    let mut acc = [_mm512_setzero_ps(); R];
    for (b, (lines, meta)) in quants.chunks_exact(32).zip(meta).enumerate() {
        let mut total = [_mm512_setzero_ps(); R];
        for (half, lines) in lines.chunks_exact(16).enumerate() {
            let mut part = [_mm512_setzero_ps(); R];
            for (s, lines) in lines.chunks_exact(4).enumerate() {
                let j = half * 4 + s;
                let words: &[Words; R] = run(x.lines, (b * 4 + j / 2) * x.rows + first);
                let mut sum = [_mm512_setzero_si512(); R];
                for (i, line) in lines.iter().enumerate() {
                    let [low, high] = nibbles(load_line(line));
                    let at = s % 2 * 8 + i;
                    for r in 0..R {
                        sum[r] =
                            _mm512_dpbusd_epi32(sum[r], low, _mm512_set1_epi32(words[r].0[at]));
                        sum[r] = _mm512_dpbusd_epi32(
                            sum[r],
                            high,
                            _mm512_set1_epi32(words[r].0[at + 4]),
                        );
                    }
                }
                let scale = _mm512_cvtepi32_ps(load_u8(&meta.scales[j]));
                for r in 0..R {
                    part[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r]), scale, part[r]);
                }
            }
            for r in 0..R {
                total[r] = _mm512_add_ps(total[r], part[r]);
            }
        }
        let d = [load_halves(&meta.d), load_halves(&meta.dmin)];
        let mut pairs = [_mm512_setzero_si512(); 4];
        for (pair, mins) in pairs.iter_mut().zip(&meta.mins) {
            *pair = load_pairs(mins);
        }
        let scales: &[f32; R] = run(x.scales, b * x.rows + first);
        for r in 0..R {
            let at = |p: usize| x.sums[(b * COARSE_SUMS + p) * x.rows + first + r];
            let mins = min_sums(&pairs, [at(0), at(1), at(2), at(3)]);
            acc[r] = add_q4(acc[r], total[r], mins, d, scales[r]);
        }
    }
    acc
}

/// Q6_K, as [`q8_rows`]; the quants are 0 ..= 63, the sums start at -32 times those of the row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn q6_rows<const R: usize>(
    quants: &[Line],
    meta: &[Q6Meta],
    x: RowBlock<'_>,
    first: usize,
) -> [__m512; R] {
    let mut acc = [_mm512_setzero_ps(); R];
    for (b, (lines, meta)) in quants.chunks_exact(48).zip(meta).enumerate() {
        let mut total = [_mm512_setzero_si512(); R];
        for (j, lines) in lines.chunks_exact(3).enumerate() {
            let words: &[Words; R] = run(x.lines, (b * 4 + j / 4) * x.rows + first);
            let offsets: &[i32; R] = run(x.sums, (b * COARSE_SUMS + 4 + j) * x.rows + first);
            let groups = q6_groups(lines.try_into().expect("chunks of three"));
            let scale = load_i8(&meta.scales[j]);
            let mut sum = [_mm512_setzero_si512(); R];
            for r in 0..R {
                sum[r] = _mm512_set1_epi32(offsets[r]);
            }
            for (g, &weights) in groups.iter().enumerate() {
                for r in 0..R {
                    let word = words[r].0[j % 4 * 4 + g];
                    sum[r] = _mm512_dpbusd_epi32(sum[r], weights, _mm512_set1_epi32(word));
                }
            }
            for r in 0..R {
                total[r] = _mm512_add_epi32(total[r], _mm512_mullo_epi32(sum[r], scale));
            }
        }
        let d = load_halves(&meta.d);
        let scales: &[f32; R] = run(x.scales, b * x.rows + first);
        for r in 0..R {
            acc[r] = add_q6(acc[r], total[r], d, scales[r]);
        }
    }
    acc
}
