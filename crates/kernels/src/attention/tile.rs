//! One tile of attention: some tokens of one sequence, the query heads of one KV head.

use super::{STEP, SequenceSpan};
use crate::blocks::KvDims;
use crate::parallel::Shared;
use crate::simd::{Kernel, LANES, Lanes, Portable, Simd, Stored, dispatch};
use std::ops::Range;

/// Rows that the inner loops compute at once, and vectors of the head dimension.
const GROUP: usize = 4;

/// Tokens `tokens` of `span` times the `group` query heads that read `kv_head`.
pub(super) struct Tile<'a, T> {
    pub(super) q: &'a [f32],
    pub(super) k: &'a [T],
    pub(super) v: &'a [T],
    pub(super) dims: KvDims,
    pub(super) span: &'a SequenceSpan,
    pub(super) tokens: Range<usize>,
    pub(super) kv_head: usize,
    pub(super) group: usize,
    pub(super) scale: f32,
    pub(super) window: Option<usize>,
}

/// Working memory of a tile.
#[derive(Default)]
pub(super) struct Scratch {
    /// Scaled queries: groups of up to [`GROUP`] rows, (D padded / 4, rows of the group) each.
    queries: Vec<[f32; 4]>,
    /// Keys of the step, (2, D padded / 4): quarter `i` of vector `j` is those four elements
    /// of key `4 * i + j` of that half.
    keys: Vec<[Lanes; 4]>,
    /// Values of the step, (STEP, D padded), where there are enough rows to share a copy.
    values: Vec<Lanes>,
    /// Scores, then weights of the step, (rows, STEP).
    weights: Vec<[Lanes; 2]>,
    /// Weighted values so far, (rows, D padded).
    sums: Vec<Lanes>,
    rows: Vec<Row>,
}

/// Where a row stands in its walk.
#[derive(Clone)]
struct Row {
    /// First position it may see, and the one after the last.
    visible: Range<usize>,
    /// The part of the step that it sees.
    keys: Range<usize>,
    /// Largest score so far.
    max: f32,
    /// Sum of the weights so far, by lane.
    total: Lanes,
    /// What to multiply sums by, now that the largest score has grown.
    shrink: f32,
}

impl<T: Stored> Tile<'_, T> {
    /// Computes the tile and writes its rows to `out` (T, Hq*D). `next` comes afterwards.
    pub(super) fn run(&self, scratch: &mut Scratch, out: &Shared<'_, f32>, next: Option<&Self>) {
        dispatch(Walk {
            tile: self,
            next,
            scratch,
            out,
        });
    }

    /// The positions of the first step.
    fn first_step(&self) -> Range<usize> {
        let end = self.position(self.tokens.start) + 1;
        let start = end.saturating_sub(self.window.unwrap_or(end));
        start..end.min(start / STEP * STEP + STEP)
    }

    fn position(&self, token: usize) -> usize {
        self.span.context_len - self.span.query.len() + token
    }

    /// Where in (T, Hq*D) the row's D elements start.
    #[inline(always)]
    fn row_start(&self, row: usize) -> usize {
        let (token, head) = (self.tokens.start + row / self.group, row % self.group);
        let heads = self.dims.kv_heads * self.group;
        let index = (self.span.query.start + token) * heads + self.kv_head * self.group + head;
        index * self.dims.head_dim
    }

    /// The stretches of the cache, of one block each, that hold `positions`: elements of k or
    /// of v.
    #[inline(always)]
    fn stretches(&self, positions: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let block_len = self.dims.block_len;
        let (mut index, mut offset) = (positions.start / block_len, positions.start % block_len);
        let mut left = positions.len();
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let len = left.min(block_len - offset);
            let block = self.span.blocks[index] as usize;
            let start = self.dims.offset(block, self.kv_head, offset);
            (index, offset, left) = (index + 1, 0, left - len);
            Some(start..start + len * self.dims.head_dim)
        })
    }

    /// Blocks lie anywhere, so that the machine cannot guess what comes next.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, simd: S, positions: Range<usize>) {
        for stretch in self.stretches(positions) {
            simd.prefetch(&self.k[stretch.clone()]);
            simd.prefetch(&self.v[stretch]);
        }
    }

    #[inline(always)]
    fn prepare<S: Simd>(&self, simd: S, scratch: &mut Scratch) {
        let (rows, dim) = (self.tokens.len() * self.group, self.dims.head_dim);
        let vectors = dim.div_ceil(LANES);
        let fours = 4 * vectors;
        scratch.queries.resize(rows * fours, [0.0; 4]);
        for (g, queries) in scratch.queries.chunks_mut(GROUP * fours).enumerate() {
            let rows = queries.len() / fours;
            for row in 0..rows {
                let q = &self.q[self.row_start(g * GROUP + row)..][..dim];
                for vector in 0..vectors {
                    let scaled = simd.mul(load_vector(simd, q, vector), simd.splat(self.scale));
                    let mut lanes = [0.0; LANES];
                    simd.store(scaled, &mut lanes);
                    for (i, four) in lanes.as_chunks::<4>().0.iter().enumerate() {
                        queries[(4 * vector + i) * rows + row] = *four;
                    }
                }
            }
        }
        scratch.keys.resize(2 * fours, [Lanes::ZERO; 4]);
        scratch.values.resize(vectors * STEP, Lanes::ZERO);
        scratch.weights.resize(rows, [Lanes::ZERO; 2]);
        scratch.sums.clear();
        scratch.sums.resize(rows * vectors, Lanes::ZERO);
        scratch.rows.clear();
        scratch.rows.extend((0..rows).map(|row| {
            let end = self.position(self.tokens.start + row / self.group) + 1;
            Row {
                visible: end.saturating_sub(self.window.unwrap_or(end))..end,
                keys: 0..0,
                max: f32::NEG_INFINITY,
                total: Lanes::ZERO,
                shrink: 1.0,
            }
        }));
    }
}

struct Walk<'a, T> {
    tile: &'a Tile<'a, T>,
    next: Option<&'a Tile<'a, T>>,
    scratch: &'a mut Scratch,
    out: &'a Shared<'a, f32>,
}

impl<T: Stored> Kernel for Walk<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            tile,
            next,
            scratch,
            out,
        } = self;
        tile.prepare(simd, scratch);
        let (Some(first), Some(last)) = (scratch.rows.first(), scratch.rows.last()) else {
            return;
        };
        let dim = tile.dims.head_dim;
        let seen = first.visible.start..last.visible.end;
        for step in (seen.start / STEP * STEP..seen.end).step_by(STEP) {
            let keys = seen.start.max(step) - step..seen.end.min(step + STEP) - step;
            if step + STEP < seen.end {
                tile.prefetch(simd, step + STEP..seen.end.min(step + 2 * STEP));
            } else if let Some(next) = next {
                next.prefetch(simd, next.first_step());
            }
            let (mut k_rows, mut v_rows): (Cached<'_, T>, Cached<'_, T>) =
                ([&[]; STEP], [&[]; STEP]);
            let mut key = keys.start;
            for stretch in tile.stretches(step + keys.start..step + keys.end) {
                let k = tile.k[stretch.clone()].chunks_exact(dim);
                for (k, v) in k.zip(tile.v[stretch].chunks_exact(dim)) {
                    (k_rows[key], v_rows[key]) = (k, v);
                    key += 1;
                }
            }
            load_keys(simd, &k_rows, &mut scratch.keys);
            for row in &mut scratch.rows {
                let start = row.visible.start.max(step) - step;
                row.keys = start..(row.visible.end.clamp(step, step + STEP) - step).max(start);
            }
            scores(simd, scratch, keys);
            for (row, weights) in scratch.rows.iter_mut().zip(&mut scratch.weights) {
                soften(simd, row, weights);
            }
            if scratch.rows.len() <= 2 * GROUP {
                weigh(
                    simd,
                    &mut scratch.sums,
                    &scratch.rows,
                    &scratch.weights,
                    &v_rows,
                );
            } else {
                load_values(simd, &v_rows, &mut scratch.values);
                let (values, vectors) = (&scratch.values[..], scratch.values.len() / STEP);
                let values = Copied { values, vectors };
                weigh(
                    simd,
                    &mut scratch.sums,
                    &scratch.rows,
                    &scratch.weights,
                    values,
                );
            }
        }
        let vectors = tile.dims.head_dim.div_ceil(LANES);
        for (i, row) in scratch.rows.iter().enumerate() {
            let total = simd.splat(simd.sum(simd.load(&row.total.0)));
            let start = tile.row_start(i);
            // SAFETY: spans do not overlap (`check_spans`), tiles cut spans into disjoint tokens
            // and heads, and each tile asks for each of its rows once.
            #[expect(unsafe_code, reason = "threads write distinct rows of one output")]
            let out = unsafe { out.slice(start..start + tile.dims.head_dim) };
            let sums = &scratch.sums[i * vectors..][..vectors];
            for (out, sum) in out.chunks_mut(LANES).zip(sums) {
                simd.store_part(simd.div(simd.load(&sum.0), total), out);
            }
        }
    }
}

/// Rows of the cache for each position of a step; empty where no row of the tile looks.
type Cached<'a, T> = [&'a [T]; STEP];

/// Loads the keys of a step.
#[inline(always)]
fn load_keys<T: Stored, S: Simd>(simd: S, rows: &Cached<'_, T>, out: &mut [[Lanes; 4]]) {
    let halves = out.chunks_exact_mut(out.len() / 2);
    for (out, rows) in halves.zip(rows.as_chunks::<LANES>().0) {
        for (vector, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            for j in 0..4 {
                let [a, b, c, d] = simd.transpose_quarters([
                    load_vector(simd, rows[j], vector),
                    load_vector(simd, rows[4 + j], vector),
                    load_vector(simd, rows[8 + j], vector),
                    load_vector(simd, rows[12 + j], vector),
                ]);
                simd.store(a, &mut out[0][j].0);
                simd.store(b, &mut out[1][j].0);
                simd.store(c, &mut out[2][j].0);
                simd.store(d, &mut out[3][j].0);
            }
        }
    }
}

/// Loads the values of a step.
#[inline(always)]
fn load_values<T: Stored, S: Simd>(simd: S, rows: &Cached<'_, T>, out: &mut [Lanes]) {
    for (out, row) in out.chunks_exact_mut(out.len() / STEP).zip(rows) {
        if row.is_empty() {
            continue;
        }
        for (vector, out) in out.iter_mut().enumerate() {
            simd.store(load_vector(simd, row, vector), &mut out.0);
        }
    }
}

/// Where the values of a step are read from.
trait Values: Copy {
    /// V vectors of the value of a key, from `vector` on.
    fn load<const V: usize, S: Simd>(self, simd: S, key: usize, vector: usize) -> [S::F; V];
}

impl<T: Stored> Values for &Cached<'_, T> {
    #[inline(always)]
    fn load<const V: usize, S: Simd>(self, simd: S, key: usize, vector: usize) -> [S::F; V] {
        let mut out = [simd.splat(0.0); V];
        let full = self[key].get(vector * LANES..(vector + V) * LANES);
        if let Some(full) = full {
            for (out, full) in out.iter_mut().zip(full.as_chunks().0) {
                *out = T::load(simd, full);
            }
        } else {
            for (v, out) in out.iter_mut().enumerate() {
                *out = load_vector(simd, self[key], vector + v);
            }
        }
        out
    }
}

/// A copy of (STEP, vectors).
#[derive(Clone, Copy)]
struct Copied<'a> {
    values: &'a [Lanes],
    vectors: usize,
}

impl Values for Copied<'_> {
    #[inline(always)]
    fn load<const V: usize, S: Simd>(self, simd: S, key: usize, vector: usize) -> [S::F; V] {
        let mut out = [simd.splat(0.0); V];
        let lanes = &self.values[key * self.vectors + vector..][..V];
        for (out, lanes) in out.iter_mut().zip(lanes) {
            *out = simd.load(&lanes.0);
        }
        out
    }
}

/// Elements `vector * 16..` of a row, zeros behind its end and for an empty row.
#[inline(always)]
fn load_vector<T: Stored, S: Simd>(simd: S, row: &[T], vector: usize) -> S::F {
    let rest = row.get(vector * LANES..).unwrap_or_default();
    match rest.first_chunk() {
        Some(full) => T::load(simd, full),
        None if rest.is_empty() => simd.splat(0.0),
        None => simd.load(&padded(rest)),
    }
}

/// Out of line, so that the common case stays small.
#[cold]
#[inline(never)]
fn padded<T: Stored>(rest: &[T]) -> [f32; LANES] {
    let mut padded = [T::ZERO; LANES];
    padded[..rest.len()].copy_from_slice(rest);
    let mut out = [0.0; LANES];
    Portable.store(T::load(Portable, &padded), &mut out);
    out
}

/// Scores of every row against every key of the step: four partial sums each, of every
/// fourth element, then their sum.
#[inline(always)]
fn scores<S: Simd>(simd: S, scratch: &mut Scratch, keys: Range<usize>) {
    let fours = scratch.keys.len() / 2;
    let groups = scratch
        .queries
        .chunks(GROUP * fours)
        .zip(scratch.weights.chunks_mut(GROUP));
    for (queries, out) in groups {
        for half in 0..2 {
            if keys.end <= half * LANES || keys.start >= (half + 1) * LANES {
                continue;
            }
            let keys = &scratch.keys[half * fours..][..fours];
            match out.len() {
                1 => score_group::<1, S>(simd, queries, keys, (half, out)),
                2 => score_group::<2, S>(simd, queries, keys, (half, out)),
                3 => score_group::<3, S>(simd, queries, keys, (half, out)),
                _ => score_group::<4, S>(simd, queries, keys, (half, out)),
            }
        }
    }
}

#[inline(always)]
fn score_group<const R: usize, S: Simd>(
    simd: S,
    queries: &[[f32; 4]],
    keys: &[[Lanes; 4]],
    (half, out): (usize, &mut [[Lanes; 2]]),
) {
    let mut sums = [[simd.splat(0.0); 4]; R];
    for (query, keys) in queries.as_chunks::<R>().0.iter().zip(keys) {
        let mut key = [simd.splat(0.0); 4];
        for j in 0..4 {
            key[j] = simd.load(&keys[j].0);
        }
        for r in 0..R {
            let q = simd.splat_quarter(&query[r]);
            for j in 0..4 {
                sums[r][j] = simd.mul_add(q, key[j], sums[r][j]);
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        simd.store(simd.sum_quarters(sums), &mut out[half].0);
    }
}

/// Scores become weights relative to the largest score so far.
#[inline(always)]
fn soften<S: Simd>(simd: S, row: &mut Row, weights: &mut [Lanes; 2]) {
    if row.keys.is_empty() {
        return;
    }
    let mut score = [simd.load(&weights[0].0), simd.load(&weights[1].0)];
    if row.keys != (0..STEP) {
        let never = simd.splat(f32::NEG_INFINITY);
        let start = simd.splat(row.keys.start as f32);
        let end = simd.splat(row.keys.end as f32);
        for (score, index) in score.iter_mut().zip(&INDEX) {
            let index = simd.load(&index.0);
            *score = simd.select_lt((index, start), never, *score);
            *score = simd.select_lt((index, end), *score, never);
        }
    }
    let max = simd.max_lane(simd.max(score[0], score[1]));
    let max = if max > row.max { max } else { row.max };
    let shift = simd.splat(max);
    // No closures in here: one that is not inlined would not use the wide instructions.
    let weight = [
        simd.exp(simd.sub(score[0], shift)),
        simd.exp(simd.sub(score[1], shift)),
    ];
    row.shrink = 1.0;
    if max != row.max {
        let mut shrink = [0.0; LANES];
        simd.store(simd.exp(simd.splat(row.max - max)), &mut shrink);
        row.shrink = shrink[0];
        row.max = max;
    }
    let total = simd.mul(simd.load(&row.total.0), simd.splat(row.shrink));
    let total = simd.add(total, simd.add(weight[0], weight[1]));
    simd.store(total, &mut row.total.0);
    simd.store(weight[0], &mut weights[0].0);
    simd.store(weight[1], &mut weights[1].0);
}

/// The index of every key of a step.
static INDEX: [Lanes; 2] = {
    let mut index = [Lanes::ZERO; 2];
    let mut i = 0;
    while i < STEP {
        index[i / LANES].0[i % LANES] = i as f32;
        i += 1;
    }
    index
};

/// Adds the weighted values of the step to every row's sums.
#[inline(always)]
fn weigh<S: Simd>(
    simd: S,
    sums: &mut [Lanes],
    rows: &[Row],
    weights: &[[Lanes; 2]],
    values: impl Values,
) {
    let vectors = sums.len() / rows.len();
    let groups = rows.chunks(GROUP).zip(weights.chunks(GROUP));
    for ((rows, weights), sums) in groups.zip(sums.chunks_mut(GROUP * vectors)) {
        let together = rows.iter().all(|row| row.keys == rows[0].keys);
        let size = if together { rows.len() } else { 1 };
        let parts = rows.chunks(size).zip(weights.chunks(size));
        for ((rows, weights), sums) in parts.zip(sums.chunks_mut(size * vectors)) {
            if rows[0].keys.is_empty() {
                continue;
            }
            match rows.len() {
                1 => weigh_group::<1, S>(simd, rows, weights, values, sums),
                2 => weigh_group::<2, S>(simd, rows, weights, values, sums),
                3 => weigh_group::<3, S>(simd, rows, weights, values, sums),
                _ => weigh_group::<4, S>(simd, rows, weights, values, sums),
            }
        }
    }
}

#[inline(always)]
fn weigh_group<const R: usize, S: Simd>(
    simd: S,
    rows: &[Row],
    weights: &[[Lanes; 2]],
    values: impl Values,
    sums: &mut [Lanes],
) {
    let vectors = sums.len() / R;
    for chunk in (0..vectors).step_by(GROUP) {
        match vectors - chunk {
            1 => weigh_chunk::<R, 1, S>(simd, rows, weights, values, (chunk, sums)),
            2 => weigh_chunk::<R, 2, S>(simd, rows, weights, values, (chunk, sums)),
            3 => weigh_chunk::<R, 3, S>(simd, rows, weights, values, (chunk, sums)),
            _ => weigh_chunk::<R, 4, S>(simd, rows, weights, values, (chunk, sums)),
        }
    }
}

/// R rows that see the same keys, V vectors of the head dimension.
#[expect(
    clippy::needless_range_loop,
    reason = "the key counts through the values and the weights of every row"
)]
#[inline(always)]
fn weigh_chunk<const R: usize, const V: usize, S: Simd>(
    simd: S,
    rows: &[Row],
    weights: &[[Lanes; 2]],
    values: impl Values,
    (chunk, sums): (usize, &mut [Lanes]),
) {
    let vectors = sums.len() / R;
    let mut acc = [[simd.splat(0.0); V]; R];
    for r in 0..R {
        let shrink = simd.splat(rows[r].shrink);
        for v in 0..V {
            acc[r][v] = simd.mul(simd.load(&sums[r * vectors + chunk + v].0), shrink);
        }
    }
    let mut weights_of = [flat(&weights[0]); R];
    for r in 1..R {
        weights_of[r] = flat(&weights[r]);
    }
    let keys = rows[0].keys.clone();
    let (start, end) = (keys.start.min(STEP), keys.end.min(STEP));
    for key in start..end {
        let value: [S::F; V] = values.load(simd, key, chunk);
        for r in 0..R {
            let weight = simd.splat(weights_of[r][key]);
            for v in 0..V {
                acc[r][v] = simd.mul_add(weight, value[v], acc[r][v]);
            }
        }
    }
    for r in 0..R {
        for v in 0..V {
            simd.store(acc[r][v], &mut sums[r * vectors + chunk + v].0);
        }
    }
}

/// Two vectors side by side.
#[expect(unsafe_code, reason = "the same bytes as one array")]
#[inline(always)]
fn flat(lanes: &[Lanes; 2]) -> &[f32; STEP] {
    // SAFETY: `Lanes` is a C struct of sixteen floats, 64 bytes long and aligned to them, so
    // that two of them are thirty-two floats without a gap.
    unsafe { &*std::ptr::from_ref(lanes).cast() }
}
