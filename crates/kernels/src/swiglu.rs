//! The gate of the feed-forward block (Shazeer 2020, SwiGLU).

use crate::error::{Result, matrix, shaped};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use crate::{cpu, parallel};
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};

/// `silu(gate) * up`, with `silu(x) = x / (1 + e^-x)`: both (T, F), f32; (T, F).
///
/// # Errors
/// Wrong shapes, types or strides.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let (rows, columns) = matrix("swiglu", "gate", gate)?;
    shaped("swiglu", "up", up, &[rows, columns])?;
    Ok(gate.apply_op2_no_bwd(up, &SwiGlu)?)
}

/// Elements that a thread takes at a time; a multiple of the lanes, so that how the whole
/// is cut does not decide which elements take the tail's path.
const CHUNK: usize = 4096;

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let gate: &[f32] = cpu::slice(gate, gate_layout)?;
        let up: &[f32] = cpu::slice(up, up_layout)?;
        let mut out = vec![0.0; gate.len()];
        parallel::chunks(&mut out, CHUNK, |i, out| {
            let range = i * CHUNK..i * CHUNK + out.len();
            dispatch(Gate {
                gate: &gate[range.clone()],
                up: &up[range],
                out,
            });
        });
        Ok((CpuStorage::F32(out), gate_layout.shape().clone()))
    }
}

/// Three slices of equal length.
struct Gate<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (gate, gate_rest) = self.gate.as_chunks::<LANES>();
        let (up, up_rest) = self.up.as_chunks::<LANES>();
        let (out, out_rest) = self.out.as_chunks_mut::<LANES>();
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            simd.store(gated(simd, simd.load(gate), simd.load(up)), out);
        }
        // The same vector code for the tail: an element's place must not show.
        let y = gated(simd, simd.load_part(gate_rest), simd.load_part(up_rest));
        simd.store_part(y, out_rest);
    }
}

#[inline(always)]
fn gated<S: Simd>(simd: S, gate: S::F, up: S::F) -> S::F {
    let one = simd.splat(1.0);
    let denominator = simd.add(one, simd.exp(simd.sub(simd.splat(0.0), gate)));
    simd.mul(simd.div(gate, denominator), up)
}
