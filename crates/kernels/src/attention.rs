//! Attention over a paged KV cache, for prompts and single tokens alike.
//!
//! A row (one query head of one token) walks its context in steps of [`STEP`] positions,
//! aligned to multiples of [`STEP`], with an online softmax (Milakov & Gimelshein 2018):
//! scores, each the sum of four sums over every fourth element of the head; the largest
//! score; weights; then the weighted values, added key by key. Rows of one tile share what
//! is loaded, but no operation mixes rows or depends on how many there are, and keys that a
//! row may not see are never added to it: its result is the same bits in any tile.

use crate::blocks::{KvDims, KvLayer};
use crate::cpu;
use crate::error::{KernelError, Result, shaped};
use crate::parallel::{self, Shared};
use crate::simd::{LANES, Stored};
use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use half::f16;
use std::cell::RefCell;
use std::ops::Range;
use tile::{Scratch, Tile};

mod tile;

/// Positions that a row takes at a time.
const STEP: usize = 2 * LANES;

/// Rows (tokens times query heads of one KV head) that share a load of keys and values.
const TILE_ROWS: usize = 32;

/// The tokens of one sequence in a step, and where its context lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceSpan {
    /// Rows of (T) that belong to the sequence.
    pub query: Range<usize>,
    /// Tokens of context, those of this step included: row i of the span sits at position
    /// `context_len - query.len() + i`.
    pub context_len: usize,
    /// The sequence's blocks: position p lies in `blocks[p / N]` at offset `p % N`.
    pub blocks: Vec<u32>,
}

/// Causal attention of q (T, Hq*D), f32, over the cache; (T, Hq*D).
///
/// The row at position p attends to positions `..=p`, or to the last `window` of them
/// (itself included, as transformers counts). Query head h reads KV head h / (Hq / Hkv).
/// Rows that belong to no span come out as zeros.
///
/// # Errors
/// Wrong shapes, types or strides; spans that overlap, leave T, or name too few blocks or
/// blocks outside of the pool; a window of 0.
pub fn paged_attention(
    q: &Tensor,
    kv: &KvLayer,
    spans: &[SequenceSpan],
    scale: f32,
    window: Option<usize>,
) -> Result<Tensor> {
    let op = "paged_attention";
    let dims = kv.dims(op)?;
    let (tokens, width) = crate::error::matrix(op, "q", q)?;
    if width == 0 || width % (dims.kv_heads * dims.head_dim) != 0 {
        let expected = format!("(T, groups * {} * {})", dims.kv_heads, dims.head_dim);
        return Err(KernelError::Shape {
            op,
            operand: "q",
            expected,
            got: q.dims().to_vec(),
        });
    }
    shaped(op, "q", q, &[tokens, width])?;
    if window == Some(0) {
        return Err(KernelError::Invalid {
            op,
            problem: "a window of 0 positions".to_owned(),
        });
    }
    check_spans(op, spans, tokens, dims)?;
    let op = Attention {
        dims,
        spans,
        scale,
        window,
    };
    Ok(q.apply_op3_no_bwd(&kv.k, &kv.v, &op)?)
}

fn check_spans(
    op: &'static str,
    spans: &[SequenceSpan],
    tokens: usize,
    dims: KvDims,
) -> Result<()> {
    let mut queries: Vec<&Range<usize>> = spans.iter().map(|span| &span.query).collect();
    queries.sort_unstable_by_key(|query| (query.start, query.end));
    let mut taken = 0;
    for query in queries {
        if query.start > query.end || query.start < taken || query.end > tokens {
            let problem = format!("span {query:?} overlaps another or leaves {tokens} rows");
            return Err(KernelError::Invalid { op, problem });
        }
        taken = query.end;
    }
    for SequenceSpan {
        query,
        context_len,
        blocks,
    } in spans
    {
        let room = blocks.len().saturating_mul(dims.block_len);
        if query.len() > *context_len || *context_len > room {
            let problem = format!(
                "{} rows with a context of {context_len} in blocks for {room}",
                query.len()
            );
            return Err(KernelError::Invalid { op, problem });
        }
        if let Some(&block) = blocks.iter().find(|&&block| block as usize >= dims.blocks) {
            let (what, index, len) = ("block", block as usize, dims.blocks);
            return Err(KernelError::OutOfRange {
                op,
                what,
                index,
                len,
            });
        }
    }
    Ok(())
}

struct Attention<'a> {
    dims: KvDims,
    spans: &'a [SequenceSpan],
    scale: f32,
    window: Option<usize>,
}

impl CustomOp3 for Attention<'_> {
    fn name(&self) -> &'static str {
        "paged_attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let q: &[f32] = cpu::slice(q, q_layout)?;
        let width = q_layout.dims()[1];
        let out = if matches!(k, CpuStorage::F16(_)) {
            self.run::<f16>(q, cpu::slice(k, k_layout)?, cpu::slice(v, v_layout)?, width)
        } else {
            self.run::<f32>(q, cpu::slice(k, k_layout)?, cpu::slice(v, v_layout)?, width)
        };
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }
}

thread_local! {
    /// Working memory of a thread, kept between calls: it is as large for one row as for many.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Attention<'_> {
    fn run<T: Stored>(&self, q: &[f32], k: &[T], v: &[T], width: usize) -> Vec<f32> {
        let group = width / (self.dims.kv_heads * self.dims.head_dim);
        let tile_tokens = (TILE_ROWS / group).max(1);
        let mut tiles: Vec<(&SequenceSpan, Range<usize>)> = Vec::new();
        for span in self.spans {
            let starts = (0..span.query.len()).step_by(tile_tokens);
            tiles.extend(starts.map(|at| (span, at..span.query.len().min(at + tile_tokens))));
        }
        let context: usize = self.spans.iter().map(|span| span.context_len).sum();
        let mut out = vec![0.0; q.len()];
        let shared = Shared::new(&mut out);
        let units = tiles.len() * self.dims.kv_heads;
        let tile = |unit: usize| {
            let (span, tokens) = &tiles[unit / self.dims.kv_heads];
            Tile {
                q,
                k,
                v,
                dims: self.dims,
                span,
                tokens: tokens.clone(),
                kv_head: unit % self.dims.kv_heads,
                group,
                scale: self.scale,
                window: self.window,
            }
        };
        parallel::ranges(units, context * width, |range| {
            SCRATCH.with_borrow_mut(|scratch| {
                for unit in range.clone() {
                    let next = range.contains(&(unit + 1)).then(|| tile(unit + 1));
                    tile(unit).run(scratch, &shared, next.as_ref());
                }
            });
        });
        out
    }
}
