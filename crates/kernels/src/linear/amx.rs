//! Products of two tiles of 16 weight rows with many activation rows on the AMX tile unit.
//!
//! Per 256 values of k the weights are unpacked once into signed bytes that fit the first-level
//! cache, then every block of 16 rows is multiplied with them. The integers are those of the VNNI
//! kernel:
//!
//! - Q8_0: one product per 32 values (its scales are floats).
//! - Q4_K: `scale * q` is split as `8 * (scale / 8) * q + (scale % 8) * q`; both parts fit a signed
//!   byte, so the 256 values need no scale in between.
//! - Q6_K: `scale * (q - 32)`, 13 bits and a sign, is split as `64 * high + low`.
//!
//! The tile products of a step are issued before the float work of the step before, so that the
//! two overlap.
#![expect(unsafe_code, reason = "tile instructions exist as assembly only")]

use core::arch::asm;
use core::arch::x86_64::*;

use super::activations::{COARSE_SUMS, ROW_BLOCK, RowBlock, Words};
use super::memory::Line;
use super::packed::{Halves, Meta, Packed, Q4Meta, Q6Meta, TILE};
use super::simd::{
    add_q4, add_q6, add_q8, load_floats, load_halves, load_i8, load_line, load_pairs, load_u8,
    load_words, min_sums, nibbles, q6_groups, store_floats, store_line,
};

/// Shapes of the eight tile registers: 0-3 sums, 4 activations, 5-7 weights.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    const EMPTY: Self = Self {
        palette: 0,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
}

/// While it lives, this thread's tile registers have the shapes of one kernel; then those they had
/// before (another library may keep its own).
struct Tiles {
    before: TileConfig,
}

impl Tiles {
    /// `depth`: values of k in one product, 32 or 64.
    ///
    /// # Safety
    /// The process was granted the tile registers.
    unsafe fn shape(depth: u8) -> Self {
        let mut config = TileConfig {
            palette: 1,
            ..TileConfig::EMPTY
        };
        for register in 0..8 {
            config.row_bytes[register] = if register == 4 { u16::from(depth) } else { 64 };
            config.rows[register] = if register < 5 { 16 } else { depth / 4 };
        }
        let mut before = TileConfig::EMPTY;
        // SAFETY: stores 64 bytes to an aligned struct of 64 bytes.
        unsafe { asm!("sttilecfg [{}]", in(reg) &raw mut before, options(nostack)) };
        // SAFETY: loads a configuration whose shapes the registers can have.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
        Self { before }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: loads what the processor itself stored.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const self.before, options(nostack, readonly))
        };
    }
}

/// 16 x 16 sums of four registers: (register, row, column).
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Sums([[[i32; TILE]; ROW_BLOCK]; 4]);

/// Working memory of a thread.
pub(super) struct Scratch {
    /// Weights of 256 values of k, unpacked.
    weights: Box<[Line; 256]>,
    /// Sums of the step in flight and of the one before.
    sums: Box<[Sums; 2]>,
    /// Outputs so far: (row, tile of the pair, column).
    pub(super) acc: Vec<[[f32; TILE]; 2]>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            weights: Box::new([Line::ZERO; 256]),
            sums: Box::new([Sums([[[0; TILE]; ROW_BLOCK]; 4]); 2]),
            acc: Vec::new(),
        }
    }
}

/// Multiplies the tiles `pair` with all blocks; `scratch.acc` receives 16 entries per block.
///
/// # Safety
/// The process was granted the tile registers, and the processor has the AVX-512 parts named below.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn multiply_pair(
    weights: &Packed,
    pair: [usize; 2],
    blocks: &[(usize, RowBlock<'_>)],
    scratch: &mut Scratch,
) {
    scratch.acc.clear();
    scratch
        .acc
        .resize(blocks.len() * ROW_BLOCK, [[0.0; TILE]; 2]);
    let quants = pair.map(|t| &weights.quants[t * weights.tile_lines()..][..weights.tile_lines()]);
    let meta = pair.map(|t| t * weights.blocks..(t + 1) * weights.blocks);
    match &weights.meta {
        // SAFETY: as promised by the caller, here and below.
        Meta::Q8(m) => unsafe { q8_pair(quants, meta.map(|range| &m[range]), blocks, scratch) },
        // SAFETY: as above.
        Meta::Q4(m) => unsafe { q4_pair(quants, meta.map(|range| &m[range]), blocks, scratch) },
        // SAFETY: as above.
        Meta::Q6(m) => unsafe { q6_pair(quants, meta.map(|range| &m[range]), blocks, scratch) },
    }
}

/// Asks for lines that are needed soon.
#[target_feature(enable = "avx512f")]
fn prefetch<T>(values: &[T]) {
    let bytes = size_of_val(values);
    for at in (0..bytes).step_by(64) {
        // SAFETY: the address lies inside the slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast::<i8>().add(at)) };
    }
}

/// # Safety
/// As [`multiply_pair`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn q8_pair(
    quants: [&[Line]; 2],
    meta: [&[Halves]; 2],
    blocks: &[(usize, RowBlock<'_>)],
    scratch: &mut Scratch,
) {
    // SAFETY: as promised by the caller.
    let _tiles = unsafe { Tiles::shape(32) };
    // (block of rows, 64 values) of the step before. Plain numbers: a struct copied here would be
    // read back before its parts have left the store buffer, behind the tile stores.
    let mut previous: Option<(usize, usize)> = None;
    let mut which = 0;
    for first in (0..meta[0].len()).step_by(8) {
        let count = 8.min(meta[0].len() - first);
        unpack_q8(
            quants.map(|q| &q[first * 8..(first + count) * 8]),
            &mut scratch.weights,
        );
        for quants in quants {
            prefetch(
                &quants
                    [((first + count) * 8).min(quants.len())..((first + 16) * 8).min(quants.len())],
            );
        }
        for (b, (_, x)) in blocks.iter().enumerate() {
            for group in 0..count / 2 {
                let column = first / 2 + group;
                let lines = &x.lines[column * x.rows..][..ROW_BLOCK];
                let weights = &scratch.weights[group * 32..][..32];
                // SAFETY: 16 lines of activations, 32 of weights, the registers are shaped for them.
                unsafe { q8_products(lines, weights, &mut scratch.sums[which]) };
                if let Some((b, column)) = previous.replace((b, column)) {
                    let acc = &mut scratch.acc[b * ROW_BLOCK..];
                    q8_finish(&blocks[b].1, meta, column, &scratch.sums[1 - which], acc);
                }
                which = 1 - which;
            }
        }
    }
    if let Some((b, column)) = previous {
        let acc = &mut scratch.acc[b * ROW_BLOCK..];
        q8_finish(&blocks[b].1, meta, column, &scratch.sums[1 - which], acc);
    }
}

/// To signed bytes, in the order (two 32-blocks, tile, line).
#[target_feature(enable = "avx512f")]
fn unpack_q8(quants: [&[Line]; 2], weights: &mut [Line; 256]) {
    let sign = _mm512_set1_epi8(i8::MIN);
    for (tile, quants) in quants.into_iter().enumerate() {
        for (block, lines) in quants.chunks_exact(8).enumerate() {
            let to = &mut weights[(block * 2 + tile) * 8..][..8];
            for (to, line) in to.iter_mut().zip(lines) {
                store_line(to, _mm512_xor_si512(load_line(line), sign));
            }
        }
    }
}

/// Sums of 64 values: registers (32-block, tile).
///
/// # Safety
/// The registers are shaped for a depth of 32; 16 lines of `x`, 32 of `weights`.
unsafe fn q8_products(x: &[Words], weights: &[Line], sums: &mut Sums) {
    assert!(x.len() == 16 && weights.len() == 32);
    // SAFETY: reads and writes the lines named above.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "tileloadd tmm4, [{x} + {s}*1]",
            "tileloadd tmm5, [{w} + {s}*1]",
            "tdpbssd tmm0, tmm4, tmm5",
            "tileloadd tmm6, [{w} + {s}*1 + 512]",
            "tdpbssd tmm1, tmm4, tmm6",
            "tileloadd tmm4, [{x} + {s}*1 + 32]",
            "tileloadd tmm7, [{w} + {s}*1 + 1024]",
            "tdpbssd tmm2, tmm4, tmm7",
            "tileloadd tmm5, [{w} + {s}*1 + 1536]",
            "tdpbssd tmm3, tmm4, tmm5",
            "tilestored [{c} + {s}*1], tmm0",
            "tilestored [{c} + {s}*1 + 1024], tmm1",
            "tilestored [{c} + {s}*1 + 2048], tmm2",
            "tilestored [{c} + {s}*1 + 3072], tmm3",
            x = in(reg) x.as_ptr(),
            w = in(reg) weights.as_ptr(),
            c = in(reg) &raw mut *sums,
            s = in(reg) 64usize,
            options(nostack),
        );
    }
}

/// Scales the sums of the 64 values `column` and adds them to the outputs of one block of rows.
#[target_feature(enable = "avx512f")]
#[inline]
fn q8_finish(
    x: &RowBlock<'_>,
    [m0, m1]: [&[Halves]; 2],
    column: usize,
    sums: &Sums,
    acc: &mut [[[f32; TILE]; 2]],
) {
    let rows = x.rows.min(ROW_BLOCK);
    let even = &x.scales[column * 2 * x.rows..][..rows];
    let odd = &x.scales[(column * 2 + 1) * x.rows..][..rows];
    let acc = &mut acc[..rows];
    let (d0, d1) = (load_halves(&m0[column * 2]), load_halves(&m1[column * 2]));
    let (e0, e1) = (
        load_halves(&m0[column * 2 + 1]),
        load_halves(&m1[column * 2 + 1]),
    );
    for r in 0..rows {
        let [a0, a1] = &mut acc[r];
        let [s0, s1, t0, t1] = [0, 1, 2, 3].map(|register| &sums.0[register][r]);
        let first = add_q8(load_floats(a0), load_words(s0), d0, even[r]);
        store_floats(a0, add_q8(first, load_words(t0), e0, odd[r]));
        let first = add_q8(load_floats(a1), load_words(s1), d1, even[r]);
        store_floats(a1, add_q8(first, load_words(t1), e1, odd[r]));
    }
}

/// Sums of 256 values with weights in two parts: registers (tile, part).
///
/// # Safety
/// The registers are shaped for a depth of 64; `x` holds 16 lines from the first of each of the
/// four columns, `stride` bytes apart.
unsafe fn coarse_products(x: &[Words], stride: usize, weights: &[Line; 256], sums: &mut Sums) {
    assert!(x.len() * 64 >= stride * 3 + 1024);
    // SAFETY: reads and writes the lines named above.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{x} + {s}*1]",
            "tileloadd tmm5, [{w} + {s}*1]",
            "tdpbssd tmm0, tmm4, tmm5",
            "tileloadd tmm6, [{w} + {s}*1 + 1024]",
            "tdpbssd tmm1, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {s}*1 + 2048]",
            "tdpbssd tmm2, tmm4, tmm7",
            "tileloadd tmm5, [{w} + {s}*1 + 3072]",
            "tdpbssd tmm3, tmm4, tmm5",
            "add {x}, {stride}",
            "add {w}, 4096",
            "dec {n}",
            "jnz 2b",
            "tilestored [{c} + {s}*1], tmm0",
            "tilestored [{c} + {s}*1 + 1024], tmm1",
            "tilestored [{c} + {s}*1 + 2048], tmm2",
            "tilestored [{c} + {s}*1 + 3072], tmm3",
            x = inout(reg) x.as_ptr() => _,
            w = inout(reg) weights.as_ptr() => _,
            n = inout(reg) 4usize => _,
            c = in(reg) &raw mut *sums,
            s = in(reg) 64usize,
            stride = in(reg) stride,
            options(nostack),
        );
    }
}

/// # Safety
/// As [`multiply_pair`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn q4_pair(
    quants: [&[Line]; 2],
    meta: [&[Q4Meta]; 2],
    blocks: &[(usize, RowBlock<'_>)],
    scratch: &mut Scratch,
) {
    // SAFETY: as promised by the caller.
    let _tiles = unsafe { Tiles::shape(64) };
    for block in 0..meta[0].len() {
        let meta = meta.map(|m| &m[block]);
        for tile in 0..2 {
            unpack_q4(
                &quants[tile][block * 32..][..32],
                meta[tile],
                tile,
                &mut scratch.weights,
            );
            let next = ((block + 1) * 32).min(quants[tile].len());
            prefetch(&quants[tile][next..(next + 32).min(quants[tile].len())]);
        }
        let floats = Q4Floats::load(meta);
        // SAFETY: as promised by the caller.
        unsafe {
            coarse_block(block, blocks, scratch, |x, sums, acc| {
                floats.finish(block, x, sums, acc)
            })
        };
    }
}

/// Multiplies the unpacked weights of one 256-block with all blocks of rows; `finish` gets each
/// block's sums and its part of `acc`.
///
/// # Safety
/// As [`multiply_pair`], with the registers shaped for a depth of 64.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn coarse_block(
    block: usize,
    blocks: &[(usize, RowBlock<'_>)],
    scratch: &mut Scratch,
    finish: impl Fn(&RowBlock<'_>, &Sums, &mut [[[f32; TILE]; 2]]),
) {
    let Scratch { weights, sums, acc } = scratch;
    for b in 0..=blocks.len() {
        if let Some((_, x)) = blocks.get(b) {
            let lines = &x.lines[block * 4 * x.rows..];
            // SAFETY: the lines of four columns follow, `rows` lines apart.
            unsafe { coarse_products(lines, x.rows * 64, weights, &mut sums[b % 2]) };
        }
        if let Some(before) = b.checked_sub(1) {
            finish(
                &blocks[before].1,
                &sums[before % 2],
                &mut acc[before * ROW_BLOCK..],
            );
        }
    }
}

/// Weights of one tile as (64 values, tile, part, line): part 0 is to be multiplied by 8.
#[target_feature(enable = "avx512f,avx512bw")]
fn unpack_q4(quants: &[Line], meta: &Q4Meta, tile: usize, weights: &mut [Line; 256]) {
    for (j, lines) in quants.chunks_exact(4).enumerate() {
        let scale = load_u8(&meta.scales[j]);
        // Both bytes of a 16-bit lane are multiplied at once: no product exceeds 7 * 15.
        let both = _mm512_or_si512(scale, _mm512_slli_epi32::<16>(scale));
        let (high, low) = (
            _mm512_srli_epi16::<3>(both),
            _mm512_and_si512(both, _mm512_set1_epi16(7)),
        );
        let at = j / 2 * 64 + tile * 32 + j % 2 * 8;
        let to = &mut weights[at..at + 24];
        for (i, line) in lines.iter().enumerate() {
            for (half, q) in nibbles(load_line(line)).into_iter().enumerate() {
                store_line(&mut to[i + half * 4], _mm512_mullo_epi16(q, high));
                store_line(&mut to[16 + i + half * 4], _mm512_mullo_epi16(q, low));
            }
        }
    }
}

/// Scales and minima of one 256-block of a pair of tiles.
struct Q4Floats {
    d: [[__m512; 2]; 2],
    mins: [[__m512i; 4]; 2],
}

impl Q4Floats {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn load(meta: [&Q4Meta; 2]) -> Self {
        let mut floats = Self {
            d: [[_mm512_setzero_ps(); 2]; 2],
            mins: [[_mm512_setzero_si512(); 4]; 2],
        };
        for (tile, meta) in meta.into_iter().enumerate() {
            floats.d[tile] = [load_halves(&meta.d), load_halves(&meta.dmin)];
            for p in 0..4 {
                floats.mins[tile][p] = load_pairs(&meta.mins[p]);
            }
        }
        floats
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    fn finish(&self, block: usize, x: &RowBlock<'_>, sums: &Sums, acc: &mut [[[f32; TILE]; 2]]) {
        let rows = x.rows.min(ROW_BLOCK);
        let scales = &x.scales[block * x.rows..][..rows];
        let pairs = [0, 1, 2, 3].map(|p| &x.sums[(block * COARSE_SUMS + p) * x.rows..][..rows]);
        let acc = &mut acc[..rows];
        for r in 0..rows {
            let pairs = pairs.map(|pairs| pairs[r]);
            let [a0, a1] = &mut acc[r];
            let total = two_parts::<3>(&sums.0[0][r], &sums.0[1][r]);
            let mins = min_sums(&self.mins[0], pairs);
            let sum = add_q4(
                load_floats(a0),
                _mm512_cvtepi32_ps(total),
                mins,
                self.d[0],
                scales[r],
            );
            store_floats(a0, sum);
            let total = two_parts::<3>(&sums.0[2][r], &sums.0[3][r]);
            let mins = min_sums(&self.mins[1], pairs);
            let sum = add_q4(
                load_floats(a1),
                _mm512_cvtepi32_ps(total),
                mins,
                self.d[1],
                scales[r],
            );
            store_floats(a1, sum);
        }
    }
}

/// `2^SHIFT * high + low`.
#[target_feature(enable = "avx512f")]
#[inline]
fn two_parts<const SHIFT: u32>(high: &[i32; TILE], low: &[i32; TILE]) -> __m512i {
    _mm512_add_epi32(
        _mm512_slli_epi32::<SHIFT>(load_words(high)),
        load_words(low),
    )
}

/// # Safety
/// As [`multiply_pair`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn q6_pair(
    quants: [&[Line]; 2],
    meta: [&[Q6Meta]; 2],
    blocks: &[(usize, RowBlock<'_>)],
    scratch: &mut Scratch,
) {
    // SAFETY: as promised by the caller.
    let _tiles = unsafe { Tiles::shape(64) };
    for block in 0..meta[0].len() {
        let meta = meta.map(|m| &m[block]);
        for tile in 0..2 {
            unpack_q6(
                &quants[tile][block * 48..][..48],
                meta[tile],
                tile,
                &mut scratch.weights,
            );
            let next = ((block + 1) * 48).min(quants[tile].len());
            prefetch(&quants[tile][next..(next + 48).min(quants[tile].len())]);
        }
        let mut d = [_mm512_setzero_ps(); 2];
        for tile in 0..2 {
            d[tile] = load_halves(&meta[tile].d);
        }
        // SAFETY: as promised by the caller.
        unsafe {
            coarse_block(block, blocks, scratch, |x, sums, acc| {
                q6_finish(d, block, x, sums, acc)
            })
        };
    }
}

/// As [`unpack_q4`]; part 0 is to be multiplied by 64.
#[target_feature(enable = "avx512f,avx512bw")]
fn unpack_q6(quants: &[Line], meta: &Q6Meta, tile: usize, weights: &mut [Line; 256]) {
    const LOW_BYTES_ELSE_HIGH: i32 = 0xe4; // c ? a : b, with c the mask of the low bytes
    let low_bytes = _mm512_set1_epi16(0xff);
    let (bias, sixty_three) = (_mm512_set1_epi16(32), _mm512_set1_epi16(63));
    for (j, lines) in quants.chunks_exact(3).enumerate() {
        let scale = load_i8(&meta.scales[j]);
        let both = _mm512_mask_blend_epi16(0xaaaa_aaaa, scale, _mm512_slli_epi32::<16>(scale));
        let groups = q6_groups(lines.try_into().expect("chunks of three"));
        for (i, q) in groups.into_iter().enumerate() {
            let even = _mm512_sub_epi16(_mm512_and_si512(q, low_bytes), bias);
            let odd = _mm512_sub_epi16(_mm512_srli_epi16::<8>(q), bias);
            let (even, odd) = (
                _mm512_mullo_epi16(even, both),
                _mm512_mullo_epi16(odd, both),
            );
            let high = _mm512_ternarylogic_epi32::<LOW_BYTES_ELSE_HIGH>(
                _mm512_srai_epi16::<6>(even),
                _mm512_slli_epi16::<2>(odd), // odd / 64 in the upper byte, below it cut off
                low_bytes,
            );
            let low = _mm512_or_si512(
                _mm512_and_si512(even, sixty_three),
                _mm512_slli_epi16::<8>(_mm512_and_si512(odd, sixty_three)),
            );
            let at = j / 4 * 64 + tile * 32 + j % 4 * 4 + i;
            store_line(&mut weights[at], high);
            store_line(&mut weights[at + 16], low);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn q6_finish(
    d: [__m512; 2],
    block: usize,
    x: &RowBlock<'_>,
    sums: &Sums,
    acc: &mut [[[f32; TILE]; 2]],
) {
    let rows = x.rows.min(ROW_BLOCK);
    let scales = &x.scales[block * x.rows..][..rows];
    let acc = &mut acc[..rows];
    for r in 0..rows {
        let [a0, a1] = &mut acc[r];
        let total = two_parts::<6>(&sums.0[0][r], &sums.0[1][r]);
        store_floats(a0, add_q6(load_floats(a0), total, d[0], scales[r]));
        let total = two_parts::<6>(&sums.0[2][r], &sums.0[3][r]);
        store_floats(a1, add_q6(load_floats(a1), total, d[1], scales[r]));
    }
}
