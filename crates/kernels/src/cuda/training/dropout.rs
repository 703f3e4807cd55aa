//! Dropout by counting: a mask is a function of its key, and never kept.

use super::super::backend::{Fields, Launch, Update};
use super::super::buffer::Matrix;
use super::super::device::Device;
use super::super::elementwise::{F32, row_slabs};
use crate::error::{KernelError, Result};
use crate::sampling::philox;

/// Which entries become zero: the same key and site give the same mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Of an entry to become zero, 0 or more and below 1.
    pub probability: f64,
    /// Of the pass.
    pub key: u64,
    /// Which of a network's masks.
    pub site: u64,
}

impl Dropout {
    /// What [`dropout`] multiplies the entry (row, column) with: 0, or 1 / (1 - probability).
    pub fn factor(&self, row: u32, column: u32) -> f32 {
        let words = |x: u64| [x as u32, (x >> 32) as u32];
        let [low, high] = words(self.site);
        let drawn = philox([row, column / 4, low, high], words(self.key));
        if drawn[column as usize % 4] < self.threshold() {
            0.0
        } else {
            self.kept()
        }
    }

    fn kept(&self) -> f32 {
        (1.0 / (1.0 - self.probability)) as f32
    }

    fn threshold(&self) -> u32 {
        (self.probability * 2f64.powi(32)) as u32
    }
}

/// out (T, C) = or += x (T, C) with some entries zero and the others scaled up; of a gradient as
/// well as of an input. `out` may be x.
///
/// # Errors
/// Operands of another shape or type; an impossible probability.
pub fn dropout(
    device: &Device,
    x: Matrix<'_>,
    (out, update): (Matrix<'_>, Update),
    rows: usize,
    how: &Dropout,
) -> Result<()> {
    let (op, columns) = ("dropout", x.width());
    x.check(op, "x", F32, (rows, columns))?;
    out.check(op, "out", F32, (rows, columns))?;
    if !(0.0..1.0).contains(&how.probability) {
        let problem = format!("a probability of {}", how.probability);
        return Err(KernelError::Invalid { op, problem });
    }
    for (first, count) in row_slabs(rows) {
        let fields = Fields::default()
            .u64(x.rows_from(first).address())
            .u64(out.rows_from(first).address())
            .u64(how.key)
            .u64(how.site)
            .u32(x.stride32())
            .u32(out.stride32())
            .u32(columns as u32)
            .u32(first as u32)
            .u32(how.threshold())
            .f32(how.kept())
            .u32(update.code());
        let grid = [columns.div_ceil(4 * 256), count, 1];
        let launch = Launch::new(op, grid, 256)?.arg(fields);
        device.backend().launch(&launch)?;
    }
    Ok(())
}
