//! Causal attention inside the segments of a pack, forward and backward.

use super::super::attention::HEAD_DIMS;
use super::super::backend::{Fields, Launch};
use super::super::buffer::{Kind, Matrix, View};
use super::super::device::Device;
use super::super::elementwise::F32;
use crate::error::{KernelError, Result};
use crate::training::AttentionShape;

/// Rows of queries that a block of the forward kernel, and of that for dq, takes; and rows of keys
/// that one for dk and dv takes.
const TILE: usize = 64;

/// What attention reads. Rows start at multiples of 16 bytes.
#[derive(Debug, Clone, Copy)]
pub struct SegmentAttention<'a> {
    /// (T, Hq*D), rotated.
    pub q: Matrix<'a>,
    /// (T, Hkv*D), rotated.
    pub k: Matrix<'a>,
    /// (T, Hkv*D)
    pub v: Matrix<'a>,
    /// (S + 1), u32, ascending, from 0 to T: where sequences start. Tokens see only their own.
    pub starts: View<'a>,
    /// (S)
    pub segments: usize,
    /// Tokens of the longest segment: what lies behind so many of a segment is left out.
    pub longest: usize,
    /// Heads (of 16, 32, 64, 96 or 128) and window.
    pub shape: AttentionShape,
}

/// What the backward pass reads and writes beside.
#[derive(Debug, Clone, Copy)]
pub struct AttentionBackward<'a> {
    /// What [`segment_attention`] gave, (T, Hq*D).
    pub mixed: Matrix<'a>,
    /// What it gave beside, (Hq, T).
    pub lse: View<'a>,
    /// Of `mixed`, (T, Hq*D).
    pub gradient: Matrix<'a>,
    /// Of q, (T, Hq*D).
    pub dq: Matrix<'a>,
    /// Of k, (T, Hkv*D).
    pub dk: Matrix<'a>,
    /// Of v, (T, Hkv*D).
    pub dv: Matrix<'a>,
    /// (Hq, T); may hold anything.
    pub scratch: View<'a>,
}

/// Attention of q on k and v: the mix (T, Hq*D) and the log-sum-exp of each row's scores, (Hq, T).
///
/// # Errors
/// Operands of another shape or type, heads that no kernel is made for.
pub fn segment_attention(
    device: &Device,
    a: &SegmentAttention<'_>,
    mixed: Matrix<'_>,
    lse: View<'_>,
    rows: usize,
) -> Result<()> {
    let op = "segment_attention";
    a.check(op, rows)?;
    a.check_rows(op, "mixed", mixed, (rows, a.shape.query_heads))?;
    lse.check(op, "lse", Kind::F32, a.shape.query_heads * rows)?;
    if rows == 0 || a.segments == 0 || a.longest == 0 {
        return Ok(());
    }
    let fields = a.fields(rows).u64(mixed.address()).u64(lse.address);
    let fields = fields.u64(0).u64(0).u64(0).u64(0).u64(0);
    let fields = fields.u32(mixed.stride32()).u32(0).u32(0).u32(0).u32(0);
    let grid = [a.longest.div_ceil(TILE), a.shape.query_heads, a.segments];
    let name = format!("segment_forward_{}", a.shape.head_dim);
    let launch = Launch::new(name, grid, 128)?.arg(fields);
    device.backend().launch(&launch)
}

/// Gradients of q, k and v for that of the mix; the probabilities are made again from `lse`.
///
/// # Errors
/// As [`segment_attention`].
pub fn segment_attention_backward(
    device: &Device,
    a: &SegmentAttention<'_>,
    b: &AttentionBackward<'_>,
    rows: usize,
) -> Result<()> {
    let op = "segment_attention_backward";
    a.check(op, rows)?;
    let (heads, kv_heads) = (a.shape.query_heads, a.shape.kv_heads);
    a.check_rows(op, "mixed", b.mixed, (rows, heads))?;
    a.check_rows(op, "gradient", b.gradient, (rows, heads))?;
    a.check_rows(op, "dq", b.dq, (rows, heads))?;
    a.check_rows(op, "dk", b.dk, (rows, kv_heads))?;
    a.check_rows(op, "dv", b.dv, (rows, kv_heads))?;
    b.lse.check(op, "lse", Kind::F32, heads * rows)?;
    b.scratch.check(op, "scratch", Kind::F32, heads * rows)?;
    if rows == 0 || a.segments == 0 || a.longest == 0 {
        return Ok(());
    }
    let fields = || {
        a.fields(rows)
            .u64(b.mixed.address())
            .u64(b.lse.address)
            .u64(b.gradient.address())
            .u64(b.scratch.address)
            .u64(b.dq.address())
            .u64(b.dk.address())
            .u64(b.dv.address())
            .u32(b.mixed.stride32())
            .u32(b.gradient.stride32())
            .u32(b.dq.stride32())
            .u32(b.dk.stride32())
            .u32(b.dv.stride32())
    };
    let dim = a.shape.head_dim;
    let sums = Launch::new("segment_row_sums", [rows.div_ceil(8), heads, 1], 256)?
        .arg(fields())
        .arg(dim as u32);
    device.backend().launch(&sums)?;
    let tiles = a.longest.div_ceil(TILE);
    let of_keys = format!("segment_keys_{dim}");
    let of_keys = Launch::new(of_keys, [tiles, kv_heads, a.segments], 128)?.arg(fields());
    device.backend().launch(&of_keys)?;
    let of_queries = format!("segment_queries_{dim}");
    let of_queries = Launch::new(of_queries, [tiles, heads, a.segments], 128)?.arg(fields());
    device.backend().launch(&of_queries)
}

impl SegmentAttention<'_> {
    fn check(&self, op: &'static str, rows: usize) -> Result<()> {
        let shape = &self.shape;
        let whole = shape.kv_heads > 0 && shape.query_heads.is_multiple_of(shape.kv_heads);
        if !whole || !HEAD_DIMS.contains(&shape.head_dim) || shape.window == Some(0) {
            let problem =
                format!("impossible heads: {shape:?} (there are kernels for {HEAD_DIMS:?})");
            return Err(KernelError::Invalid { op, problem });
        }
        self.check_rows(op, "q", self.q, (rows, shape.query_heads))?;
        self.check_rows(op, "k", self.k, (rows, shape.kv_heads))?;
        self.check_rows(op, "v", self.v, (rows, shape.kv_heads))?;
        self.starts
            .check(op, "starts", Kind::U32, self.segments + 1)
    }

    /// Checks shape, type and what reading four values at a time needs.
    fn check_rows(
        &self,
        op: &'static str,
        name: &'static str,
        x: Matrix<'_>,
        (rows, heads): (usize, usize),
    ) -> Result<()> {
        x.check(op, name, F32, (rows, heads * self.shape.head_dim))?;
        if !x.address().is_multiple_of(16) || !x.stride().is_multiple_of(4) {
            let stride = x.stride();
            let problem = format!(
                "rows of {name}, every {stride} elements, start beside multiples of 16 bytes"
            );
            return Err(KernelError::Invalid { op, problem });
        }
        Ok(())
    }

    /// The first of the kernels' arguments.
    fn fields(&self, rows: usize) -> Fields {
        let shape = &self.shape;
        // No sequence is longer than what a window counts.
        let window = shape.window.and_then(|window| u32::try_from(window).ok());
        Fields::default()
            .u64(self.q.address())
            .u64(self.k.address())
            .u64(self.v.address())
            .u64(self.starts.address)
            .u32(self.q.stride32())
            .u32(self.k.stride32())
            .u32(self.v.stride32())
            .u32(rows as u32)
            .u32(shape.query_heads as u32)
            .u32(shape.kv_heads as u32)
            .u32(window.unwrap_or(u32::MAX))
            .f32(1.0 / (shape.head_dim as f32).sqrt())
    }
}
