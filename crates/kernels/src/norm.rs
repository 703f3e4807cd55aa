//! Root-mean-square normalisation (Zhang & Sennrich 2019, eq. 4), alone and after a
//! residual addition. A per-head norm of q or k is the same with (T * heads, D) as shape.

use crate::error::{Result, matrix, shaped};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use crate::{cpu, parallel};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Shape, Tensor};

/// `x / sqrt(mean(x^2) + eps) * weight` row by row: x (T, H), weight (H), f32; (T, H).
///
/// # Errors
/// Wrong shapes, types or strides.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let (_, hidden) = matrix("rms_norm", "x", x)?;
    shaped("rms_norm", "weight", weight, &[hidden])?;
    Ok(x.apply_op2_no_bwd(weight, &RmsNorm { eps })?)
}

/// `(rms_norm(x + residual), x + residual)`: x and residual (T, H), weight (H), f32.
///
/// # Errors
/// Wrong shapes, types or strides.
pub fn add_rms_norm(
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    eps: f32,
) -> Result<(Tensor, Tensor)> {
    let (rows, hidden) = matrix("add_rms_norm", "x", x)?;
    shaped("add_rms_norm", "residual", residual, &[rows, hidden])?;
    shaped("add_rms_norm", "weight", weight, &[hidden])?;
    // candle's ops give one tensor each: both results are the halves of one.
    let both = x.apply_op3_no_bwd(residual, weight, &AddRmsNorm { eps })?;
    Ok((both.get(0)?, both.get(1)?))
}

struct RmsNorm {
    eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x: &[f32] = cpu::slice(x, x_layout)?;
        let weight: &[f32] = cpu::slice(weight, weight_layout)?;
        let hidden = weight.len();
        let mut out = vec![0.0; x.len()];
        parallel::chunks(&mut out, hidden, |row, out| {
            let x = &x[row * hidden..][..hidden];
            dispatch(NormRow {
                x,
                weight,
                eps: self.eps,
                out,
            });
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

struct AddRmsNorm {
    eps: f32,
}

impl CustomOp3 for AddRmsNorm {
    fn name(&self) -> &'static str {
        "add_rms_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x: &[f32] = cpu::slice(x, x_layout)?;
        let residual: &[f32] = cpu::slice(residual, residual_layout)?;
        let weight: &[f32] = cpu::slice(weight, weight_layout)?;
        let hidden = weight.len();
        let mut out = vec![0.0; 2 * x.len()];
        parallel::chunks2(out.split_at_mut(x.len()), hidden, |row, normed, sum| {
            let (x, residual) = (
                &x[row * hidden..][..hidden],
                &residual[row * hidden..][..hidden],
            );
            for ((sum, x), residual) in sum.iter_mut().zip(x).zip(residual) {
                *sum = x + residual;
            }
            dispatch(NormRow {
                x: sum,
                weight,
                eps: self.eps,
                out: normed,
            });
        });
        let rows = x.len().checked_div(hidden).unwrap_or(0);
        Ok((CpuStorage::F32(out), Shape::from((2, rows, hidden))))
    }
}

/// One row; the four operands have the same length.
struct NormRow<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for NormRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mean = sum_of_squares(simd, self.x) / self.x.len() as f32;
        let scale = 1.0 / (mean + self.eps).sqrt();
        let factor = simd.splat(scale);
        let (x, x_rest) = self.x.as_chunks::<LANES>();
        let (weight, weight_rest) = self.weight.as_chunks::<LANES>();
        let (out, out_rest) = self.out.as_chunks_mut::<LANES>();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            simd.store(
                simd.mul(simd.mul(simd.load(x), factor), simd.load(weight)),
                out,
            );
        }
        for ((out, x), weight) in out_rest.iter_mut().zip(x_rest).zip(weight_rest) {
            *out = x * scale * weight;
        }
    }
}

/// Four partial sums of sixteen lanes each, added in a fixed order.
#[inline(always)]
fn sum_of_squares<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let mut sums = [simd.splat(0.0); 4];
    let (vectors, rest) = x.as_chunks::<LANES>();
    let (quads, singles) = vectors.as_chunks::<4>();
    for quad in quads {
        for (sum, x) in sums.iter_mut().zip(quad) {
            let x = simd.load(x);
            *sum = simd.mul_add(x, x, *sum);
        }
    }
    for x in singles {
        let x = simd.load(x);
        sums[0] = simd.mul_add(x, x, sums[0]);
    }
    let rest = simd.load_part(rest);
    sums[1] = simd.mul_add(rest, rest, sums[1]);
    let total = simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]));
    simd.sum(total)
}
