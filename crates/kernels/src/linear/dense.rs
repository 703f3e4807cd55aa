//! f32, f16 and bf16 weights, kept as given, multiplied in f32.
//!
//! Weights lie in tiles of 32 rows, (tile, k, 32 rows): one step of k is two registers of output
//! columns, widened as they are loaded and used for up to 12 activation rows. Every output is
//! summed over k in one order, in stretches of 256 whose totals are added up, so a row's bits do
//! not depend on the rows beside it.

use std::ops::Range;

use candle_core::utils::barrier_pool;
use half::{bf16, f16};

use crate::parallel::{self, Shared};

use super::WeightFormat;
use super::memory::huge_vec;

/// Weight rows (output columns) in a tile.
const TILE: usize = 32;
/// Values of k between two additions to the output: bounds the rounding error, fits the cache.
const STRETCH: usize = 256;
/// Activation rows whose sums stay in registers.
const MAX_ROWS: usize = 12;

/// The weights, a step of k per entry.
enum Steps {
    F32(Vec<[f32; TILE]>),
    F16(Vec<[u16; TILE]>),
    BF16(Vec<[u16; TILE]>),
}

/// A weight matrix (rows, k) of plain floats.
pub(super) struct Dense {
    rows: usize,
    k: usize,
    steps: Steps,
}

impl Dense {
    /// `bytes`: (rows, k) little endian in a dense `format`, of the right length.
    pub(super) fn from_bytes(bytes: &[u8], format: WeightFormat, rows: usize, k: usize) -> Self {
        let steps = match format {
            WeightFormat::F16 => Steps::F16(tiles(bytes, rows, k, u16::from_le_bytes)),
            WeightFormat::BF16 => Steps::BF16(tiles(bytes, rows, k, u16::from_le_bytes)),
            _ => Steps::F32(tiles(bytes, rows, k, f32::from_le_bytes)),
        };
        Self { rows, k, steps }
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        match &self.steps {
            Steps::F32(steps) => size_of_val(steps.as_slice()),
            Steps::F16(steps) | Steps::BF16(steps) => size_of_val(steps.as_slice()),
        }
    }

    /// Writes the k values of one row.
    pub(super) fn decode_row(&self, row: usize, out: &mut [f32]) {
        let (first, lane) = (row / TILE * self.k, row % TILE);
        for (i, out) in out.iter_mut().enumerate() {
            *out = match &self.steps {
                Steps::F32(steps) => steps[first + i][lane],
                Steps::F16(steps) => f16::from_bits(steps[first + i][lane]).to_f32(),
                Steps::BF16(steps) => bf16::from_bits(steps[first + i][lane]).to_f32(),
            };
        }
    }

    /// `out` (T, rows) = `x` (T, k) times the transpose of the weights, plus the bias.
    pub(super) fn multiply(&self, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        let x = interleave(x, self.k);
        let rows = out.len() / self.rows;
        let chunk_rows = ((1 << 18) / self.k / MAX_ROWS).clamp(1, 32) * MAX_ROWS;
        let tiles = self.rows.div_ceil(TILE);
        let out = Shared::new(out);
        let macs = self.rows * x.len();
        parallel::product_ranges(tiles * rows.div_ceil(chunk_rows), macs, |range| {
            let mut acc = Vec::new();
            for item in range {
                let (chunk, tile) = (item / tiles, item % tiles);
                let first = chunk * chunk_rows;
                let chunk = first..rows.min(first + chunk_rows);
                acc.clear();
                acc.resize(chunk.len(), [0f32; TILE]);
                self.multiply_tile(tile, &x[first * self.k..chunk.end * self.k], &mut acc);
                store(tile * TILE, self.rows, chunk, &acc, bias, &out);
            }
        });
    }

    fn multiply_tile(&self, tile: usize, x: &[f32], acc: &mut [[f32; TILE]]) {
        let steps = tile * self.k..(tile + 1) * self.k;
        match &self.steps {
            Steps::F32(w) => Product {
                weights: &w[steps],
                x,
                widen: Widen::None,
            }
            .add_to(acc),
            Steps::F16(w) => Product {
                weights: &w[steps],
                x,
                widen: Widen::F16,
            }
            .add_to(acc),
            Steps::BF16(w) => Product {
                weights: &w[steps],
                x,
                widen: Widen::BF16,
            }
            .add_to(acc),
        }
    }
}

/// Rows in blocks of up to 12, (block, k, row): what one step of k multiplies lies together.
fn interleave(x: &[f32], k: usize) -> Vec<f32> {
    let mut out = huge_vec(x.len(), 0f32);
    let shared = Shared::new(&mut out);
    parallel::ranges(x.len().div_ceil(k * MAX_ROWS), x.len(), |range| {
        for block in range {
            let first = block * MAX_ROWS * k;
            let x = &x[first..x.len().min(first + MAX_ROWS * k)];
            #[expect(unsafe_code, reason = "blocks are written by one thread each")]
            // SAFETY: blocks are disjoint and each is handed out once.
            let out = unsafe { shared.slice(first..first + x.len()) };
            let rows = x.len() / k;
            for (r, row) in x.chunks_exact(k).enumerate() {
                for (step, &value) in out.chunks_exact_mut(rows).zip(row) {
                    step[r] = value;
                }
            }
        }
    });
    out
}

/// (rows, k) to (tile, k, row of the tile), rows beyond the last as zeros.
fn tiles<T: Copy + Default + Send, const N: usize>(
    bytes: &[u8],
    rows: usize,
    k: usize,
    read: impl Fn([u8; N]) -> T + Sync,
) -> Vec<[T; TILE]> {
    let tiles = rows.div_ceil(TILE);
    let mut steps = huge_vec(tiles * k, [T::default(); TILE]);
    let shared = Shared::new(&mut steps);
    barrier_pool().execute_chunked(tiles, |range| {
        for tile in range {
            #[expect(unsafe_code, reason = "tiles are written by one thread each")]
            // SAFETY: tiles are disjoint and each is handed out once.
            let steps = unsafe { shared.slice(tile * k..(tile + 1) * k) };
            let bytes = &bytes[tile * TILE * k * N..bytes.len().min((tile + 1) * TILE * k * N)];
            for (lane, row) in bytes.chunks_exact(k * N).enumerate() {
                for (step, value) in steps.iter_mut().zip(row.chunks_exact(N)) {
                    step[lane] = read(value.try_into().expect("chunks of N bytes"));
                }
            }
        }
    });
    steps
}

/// Writes the columns of one tile for the rows of one chunk.
fn store(
    first: usize,
    columns: usize,
    rows: Range<usize>,
    acc: &[[f32; TILE]],
    bias: Option<&[f32]>,
    out: &Shared<'_, f32>,
) {
    let count = TILE.min(columns - first);
    for (row, sums) in rows.zip(acc) {
        #[expect(unsafe_code, reason = "tiles and chunks are disjoint")]
        // SAFETY: each (chunk, tile) is handed out once.
        let out = unsafe { out.slice(row * columns + first..row * columns + first + count) };
        match bias {
            Some(bias) => {
                for ((out, sum), bias) in out.iter_mut().zip(sums).zip(&bias[first..]) {
                    *out = sum + bias;
                }
            }
            None => out.copy_from_slice(&sums[..count]),
        }
    }
}

/// How a stored weight becomes f32.
#[derive(Clone, Copy)]
enum Widen {
    None,
    F16,
    BF16,
}

/// One tile times the interleaved rows of one chunk.
struct Product<'a, T> {
    weights: &'a [[T; TILE]],
    x: &'a [f32],
    widen: Widen,
}

impl<T: Stored> Product<'_, T> {
    /// Adds to `acc` (row, column).
    fn add_to(self, acc: &mut [[f32; TILE]]) {
        let k = self.weights.len();
        for (s, weights) in self.weights.chunks(STRETCH).enumerate() {
            for (block, acc) in acc.chunks_mut(MAX_ROWS).enumerate() {
                let rows = acc.len();
                let x =
                    &self.x[block * MAX_ROWS * k + s * STRETCH * rows..][..weights.len() * rows];
                self.stretch(weights, x, acc);
            }
        }
    }

    fn stretch(&self, weights: &[[T; TILE]], x: &[f32], acc: &mut [[f32; TILE]]) {
        #[cfg(target_arch = "x86_64")]
        if super::cpu::has_vnni() {
            #[expect(unsafe_code, reason = "enters functions for AVX-512")]
            // SAFETY: the processor has AVX-512 F and BW.
            return unsafe { avx512::stretch(weights, x, acc, self.widen) };
        }
        stretch_portable(weights, x, acc, self.widen);
    }
}

/// A weight as stored.
trait Stored: Copy {
    /// Its value.
    fn value(self, widen: Widen) -> f32;
    /// 32 of them as bytes in memory order.
    #[cfg(target_arch = "x86_64")]
    fn load(step: &[Self; TILE], widen: Widen) -> avx512::Step<'_>;
}

impl Stored for f32 {
    fn value(self, _: Widen) -> f32 {
        self
    }
    #[cfg(target_arch = "x86_64")]
    fn load(step: &[Self; TILE], _: Widen) -> avx512::Step<'_> {
        avx512::Step::F32(step)
    }
}

impl Stored for u16 {
    fn value(self, widen: Widen) -> f32 {
        match widen {
            Widen::F16 => f16::from_bits(self).to_f32(),
            Widen::BF16 | Widen::None => bf16::from_bits(self).to_f32(),
        }
    }
    #[cfg(target_arch = "x86_64")]
    fn load(step: &[Self; TILE], widen: Widen) -> avx512::Step<'_> {
        match widen {
            Widen::F16 => avx512::Step::F16(step),
            Widen::BF16 | Widen::None => avx512::Step::BF16(step),
        }
    }
}

/// The plain loops, for processors without a kernel of their own.
fn stretch_portable<T: Stored>(
    weights: &[[T; TILE]],
    x: &[f32],
    acc: &mut [[f32; TILE]],
    widen: Widen,
) {
    let rows = acc.len();
    let mut sums = [[0f32; TILE]; MAX_ROWS];
    for (step, x) in weights.iter().zip(x.chunks_exact(rows)) {
        let step = step.map(|weight| weight.value(widen));
        for (sums, &x) in sums.iter_mut().zip(x) {
            for (sum, weight) in sums.iter_mut().zip(step) {
                *sum += x * weight;
            }
        }
    }
    for (acc, sums) in acc.iter_mut().zip(&sums) {
        for (acc, sum) in acc.iter_mut().zip(sums) {
            *acc += sum;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    #![expect(unsafe_code, reason = "vector loads and stores of whole arrays")]
    use core::arch::x86_64::*;

    use super::{MAX_ROWS, Stored, TILE, Widen};

    /// 32 stored weights of one step of k.
    pub(super) enum Step<'a> {
        F32(&'a [f32; TILE]),
        F16(&'a [u16; TILE]),
        BF16(&'a [u16; TILE]),
    }

    impl Step<'_> {
        #[target_feature(enable = "avx512f,avx512bw")]
        #[inline]
        fn widen(self) -> [__m512; 2] {
            match self {
                // SAFETY: 128 bytes are readable.
                Self::F32(w) => unsafe {
                    [
                        _mm512_loadu_ps(w.as_ptr()),
                        _mm512_loadu_ps(w[16..].as_ptr()),
                    ]
                },
                Self::F16(w) => {
                    let [a, b] = halves(w);
                    [_mm512_cvtph_ps(a), _mm512_cvtph_ps(b)]
                }
                Self::BF16(w) => {
                    let [a, b] = halves(w);
                    [upper(a), upper(b)]
                }
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn halves(w: &[u16; TILE]) -> [__m256i; 2] {
        // SAFETY: 64 bytes are readable.
        unsafe {
            [
                _mm256_loadu_si256(w.as_ptr().cast()),
                _mm256_loadu_si256(w[16..].as_ptr().cast()),
            ]
        }
    }

    /// 16-bit words as the upper halves of floats.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn upper(words: __m256i) -> __m512 {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words)))
    }

    /// Adds the products of one stretch of k; `x` is (k, row), `acc` (row, column).
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn stretch<T: Stored>(
        weights: &[[T; TILE]],
        x: &[f32],
        acc: &mut [[f32; TILE]],
        widen: Widen,
    ) {
        macro_rules! rows {
            ($($count:literal)*) => {
                match acc.len() {
                    $($count => rows::<T, $count>(weights, x, acc, widen),)*
                    _ => rows::<T, MAX_ROWS>(weights, x, acc, widen),
                }
            };
        }
        rows!(1 2 3 4 5 6 7 8 9 10 11);
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn rows<T: Stored, const R: usize>(
        weights: &[[T; TILE]],
        x: &[f32],
        acc: &mut [[f32; TILE]],
        widen: Widen,
    ) {
        match widen {
            // The format is known inside each copy of the loop.
            Widen::None => rows_of::<T, R>(weights, x, acc, Widen::None),
            Widen::F16 => rows_of::<T, R>(weights, x, acc, Widen::F16),
            Widen::BF16 => rows_of::<T, R>(weights, x, acc, Widen::BF16),
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn rows_of<T: Stored, const R: usize>(
        weights: &[[T; TILE]],
        x: &[f32],
        acc: &mut [[f32; TILE]],
        widen: Widen,
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        let (x, _) = x.as_chunks::<R>();
        for (step, x) in weights.iter().zip(x) {
            let [w0, w1] = T::load(step, widen).widen();
            for r in 0..R {
                let x = _mm512_set1_ps(x[r]);
                sums[r][0] = _mm512_fmadd_ps(x, w0, sums[r][0]);
                sums[r][1] = _mm512_fmadd_ps(x, w1, sums[r][1]);
            }
        }
        for (acc, sums) in acc.iter_mut().zip(sums) {
            for (half, sum) in sums.into_iter().enumerate() {
                let at = acc[half * 16..].as_mut_ptr();
                // SAFETY: 16 floats follow in either half of 32.
                unsafe { _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), sum)) };
            }
        }
    }
}
