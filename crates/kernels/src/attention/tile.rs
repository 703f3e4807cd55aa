//! One tile of attention: some tokens of one sequence, the query heads of one KV head.

use super::{STEP, SequenceSpan};
use crate::blocks::KvDims;
use crate::parallel::Shared;
use crate::simd::{Kernel, LANES, Lanes, Simd, Stored, dispatch};
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
    /// Scaled queries: groups of up to [`GROUP`] rows, (D, rows of the group) each.
    queries: Vec<f32>,
    /// Keys of the step, (D padded, STEP): one lane per key.
    keys: Vec<[Lanes; 2]>,
    /// Values of the step: for each [`GROUP`] vectors of the head, (STEP, vectors).
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
    /// Computes the tile and writes its rows to `out` (T, Hq*D).
    pub(super) fn run(&self, scratch: &mut Scratch, out: &Shared<'_, f32>) {
        dispatch(Walk {
            tile: self,
            scratch,
            out,
        });
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

    fn prepare(&self, scratch: &mut Scratch) {
        let (rows, dim) = (self.tokens.len() * self.group, self.dims.head_dim);
        let vectors = dim.div_ceil(LANES);
        scratch.queries.resize(rows * dim, 0.0);
        for (g, queries) in scratch.queries.chunks_mut(GROUP * dim).enumerate() {
            let rows = queries.len() / dim;
            for row in 0..rows {
                let q = &self.q[self.row_start(g * GROUP + row)..][..dim];
                for (d, q) in q.iter().enumerate() {
                    queries[d * rows + row] = q * self.scale;
                }
            }
        }
        scratch.keys.resize(vectors * LANES, [Lanes::ZERO; 2]);
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
    scratch: &'a mut Scratch,
    out: &'a Shared<'a, f32>,
}

impl<T: Stored> Kernel for Walk<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { tile, scratch, out } = self;
        tile.prepare(scratch);
        let (Some(first), Some(last)) = (scratch.rows.first(), scratch.rows.last()) else {
            return;
        };
        let seen = first.visible.start..last.visible.end;
        for step in (seen.start / STEP * STEP..seen.end).step_by(STEP) {
            let keys = seen.start.max(step) - step..seen.end.min(step + STEP) - step;
            load_step(simd, tile, scratch, step, keys);
            for row in &mut scratch.rows {
                let start = row.visible.start.max(step) - step;
                row.keys = start..(row.visible.end.clamp(step, step + STEP) - step).max(start);
            }
            scores(simd, tile.dims.head_dim, scratch);
            for (row, weights) in scratch.rows.iter_mut().zip(&mut scratch.weights) {
                soften(simd, row, weights);
            }
            weigh(simd, tile.dims.head_dim, scratch);
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

/// Loads keys (transposed) and values of positions `step + keys`.
#[inline(always)]
fn load_step<T: Stored, S: Simd>(
    simd: S,
    tile: &Tile<'_, T>,
    scratch: &mut Scratch,
    step: usize,
    keys: Range<usize>,
) {
    let KvDims {
        block_len,
        head_dim,
        ..
    } = tile.dims;
    let mut rows: [(&[T], &[T]); STEP] = [(&[], &[]); STEP];
    for key in keys.clone() {
        let position = step + key;
        let block = tile.span.blocks[position / block_len] as usize;
        let start = tile.dims.offset(block, tile.kv_head, position % block_len);
        rows[key] = (&tile.k[start..][..head_dim], &tile.v[start..][..head_dim]);
    }
    let vectors = head_dim.div_ceil(LANES);
    for half in 0..2 {
        let wanted = keys.start.max(half * LANES)..keys.end.min((half + 1) * LANES);
        if wanted.is_empty() {
            continue;
        }
        for vector in 0..vectors {
            let mut square = [simd.splat(0.0); LANES];
            let lanes = wanted.start - half * LANES..wanted.end - half * LANES;
            for (lane, (key, _)) in square[lanes].iter_mut().zip(&rows[wanted.clone()]) {
                *lane = load_vector(simd, key, vector);
            }
            simd.transpose(&mut square);
            let columns = &mut scratch.keys[vector * LANES..][..LANES];
            for (column, x) in columns.iter_mut().zip(square) {
                simd.store(x, &mut column[half].0);
            }
        }
    }
    for chunk in (0..vectors).step_by(GROUP) {
        let width = GROUP.min(vectors - chunk);
        let values = &mut scratch.values[chunk * STEP..][..width * STEP];
        let values = values
            .chunks_exact_mut(width)
            .zip(&rows)
            .take(keys.end)
            .skip(keys.start);
        for (out, (_, row)) in values {
            for (vector, out) in out.iter_mut().enumerate() {
                simd.store(load_vector(simd, row, chunk + vector), &mut out.0);
            }
        }
    }
}

/// Elements `vector * 16..` of a row, zeros behind its end.
#[inline(always)]
fn load_vector<T: Stored, S: Simd>(simd: S, row: &[T], vector: usize) -> S::F {
    let rest = &row[vector * LANES..];
    if let Some(full) = rest.first_chunk() {
        return T::load(simd, full);
    }
    let mut padded = [T::ZERO; LANES];
    padded[..rest.len()].copy_from_slice(rest);
    T::load(simd, &padded)
}

/// Scores of every row against every key of the step.
#[inline(always)]
fn scores<S: Simd>(simd: S, dim: usize, scratch: &mut Scratch) {
    let keys = &scratch.keys[..dim];
    let groups = scratch
        .queries
        .chunks(GROUP * dim)
        .zip(scratch.weights.chunks_mut(GROUP));
    for (queries, out) in groups {
        match out.len() {
            1 => score_group::<1, S>(simd, queries, keys, out),
            2 => score_group::<2, S>(simd, queries, keys, out),
            3 => score_group::<3, S>(simd, queries, keys, out),
            _ => score_group::<4, S>(simd, queries, keys, out),
        }
    }
}

#[inline(always)]
fn score_group<const R: usize, S: Simd>(
    simd: S,
    queries: &[f32],
    keys: &[[Lanes; 2]],
    out: &mut [[Lanes; 2]],
) {
    let mut sums = [[simd.splat(0.0); 2]; R];
    for (query, key) in queries.as_chunks::<R>().0.iter().zip(keys) {
        let (low, high) = (simd.load(&key[0].0), simd.load(&key[1].0));
        for r in 0..R {
            let q = simd.splat(query[r]);
            sums[r] = [
                simd.mul_add(q, low, sums[r][0]),
                simd.mul_add(q, high, sums[r][1]),
            ];
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        simd.store(sum[0], &mut out[0].0);
        simd.store(sum[1], &mut out[1].0);
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
fn weigh<S: Simd>(simd: S, dim: usize, scratch: &mut Scratch) {
    let vectors = dim.div_ceil(LANES);
    let groups = scratch
        .rows
        .chunks(GROUP)
        .zip(scratch.weights.chunks(GROUP));
    for ((rows, weights), sums) in groups.zip(scratch.sums.chunks_mut(GROUP * vectors)) {
        let together = rows.iter().all(|row| row.keys == rows[0].keys);
        let size = if together { rows.len() } else { 1 };
        let parts = rows.chunks(size).zip(weights.chunks(size));
        for ((rows, weights), sums) in parts.zip(sums.chunks_mut(size * vectors)) {
            if rows[0].keys.is_empty() {
                continue;
            }
            match rows.len() {
                1 => weigh_group::<1, S>(simd, rows, weights, &scratch.values, sums),
                2 => weigh_group::<2, S>(simd, rows, weights, &scratch.values, sums),
                3 => weigh_group::<3, S>(simd, rows, weights, &scratch.values, sums),
                _ => weigh_group::<4, S>(simd, rows, weights, &scratch.values, sums),
            }
        }
    }
}

#[inline(always)]
fn weigh_group<const R: usize, S: Simd>(
    simd: S,
    rows: &[Row],
    weights: &[[Lanes; 2]],
    values: &[Lanes],
    sums: &mut [Lanes],
) {
    let vectors = sums.len() / R;
    for chunk in (0..vectors).step_by(GROUP) {
        let values = &values[chunk * STEP..];
        match vectors - chunk {
            1 => weigh_chunk::<R, 1, S>(simd, rows, weights, values, (chunk, sums)),
            2 => weigh_chunk::<R, 2, S>(simd, rows, weights, values, (chunk, sums)),
            3 => weigh_chunk::<R, 3, S>(simd, rows, weights, values, (chunk, sums)),
            _ => weigh_chunk::<R, 4, S>(simd, rows, weights, values, (chunk, sums)),
        }
    }
}

/// R rows that see the same keys, V vectors of the head dimension.
#[inline(always)]
fn weigh_chunk<const R: usize, const V: usize, S: Simd>(
    simd: S,
    rows: &[Row],
    weights: &[[Lanes; 2]],
    values: &[Lanes],
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
    for (key, values) in values.as_chunks::<V>().0[..end]
        .iter()
        .enumerate()
        .skip(start)
    {
        let mut value = [simd.splat(0.0); V];
        for v in 0..V {
            value[v] = simd.load(&values[v].0);
        }
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
