//! Log-probabilities of given tokens, and their gradient, for some rows of logits at a time.

use super::super::backend::Launch;
use super::super::buffer::{Kind, Matrix, View};
use super::super::device::Device;
use super::super::elementwise::{F32, NUMBERS};
use crate::error::Result;

/// Scores `targets` (R), u32, by `logits` (R, V): out (R, 4) is, for every row, the target's
/// log-probability, the entropy of the distribution, the mean of the logits, and 1 if no other
/// token is likelier (else 0). A target outside of the vocabulary scores NaN.
///
/// # Errors
/// Operands of another shape or type.
pub fn score_targets(
    device: &Device,
    logits: Matrix<'_>,
    targets: View<'_>,
    out: View<'_>,
    rows: usize,
) -> Result<()> {
    let op = "score_targets";
    logits.check(op, "logits", F32, (rows, logits.width()))?;
    targets.check(op, "targets", Kind::U32, rows)?;
    out.check(op, "out", Kind::F32, 4 * rows)?;
    if rows == 0 {
        return Ok(());
    }
    let launch = Launch::new(op, [rows, 1, 1], 1024)?
        .arg(logits.address())
        .arg(logits.stride32())
        .arg(logits.width() as u32)
        .arg(targets.address)
        .arg(out.address);
    device.backend().launch(&launch)
}

/// out (R, V), of any type, = the gradient of `sum of coefficients[r] * log_prob[r]` by the logits
/// (R, V): `coefficients[r] * (one_hot(targets[r]) - softmax(logits[r]))`. `out` may be `logits`.
/// A target outside of the vocabulary has no one.
///
/// # Errors
/// Operands of another shape or type.
pub fn target_gradient(
    device: &Device,
    logits: Matrix<'_>,
    (targets, coefficients): (View<'_>, View<'_>),
    out: Matrix<'_>,
    rows: usize,
) -> Result<()> {
    let op = "target_gradient";
    logits.check(op, "logits", F32, (rows, logits.width()))?;
    targets.check(op, "targets", Kind::U32, rows)?;
    coefficients.check(op, "coefficients", Kind::F32, rows)?;
    out.check(op, "out", NUMBERS, (rows, logits.width()))?;
    if rows == 0 {
        return Ok(());
    }
    let launch = Launch::new(op, [rows, 1, 1], 1024)?
        .arg(logits.address())
        .arg(logits.stride32())
        .arg(logits.width() as u32)
        .arg(targets.address)
        .arg(coefficients.address)
        .arg(out.address())
        .arg(out.stride32())
        .arg(out.kind().code());
    device.backend().launch(&launch)
}
