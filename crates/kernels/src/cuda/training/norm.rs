//! Gradients of the root-mean-square norm.

use super::super::backend::{Launch, Update};
use super::super::buffer::{Kind, Matrix, View};
use super::super::device::Device;
use super::super::elementwise::{F32, Norm};
use crate::error::Result;

/// Rows whose share of the weight's gradient is summed by one block; fixed, so that the order of
/// the sum is.
const GROUP: usize = 512;

/// Operands of [`rms_norm_backward`].
#[derive(Debug, Clone, Copy)]
pub struct RmsNormBackward<'a> {
    /// What the norm was of, (T, H).
    pub x: Matrix<'a>,
    /// The norm.
    pub norm: Norm<'a>,
    /// Of what the norm gave, (T, H).
    pub gradient: Matrix<'a>,
    /// Of x, (T, H). May be `gradient` or `x` itself where nobody asks for that of the weight.
    pub dx: Matrix<'a>,
    /// Whether dx is added to.
    pub update: Update,
    /// Where the gradient of the weight goes, if it is asked for.
    pub weight: Option<NormWeightGradient<'a>>,
}

/// Where a weight's gradient goes.
#[derive(Debug, Clone, Copy)]
pub struct NormWeightGradient<'a> {
    /// (H); added to.
    pub out: View<'a>,
    /// [`NormWeightGradient::scratch_len`] elements that may hold anything.
    pub scratch: View<'a>,
}

impl NormWeightGradient<'_> {
    /// Elements of scratch for so many rows of so many columns.
    pub fn scratch_len(rows: usize, hidden: usize) -> usize {
        rows + rows.div_ceil(GROUP) * hidden
    }
}

/// With r = 1/sqrt(mean(x^2) + eps): dx (+)= r g w - x r^3 / H * sum(g w x), and the weight's
/// gradient += the sum over the rows of g x r.
///
/// # Errors
/// Operands of another shape or type.
pub fn rms_norm_backward(device: &Device, a: &RmsNormBackward<'_>, rows: usize) -> Result<()> {
    let (op, hidden) = ("rms_norm_backward", a.x.width());
    a.x.check(op, "x", F32, (rows, hidden))?;
    a.norm.weight.check(op, "weight", Kind::F32, hidden)?;
    a.gradient.check(op, "gradient", F32, (rows, hidden))?;
    a.dx.check(op, "dx", F32, (rows, hidden))?;
    if let Some(weight) = a.weight {
        let needed = NormWeightGradient::scratch_len(rows, hidden);
        weight.out.check(op, "weight gradient", Kind::F32, hidden)?;
        weight.scratch.check(op, "scratch", Kind::F32, needed)?;
    }
    if rows == 0 {
        return Ok(());
    }
    // The weight's gradient wants 1/rms, which the first kernel leaves in the scratch memory.
    let launch = Launch::new(op, [rows, 1, 1], 256)?
        .arg(a.x.address())
        .arg(a.x.stride32())
        .arg(a.norm.weight.address)
        .arg(a.gradient.address())
        .arg(a.gradient.stride32())
        .arg(a.norm.eps)
        .arg(hidden as u32)
        .arg(a.dx.address())
        .arg(a.dx.stride32())
        .arg(a.update.code())
        .arg(a.weight.map_or(0, |weight| weight.scratch.address));
    device.backend().launch(&launch)?;
    match a.weight {
        Some(weight) => weight_gradient(device, a, weight, rows),
        None => Ok(()),
    }
}

fn weight_gradient(
    device: &Device,
    a: &RmsNormBackward<'_>,
    to: NormWeightGradient<'_>,
    rows: usize,
) -> Result<()> {
    let (hidden, groups) = (a.x.width(), rows.div_ceil(GROUP));
    let partial = to.scratch.slice(rows..to.scratch.len()).matrix(hidden);
    let sums = ColumnSums {
        x: a.x,
        times: Some((a.gradient, to.scratch)),
        group: GROUP,
        out: partial,
        update: Update::Set,
    };
    sums.start(device, rows)?;
    let all = ColumnSums {
        x: partial,
        times: None,
        group: groups,
        out: to.out.matrix(hidden),
        update: Update::Add,
    };
    all.start(device, groups)
}

/// Sums of columns over groups of rows; every row of `out` is that of a group.
pub(super) struct ColumnSums<'a> {
    pub(super) x: Matrix<'a>,
    /// What x is multiplied with before: values of its shape, and a factor for each row.
    pub(super) times: Option<(Matrix<'a>, View<'a>)>,
    /// Rows of a group.
    pub(super) group: usize,
    pub(super) out: Matrix<'a>,
    pub(super) update: Update,
}

impl ColumnSums<'_> {
    /// Starts the kernel; the operands are checked.
    pub(super) fn start(&self, device: &Device, rows: usize) -> Result<()> {
        let columns = self.x.width();
        let grid = [columns.div_ceil(32), rows.div_ceil(self.group), 1];
        let launch = Launch::new("sum_columns", grid, 1024)?
            .arg(self.x.address())
            .arg(self.x.stride32())
            .arg(self.times.map_or(0, |(y, _)| y.address()))
            .arg(self.times.map_or(0, |(y, _)| y.stride32()))
            .arg(self.times.map_or(0, |(_, factors)| factors.address))
            .arg(rows as u32)
            .arg(self.group as u32)
            .arg(columns as u32)
            .arg(self.out.address())
            .arg(self.out.stride32())
            .arg(self.update.code());
        device.backend().launch(&launch)
    }
}
