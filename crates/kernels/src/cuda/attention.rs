//! Attention over the paged cache.

use super::backend::{Fields, Launch};
use super::buffer::{Kind, Matrix, View};
use super::device::Device;
use crate::error::{KernelError, Result};

/// Positions that one block of [`AttentionKernel::Rows`] takes: a context of n has n / SPLIT
/// (rounded up) splits.
pub const SPLIT: usize = 256;

/// Head sizes that kernels are compiled for.
pub(super) const HEAD_DIMS: [usize; 5] = [16, 32, 64, 96, 128];

/// Keys and values of one layer: (B, Hkv, N, D) each, f32, f16 or bf16. The pool must have been
/// zeroed once ([`super::Buffer::zeros`]): what was never written is multiplied by weights of 0.
#[derive(Debug, Clone, Copy)]
pub struct KvCache<'a> {
    /// Keys, rotated.
    pub k: View<'a>,
    /// Values.
    pub v: View<'a>,
    /// (Hkv)
    pub kv_heads: usize,
    /// (N)
    pub block_len: usize,
    /// (D): 16, 32, 64, 96 or 128.
    pub head_dim: usize,
}

impl KvCache<'_> {
    /// (B)
    pub(super) fn blocks(&self) -> usize {
        self.k.len / (self.kv_heads * self.block_len * self.head_dim)
    }

    pub(super) fn check(&self, op: &'static str) -> Result<()> {
        let block = self.kv_heads * self.block_len * self.head_dim;
        let kinds = [Kind::F32, Kind::F16, Kind::BF16];
        if block == 0
            || self.k.len == 0
            || !self.k.len.is_multiple_of(block)
            || self.k.len != self.v.len
            || self.k.kind != self.v.kind
            || !kinds.contains(&self.k.kind)
            || !HEAD_DIMS.contains(&self.head_dim)
        {
            let problem = format!(
                "a cache of {} and {} elements of {} and {}, {} KV heads, blocks of {}, heads of {} \
                 (there are kernels for heads of {HEAD_DIMS:?})",
                self.k.len,
                self.v.len,
                self.k.kind.name(),
                self.v.kind.name(),
                self.kv_heads,
                self.block_len,
                self.head_dim
            );
            return Err(KernelError::Invalid { op, problem });
        }
        Ok(())
    }
}

/// The sequences of a step. Span s is the rows `starts[s]..starts[s + 1]`, the last of a context
/// of `contexts[s]` tokens (these included), in the blocks
/// `list[block_starts[s]..block_starts[s + 1]]`. A context of 0 with one row (a row that pads a
/// batch) gives zeros.
#[derive(Debug, Clone, Copy)]
pub struct Spans<'a> {
    /// How many (S).
    pub count: usize,
    /// (S + 1), u32, ascending.
    pub starts: View<'a>,
    /// (S), u32.
    pub contexts: View<'a>,
    /// (S + 1), u32.
    pub block_starts: View<'a>,
    /// u32.
    pub list: View<'a>,
}

/// Which kernel does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionKernel {
    /// A row at a time, in f32, the context in splits of [`SPLIT`]: for one row per sequence; right
    /// for any rows and any type of cache.
    Rows {
        /// Rows in the grid: at least those of all spans (more do nothing).
        rows: usize,
        /// At least the splits of the longest context, else its rows come out as NaN.
        splits: usize,
    },
    /// 64 rows of a span at a time on tensor cores (bf16 products): for prompts. The cache is f16
    /// or bf16.
    Tiles {
        /// At least the rows of the longest span (rows beyond are left out).
        longest: usize,
    },
}

/// Operands of [`paged_attention`].
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// (T, Hq*D), f32.
    pub q: Matrix<'a>,
    /// The layer's cache.
    pub kv: KvCache<'a>,
    /// The sequences.
    pub spans: Spans<'a>,
    /// Multiplies scores.
    pub scale: f32,
    /// A row sees the last so many positions, its own included; `None` = all.
    pub window: Option<usize>,
    /// (T, Hq*D), f32, f16 or bf16. Rows of no span are left as they are.
    pub out: Matrix<'a>,
    /// f32, [`Attention::scratch_len`] elements; only `Rows` with several splits use it.
    pub scratch: View<'a>,
}

impl Attention<'_> {
    /// Elements of scratch memory that so many rows and splits need.
    pub fn scratch_len(rows: usize, heads: usize, head_dim: usize, splits: usize) -> usize {
        if splits > 1 {
            rows * heads * splits * (head_dim + 2)
        } else {
            0
        }
    }

    fn check(&self, op: &'static str, rows: usize) -> Result<()> {
        self.kv.check(op)?;
        let width = self.q.columns;
        let count = self.spans.count;
        self.q.check(op, "q", &[Kind::F32], (rows, width))?;
        self.out.check(
            op,
            "out",
            &[Kind::F32, Kind::F16, Kind::BF16],
            (rows, width),
        )?;
        self.spans
            .starts
            .check(op, "starts", Kind::U32, count + 1)?;
        self.spans
            .contexts
            .check(op, "contexts", Kind::U32, count)?;
        self.spans
            .block_starts
            .check(op, "block_starts", Kind::U32, count + 1)?;
        self.spans.list.check(op, "blocks", Kind::U32, 0)?;
        if !width.is_multiple_of(self.kv.kv_heads * self.kv.head_dim) || self.window == Some(0) {
            let problem = format!(
                "q of {width} columns, {} KV heads of {}, window {:?}",
                self.kv.kv_heads, self.kv.head_dim, self.window
            );
            return Err(KernelError::Invalid { op, problem });
        }
        Ok(())
    }

    fn fields(&self, splits: usize) -> Fields {
        Fields::default()
            .u64(self.q.address())
            .u64(self.kv.k.address)
            .u64(self.kv.v.address)
            .u64(self.spans.starts.address)
            .u64(self.spans.contexts.address)
            .u64(self.spans.block_starts.address)
            .u64(self.spans.list.address)
            .u64(self.scratch.address)
            .u64(self.out.address())
            .u32(self.q.stride32())
            .u32(self.out.stride32())
            .u32(self.spans.count as u32)
            .u32((self.q.columns / self.kv.head_dim) as u32)
            .u32(self.kv.kv_heads as u32)
            .u32(self.kv.block_len as u32)
            .u32(self.kv.blocks() as u32)
            .u32(splits as u32)
            .u32(
                self.window
                    .map_or(0, |window| u32::try_from(window).unwrap_or(u32::MAX)),
            )
            .f32(self.scale)
            .u32(self.out.kind().code())
    }
}

/// Causal attention of the rows of `a.spans`. The row at position p sees positions `..=p`, or the
/// last `window` of them. Query head h reads KV head h / (Hq / Hkv).
///
/// # Errors
/// Operands of another shape or type; a head size without a kernel; too little scratch memory.
pub fn paged_attention(device: &Device, a: &Attention<'_>, kernel: AttentionKernel) -> Result<()> {
    match kernel {
        AttentionKernel::Rows { rows, splits } => attend_rows(device, a, rows, splits),
        AttentionKernel::Tiles { longest } => attend_tiles(device, a, longest),
    }
}

fn attend_rows(device: &Device, a: &Attention<'_>, rows: usize, splits: usize) -> Result<()> {
    let op = "paged_attention";
    a.check(op, 0)?;
    if rows == 0 || a.spans.count == 0 {
        return Ok(());
    }
    let dim = a.kv.head_dim;
    let heads = a.q.columns / dim;
    let splits = splits.max(1);
    let needed = Attention::scratch_len(rows, heads, dim, splits);
    a.scratch.check(op, "scratch", Kind::F32, needed)?;
    let group = heads / a.kv.kv_heads;
    let packed = if group == 1 { 1 } else { 4 };
    let name = format!("attend_rows_{}_{dim}_{packed}", a.kv.k.kind.name());
    let grid = [splits, a.kv.kv_heads * group.div_ceil(packed), rows];
    let launch = Launch::new(name, grid, 128)?.arg(a.fields(splits));
    device.backend().launch(&launch)?;
    if splits == 1 {
        return Ok(());
    }
    let launch = Launch::new("combine_splits", [1, heads, rows], 128)?
        .arg(a.fields(splits))
        .arg(dim as u32);
    device.backend().launch(&launch)
}

fn attend_tiles(device: &Device, a: &Attention<'_>, longest: usize) -> Result<()> {
    let op = "paged_attention";
    a.check(op, 0)?;
    if a.kv.k.kind == Kind::F32 {
        let problem = "tensor cores want a cache of f16 or bf16, this one is f32".to_owned();
        return Err(KernelError::Invalid { op, problem });
    }
    if longest == 0 || a.spans.count == 0 {
        return Ok(());
    }
    let dim = a.kv.head_dim;
    let name = format!("attend_tiles_{}_{dim}", a.kv.k.kind.name());
    let grid = [longest.div_ceil(64), a.q.columns / dim, a.spans.count];
    let launch = Launch::new(name, grid, 128)?.arg(a.fields(1));
    device.backend().launch(&launch)
}
