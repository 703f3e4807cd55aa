//! Embedding, norms, gate, casts, rotary embedding with the write to the cache, block copies.

use super::attention::KvCache;
use super::backend::{Fields, Launch};
use super::buffer::{Buffer, Kind, Matrix, View};
use super::device::Device;
use super::linear::CudaLinear;
use crate::error::{KernelError, Result};
use crate::rope::{Rope, RopeLayout};

/// Types that results can be written as.
pub(super) const NUMBERS: &[Kind] = &[Kind::F32, Kind::F16, Kind::BF16, Kind::F8];
pub(super) const F32: &[Kind] = &[Kind::F32];

/// Weights of a root-mean-square norm.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// (H), f32.
    pub weight: View<'a>,
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// Rows `tokens` (rows), u32, of a table in any format into out (rows, H), f32. A token outside of
/// the table gives zeros.
///
/// # Errors
/// Operands of another shape or type.
pub fn embed(
    device: &Device,
    table: &CudaLinear,
    tokens: View<'_>,
    rows: usize,
    out: Matrix<'_>,
) -> Result<()> {
    let op = "embed";
    tokens.check(op, "tokens", Kind::U32, rows)?;
    out.check(op, "out", F32, (rows, table.in_features()))?;
    if rows == 0 {
        return Ok(());
    }
    let launch = Launch::new("embed", [rows, 1, 1], 256)?
        .arg(table.address())
        .arg(table.layout_code())
        .arg(table.out_features() as u32)
        .arg(table.in_features() as u32)
        .arg(tokens.address)
        .arg(out.address())
        .arg(out.stride32());
    device.backend().launch(&launch)
}

/// Every row of out (T, C) = `row` (C): a bias, before a product that adds to it.
///
/// # Errors
/// Operands of another shape or type.
pub fn fill_rows(device: &Device, row: View<'_>, out: Matrix<'_>, rows: usize) -> Result<()> {
    let (op, columns) = ("fill_rows", out.width());
    row.check(op, "row", Kind::F32, columns)?;
    out.check(op, "out", F32, (rows, columns))?;
    for (first, count) in row_slabs(rows) {
        let launch = Launch::new("broadcast_bias", [columns.div_ceil(256), count, 1], 256)?
            .arg(row.address)
            .arg(columns as u32)
            .arg(out.rows_from(first).address())
            .arg(out.stride32());
        device.backend().launch(&launch)?;
    }
    Ok(())
}

/// Rows `index` (count), u32, of x (rows, C), f32, into out (count, C) of any type.
///
/// # Errors
/// Operands of another shape or type.
pub fn gather_rows(
    device: &Device,
    (x, rows): (Matrix<'_>, usize),
    index: View<'_>,
    count: usize,
    out: Matrix<'_>,
) -> Result<()> {
    let op = "gather_rows";
    x.check(op, "x", F32, (rows, x.columns))?;
    index.check(op, "index", Kind::U32, count)?;
    out.check(op, "out", NUMBERS, (count, x.columns))?;
    if count == 0 {
        return Ok(());
    }
    let launch = Launch::new(op, [count, 1, 1], 256)?
        .arg(x.address())
        .arg(x.stride32())
        .arg(rows as u32)
        .arg(index.address)
        .arg(x.columns as u32)
        .arg(out.address())
        .arg(out.stride32())
        .arg(out.kind().code());
    device.backend().launch(&launch)
}

/// out (rows, C) = x (rows, C) in another type.
///
/// # Errors
/// Operands of another shape or type.
pub fn cast(device: &Device, x: Matrix<'_>, rows: usize, out: Matrix<'_>) -> Result<()> {
    x.check("cast", "x", NUMBERS, (rows, x.columns))?;
    out.check("cast", "out", NUMBERS, (rows, x.columns))?;
    // Rows go into the grid's second axis, which is short.
    for (first, count) in row_slabs(rows) {
        let launch = Launch::new("cast", [x.columns.div_ceil(256), count, 1], 256)?
            .arg(x.rows_from(first).address())
            .arg(x.stride32())
            .arg(x.kind().code())
            .arg(x.columns as u32)
            .arg(out.rows_from(first).address())
            .arg(out.stride32())
            .arg(out.kind().code());
        device.backend().launch(&launch)?;
    }
    Ok(())
}

/// Rows in parts that one axis of a grid can count.
pub(super) fn row_slabs(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    const SLAB: usize = 32768;
    (0..rows)
        .step_by(SLAB)
        .map(move |first| (first, SLAB.min(rows - first)))
}

/// out (rows, H) = the norm of x (rows, H), f32; out in any type.
///
/// # Errors
/// Operands of another shape or type.
pub fn rms_norm(
    device: &Device,
    x: Matrix<'_>,
    norm: Norm<'_>,
    rows: usize,
    out: Matrix<'_>,
) -> Result<()> {
    norm_rows(device, (x, None), norm, rows, out)
}

/// `residual` (rows, H) += x (rows, H), both f32; out = the norm of that, in any type.
///
/// # Errors
/// Operands of another shape or type.
pub fn add_rms_norm(
    device: &Device,
    x: Matrix<'_>,
    residual: Matrix<'_>,
    norm: Norm<'_>,
    rows: usize,
    out: Matrix<'_>,
) -> Result<()> {
    residual.check("add_rms_norm", "residual", F32, (rows, x.columns))?;
    norm_rows(device, (x, Some(residual)), norm, rows, out)
}

fn norm_rows(
    device: &Device,
    (x, residual): (Matrix<'_>, Option<Matrix<'_>>),
    norm: Norm<'_>,
    rows: usize,
    out: Matrix<'_>,
) -> Result<()> {
    let op = "rms_norm";
    let hidden = x.columns;
    x.check(op, "x", F32, (rows, hidden))?;
    norm.weight.check(op, "weight", Kind::F32, hidden)?;
    out.check(op, "out", NUMBERS, (rows, hidden))?;
    if rows == 0 {
        return Ok(());
    }
    let launch = Launch::new(op, [rows, 1, 1], 256)?
        .arg(x.address())
        .arg(x.stride32())
        .arg(residual.map_or(0, |r| r.address()))
        .arg(residual.map_or(0, |r| r.stride32()))
        .arg(norm.weight.address)
        .arg(norm.eps)
        .arg(hidden as u32)
        .arg(out.address())
        .arg(out.stride32())
        .arg(out.kind().code());
    device.backend().launch(&launch)
}

/// out (rows, F) = silu(gate) * up, both (rows, F), f32; out in any type.
///
/// # Errors
/// Operands of another shape or type.
pub fn swiglu(
    device: &Device,
    gate: Matrix<'_>,
    up: Matrix<'_>,
    rows: usize,
    out: Matrix<'_>,
) -> Result<()> {
    let (op, columns) = ("swiglu", gate.columns);
    gate.check(op, "gate", F32, (rows, columns))?;
    up.check(op, "up", F32, (rows, columns))?;
    out.check(op, "out", NUMBERS, (rows, columns))?;
    for (first, count) in row_slabs(rows) {
        let launch = Launch::new(op, [columns.div_ceil(256), count, 1], 256)?
            .arg(gate.rows_from(first).address())
            .arg(gate.stride32())
            .arg(up.rows_from(first).address())
            .arg(up.stride32())
            .arg(columns as u32)
            .arg(out.rows_from(first).address())
            .arg(out.stride32())
            .arg(out.kind().code());
        device.backend().launch(&launch)?;
    }
    Ok(())
}

/// Cosines and sines of a [`Rope`] on a device.
#[derive(Debug)]
pub struct RopeTable {
    pub(super) cosines: Buffer<f32>,
    pub(super) sines: Buffer<f32>,
    positions: usize,
    pub(super) head_dim: usize,
    pub(super) layout: RopeLayout,
}

impl RopeTable {
    /// The same angles as `rope`.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(device: &Device, rope: &Rope) -> Result<Self> {
        let values = |tensor: &candle_core::Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        Ok(Self {
            cosines: Buffer::from_slice(device, &values(rope.cos())?)?,
            sines: Buffer::from_slice(device, &values(rope.sin())?)?,
            positions: rope.positions(),
            head_dim: rope.head_dim(),
            layout: rope.layout(),
        })
    }

    /// Positions in the table.
    pub fn positions(&self) -> usize {
        self.positions
    }
}

/// Operands of [`rope_and_cache`].
#[derive(Debug, Clone, Copy)]
pub struct RopeAndCache<'a> {
    /// (T, Hq*D), f32; rotated in place.
    pub q: Matrix<'a>,
    /// (T, Hkv*D), f32; read.
    pub k: Matrix<'a>,
    /// (T, Hkv*D), f32; read.
    pub v: Matrix<'a>,
    /// Angles.
    pub table: &'a RopeTable,
    /// (T), u32. One behind the table turns as the last.
    pub positions: View<'a>,
    /// (T), u32: block * N + offset. One behind the cache (such as `u32::MAX`) writes nothing.
    pub slots: View<'a>,
    /// Per-head norm of q before it turns: weight (D).
    pub q_norm: Option<Norm<'a>>,
    /// Per-head norm of k before it turns: weight (D).
    pub k_norm: Option<Norm<'a>>,
    /// Where k and v go.
    pub kv: KvCache<'a>,
}

/// Norms (if asked) and rotates q in place, writes k (normed, rotated) and v to their slots.
///
/// # Errors
/// Operands of another shape or type.
pub fn rope_and_cache(device: &Device, a: &RopeAndCache<'_>, rows: usize) -> Result<()> {
    let op = "rope_and_cache";
    let dim = a.kv.head_dim;
    a.kv.check(op)?;
    let kv_width = a.kv.kv_heads * dim;
    a.q.check(op, "q", F32, (rows, a.q.columns))?;
    a.k.check(op, "k", F32, (rows, kv_width))?;
    a.v.check(op, "v", F32, (rows, kv_width))?;
    a.positions.check(op, "positions", Kind::U32, rows)?;
    a.slots.check(op, "slots", Kind::U32, rows)?;
    for norm in [a.q_norm, a.k_norm].into_iter().flatten() {
        norm.weight.check(op, "norm weight", Kind::F32, dim)?;
    }
    if a.table.head_dim != dim || !a.q.columns.is_multiple_of(dim) {
        let problem = format!(
            "a table for heads of {}, a cache of heads of {dim}, q of {} columns",
            a.table.head_dim, a.q.columns
        );
        return Err(KernelError::Invalid { op, problem });
    }
    if rows == 0 {
        return Ok(());
    }
    let address = |norm: Option<Norm<'_>>| norm.map_or(0, |norm| norm.weight.address);
    let eps = |norm: Option<Norm<'_>>| norm.map_or(0.0, |norm| norm.eps);
    let fields = Fields::default()
        .u64(a.q.address())
        .u64(a.k.address())
        .u64(a.v.address())
        .u64(a.table.cosines.address())
        .u64(a.table.sines.address())
        .u64(a.positions.address)
        .u64(a.slots.address)
        .u64(address(a.q_norm))
        .u64(address(a.k_norm))
        .u64(a.kv.k.address)
        .u64(a.kv.v.address)
        .u32(a.q.stride32())
        .u32(a.k.stride32())
        .u32(a.v.stride32())
        .u32((a.q.columns / dim) as u32)
        .u32(a.kv.kv_heads as u32)
        .u32(dim as u32)
        .u32(a.kv.block_len as u32)
        .u32(a.kv.blocks() as u32)
        .u32(a.table.positions as u32)
        .f32(eps(a.q_norm))
        .f32(eps(a.k_norm))
        .u32(u32::from(a.table.layout == RopeLayout::Interleaved))
        .u32(a.kv.k.kind.code());
    let launch = Launch::new(op, [rows, 1, 1], 256)?.arg(fields);
    device.backend().launch(&launch)
}

/// Copies whole blocks, K and V, from the first to the second of each of `count` pairs (u32, one
/// after the other), in their order. A pair with a block outside of the pool is left out.
///
/// # Errors
/// Operands of another shape or type; blocks whose bytes are not a multiple of 16.
pub fn copy_blocks(device: &Device, kv: KvCache<'_>, pairs: View<'_>, count: usize) -> Result<()> {
    let op = "copy_blocks";
    kv.check(op)?;
    pairs.check(op, "pairs", Kind::U32, 2 * count)?;
    let bytes = kv.kv_heads * kv.block_len * kv.head_dim * kv.k.kind.bytes();
    if !bytes.is_multiple_of(16) {
        let problem = format!("blocks of {bytes} bytes");
        return Err(KernelError::Invalid { op, problem });
    }
    if count == 0 {
        return Ok(());
    }
    let launch = Launch::new(op, [bytes.div_ceil(16 * 256), 2, 1], 256)?
        .arg(kv.k.address)
        .arg(kv.v.address)
        .arg(bytes as u64)
        .arg(kv.blocks() as u32)
        .arg(pairs.address)
        .arg(count as u32);
    device.backend().launch(&launch)
}
