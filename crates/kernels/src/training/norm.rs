//! Gradients of the root-mean-square norm (Zhang & Sennrich 2019).

use super::host::host;
use crate::error::{Result, matrix};
use crate::parallel::{self, Shared};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use candle_core::{Device, Tensor};

/// What [`rms_norm_backward`] gives.
#[derive(Debug)]
pub struct RmsNormGradient {
    /// (T, H)
    pub x: Tensor,
    /// (H), summed over the rows.
    pub weight: Tensor,
}

/// Rows whose share of the weight's gradient is summed by one thread; the sums are then added
/// in order, so that threads do not show.
const ROWS: usize = 32;

/// Gradients of `y = rms_norm(x, weight, eps)`: x and `gradient` (T, H), weight (H), f32. With
/// r = 1/sqrt(mean(x^2) + eps): dx = r g w - x r^3 / H * sum(g w x), dw = sum over rows of g x r.
///
/// # Errors
/// Wrong shapes, types or strides.
pub fn rms_norm_backward(
    x: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
    eps: f32,
) -> Result<RmsNormGradient> {
    let op = "rms_norm_backward";
    let (rows, hidden) = matrix(op, "x", x)?;
    let x = host(op, "x", x, &[rows, hidden])?;
    let weight = host(op, "weight", weight, &[hidden])?;
    let gradient = host(op, "gradient", gradient, &[rows, hidden])?;
    let groups = rows.div_ceil(ROWS);
    let mut of_x = vec![0.0; rows * hidden];
    let mut of_weight = vec![0.0; groups * hidden];
    let (out, partial) = (Shared::new(&mut of_x), Shared::new(&mut of_weight));
    parallel::ranges(groups, rows * hidden * 4, |range| {
        for group in range {
            let span = group * ROWS * hidden..rows.min((group + 1) * ROWS) * hidden;
            #[expect(unsafe_code, reason = "threads write disjoint parts of one output")]
            // SAFETY: each group is handed out once, and groups are disjoint.
            let (out, partial) = unsafe {
                (
                    out.slice(span.clone()),
                    partial.slice(group * hidden..(group + 1) * hidden),
                )
            };
            dispatch(Rows {
                x: &x[span.clone()],
                gradient: &gradient[span],
                weight: &weight,
                eps,
                out,
                of_weight: partial,
            });
        }
    });
    let mut total = vec![0.0; hidden];
    for partial in of_weight.chunks_exact(hidden.max(1)) {
        for (total, partial) in total.iter_mut().zip(partial) {
            *total += partial;
        }
    }
    Ok(RmsNormGradient {
        x: Tensor::from_vec(of_x, (rows, hidden), &Device::Cpu)?,
        weight: Tensor::from_vec(total, hidden, &Device::Cpu)?,
    })
}

/// Some rows; `of_weight` holds zeros before.
struct Rows<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
    of_weight: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let hidden = self.weight.len().max(1);
        let rows = self
            .x
            .chunks_exact(hidden)
            .zip(self.gradient.chunks_exact(hidden));
        for ((x, gradient), out) in rows.zip(self.out.chunks_exact_mut(hidden)) {
            let (squares, mixed) = row_sums(simd, x, gradient, self.weight);
            let scale = 1.0 / (squares / hidden as f32 + self.eps).sqrt();
            let pull = mixed * scale * scale * scale / hidden as f32;
            for i in 0..hidden {
                out[i] = scale * gradient[i] * self.weight[i] - x[i] * pull;
                self.of_weight[i] += gradient[i] * x[i] * scale;
            }
        }
    }
}

/// Sum of x^2, and of g w x.
#[inline(always)]
fn row_sums<S: Simd>(simd: S, x: &[f32], gradient: &[f32], weight: &[f32]) -> (f32, f32) {
    let (mut squares, mut mixed) = (simd.splat(0.0), simd.splat(0.0));
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (g, g_rest) = gradient.as_chunks::<LANES>();
    let (w, w_rest) = weight.as_chunks::<LANES>();
    for ((x, g), w) in x.iter().zip(g).zip(w) {
        let x = simd.load(x);
        squares = simd.mul_add(x, x, squares);
        mixed = simd.mul_add(simd.mul(simd.load(g), simd.load(w)), x, mixed);
    }
    let x = simd.load_part(x_rest);
    squares = simd.mul_add(x, x, squares);
    mixed = simd.mul_add(
        simd.mul(simd.load_part(g_rest), simd.load_part(w_rest)),
        x,
        mixed,
    );
    (simd.sum(squares), simd.sum(mixed))
}
