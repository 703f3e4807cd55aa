//! Runs the integer kernels over packed weights: who computes which tiles with which rows.
#![expect(
    unsafe_code,
    reason = "enters functions that need instructions checked for at packing"
)]

use core::arch::x86_64::__m512;
use std::ops::Range;

use crate::parallel::{self, Shared};

use super::activations::{Activations, ROW_BLOCK, RowBlock};
use super::amx::{Scratch, multiply_pair};
use super::cpu::has_amx;
use super::packed::{Meta, Packed, PackedFormat, TILE};
use super::simd::store_floats;
use super::vnni::{MAX_ROWS, q4_rows, q6_rows, q8_rows};

/// Which unit multiplies. Both give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// `vpdpbusd` only.
    Vnni,
    /// Tile products from this many rows of a block on.
    Amx {
        /// Rows from which a block of 16 goes to the tile unit.
        rows_min: usize,
    },
}

impl Unit {
    /// The faster one for this format on this machine.
    pub(super) fn best(format: PackedFormat) -> Self {
        if !has_amx() {
            return Self::Vnni;
        }
        // Measured: below, a block of 16 rows costs the tile unit more than `vpdpbusd` takes.
        let rows_min = match format {
            PackedFormat::Q8 => 16,
            PackedFormat::Q4 => 9,
            PackedFormat::Q6 => 13,
        };
        Self::Amx { rows_min }
    }
}

/// One product: `out` (rows, weights.rows) = x * weights^T + bias.
pub(super) struct Product<'a> {
    pub(super) weights: &'a Packed,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) x: &'a Activations,
    pub(super) out: Shared<'a, f32>,
    pub(super) unit: Unit,
}

impl Product<'_> {
    fn pairs(&self) -> usize {
        self.weights.tiles().div_ceil(2)
    }

    /// Rows whose activations stay in the second-level cache while the weights pass by.
    fn chunk_rows(&self) -> usize {
        const BYTES: usize = 1 << 20;
        (BYTES / self.weights.k / ROW_BLOCK).clamp(1, 32) * ROW_BLOCK
    }

    /// Multiply-adds.
    fn macs(&self) -> usize {
        self.x.rows * self.weights.rows * self.weights.k
    }

    fn items(&self) -> usize {
        self.pairs() * self.x.rows.div_ceil(self.chunk_rows())
    }
}

/// Computes all products in one parallel region.
pub(super) fn multiply(products: &[Product<'_>]) {
    let total = products.iter().map(Product::items).sum();
    let macs = products.iter().map(Product::macs).sum();
    parallel::product_ranges(total, macs, |range| {
        let mut scratch = Scratch::new();
        let mut first = 0;
        for product in products {
            let mine = range.start.max(first) - first
                ..range.end.clamp(first, first + product.items()) - first;
            // SAFETY: weights are packed only where the processor has these instructions.
            unsafe { multiply_items(product, mine, &mut scratch) };
            first += product.items();
        }
    });
}

/// Items count pairs of tiles, once per chunk of rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply_items(product: &Product<'_>, items: Range<usize>, scratch: &mut Scratch) {
    let mut blocks = Vec::new();
    let mut chunk_of_blocks = None;
    for item in items {
        let (chunk, pair) = (item / product.pairs(), item % product.pairs());
        if chunk_of_blocks != Some(chunk) {
            let first = chunk * product.chunk_rows();
            let last = product.x.rows.min(first + product.chunk_rows());
            blocks.clear();
            blocks.extend(product.x.blocks(first..last));
            chunk_of_blocks = Some(chunk);
        }
        multiply_chunk(product, pair, &blocks, scratch);
    }
}

/// One pair of tiles (or the last single tile) with the rows of `blocks`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply_chunk(
    product: &Product<'_>,
    pair: usize,
    blocks: &[(usize, RowBlock<'_>)],
    scratch: &mut Scratch,
) {
    let last = product.weights.tiles() - 1;
    let tiles = [pair * 2, (pair * 2 + 1).min(last)];
    let by_amx = match product.unit {
        Unit::Vnni => 0,
        Unit::Amx { rows_min } => blocks.partition_point(|(_, x)| x.rows >= rows_min),
    };
    let (by_amx, by_vnni) = blocks.split_at(by_amx);
    let count = if tiles[0] == tiles[1] { 1 } else { 2 };
    if !by_amx.is_empty() {
        // SAFETY: `Unit::Amx` is chosen only where the tile registers were granted.
        unsafe { multiply_pair(product.weights, tiles, by_amx, scratch) };
        for (i, (first, x)) in by_amx.iter().enumerate() {
            for r in 0..x.rows {
                for (&tile, sums) in tiles[..count].iter().zip(&scratch.acc[i * ROW_BLOCK + r]) {
                    store(product, first + r, tile, sums);
                }
            }
        }
    }
    for &tile in &tiles[..count] {
        for (first, x) in by_vnni {
            for from in (0..x.rows).step_by(MAX_ROWS) {
                vnni_rows(product, tile, *first, *x, from);
            }
        }
    }
}

/// Up to eight rows of a block, from row `from` on, with one tile.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn vnni_rows(product: &Product<'_>, tile: usize, first: usize, x: RowBlock<'_>, from: usize) {
    let w = product.weights;
    let quants = &w.quants[tile * w.tile_lines()..][..w.tile_lines()];
    let range = tile * w.blocks..(tile + 1) * w.blocks;
    macro_rules! rows {
        ($($count:literal)*) => {
            match x.rows - from {
                $($count => {
                    let sums: [__m512; $count] = match &w.meta {
                        Meta::Q8(meta) => q8_rows(quants, &meta[range], x, from),
                        Meta::Q4(meta) => q4_rows(quants, &meta[range], x, from),
                        Meta::Q6(meta) => q6_rows(quants, &meta[range], x, from),
                    };
                    store_rows(product, first + from, tile, &sums);
                })*
                _ => {
                    let sums: [__m512; MAX_ROWS] = match &w.meta {
                        Meta::Q8(meta) => q8_rows(quants, &meta[range], x, from),
                        Meta::Q4(meta) => q4_rows(quants, &meta[range], x, from),
                        Meta::Q6(meta) => q6_rows(quants, &meta[range], x, from),
                    };
                    store_rows(product, first + from, tile, &sums);
                }
            }
        };
    }
    rows!(1 2 3 4 5 6 7);
}

#[target_feature(enable = "avx512f")]
fn store_rows(product: &Product<'_>, first: usize, tile: usize, sums: &[__m512]) {
    for (r, &sums) in sums.iter().enumerate() {
        let mut floats = [0.0; TILE];
        store_floats(&mut floats, sums);
        store(product, first + r, tile, &floats);
    }
}

/// Writes the outputs of one tile and row, with the bias.
fn store(product: &Product<'_>, row: usize, tile: usize, sums: &[f32; TILE]) {
    let columns = product.weights.rows;
    let first = tile * TILE;
    let count = TILE.min(columns - first);
    // SAFETY: every tile belongs to one item, and every row to one chunk of that tile.
    let out = unsafe {
        product
            .out
            .slice(row * columns + first..row * columns + first + count)
    };
    match product.bias {
        Some(bias) => {
            for ((out, sum), bias) in out.iter_mut().zip(sums).zip(&bias[first..]) {
                *out = sum + bias;
            }
        }
        None => out.copy_from_slice(&sums[..count]),
    }
}
