//! Low-rank adapters applied beside the base product (Hu et al. 2021): the base weights stay
//! as they are, so that rows of one batch may use different adapters.

use crate::cpu;
use crate::error::{KernelError, Result, matrix, shaped};
use crate::parallel::{self, Shared};
use crate::simd::{Kernel, LANES, Lanes, Simd, dispatch};
use candle_core::{CpuStorage, CustomOp2, InplaceOp3, Layout, Shape, Tensor};

/// A low-rank delta, as PEFT stores it: `scale * b * a`, f32.
#[derive(Debug, Clone, Copy)]
pub struct LoraWeights<'a> {
    /// `lora_A.weight`, (r, in).
    pub a: &'a Tensor,
    /// `lora_B.weight`, (out, r).
    pub b: &'a Tensor,
    /// `lora_alpha / r`.
    pub scale: f32,
}

/// Adds `scale * b * (a * x)` to the given `rows` of y, in place: y (T, out), x (T, in), f32.
/// Called once per adapter of a batch with the rows that use it.
///
/// # Errors
/// Wrong shapes, types or strides; a row outside of y or given twice; x and y in one storage.
pub fn lora_add(y: &Tensor, x: &Tensor, lora: &LoraWeights<'_>, rows: &[u32]) -> Result<()> {
    let op = "lora_add";
    let (tokens, outputs) = matrix(op, "y", y)?;
    let (_, inputs) = matrix(op, "x", x)?;
    let (rank, _) = matrix(op, "a", lora.a)?;
    shaped(op, "x", x, &[tokens, inputs])?;
    shaped(op, "a", lora.a, &[rank, inputs])?;
    shaped(op, "b", lora.b, &[outputs, rank])?;
    let mut sorted = rows.to_vec();
    sorted.sort_unstable();
    if let Some(&last) = sorted.last()
        && last as usize >= tokens
    {
        return Err(KernelError::OutOfRange {
            op,
            what: "row",
            index: last as usize,
            len: tokens,
        });
    }
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(KernelError::Invalid {
            op,
            problem: format!("row {} twice", pair[0]),
        });
    }
    if rows.is_empty() || rank == 0 || outputs == 0 {
        return Ok(());
    }
    let hidden = x.apply_op2_no_bwd(lora.a, &Down { rows })?;
    Ok(y.inplace_op3(
        &hidden,
        lora.b,
        &Up {
            rows,
            scale: lora.scale,
        },
    )?)
}

/// x rows times a^T: (rows, r).
struct Down<'a> {
    rows: &'a [u32],
}

impl CustomOp2 for Down<'_> {
    fn name(&self) -> &'static str {
        "lora_down"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x: &[f32] = cpu::slice(x, x_layout)?;
        let a: &[f32] = cpu::slice(a, a_layout)?;
        let (rank, inputs) = a_layout.shape().dims2()?;
        let mut out = vec![0.0; self.rows.len() * rank];
        let shared = Shared::new(&mut out);
        parallel::ranges(self.rows.len(), self.rows.len() * a.len(), |range| {
            for i in range {
                let x = &x[self.rows[i] as usize * inputs..][..inputs];
                // SAFETY: `ranges` hands every `i` out once.
                #[expect(unsafe_code, reason = "threads write disjoint parts of one output")]
                let out = unsafe { shared.slice(i * rank..(i + 1) * rank) };
                dispatch(Dots { x, a, out });
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((self.rows.len(), rank))))
    }
}

/// One x row against every row of a.
struct Dots<'a> {
    x: &'a [f32],
    a: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (out, a) in self
            .out
            .iter_mut()
            .zip(self.a.chunks_exact(self.x.len().max(1)))
        {
            *out = dot(simd, self.x, a);
        }
    }
}

/// Four partial sums of sixteen lanes each, added in a fixed order.
#[inline(always)]
fn dot<S: Simd>(simd: S, x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [simd.splat(0.0); 4];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks::<LANES>();
    let ((x4, x1), (y4, y1)) = (x.as_chunks::<4>(), y.as_chunks::<4>());
    for (x, y) in x4.iter().zip(y4) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum = simd.mul_add(simd.load(x), simd.load(y), *sum);
        }
    }
    for (x, y) in x1.iter().zip(y1) {
        sums[0] = simd.mul_add(simd.load(x), simd.load(y), sums[0]);
    }
    sums[1] = simd.mul_add(simd.load_part(x_rest), simd.load_part(y_rest), sums[1]);
    simd.sum(simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3])))
}

/// Adds scale * hidden * b^T to the rows of y.
struct Up<'a> {
    rows: &'a [u32],
    scale: f32,
}

impl InplaceOp3 for Up<'_> {
    fn name(&self) -> &'static str {
        "lora_up"
    }

    fn cpu_fwd(
        &self,
        y: &mut CpuStorage,
        y_layout: &Layout,
        hidden: &CpuStorage,
        hidden_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<()> {
        let hidden: &[f32] = cpu::slice(hidden, hidden_layout)?;
        let b: &[f32] = cpu::slice(b, b_layout)?;
        let (outputs, rank) = b_layout.shape().dims2()?;
        let y = Shared::new(cpu::slice_mut::<f32>(y, y_layout)?);
        let work = self.rows.len() * b.len();
        parallel::ranges(outputs.div_ceil(LANES), work, |tiles| {
            let mut columns = vec![Lanes::ZERO; rank];
            for tile in tiles {
                let outputs_here = tile * LANES..outputs.min((tile + 1) * LANES);
                let b = &b[outputs_here.start * rank..outputs_here.end * rank];
                for (j, column) in columns.iter_mut().enumerate() {
                    for (lane, row) in column.0.iter_mut().zip(b.chunks_exact(rank)) {
                        *lane = row[j];
                    }
                }
                for (row, hidden) in self.rows.iter().zip(hidden.chunks_exact(rank)) {
                    let start = *row as usize * outputs;
                    let range = start + outputs_here.start..start + outputs_here.end;
                    // SAFETY: `ranges` hands every tile out once and `lora_add` has checked
                    // that rows are distinct.
                    #[expect(unsafe_code, reason = "threads write disjoint parts of one output")]
                    let y = unsafe { y.slice(range) };
                    dispatch(AddTile {
                        hidden,
                        columns: &columns,
                        scale: self.scale,
                        y,
                    });
                }
            }
        });
        Ok(())
    }
}

/// At most sixteen outputs of one row.
struct AddTile<'a> {
    hidden: &'a [f32],
    columns: &'a [Lanes],
    scale: f32,
    y: &'a mut [f32],
}

impl Kernel for AddTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut sum = simd.splat(0.0);
        for (hidden, column) in self.hidden.iter().zip(self.columns) {
            sum = simd.mul_add(simd.splat(*hidden), simd.load(&column.0), sum);
        }
        let scale = simd.splat(self.scale);
        match <&mut [f32; LANES]>::try_from(&mut *self.y) {
            Ok(y) => simd.store(simd.mul_add(sum, scale, simd.load(y)), y),
            Err(_) => {
                let y = simd.mul_add(sum, scale, simd.load_part(self.y));
                simd.store_part(y, self.y);
            }
        }
    }
}
