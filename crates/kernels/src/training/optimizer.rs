//! Steps of optimisers, in place.

use super::host::host;
use crate::cpu;
use crate::error::{Result, plain_f32, shaped};
use crate::parallel;
use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor};

/// Values that a thread takes at a time.
const CHUNK: usize = 16 * 1024;

/// Sum of the squares of a tensor's values, in f64 and in one order.
///
/// # Errors
/// Another type or layout.
pub fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let values = host("sum_of_squares", "tensor", tensor, tensor.dims())?;
    let mut sums = vec![0.0f64; values.len().div_ceil(CHUNK)];
    parallel::chunks(&mut sums, 1, |i, sum| {
        let chunk = &values[i * CHUNK..values.len().min((i + 1) * CHUNK)];
        let mut lanes = [0.0f64; 8];
        for values in chunk.chunks(8) {
            for (lane, x) in lanes.iter_mut().zip(values) {
                *lane += f64::from(*x) * f64::from(*x);
            }
        }
        sum[0] = lanes.iter().sum();
    });
    Ok(sums.iter().sum())
}

/// AdamW (Loshchilov & Hutter 2019, algorithm 2), as torch computes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub rate: f64,
    /// Decay of the means of gradients and of their squares.
    pub betas: (f64, f64),
    /// Added to the root of the second.
    pub eps: f64,
    /// Decay of the weights, times the learning rate.
    pub weight_decay: f64,
    /// Steps, this one included.
    pub step: u64,
    /// What gradients are multiplied with first: clipping.
    pub gradient_scale: f64,
}

impl AdamW {
    /// One step: `parameter`, f32 of any shape; `moments`, (2, n) f32, the means of the
    /// gradients and of their squares; `gradient` as the parameter. The first two change.
    ///
    /// # Errors
    /// Wrong shapes, types or strides.
    pub fn apply(&self, parameter: &Tensor, moments: &Tensor, gradient: &Tensor) -> Result<()> {
        let op = "adamw";
        plain_f32(op, "parameter", parameter)?;
        let count = parameter.elem_count();
        shaped(op, "moments", moments, &[2, count])?;
        shaped(op, "gradient", gradient, parameter.dims())?;
        moments.inplace_op2(gradient, &Moments(self))?;
        Ok(parameter.inplace_op2(moments, &Update(self))?)
    }
}

struct Moments<'a>(&'a AdamW);

impl InplaceOp2 for Moments<'_> {
    fn name(&self) -> &'static str {
        "adamw_moments"
    }

    fn cpu_fwd(
        &self,
        moments: &mut CpuStorage,
        moments_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<()> {
        let gradient: &[f32] = cpu::slice(gradient, gradient_layout)?;
        let moments = cpu::slice_mut::<f32>(moments, moments_layout)?;
        let (first, second) = moments.split_at_mut(gradient.len());
        let (b1, b2) = (self.0.betas.0 as f32, self.0.betas.1 as f32);
        let (c1, c2) = ((1.0 - self.0.betas.0) as f32, (1.0 - self.0.betas.1) as f32);
        let scale = self.0.gradient_scale as f32;
        parallel::chunks2((first, second), CHUNK, |i, first, second| {
            let gradient = &gradient[i * CHUNK..i * CHUNK + first.len()];
            for ((m, v), g) in first.iter_mut().zip(second).zip(gradient) {
                let g = g * scale;
                *m = b1 * *m + c1 * g;
                *v = b2 * *v + c2 * g * g;
            }
        });
        Ok(())
    }
}

struct Update<'a>(&'a AdamW);

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw_update"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        parameter_layout: &Layout,
        moments: &CpuStorage,
        moments_layout: &Layout,
    ) -> candle_core::Result<()> {
        let parameter = cpu::slice_mut::<f32>(parameter, parameter_layout)?;
        let moments: &[f32] = cpu::slice(moments, moments_layout)?;
        let (first, second) = moments.split_at(parameter.len());
        let step = self.0.step as f64;
        let rate = (self.0.rate / (1.0 - self.0.betas.0.powf(step))) as f32;
        let root = (1.0 - self.0.betas.1.powf(step)).sqrt() as f32;
        let eps = self.0.eps as f32;
        let kept = (1.0 - self.0.rate * self.0.weight_decay) as f32;
        parallel::chunks(parameter, CHUNK, |i, parameter| {
            let range = i * CHUNK..i * CHUNK + parameter.len();
            let moments = first[range.clone()].iter().zip(&second[range]);
            for (p, (m, v)) in parameter.iter_mut().zip(moments) {
                *p = *p * kept - rate * m / (v.sqrt() / root + eps);
            }
        });
        Ok(())
    }
}
