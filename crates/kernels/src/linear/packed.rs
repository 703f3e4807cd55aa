//! Q8_0, Q4_K and Q6_K weights in tiles of 16 rows, the only copy that is kept.
//!
//! A tile holds rows `16t .. 16t + 16` over all of k. Four consecutive values of each of the 16
//! rows form one line of 64 bytes (`byte = row * 4 + value`), which is both what `vpdpbusd` takes
//! for 16 output columns and a row of the second operand of an AMX tile product.
//!
//! | format | quants of a tile | per block of k, for 16 rows | bits a weight |
//! |---|---|---|---|
//! | Q8_0 | u8 = q + 128 | f16 scale per 32 | 8.5 |
//! | Q4_K | line i of a 32-block: values of group i low nibble, of group i + 4 high | f16 d, dmin; u8 scale and min per 32 | 4.625 |
//! | Q6_K | per 16: two lines of low nibbles (groups i, i + 2), one of high bit pairs | f16 d; i8 scale per 16 | 6.5625 |
//!
//! Rows are padded to whole tiles and k to a multiple of 64 with zero scales.

use std::ops::Range;

use candle_core::utils::barrier_pool;
use half::f16;

use super::memory::{Line, huge_vec};
use crate::parallel::Shared;

/// Rows (output columns of a product) in a tile.
pub(super) const TILE: usize = 16;
/// Values in a block of a k-quant.
pub(super) const SUPER: usize = 256;

/// Scales of 16 rows as f16 bits.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Halves(pub(super) [u16; TILE]);

/// What 256 values of 16 rows of Q4_K carry beside the quants.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Q4Meta {
    pub(super) d: Halves,
    pub(super) dmin: Halves,
    /// (32-block, row)
    pub(super) scales: [[u8; TILE]; 8],
    /// (pair of 32-blocks, row, member): the order a 16-bit dot product of pairs wants.
    pub(super) mins: [[[u8; 2]; TILE]; 4],
}

/// What 256 values of 16 rows of Q6_K carry beside the quants.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Q6Meta {
    pub(super) d: Halves,
    /// (16-block, row)
    pub(super) scales: [[i8; TILE]; 16],
}

const ZERO_HALVES: Halves = Halves([0; TILE]);
const ZERO_Q4: Q4Meta = Q4Meta {
    d: ZERO_HALVES,
    dmin: ZERO_HALVES,
    scales: [[0; TILE]; 8],
    mins: [[[0; 2]; TILE]; 4],
};
const ZERO_Q6: Q6Meta = Q6Meta {
    d: ZERO_HALVES,
    scales: [[0; TILE]; 16],
};

/// The scales of all tiles, (tile, block of k).
pub(super) enum Meta {
    Q8(Vec<Halves>),
    Q4(Vec<Q4Meta>),
    Q6(Vec<Q6Meta>),
}

/// A format this module packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PackedFormat {
    Q8,
    Q4,
    Q6,
}

impl PackedFormat {
    /// Values that share one entry of `Meta`.
    pub(super) fn block_size(self) -> usize {
        match self {
            Self::Q8 => 32,
            Self::Q4 | Self::Q6 => SUPER,
        }
    }

    fn block_bytes(self) -> usize {
        match self {
            Self::Q8 => 34,
            Self::Q4 => 144,
            Self::Q6 => 210,
        }
    }

    /// Lines of quants per block and tile.
    pub(super) fn block_lines(self) -> usize {
        match self {
            Self::Q8 => 8,
            Self::Q4 => 32,
            Self::Q6 => 48,
        }
    }
}

/// A weight matrix (rows, k) in tiles.
pub(super) struct Packed {
    pub(super) format: PackedFormat,
    pub(super) rows: usize,
    pub(super) k: usize,
    /// Blocks of k in a tile, padding included.
    pub(super) blocks: usize,
    pub(super) quants: Vec<Line>,
    pub(super) meta: Meta,
}

impl Packed {
    /// Room for `rows` rows of `k` values, all zero; `k` is a multiple of the format's block.
    pub(super) fn zeros(format: PackedFormat, rows: usize, k: usize) -> Self {
        let tiles = rows.div_ceil(TILE);
        let blocks = k.next_multiple_of(64) / format.block_size();
        let meta = match format {
            PackedFormat::Q8 => Meta::Q8(huge_vec(tiles * blocks, ZERO_HALVES)),
            PackedFormat::Q4 => Meta::Q4(huge_vec(tiles * blocks, ZERO_Q4)),
            PackedFormat::Q6 => Meta::Q6(huge_vec(tiles * blocks, ZERO_Q6)),
        };
        let quants = huge_vec(tiles * blocks * format.block_lines(), Line::ZERO);
        Self {
            format,
            rows,
            k,
            blocks,
            quants,
            meta,
        }
    }

    pub(super) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        let meta = match &self.meta {
            Meta::Q8(meta) => size_of_val(meta.as_slice()),
            Meta::Q4(meta) => size_of_val(meta.as_slice()),
            Meta::Q6(meta) => size_of_val(meta.as_slice()),
        };
        meta + size_of_val(self.quants.as_slice())
    }

    /// Lines of quants of one tile.
    pub(super) fn tile_lines(&self) -> usize {
        self.blocks * self.format.block_lines()
    }

    /// Packs `bytes`, the file's blocks of these rows. `rows` starts at a tile and ends at one or
    /// at the last row.
    pub(super) fn pack(&mut self, rows: Range<usize>, bytes: &[u8]) {
        let (format, blocks, lines) = (self.format, self.blocks, self.tile_lines());
        let row_bytes = self.k / format.block_size() * format.block_bytes();
        assert!(
            rows.start.is_multiple_of(TILE) && rows.end <= self.rows,
            "whole tiles"
        );
        assert_eq!(bytes.len(), rows.len() * row_bytes, "bytes of {rows:?}");
        let first = rows.start / TILE;
        let tiles = rows.len().div_ceil(TILE);
        let quants = &mut self.quants[first * lines..(first + tiles) * lines];
        let tile_bytes = |t: usize| bytes.chunks(row_bytes * TILE).nth(t).unwrap_or_default();
        let range = first * blocks..(first + tiles) * blocks;
        match &mut self.meta {
            Meta::Q8(meta) => each_tile(
                quants,
                lines,
                &mut meta[range],
                blocks,
                |t, quants, meta| {
                    each_block(tile_bytes(t), row_bytes, 34, |row, b, bytes| {
                        pack_q8(&mut quants[b * 8..][..8], &mut meta[b], row, bytes);
                    });
                },
            ),
            Meta::Q4(meta) => each_tile(
                quants,
                lines,
                &mut meta[range],
                blocks,
                |t, quants, meta| {
                    each_block(tile_bytes(t), row_bytes, 144, |row, b, bytes| {
                        pack_q4(&mut quants[b * 32..][..32], &mut meta[b], row, bytes);
                    });
                },
            ),
            Meta::Q6(meta) => each_tile(
                quants,
                lines,
                &mut meta[range],
                blocks,
                |t, quants, meta| {
                    each_block(tile_bytes(t), row_bytes, 210, |row, b, bytes| {
                        pack_q6(&mut quants[b * 48..][..48], &mut meta[b], row, bytes);
                    });
                },
            ),
        }
    }

    /// Writes the k values of one row, exactly as the format encodes them.
    pub(super) fn decode_row(&self, row: usize, out: &mut [f32]) {
        let (tile, r) = (row / TILE, row % TILE);
        let lines = &self.quants[tile * self.tile_lines()..][..self.tile_lines()];
        let per_block = self.format.block_lines();
        for (b, out) in out.chunks_exact_mut(self.format.block_size()).enumerate() {
            let quants = &lines[b * per_block..][..per_block];
            let at = tile * self.blocks + b;
            match &self.meta {
                Meta::Q8(meta) => decode_q8(quants, &meta[at], r, out),
                Meta::Q4(meta) => decode_q4(quants, &meta[at], r, out),
                Meta::Q6(meta) => decode_q6(quants, &meta[at], r, out),
            }
        }
    }
}

/// Calls `pack` with the number, the quants and the scales of every tile, on all threads.
#[expect(unsafe_code, reason = "each tile is written by one thread")]
fn each_tile<M: Send>(
    quants: &mut [Line],
    lines: usize,
    meta: &mut [M],
    blocks: usize,
    pack: impl Fn(usize, &mut [Line], &mut [M]) + Sync,
) {
    let tiles = meta.len() / blocks;
    let (quants, meta) = (Shared::new(quants), Shared::new(meta));
    barrier_pool().execute_chunked(tiles, |range| {
        for t in range {
            // SAFETY: the pool hands out every tile once.
            let quants = unsafe { quants.slice(t * lines..(t + 1) * lines) };
            // SAFETY: as above.
            let meta = unsafe { meta.slice(t * blocks..(t + 1) * blocks) };
            pack(t, quants, meta);
        }
    });
}

/// Calls `block` with (row of the tile, block of k, bytes) for all blocks of a tile.
fn each_block(
    tile: &[u8],
    row_bytes: usize,
    block_bytes: usize,
    mut block: impl FnMut(usize, usize, &[u8]),
) {
    for (row, bytes) in tile.chunks_exact(row_bytes).enumerate() {
        for (b, bytes) in bytes.chunks_exact(block_bytes).enumerate() {
            block(row, b, bytes);
        }
    }
}

fn half_bits(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn half(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

fn pack_q8(lines: &mut [Line], meta: &mut Halves, row: usize, block: &[u8]) {
    meta.0[row] = half_bits(block);
    for (line, four) in lines.iter_mut().zip(block[2..34].chunks_exact(4)) {
        for (j, &q) in four.iter().enumerate() {
            line.0[row * 4 + j] = q ^ 0x80; // two's complement + 128
        }
    }
}

fn decode_q8(lines: &[Line], meta: &Halves, row: usize, out: &mut [f32]) {
    let d = half(meta.0[row]);
    for (line, out) in lines.iter().zip(out.chunks_exact_mut(4)) {
        for (j, out) in out.iter_mut().enumerate() {
            *out = f32::from((line.0[row * 4 + j] ^ 0x80).cast_signed()) * d;
        }
    }
}

/// Scale and minimum of 32-block `j` from the 12 bytes that hold eight 6-bit pairs (ggml's k-quants:
/// the first four pairs whole, the others with their upper two bits in the first eight bytes).
fn scale_min(j: usize, bytes: &[u8]) -> (u8, u8) {
    if j < 4 {
        (bytes[j] & 63, bytes[j + 4] & 63)
    } else {
        let low = bytes[j + 4];
        (
            (low & 15) | (bytes[j - 4] >> 6) << 4,
            (low >> 4) | (bytes[j] >> 6) << 4,
        )
    }
}

fn pack_q4(lines: &mut [Line], meta: &mut Q4Meta, row: usize, block: &[u8]) {
    meta.d.0[row] = half_bits(block);
    meta.dmin.0[row] = half_bits(&block[2..]);
    let (scales, quants) = block[4..].split_at(12);
    for j in 0..8 {
        let (scale, min) = scale_min(j, scales);
        meta.scales[j][row] = scale;
        meta.mins[j / 2][row][j % 2] = min;
        // The file keeps two 32-blocks in 32 bytes: the even one low, the odd one high.
        let bytes = &quants[j / 2 * 32..][..32];
        for i in 0..16 {
            let nibble = |at: usize| bytes[at] >> (j % 2 * 4) & 15;
            lines[j * 4 + i / 4].0[row * 4 + i % 4] = nibble(i) | nibble(i + 16) << 4;
        }
    }
}

fn decode_q4(lines: &[Line], meta: &Q4Meta, row: usize, out: &mut [f32]) {
    let (d, dmin) = (half(meta.d.0[row]), half(meta.dmin.0[row]));
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let scale = d * f32::from(meta.scales[j][row]);
        let min = dmin * f32::from(meta.mins[j / 2][row][j % 2]);
        for (i, out) in out.iter_mut().enumerate() {
            let byte = lines[j * 4 + i % 16 / 4].0[row * 4 + i % 4];
            *out = scale * f32::from(byte >> (i / 16 * 4) & 15) - min;
        }
    }
}

fn pack_q6(lines: &mut [Line], meta: &mut Q6Meta, row: usize, block: &[u8]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    meta.d.0[row] = half_bits(&rest[16..]);
    for j in 0..16 {
        meta.scales[j][row] = rest[j].cast_signed();
        for i in 0..4 {
            let (mut pairs, mut nibbles) = (0, [0; 4]);
            for (group, nibble) in nibbles.iter_mut().enumerate() {
                let q = q6_value(low, high, j * 16 + group * 4 + i);
                *nibble = q & 15;
                pairs |= q >> 4 << (group * 2);
            }
            lines[j * 3].0[row * 4 + i] = nibbles[0] | nibbles[2] << 4;
            lines[j * 3 + 1].0[row * 4 + i] = nibbles[1] | nibbles[3] << 4;
            lines[j * 3 + 2].0[row * 4 + i] = pairs;
        }
    }
}

/// The 6-bit value at `index` of a Q6_K block: each half of 128 keeps its four quarters in the
/// nibbles of 64 bytes and in the bit pairs of 32.
fn q6_value(low: &[u8], high: &[u8], index: usize) -> u8 {
    let (half, quarter, i) = (index / 128, index % 128 / 32, index % 32);
    let nibble = low[half * 64 + quarter % 2 * 32 + i] >> (quarter / 2 * 4) & 15;
    nibble | (high[half * 32 + i] >> (quarter * 2) & 3) << 4
}

fn decode_q6(lines: &[Line], meta: &Q6Meta, row: usize, out: &mut [f32]) {
    let d = half(meta.d.0[row]);
    for (j, out) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(meta.scales[j][row]);
        for (i, out) in out.iter_mut().enumerate() {
            let (group, at) = (i / 4, row * 4 + i % 4);
            let nibble = lines[j * 3 + group % 2].0[at] >> (group / 2 * 4) & 15;
            let pair = lines[j * 3 + 2].0[at] >> (group * 2) & 3;
            *out = scale * f32::from((nibble | pair << 4).cast_signed() - 32);
        }
    }
}
