//! Gradients of the gate of the feed-forward block.

use super::host::host;
use crate::error::{Result, matrix};
use crate::parallel;
use crate::simd::{Kernel, LANES, Simd, dispatch};
use candle_core::{Device, Tensor};

/// Elements that a thread takes at a time; a multiple of the lanes.
const CHUNK: usize = 4096;

/// Gradients (of gate, of up) of `y = silu(gate) * up`; all (T, F), f32.
///
/// # Errors
/// Wrong shapes, types or strides.
pub fn swiglu_backward(gate: &Tensor, up: &Tensor, gradient: &Tensor) -> Result<(Tensor, Tensor)> {
    let op = "swiglu_backward";
    let (rows, columns) = matrix(op, "gate", gate)?;
    let gate = host(op, "gate", gate, &[rows, columns])?;
    let up = host(op, "up", up, &[rows, columns])?;
    let gradient = host(op, "gradient", gradient, &[rows, columns])?;
    let (mut of_gate, mut of_up) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
    parallel::chunks2((&mut of_gate, &mut of_up), CHUNK, |i, of_gate, of_up| {
        let range = i * CHUNK..i * CHUNK + of_up.len();
        dispatch(Gate {
            gate: &gate[range.clone()],
            up: &up[range.clone()],
            gradient: &gradient[range],
            of_gate,
            of_up,
        });
    });
    Ok((
        Tensor::from_vec(of_gate, (rows, columns), &Device::Cpu)?,
        Tensor::from_vec(of_up, (rows, columns), &Device::Cpu)?,
    ))
}

/// Five slices of equal length.
struct Gate<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    gradient: &'a [f32],
    of_gate: &'a mut [f32],
    of_up: &'a mut [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (gate, gate_rest) = self.gate.as_chunks::<LANES>();
        let (up, up_rest) = self.up.as_chunks::<LANES>();
        let (gradient, gradient_rest) = self.gradient.as_chunks::<LANES>();
        let (of_gate, of_gate_rest) = self.of_gate.as_chunks_mut::<LANES>();
        let (of_up, of_up_rest) = self.of_up.as_chunks_mut::<LANES>();
        let inputs = gate.iter().zip(up).zip(gradient);
        for (((gate, up), gradient), (of_gate, of_up)) in inputs.zip(of_gate.iter_mut().zip(of_up))
        {
            let (gate, up, gradient) = (simd.load(gate), simd.load(up), simd.load(gradient));
            let (dg, du) = slopes(simd, gate, up, gradient);
            simd.store(dg, of_gate);
            simd.store(du, of_up);
        }
        let (gate, up) = (simd.load_part(gate_rest), simd.load_part(up_rest));
        let (dg, du) = slopes(simd, gate, up, simd.load_part(gradient_rest));
        simd.store_part(dg, of_gate_rest);
        simd.store_part(du, of_up_rest);
    }
}

/// With s = sigmoid(gate): (g up s (1 + gate (1 - s)), g gate s).
#[inline(always)]
fn slopes<S: Simd>(simd: S, gate: S::F, up: S::F, gradient: S::F) -> (S::F, S::F) {
    let one = simd.splat(1.0);
    let sigmoid = simd.div(
        one,
        simd.add(one, simd.exp(simd.sub(simd.splat(0.0), gate))),
    );
    let slope = simd.mul(sigmoid, simd.mul_add(gate, simd.sub(one, sigmoid), one));
    let of_gate = simd.mul(simd.mul(gradient, up), slope);
    (of_gate, simd.mul(gradient, simd.mul(gate, sigmoid)))
}
