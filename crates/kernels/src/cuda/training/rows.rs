//! Gate, rotation, sums and copies of rows.

use super::super::backend::{Launch, Update};
use super::super::buffer::{Kind, Matrix, View};
use super::super::device::Device;
use super::super::elementwise::{F32, RopeTable, row_slabs};
use super::norm::ColumnSums;
use crate::error::{KernelError, Result};
use crate::rope::RopeLayout;

/// Gradients of `y = silu(gate) * up` for that of y; all (T, F). Both outputs may be any of the
/// inputs.
///
/// # Errors
/// Operands of another shape or type.
pub fn swiglu_backward(
    device: &Device,
    (gate, up): (Matrix<'_>, Matrix<'_>),
    gradient: Matrix<'_>,
    (dgate, dup): (Matrix<'_>, Matrix<'_>),
    rows: usize,
) -> Result<()> {
    let (op, columns) = ("swiglu_backward", gate.width());
    let operands = [
        ("gate", gate),
        ("up", up),
        ("gradient", gradient),
        ("dgate", dgate),
        ("dup", dup),
    ];
    for (name, operand) in operands {
        operand.check(op, name, F32, (rows, columns))?;
    }
    for (first, count) in row_slabs(rows) {
        let mut launch = Launch::new(op, [columns.div_ceil(256), count, 1], 256)?;
        for (name, operand) in operands {
            launch = launch
                .arg(operand.rows_from(first).address())
                .arg(operand.stride32());
            if name == "gradient" {
                launch = launch.arg(columns as u32);
            }
        }
        device.backend().launch(&launch)?;
    }
    Ok(())
}

/// Turns every head of x (T, heads * D) in place by the table's angles at `positions` (T), u32, or
/// back by the same: what a rotation's gradient needs. A position behind the table turns as its
/// last.
///
/// # Errors
/// Operands of another shape or type.
pub fn rope_rows(
    device: &Device,
    x: Matrix<'_>,
    table: &RopeTable,
    positions: View<'_>,
    turn: Turn,
    rows: usize,
) -> Result<()> {
    let (op, columns) = ("rope_rows", x.width());
    x.check(op, "x", F32, (rows, columns))?;
    positions.check(op, "positions", Kind::U32, rows)?;
    if !columns.is_multiple_of(table.head_dim) {
        let problem = format!("{columns} columns for heads of {}", table.head_dim);
        return Err(KernelError::Invalid { op, problem });
    }
    if rows == 0 {
        return Ok(());
    }
    let launch = Launch::new(op, [rows, 1, 1], 256)?
        .arg(x.address())
        .arg(x.stride32())
        .arg(table.cosines.address())
        .arg(table.sines.address())
        .arg(positions.address)
        .arg(table.positions() as u32)
        .arg(columns as u32)
        .arg(table.head_dim as u32)
        .arg(u32::from(table.layout == RopeLayout::Interleaved))
        .arg(match turn {
            Turn::Forth => 1.0f32,
            Turn::Back => -1.0,
        });
    device.backend().launch(&launch)
}

/// Which way a rotation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// As in the forward pass.
    Forth,
    /// Against it.
    Back,
}

/// y += x, both (T, C).
///
/// # Errors
/// Operands of another shape or type.
pub fn add(device: &Device, x: Matrix<'_>, y: Matrix<'_>, rows: usize) -> Result<()> {
    let (op, columns) = ("add", x.width());
    x.check(op, "x", F32, (rows, columns))?;
    y.check(op, "y", F32, (rows, columns))?;
    for (first, count) in row_slabs(rows) {
        let launch = Launch::new("add_to", [columns.div_ceil(256), count, 1], 256)?
            .arg(x.rows_from(first).address())
            .arg(x.stride32())
            .arg(columns as u32)
            .arg(y.rows_from(first).address())
            .arg(y.stride32());
        device.backend().launch(&launch)?;
    }
    Ok(())
}

/// All bits of the elements become zero.
///
/// # Errors
/// The device failed.
pub fn zero(device: &Device, x: View<'_>) -> Result<()> {
    let bytes = x.len() * x.kind().bytes();
    device.backend().fill(x.address, 0, bytes)
}

/// out (C) = or += the sum of the rows of x (T, C), in a fixed order.
///
/// # Errors
/// Operands of another shape or type.
pub fn column_sums(
    device: &Device,
    x: Matrix<'_>,
    rows: usize,
    out: View<'_>,
    update: Update,
) -> Result<()> {
    let (op, columns) = ("column_sums", x.width());
    x.check(op, "x", F32, (rows, columns))?;
    out.check(op, "out", Kind::F32, columns)?;
    if rows == 0 {
        return match update {
            Update::Set => zero(device, out.slice(0..columns)),
            Update::Add => Ok(()),
        };
    }
    let sums = ColumnSums {
        x,
        times: None,
        group: rows,
        out: out.matrix(columns),
        update,
    };
    sums.start(device, rows)
}

/// Row `index[i]` (count, u32, distinct) of `to` (N, C) = or += row i of `from` (count, C). An
/// index outside of `to` is left out.
///
/// # Errors
/// Operands of another shape or type.
pub fn scatter_rows(
    device: &Device,
    from: Matrix<'_>,
    (index, count): (View<'_>, usize),
    (to, to_rows): (Matrix<'_>, usize),
    update: Update,
) -> Result<()> {
    let (op, columns) = ("scatter_rows", from.width());
    from.check(op, "from", F32, (count, columns))?;
    index.check(op, "index", Kind::U32, count)?;
    to.check(op, "to", F32, (to_rows, columns))?;
    if count == 0 {
        return Ok(());
    }
    let launch = Launch::new(op, [count, 1, 1], 256)?
        .arg(from.address())
        .arg(from.stride32())
        .arg(index.address)
        .arg(columns as u32)
        .arg(to.address())
        .arg(to.stride32())
        .arg(to_rows as u32)
        .arg(update.code());
    device.backend().launch(&launch)
}

/// Which rows belong to which token: those of `tokens[u]` are `order[starts[u]..starts[u + 1]]`.
#[derive(Debug, Clone, Copy)]
pub struct TokenRows<'a> {
    /// (U), u32, distinct.
    pub tokens: View<'a>,
    /// (U)
    pub count: usize,
    /// (U + 1), u32, ascending.
    pub starts: View<'a>,
    /// Rows, (T), u32.
    pub order: View<'a>,
}

/// Row `tokens[u]` of `to` (V, H) += the sum of its rows of `from` (T, H), in their order: the
/// gradient of an embedding.
///
/// # Errors
/// Operands of another shape or type.
pub fn add_rows_by_token(
    device: &Device,
    (from, rows): (Matrix<'_>, usize),
    by: &TokenRows<'_>,
    (to, to_rows): (Matrix<'_>, usize),
) -> Result<()> {
    let (op, columns) = ("add_rows_by_token", from.width());
    from.check(op, "from", F32, (rows, columns))?;
    by.tokens.check(op, "tokens", Kind::U32, by.count)?;
    by.starts.check(op, "starts", Kind::U32, by.count + 1)?;
    by.order.check(op, "order", Kind::U32, rows)?;
    to.check(op, "to", F32, (to_rows, columns))?;
    if by.count == 0 || rows == 0 {
        return Ok(());
    }
    let launch = Launch::new(op, [by.count, columns.div_ceil(256), 1], 256)?
        .arg(from.address())
        .arg(from.stride32())
        .arg(rows as u32)
        .arg(by.tokens.address)
        .arg(by.starts.address)
        .arg(by.order.address)
        .arg(columns as u32)
        .arg(to.address())
        .arg(to.stride32())
        .arg(to_rows as u32);
    device.backend().launch(&launch)
}
