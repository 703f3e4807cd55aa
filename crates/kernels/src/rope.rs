//! Rotary position embedding (Su et al. 2021) and the write to the KV cache behind it.

use crate::blocks::{KvDims, KvLayer};
use crate::cpu::{self, Element};
use crate::error::{KernelError, Result, matrix};
use crate::parallel::{self, Shared};
use crate::simd::{Kernel, LANES, Simd, Stored, dispatch};
use candle_core::{CpuStorage, CustomOp3, Device, InplaceOp2, Layout, Shape, Tensor};
use half::f16;

/// Which two elements of a head turn together by the i-th frequency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeLayout {
    /// i and i + D/2: Hugging Face's checkpoints.
    Halves,
    /// 2i and 2i + 1: GGUF files of the llama architecture.
    Interleaved,
}

impl RopeLayout {
    /// How the rows of q or k, heads of `head_dim` one after the other, get from this layout to
    /// `target`: entry i is the row that becomes row i.
    pub fn rows_for(self, target: Self, rows: usize, head_dim: usize) -> Vec<u32> {
        let half = head_dim / 2;
        let source = |within: usize| match (self, target) {
            (Self::Halves, Self::Interleaved) => within % 2 * half + within / 2,
            (Self::Interleaved, Self::Halves) => within % half * 2 + within / half,
            _ => within,
        };
        (0..rows)
            .map(|row| row / head_dim * head_dim + source(row % head_dim))
            .map(|row| u32::try_from(row).expect("row counts of models fit"))
            .collect()
    }
}

/// Cosines and sines of every angle, (P, D/2) each, f32.
#[derive(Debug, Clone)]
pub struct Rope {
    cos: Tensor,
    sin: Tensor,
    layout: RopeLayout,
}

impl Rope {
    /// The table for positions `0..positions` and the given inverse frequencies (D/2).
    ///
    /// Frequency and angle are rounded to f32 as transformers does (so that far positions
    /// agree with it); cosine and sine of that angle are taken in f64 and rounded once.
    ///
    /// # Errors
    /// No frequency, or one that is not finite; more positions than f32 counts exactly (2^24).
    pub fn new(inv_freq: &[f64], positions: usize, layout: RopeLayout) -> Result<Self> {
        if inv_freq.is_empty() || !inv_freq.iter().all(|f| f.is_finite()) {
            let problem = format!("inverse frequencies must be finite, got {inv_freq:?}");
            return Err(KernelError::Invalid {
                op: "rope",
                problem,
            });
        }
        if positions > 1 << 24 {
            let (op, what) = ("rope", "position");
            return Err(KernelError::OutOfRange {
                op,
                what,
                index: positions - 1,
                len: 1 << 24,
            });
        }
        let angles = (0..positions).flat_map(|position| {
            inv_freq
                .iter()
                .map(move |&f| f64::from(position as f32 * f as f32))
        });
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles
            .map(|angle| (angle.cos() as f32, angle.sin() as f32))
            .unzip();
        let shape = (positions, inv_freq.len());
        Ok(Self {
            cos: Tensor::from_vec(cos, shape, &Device::Cpu)?,
            sin: Tensor::from_vec(sin, shape, &Device::Cpu)?,
            layout,
        })
    }

    /// Positions in the table (P).
    pub fn positions(&self) -> usize {
        self.cos.dims()[0]
    }

    /// Elements of a head that are rotated: all (D).
    pub fn head_dim(&self) -> usize {
        self.cos.dims()[1] * 2
    }

    /// Cosines, (P, D/2).
    pub fn cos(&self) -> &Tensor {
        &self.cos
    }

    /// Sines, (P, D/2).
    pub fn sin(&self) -> &Tensor {
        &self.sin
    }

    /// Which elements turn together.
    pub fn layout(&self) -> RopeLayout {
        self.layout
    }

    /// The same angles for rows of q and k in another order.
    pub fn with_layout(&self, layout: RopeLayout) -> Self {
        Self {
            layout,
            ..self.clone()
        }
    }

    /// Turns the other way: the gradient of [`rope()`] is `rope()` by this table.
    ///
    /// # Errors
    /// Those of candle.
    pub fn inverse(&self) -> Result<Self> {
        Ok(Self {
            cos: self.cos.clone(),
            sin: self.sin.neg()?,
            layout: self.layout,
        })
    }

    fn check(&self, op: &'static str, positions: &[u32], tokens: usize) -> Result<()> {
        same_length(op, "positions", positions, tokens)?;
        let len = self.positions();
        match positions.iter().find(|&&p| p as usize >= len) {
            Some(&p) => Err(KernelError::OutOfRange {
                op,
                what: "position",
                index: p as usize,
                len,
            }),
            None => Ok(()),
        }
    }
}

/// Rotates every head of x (T, heads * D), f32, by its row's position; (T, heads * D).
///
/// # Errors
/// Wrong shapes, types or strides; a position outside of the table.
pub fn rope(x: &Tensor, rope: &Rope, positions: &[u32]) -> Result<Tensor> {
    let op = "rope";
    let (tokens, width) = matrix(op, "x", x)?;
    rope.check(op, positions, tokens)?;
    if !width.is_multiple_of(rope.head_dim()) {
        let expected = format!("(T, heads * {})", rope.head_dim());
        let got = x.dims().to_vec();
        return Err(KernelError::Shape {
            op,
            operand: "x",
            expected,
            got,
        });
    }
    Ok(x.apply_op3_no_bwd(
        &rope.cos,
        &rope.sin,
        &Rotate {
            positions,
            layout: rope.layout,
        },
    )?)
}

/// Rotates q and k by `positions` (T), writes k (rotated) and v to `slots` (T) of the cache
/// and returns the rotated q: q (T, Hq*D), k and v (T, Hkv*D), f32; slot = block * N + offset.
///
/// # Errors
/// Wrong shapes, types or strides; a position outside of the table; a slot outside of the
/// cache or given twice. Nothing is written then.
pub fn rope_and_cache(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    rope: &Rope,
    positions: &[u32],
    slots: &[u32],
    kv: &KvLayer,
) -> Result<Tensor> {
    let op = "rope_and_cache";
    let dims = kv.dims(op)?;
    if dims.head_dim != rope.head_dim() {
        let problem = format!(
            "cache of heads of {}, rope for {}",
            dims.head_dim,
            rope.head_dim()
        );
        return Err(KernelError::Invalid { op, problem });
    }
    let (tokens, _) = matrix(op, "q", q)?;
    for (operand, tensor) in [("k", k), ("v", v)] {
        crate::error::shaped(
            op,
            operand,
            tensor,
            &[tokens, dims.kv_heads * dims.head_dim],
        )?;
    }
    rope.check(op, positions, tokens)?;
    check_slots(op, slots, tokens, dims)?;
    let rotated = self::rope(q, rope, positions)?;
    let write = Write { slots, dims };
    kv.k.inplace_op2(&self::rope(k, rope, positions)?, &write)?;
    kv.v.inplace_op2(v, &write)?;
    Ok(rotated)
}

fn same_length(op: &'static str, what: &str, given: &[u32], tokens: usize) -> Result<()> {
    if given.len() == tokens {
        return Ok(());
    }
    let problem = format!("{} {what} for {tokens} tokens", given.len());
    Err(KernelError::Invalid { op, problem })
}

/// Slots are in range and distinct: threads write them at the same time.
fn check_slots(op: &'static str, slots: &[u32], tokens: usize, dims: KvDims) -> Result<()> {
    same_length(op, "slots", slots, tokens)?;
    let len = dims.blocks * dims.block_len;
    let mut sorted = slots.to_vec();
    sorted.sort_unstable();
    if let Some(&last) = sorted.last()
        && last as usize >= len
    {
        return Err(KernelError::OutOfRange {
            op,
            what: "slot",
            index: last as usize,
            len,
        });
    }
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(KernelError::Invalid {
            op,
            problem: format!("slot {} twice", pair[0]),
        });
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Rotate<'a> {
    positions: &'a [u32],
    layout: RopeLayout,
}

impl CustomOp3 for Rotate<'_> {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x: &[f32] = cpu::slice(x, x_layout)?;
        let (cos, sin): (&[f32], &[f32]) =
            (cpu::slice(cos, cos_layout)?, cpu::slice(sin, sin_layout)?);
        let half = cos_layout.dims()[1];
        let width = x_layout.dims()[1];
        let mut out = vec![0.0; x.len()];
        parallel::chunks(&mut out, width, |token, out| {
            let x = &x[token * width..][..width];
            let at = self.positions[token] as usize * half;
            let (cos, sin) = (&cos[at..][..half], &sin[at..][..half]);
            dispatch(RotateRow {
                x,
                cos,
                sin,
                layout: self.layout,
                out,
            });
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

/// The heads of one token: x and out of equal length, a multiple of twice that of cos and sin.
struct RotateRow<'a> {
    x: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    layout: RopeLayout,
    out: &'a mut [f32],
}

impl Kernel for RotateRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let half = self.cos.len();
        let sin = &self.sin[..half];
        for (x, out) in self
            .x
            .chunks_exact(2 * half)
            .zip(self.out.chunks_exact_mut(2 * half))
        {
            match self.layout {
                RopeLayout::Halves => {
                    let (x0, x1) = x.split_at(half);
                    let (out0, out1) = out.split_at_mut(half);
                    for i in 0..half {
                        out0[i] = x0[i] * self.cos[i] - x1[i] * sin[i];
                        out1[i] = x1[i] * self.cos[i] + x0[i] * sin[i];
                    }
                }
                RopeLayout::Interleaved => {
                    let pairs = x.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<2>().0);
                    for ((x, out), (cos, sin)) in pairs.zip(self.cos.iter().zip(sin)) {
                        *out = [x[0] * cos - x[1] * sin, x[1] * cos + x[0] * sin];
                    }
                }
            }
        }
    }
}

/// Writes rows (T, Hkv*D) to slots of one half of the cache.
#[derive(Clone, Copy)]
struct Write<'a> {
    slots: &'a [u32],
    dims: KvDims,
}

impl Write<'_> {
    fn run<T: Element + Stored>(&self, cache: &mut [T], rows: &[f32]) {
        let KvDims {
            kv_heads,
            block_len,
            head_dim,
            ..
        } = self.dims;
        let cache = Shared::new(cache);
        let width = kv_heads * head_dim;
        parallel::ranges(self.slots.len(), rows.len(), |tokens| {
            for token in tokens {
                let slot = self.slots[token] as usize;
                let (block, offset) = (slot / block_len, slot % block_len);
                let heads = rows[token * width..][..width].chunks_exact(head_dim);
                for (head, values) in heads.enumerate() {
                    let start = self.dims.offset(block, head, offset);
                    // SAFETY: `ranges` hands every token out once, and slots are distinct and
                    // in range (`check_slots`).
                    #[expect(unsafe_code, reason = "threads write distinct slots of one cache")]
                    let out = unsafe { cache.slice(start..start + head_dim) };
                    dispatch(Convert { values, out });
                }
            }
        });
    }
}

struct Convert<'a, T> {
    values: &'a [f32],
    out: &'a mut [T],
}

impl<T: Stored> Kernel for Convert<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (values, values_rest) = self.values.as_chunks::<LANES>();
        let (out, out_rest) = self.out.as_chunks_mut::<LANES>();
        for (out, values) in out.iter_mut().zip(values) {
            T::store(simd, simd.load(values), out);
        }
        let mut last = [T::ZERO; LANES];
        T::store(simd, simd.load_part(values_rest), &mut last);
        out_rest.copy_from_slice(&last[..out_rest.len()]);
    }
}

impl InplaceOp2 for Write<'_> {
    fn name(&self) -> &'static str {
        "write_cache"
    }

    fn cpu_fwd(
        &self,
        cache: &mut CpuStorage,
        layout: &Layout,
        rows: &CpuStorage,
        rows_layout: &Layout,
    ) -> candle_core::Result<()> {
        let rows = cpu::slice(rows, rows_layout)?;
        match cache {
            CpuStorage::F16(_) => self.run(cpu::slice_mut::<f16>(cache, layout)?, rows),
            _ => self.run(cpu::slice_mut::<f32>(cache, layout)?, rows),
        }
        Ok(())
    }
}
