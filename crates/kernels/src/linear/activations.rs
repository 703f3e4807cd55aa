//! Activations as 8-bit integers with f32 scales, in the layout that both integer kernels read.
//!
//! Rows lie in blocks of up to 16; inside a block, 64 values of each row follow each other
//! (row block, k / 64, row, 64 bytes): a tile load of the AMX kernel, consecutive lines for the
//! broadcasts of the VNNI kernel.
//!
//! A group of values that holds a NaN or an infinity gets the scale NaN, so that every output of
//! its row is NaN.
#![expect(
    unsafe_code,
    reason = "vector loads and stores; rows are quantised on several threads"
)]

use core::arch::x86_64::*;
use std::ops::Range;

use candle_core::utils::barrier_pool;

use super::memory::huge_vec;
use super::packed::{PackedFormat, SUPER};
use crate::parallel::Shared;

/// Rows in a block.
pub(super) const ROW_BLOCK: usize = 16;

/// 64 values of one row, four to a word.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Words(pub(super) [i32; 16]);

/// How many values share a scale, and which sums the kernels need beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// A scale per 32 values; sums per 32. For Q8_0.
    Fine,
    /// A scale per 256 values; sums per 16 and per 32. For the k-quants, whose 6-bit or 8-bit
    /// scales then stay inside one exact integer sum of 256 products.
    Coarse,
}

impl Grain {
    pub(super) fn of(format: PackedFormat) -> Self {
        match format {
            PackedFormat::Q8 => Self::Fine,
            PackedFormat::Q4 | PackedFormat::Q6 => Self::Coarse,
        }
    }

    fn values_per_scale(self) -> usize {
        match self {
            Self::Fine => 32,
            Self::Coarse => SUPER,
        }
    }

    /// Entries of `sums` per scale.
    fn sums_per_scale(self) -> usize {
        match self {
            Self::Fine => 1,
            Self::Coarse => COARSE_SUMS,
        }
    }
}

/// Sums per 256 values: four words of two 16-bit sums over 32 values each (what the minima of
/// Q4_K are multiplied with), then 16 words of `-32 *` the sum over 16 values (the offset of Q6_K).
pub(super) const COARSE_SUMS: usize = 20;

/// Quantised rows.
pub(super) struct Activations {
    pub(super) rows: usize,
    pub(super) grain: Grain,
    /// 64-value columns of a row, padding included.
    columns: usize,
    /// Scales of a row, padding included.
    groups: usize,
    lines: Vec<Words>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

/// One block of up to 16 rows.
#[derive(Clone, Copy)]
pub(super) struct RowBlock<'a> {
    pub(super) rows: usize,
    /// (k / 64, row). A tile load may read 16 lines from any of them.
    pub(super) lines: &'a [Words],
    /// (scale group, row)
    pub(super) scales: &'a [f32],
    /// (scale group, sum, row)
    pub(super) sums: &'a [i32],
}

impl Activations {
    /// Quantises `rows` rows of `k` values.
    pub(super) fn quantise(x: &[f32], k: usize, grain: Grain) -> Self {
        let rows = x.len() / k;
        let columns = k.div_ceil(64);
        let groups = (columns * 64).div_ceil(grain.values_per_scale());
        // A tile load reads 16 rows even in the last, lower block: room for those lines.
        let mut lines = huge_vec(rows * columns + ROW_BLOCK, Words([0; 16]));
        let mut scales = huge_vec(rows * groups, 0f32);
        let mut sums = huge_vec(rows * groups * grain.sums_per_scale(), 0i32);
        {
            let per_row = [columns, groups, groups * grain.sums_per_scale()];
            let shared = (
                Shared::new(&mut lines),
                Shared::new(&mut scales),
                Shared::new(&mut sums),
            );
            let block = |b: usize| {
                let first = b * ROW_BLOCK;
                let count = ROW_BLOCK.min(rows - first);
                let [l, c, s] = per_row.map(|n| (first * n, count * n));
                // SAFETY: blocks are disjoint and each is handed out once.
                let lines = unsafe { shared.0.slice(l.0..l.0 + l.1) };
                // SAFETY: as above.
                let scales = unsafe { shared.1.slice(c.0..c.0 + c.1) };
                // SAFETY: as above.
                let sums = unsafe { shared.2.slice(s.0..s.0 + s.1) };
                let x = &x[first * k..(first + count) * k];
                // SAFETY: this module is entered only where the CPU has these instructions.
                unsafe { quantise_block(x, k, grain, (lines, scales, sums)) };
            };
            let blocks = rows.div_ceil(ROW_BLOCK);
            if rows * k < 1 << 15 {
                (0..blocks).for_each(block);
            } else {
                barrier_pool().execute_chunked(blocks, |range| range.for_each(&block));
            }
        }
        Self {
            rows,
            grain,
            columns,
            groups,
            lines,
            scales,
            sums,
        }
    }

    /// The blocks that hold these rows; `rows.start` is a multiple of 16.
    pub(super) fn blocks(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, RowBlock<'_>)> {
        rows.clone().step_by(ROW_BLOCK).map(move |first| {
            let count = ROW_BLOCK.min(self.rows - first);
            let sums = self.groups * self.grain.sums_per_scale();
            let block = RowBlock {
                rows: count,
                lines: &self.lines
                    [first * self.columns..(first + count) * self.columns + ROW_BLOCK],
                scales: &self.scales[first * self.groups..(first + count) * self.groups],
                sums: &self.sums[first * sums..(first + count) * sums],
            };
            (first, block)
        })
    }
}

/// Quantises the rows of one block into its lines, scales and sums.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn quantise_block(x: &[f32], k: usize, grain: Grain, out: (&mut [Words], &mut [f32], &mut [i32])) {
    let (lines, scales, sums) = out;
    let rows = x.len() / k;
    let (values, sums_per) = (grain.values_per_scale(), grain.sums_per_scale());
    for (r, row) in x.chunks_exact(k).enumerate() {
        for (g, group) in row.chunks(values).enumerate() {
            let (scale, inverse) = group_scale(group);
            scales[g * rows + r] = scale;
            let mut sixteens = [0i32; 16];
            for (i, part) in group.chunks_exact(16).enumerate() {
                let at = g * values + i * 16;
                let line = &mut lines[at / 64 * rows + r];
                let words: &mut [i32; 4] = (&mut line.0[at % 64 / 4..][..4])
                    .try_into()
                    .expect("four words");
                sixteens[i] = quantise_16(part.try_into().expect("chunks of 16"), inverse, words);
            }
            let sums = &mut sums[g * sums_per * rows..][..sums_per * rows];
            match grain {
                Grain::Fine => sums[r] = -128 * (sixteens[0] + sixteens[1]),
                Grain::Coarse => coarse_sums(&sixteens, sums, r, rows),
            }
        }
    }
}

fn coarse_sums(sixteens: &[i32; 16], sums: &mut [i32], r: usize, rows: usize) {
    for pair in 0..4 {
        let s = &sixteens[pair * 4..][..4];
        let (even, odd) = (s[0] + s[1], s[2] + s[3]); // within +-32 * 127, so 16 bits hold them
        sums[pair * rows + r] = (even & 0xffff) | odd << 16;
    }
    for (i, sum) in sixteens.iter().enumerate() {
        sums[(4 + i) * rows + r] = -32 * sum;
    }
}

/// Scale of a group and the factor that brings its values to -127 ..= 127.
/// NaN and 0 if a value is not finite; 0 and 0 if all are too small to matter.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn group_scale(group: &[f32]) -> (f32, f32) {
    let mut largest = _mm512_setzero_si512();
    for part in group.chunks_exact(16) {
        // SAFETY: the chunk holds 16 floats.
        let v = unsafe { _mm512_loadu_si512(part.as_ptr().cast()) };
        // Without the sign, the order of the bits is the order of the values, NaN above infinity.
        largest = _mm512_max_epu32(largest, _mm512_and_si512(v, _mm512_set1_epi32(i32::MAX)));
    }
    let largest = f32::from_bits(_mm512_reduce_max_epu32(largest));
    if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if largest < SMALLEST {
        (0.0, 0.0)
    } else {
        (largest / 127.0, 127.0 / largest)
    }
}

/// Below this 127 / largest would overflow; such groups count as zero.
pub(super) const SMALLEST: f32 = 1e-35;

/// Rounds 16 values times `inverse` to nearest (ties to even), stores them, returns their sum.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn quantise_16(values: &[f32; 16], inverse: f32, words: &mut [i32; 4]) -> i32 {
    if inverse == 0.0 {
        *words = [0; 4]; // also where a value is not finite: 0 times it would not be 0
        return 0;
    }
    // SAFETY: 16 floats are readable.
    let v = unsafe { _mm512_loadu_ps(values.as_ptr()) };
    let q = _mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(inverse)));
    // SAFETY: 16 bytes are writable.
    unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(q)) };
    _mm512_reduce_add_epi32(q)
}
