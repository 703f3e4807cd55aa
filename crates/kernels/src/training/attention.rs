//! Causal attention inside the segments of a pack, forward and backward.
//!
//! A segment is one sequence; tokens see only their own segment. Probabilities exist for a block
//! of queries at a time, in both directions: the backward pass makes them again from the
//! log-sum-exp of each row (Dao et al. 2022, section 3.1), so that memory grows with the length
//! of a segment and not with its square.
//!
//! One task is one (segment, key-value head): it owns its columns of dk and dv, and the columns
//! of dq of the query heads that share the head. What a task computes depends on its own segment
//! only, so packing does not show in the bits.

use super::host::host;
use super::product::{Into, View, product};
use crate::error::{KernelError, Result, matrix};
use crate::parallel::{self, Shared};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use candle_core::{Device, Tensor};
use std::ops::Range;

/// Queries whose probabilities exist at a time.
const BLOCK: usize = 128;

/// The heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// (Hq); a multiple of `kv_heads`.
    pub query_heads: usize,
    /// (Hkv)
    pub kv_heads: usize,
    /// (D); scores are divided by its square root.
    pub head_dim: usize,
    /// Positions, its own included, that a token sees; `None` = all before it.
    pub window: Option<usize>,
}

/// Attention of q (T, Hq*D) on k and v (T, Hkv*D), f32, after rotation. `segments`: how many
/// tokens each sequence has, in order, T in all. Gives the mix (T, Hq*D) and the log-sum-exp of
/// each row's scores, (Hq, T), which the backward pass wants.
///
/// # Errors
/// Wrong shapes, types or strides; segments that do not add up to T.
pub fn segment_attention(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    segments: &[usize],
    shape: &AttentionShape,
) -> Result<(Tensor, Tensor)> {
    let op = "segment_attention";
    let tokens = shape.check(op, q, segments)?;
    let (wide, narrow) = shape.widths();
    let q = host(op, "q", q, &[tokens, wide])?;
    let k = host(op, "k", k, &[tokens, narrow])?;
    let v = host(op, "v", v, &[tokens, narrow])?;
    let operands = Operands {
        q: &q,
        k: &k,
        v: &v,
        shape: *shape,
    };
    let mut mixed = vec![0.0; tokens * wide];
    let mut lse = vec![0.0; shape.query_heads * tokens];
    let (out, out_lse) = (Shared::new(&mut mixed), Shared::new(&mut lse));
    each_task(segments, shape, |segment, kv_head| {
        let mut scratch = Scratch::default();
        for head in shape.sharing(kv_head) {
            for rows in blocks(&segment) {
                let keys = shape.keys_of(&segment, &rows);
                operands.scores(head, &rows, &keys, &mut scratch.scores);
                let width = keys.len();
                for (row, scores) in rows.clone().zip(scratch.scores.chunks_exact_mut(width)) {
                    let seen = shape.seen(&segment, row, &keys);
                    #[expect(unsafe_code, reason = "threads write disjoint parts of one output")]
                    // SAFETY: each (head, row) belongs to one task.
                    let lse =
                        unsafe { out_lse.slice(head * tokens + row..head * tokens + row + 1) };
                    lse[0] = dispatch(Softmax { scores, seen });
                }
                let head_dim = shape.head_dim;
                scratch.block.resize(rows.len() * head_dim, 0.0);
                let p = View::rows(&scratch.scores, (rows.len(), width), width);
                let v = operands.kv_rows(operands.v, kv_head, &keys);
                product(&mut scratch.block, Into::Overwrite, 1.0, p, v);
                scatter(
                    &scratch.block,
                    &out,
                    (rows, wide, head * head_dim),
                    head_dim,
                );
            }
        }
    });
    Ok((
        Tensor::from_vec(mixed, (tokens, wide), &Device::Cpu)?,
        Tensor::from_vec(lse, (shape.query_heads, tokens), &Device::Cpu)?,
    ))
}

/// Gradients of q, k and v: of what [`segment_attention`] was given, what it returned, and the
/// gradient of the mix (T, Hq*D).
///
/// # Errors
/// As [`segment_attention`].
pub fn segment_attention_backward(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    (mixed, lse): (&Tensor, &Tensor),
    gradient: &Tensor,
    segments: &[usize],
    shape: &AttentionShape,
) -> Result<(Tensor, Tensor, Tensor)> {
    let op = "segment_attention_backward";
    let tokens = shape.check(op, q, segments)?;
    let (wide, narrow) = shape.widths();
    let q = host(op, "q", q, &[tokens, wide])?;
    let k = host(op, "k", k, &[tokens, narrow])?;
    let v = host(op, "v", v, &[tokens, narrow])?;
    let operands = Operands {
        q: &q,
        k: &k,
        v: &v,
        shape: *shape,
    };
    let mixed = host(op, "mixed", mixed, &[tokens, wide])?;
    let lse = host(op, "lse", lse, &[shape.query_heads, tokens])?;
    let gradient = host(op, "gradient", gradient, &[tokens, wide])?;
    let head_dim = shape.head_dim;
    let mut dq = vec![0.0; tokens * wide];
    let (mut dk, mut dv) = (vec![0.0; tokens * narrow], vec![0.0; tokens * narrow]);
    let (out_q, out_k, out_v) = (
        Shared::new(&mut dq),
        Shared::new(&mut dk),
        Shared::new(&mut dv),
    );
    let inputs = Backward {
        operands,
        mixed: &mixed,
        lse: &lse,
        gradient: &gradient,
        tokens,
    };
    each_task(segments, shape, |segment, kv_head| {
        let (of_keys, of_values) = inputs.task(&segment, kv_head, &out_q);
        let place = (segment, narrow, kv_head * head_dim);
        scatter(&of_keys, &out_k, place.clone(), head_dim);
        scatter(&of_values, &out_v, place, head_dim);
    });
    Ok((
        Tensor::from_vec(dq, (tokens, wide), &Device::Cpu)?,
        Tensor::from_vec(dk, (tokens, narrow), &Device::Cpu)?,
        Tensor::from_vec(dv, (tokens, narrow), &Device::Cpu)?,
    ))
}

/// What the backward pass reads.
struct Backward<'a> {
    operands: Operands<'a>,
    mixed: &'a [f32],
    lse: &'a [f32],
    gradient: &'a [f32],
    tokens: usize,
}

impl Backward<'_> {
    /// Gradients (n, D) of one segment's keys and values of one head; those of the queries that
    /// read them go to `out_q`.
    fn task(
        &self,
        segment: &Range<usize>,
        kv_head: usize,
        out_q: &Shared<'_, f32>,
    ) -> (Vec<f32>, Vec<f32>) {
        let (operands, shape) = (&self.operands, &self.operands.shape);
        let (head_dim, (wide, _)) = (shape.head_dim, shape.widths());
        let mut scratch = Scratch::default();
        let mut of_keys = vec![0.0; segment.len() * head_dim];
        let mut of_values = vec![0.0; segment.len() * head_dim];
        for head in shape.sharing(kv_head) {
            for rows in blocks(segment) {
                let keys = shape.keys_of(segment, &rows);
                let column = head * head_dim;
                let g = &self.gradient[rows.start * wide + column..];
                let g = View::rows(g, (rows.len(), head_dim), wide);
                self.score_gradients(segment, (head, &rows, &keys), g, &mut scratch);
                let score_shape = (rows.len(), keys.len());
                let p = View::rows(&scratch.scores, score_shape, keys.len()).transposed();
                let ds = View::rows(&scratch.of_scores, score_shape, keys.len());
                let local =
                    (keys.start - segment.start) * head_dim..(keys.end - segment.start) * head_dim;
                product(&mut of_values[local.clone()], Into::Add, 1.0, p, g);
                let q = operands.query_rows(head, &rows);
                product(
                    &mut of_keys[local],
                    Into::Add,
                    shape.scale(),
                    ds.transposed(),
                    q,
                );
                scratch.block.resize(rows.len() * head_dim, 0.0);
                let k = operands.kv_rows(operands.k, kv_head, &keys);
                product(&mut scratch.block, Into::Overwrite, shape.scale(), ds, k);
                scatter(&scratch.block, out_q, (rows, wide, column), head_dim);
            }
        }
        (of_keys, of_values)
    }

    /// Fills the scratch with one block's probabilities and the gradients of its scores, for the
    /// gradient `g` (rows, D) of what the block gave.
    fn score_gradients(
        &self,
        segment: &Range<usize>,
        (head, rows, keys): (usize, &Range<usize>, &Range<usize>),
        g: View<'_>,
        scratch: &mut Scratch,
    ) {
        let (operands, shape) = (&self.operands, &self.operands.shape);
        let (head_dim, (wide, _)) = (shape.head_dim, shape.widths());
        let width = keys.len();
        operands.scores(head, rows, keys, &mut scratch.scores);
        scratch.of_scores.resize(rows.len() * width, 0.0);
        let kv_head = head * shape.kv_heads / shape.query_heads;
        let v = operands.kv_rows(operands.v, kv_head, keys).transposed();
        product(&mut scratch.of_scores, Into::Overwrite, 1.0, g, v);
        let both = scratch
            .scores
            .chunks_exact_mut(width)
            .zip(scratch.of_scores.chunks_exact_mut(width));
        for (row, (scores, of_scores)) in rows.clone().zip(both) {
            let start = row * wide + head * head_dim;
            dispatch(ScoreGradient {
                seen: shape.seen(segment, row, keys),
                lse: self.lse[head * self.tokens + row],
                mixed: &self.mixed[start..start + head_dim],
                gradient: &self.gradient[start..start + head_dim],
                scores,
                of_scores,
            });
        }
    }
}

/// Buffers of one task.
#[derive(Default)]
struct Scratch {
    /// (rows, keys): scores, then probabilities.
    scores: Vec<f32>,
    /// (rows, keys): gradients of the probabilities, then of the scores.
    of_scores: Vec<f32>,
    /// (rows, D)
    block: Vec<f32>,
}

impl AttentionShape {
    /// Widths of q and of k: Hq*D and Hkv*D.
    fn widths(&self) -> (usize, usize) {
        (
            self.query_heads * self.head_dim,
            self.kv_heads * self.head_dim,
        )
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Query heads that read one key-value head.
    fn sharing(&self, kv_head: usize) -> Range<usize> {
        let group = self.query_heads / self.kv_heads;
        kv_head * group..(kv_head + 1) * group
    }

    /// First position that `row` sees.
    fn first_seen(&self, segment: &Range<usize>, row: usize) -> usize {
        let reach = self.window.unwrap_or(usize::MAX);
        segment.start.max((row + 1).saturating_sub(reach))
    }

    /// Keys that any of `rows` sees.
    fn keys_of(&self, segment: &Range<usize>, rows: &Range<usize>) -> Range<usize> {
        self.first_seen(segment, rows.start)..rows.end
    }

    /// What `row` sees, as columns of scores for `keys`.
    fn seen(&self, segment: &Range<usize>, row: usize, keys: &Range<usize>) -> Range<usize> {
        self.first_seen(segment, row) - keys.start..row + 1 - keys.start
    }

    fn check(&self, op: &'static str, q: &Tensor, segments: &[usize]) -> Result<usize> {
        let (tokens, _) = matrix(op, "q", q)?;
        let whole = self.kv_heads > 0 && self.query_heads.is_multiple_of(self.kv_heads);
        if !whole || self.head_dim == 0 || self.window == Some(0) {
            let problem = format!("impossible heads: {self:?}");
            return Err(KernelError::Invalid { op, problem });
        }
        let covered: usize = segments.iter().sum();
        if covered != tokens {
            let problem = format!("segments of {covered} tokens in all, for {tokens}");
            return Err(KernelError::Invalid { op, problem });
        }
        Ok(tokens)
    }
}

struct Operands<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    shape: AttentionShape,
}

impl Operands<'_> {
    /// One head's rows of q, (rows, D).
    fn query_rows(&self, head: usize, rows: &Range<usize>) -> View<'_> {
        let (wide, _) = self.shape.widths();
        let start = rows.start * wide + head * self.shape.head_dim;
        View::rows(&self.q[start..], (rows.len(), self.shape.head_dim), wide)
    }

    /// One head's rows of k or v, (keys, D).
    fn kv_rows<'b>(&self, values: &'b [f32], kv_head: usize, keys: &Range<usize>) -> View<'b> {
        let (_, narrow) = self.shape.widths();
        let start = keys.start * narrow + kv_head * self.shape.head_dim;
        View::rows(&values[start..], (keys.len(), self.shape.head_dim), narrow)
    }

    /// Scaled scores of one head, (rows, keys), those of unseen keys included.
    fn scores(&self, head: usize, rows: &Range<usize>, keys: &Range<usize>, out: &mut Vec<f32>) {
        let kv_head = head * self.shape.kv_heads / self.shape.query_heads;
        out.resize(rows.len() * keys.len(), 0.0);
        let k = self.kv_rows(self.k, kv_head, keys).transposed();
        product(
            out,
            Into::Overwrite,
            self.shape.scale(),
            self.query_rows(head, rows),
            k,
        );
    }
}

/// Runs `work(segment, kv head)` for all of them, on the pool.
fn each_task(
    segments: &[usize],
    shape: &AttentionShape,
    work: impl Fn(Range<usize>, usize) + Sync,
) {
    let mut start = 0;
    let mut tasks: Vec<(Range<usize>, usize)> = Vec::new();
    for len in segments.iter().filter(|len| **len > 0) {
        tasks.extend((0..shape.kv_heads).map(|head| (start..start + len, head)));
        start += len;
    }
    parallel::queue(tasks.len(), |task| {
        let (segment, head) = &tasks[task];
        work(segment.clone(), *head);
    });
}

/// A segment in blocks that depend on the segment alone.
fn blocks(segment: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = segment.end;
    segment
        .clone()
        .step_by(BLOCK)
        .map(move |start| start..end.min(start + BLOCK))
}

/// Copies the rows of `block` (rows, D) to rows of an output of some width, at one column.
fn scatter(
    block: &[f32],
    out: &Shared<'_, f32>,
    (rows, width, column): (Range<usize>, usize, usize),
    head_dim: usize,
) {
    for (row, values) in rows.zip(block.chunks_exact(head_dim)) {
        let start = row * width + column;
        #[expect(unsafe_code, reason = "threads write disjoint parts of one output")]
        // SAFETY: each (row, head) belongs to one task.
        let out = unsafe { out.slice(start..start + head_dim) };
        out.copy_from_slice(values);
    }
}

/// One row of scores becomes probabilities, 0 outside of what it sees; gives the log-sum-exp.
struct Softmax<'a> {
    scores: &'a mut [f32],
    seen: Range<usize>,
}

impl Kernel for Softmax<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        self.scores[..self.seen.start].fill(0.0);
        self.scores[self.seen.end..].fill(0.0);
        let scores = &mut self.scores[self.seen];
        let mut top = simd.splat(f32::NEG_INFINITY);
        let (vectors, rest) = scores.as_chunks::<LANES>();
        for x in vectors {
            top = simd.max(simd.load(x), top);
        }
        let top = rest.iter().fold(simd.max_lane(top), |top, x| x.max(top));
        let total = exp_and_sum(simd, scores, top);
        let factor = simd.splat(1.0 / total);
        let (vectors, rest) = scores.as_chunks_mut::<LANES>();
        for x in vectors {
            let scaled = simd.mul(simd.load(x), factor);
            simd.store(scaled, x);
        }
        for x in rest {
            *x *= 1.0 / total;
        }
        top + total.ln()
    }
}

/// Every value becomes e^(value - shift); their sum.
#[inline(always)]
pub(super) fn exp_and_sum<S: Simd>(simd: S, values: &mut [f32], shift: f32) -> f32 {
    let shift = simd.splat(shift);
    let mut sum = simd.splat(0.0);
    let (vectors, rest) = values.as_chunks_mut::<LANES>();
    for x in vectors {
        let e = simd.exp(simd.sub(simd.load(x), shift));
        simd.store(e, x);
        sum = simd.add(sum, e);
    }
    let total = simd.sum(sum);
    let e = simd.exp(simd.sub(simd.load_part(rest), shift));
    simd.store_part(e, rest);
    rest.iter().fold(total, |total, e| total + e)
}

/// One row: scores become probabilities, gradients of probabilities those of scores.
struct ScoreGradient<'a> {
    seen: Range<usize>,
    lse: f32,
    /// (D) what attention gave for this row and head, and its gradient.
    mixed: &'a [f32],
    gradient: &'a [f32],
    scores: &'a mut [f32],
    of_scores: &'a mut [f32],
}

impl Kernel for ScoreGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let products = self.mixed.iter().zip(self.gradient).map(|(o, g)| o * g);
        let mean: f32 = products.sum();
        for values in [&mut *self.scores, &mut *self.of_scores] {
            values[..self.seen.start].fill(0.0);
            values[self.seen.end..].fill(0.0);
        }
        let p = &mut self.scores[self.seen.clone()];
        exp_and_sum(simd, p, self.lse);
        let d = &mut self.of_scores[self.seen];
        let mean_lanes = simd.splat(mean);
        let ((p, p_rest), (d, d_rest)) = (p.as_chunks::<LANES>(), d.as_chunks_mut::<LANES>());
        for (p, d) in p.iter().zip(d) {
            let of_score = simd.mul(simd.load(p), simd.sub(simd.load(d), mean_lanes));
            simd.store(of_score, d);
        }
        for (p, d) in p_rest.iter().zip(d_rest) {
            *d = p * (*d - mean);
        }
    }
}
