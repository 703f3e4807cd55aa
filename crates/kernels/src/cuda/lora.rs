//! Low-rank adapters beside the base product, several in one batch.

use super::backend::Launch;
use super::buffer::{Buffer, Kind, Matrix, View};
use super::device::Device;
use super::elementwise::row_slabs;
use crate::error::{KernelError, Result};

/// What a row without an adapter has as its adapter's index.
pub const NO_ADAPTER: u32 = u32::MAX;

/// One adapter's delta of one product, as PEFT stores it: `scale * b * a`.
#[derive(Debug, Clone, Copy)]
pub struct LoraMatrix<'a> {
    /// (r, in).
    pub a: &'a [f32],
    /// (out, r).
    pub b: &'a [f32],
    /// (r)
    pub rank: usize,
    /// `lora_alpha / r`.
    pub scale: f32,
}

/// The deltas of all loaded adapters for one product.
#[derive(Debug)]
pub struct LoraTable {
    entries: Buffer<u64>,
    /// What the entries point to.
    _matrices: Vec<Buffer<f32>>,
    inputs: usize,
    outputs: usize,
    rank_max: usize,
}

impl LoraTable {
    /// The deltas (out, in) by the adapter's index; `None` where an adapter leaves this product as
    /// it is.
    ///
    /// # Errors
    /// A matrix of another shape; not enough memory.
    pub fn new(
        device: &Device,
        (outputs, inputs): (usize, usize),
        adapters: &[Option<LoraMatrix<'_>>],
    ) -> Result<Self> {
        let mut matrices = Vec::new();
        let mut entries = Vec::new();
        for adapter in adapters {
            let Some(adapter) = adapter else {
                entries.extend([0, 0, 0]);
                continue;
            };
            let expected = (adapter.rank * inputs, outputs * adapter.rank);
            if (adapter.a.len(), adapter.b.len()) != expected {
                let problem = format!(
                    "matrices of {} and {} values for rank {} of {inputs} -> {outputs}",
                    adapter.a.len(),
                    adapter.b.len(),
                    adapter.rank
                );
                return Err(KernelError::Invalid {
                    op: "lora",
                    problem,
                });
            }
            let a = Buffer::from_slice(device, adapter.a)?;
            let b = Buffer::from_slice(device, adapter.b)?;
            let tail = adapter.rank as u64 | u64::from(adapter.scale.to_bits()) << 32;
            entries.extend([a.address(), b.address(), tail]);
            matrices.extend([a, b]);
        }
        let ranks = adapters.iter().flatten().map(|adapter| adapter.rank);
        Ok(Self {
            entries: Buffer::from_slice(device, &entries)?,
            _matrices: matrices,
            inputs,
            outputs,
            rank_max: ranks.max().unwrap_or(0),
        })
    }

    /// f32 elements of scratch memory for so many rows.
    pub fn scratch_len(&self, rows: usize) -> usize {
        rows * self.rank_max
    }
}

/// Operands of [`lora_add`].
#[derive(Debug, Clone, Copy)]
pub struct LoraAdd<'a> {
    /// (T, in), f32, f16 or bf16: what the product was given.
    pub x: Matrix<'a>,
    /// (T, out), f32: what the product gave; added to.
    pub y: Matrix<'a>,
    /// The deltas.
    pub table: &'a LoraTable,
    /// (T), u32: which adapter a row uses; one behind the table ([`NO_ADAPTER`]) = none.
    pub adapters: View<'a>,
    /// f32, [`LoraTable::scratch_len`] elements.
    pub scratch: View<'a>,
}

/// y += scale * b (a x), every row by its own adapter.
///
/// # Errors
/// Operands of another shape or type.
pub fn lora_add(device: &Device, lora: &LoraAdd<'_>, rows: usize) -> Result<()> {
    let op = "lora_add";
    let table = lora.table;
    let kinds = [Kind::F32, Kind::F16, Kind::BF16];
    lora.x.check(op, "x", &kinds, (rows, table.inputs))?;
    lora.y.check(op, "y", &[Kind::F32], (rows, table.outputs))?;
    lora.adapters.check(op, "adapters", Kind::U32, rows)?;
    let needed = table.scratch_len(rows);
    lora.scratch.check(op, "scratch", Kind::F32, needed)?;
    if rows == 0 || table.rank_max == 0 {
        return Ok(());
    }
    let count = (table.entries.len() / 3) as u32;
    let down = Launch::new("lora_down", [rows, table.rank_max.div_ceil(8), 1], 256)?
        .arg(lora.x.address())
        .arg(lora.x.stride32())
        .arg(lora.x.kind().code())
        .arg(table.inputs as u32)
        .arg(table.entries.address())
        .arg(count)
        .arg(lora.adapters.address)
        .arg(lora.scratch.address)
        .arg(table.rank_max as u32);
    device.backend().launch(&down)?;
    for (first, slab) in row_slabs(rows) {
        let up = Launch::new("lora_up", [table.outputs.div_ceil(256), slab, 1], 256)?
            .arg(
                lora.scratch
                    .slice(first * table.rank_max..lora.scratch.len)
                    .address,
            )
            .arg(table.rank_max as u32)
            .arg(table.entries.address())
            .arg(count)
            .arg(lora.adapters.slice(first..rows).address)
            .arg(lora.y.rows_from(first).address())
            .arg(lora.y.stride32())
            .arg(table.outputs as u32);
        device.backend().launch(&up)?;
    }
    Ok(())
}
