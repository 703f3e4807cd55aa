//! Tensors in, tensors out: the numerical kernels of the forward pass and of sampling.
//!
//! Knows candle and the CPU; knows no model configuration, no sequence and no request.
//! Every function gives, for a row, bits that depend on that row's inputs (and on its own
//! context) alone: never on the other rows, on how a prompt was cut into chunks, or on the
//! number of threads. Letters of the shapes are those of ARCHITECTURE.md.
//!
//! 1. [`Linear`]: products with weights in any format.
//! 2. [`rms_norm`], [`add_rms_norm`], [`swiglu`]: what stands between the products.
//! 3. [`rope_and_cache`] rotates q and k and writes k and v to a [`KvLayer`];
//!    [`paged_attention`] reads them back; [`copy_blocks`] serves copy-on-write.
//! 4. [`lora_add`] adds an adapter's share to the rows that use it.
//! 5. [`sampling`] turns one row of logits into a token.

pub mod sampling;

pub use attention::{SequenceSpan, paged_attention};
pub use blocks::{KvLayer, copy_blocks};
pub use error::{KernelError, Result};
pub use linear::{Linear, LinearError, WeightFormat};
pub use lora::{LoraWeights, lora_add};
pub use norm::{add_rms_norm, rms_norm};
pub use rows::{Rows, for_each_mut};
pub use rope::{Rope, RopeLayout, rope, rope_and_cache};
pub use swiglu::swiglu;

mod attention;
mod blocks;
mod cpu;
mod error;
mod linear;
mod lora;
mod norm;
mod parallel;
mod rope;
mod rows;
mod simd;
mod swiglu;
mod shim { use super::*; use candle_core::*; use candle_core::quantized::*;
/// shim
pub struct Linear { w: Vec<f32>, c: usize, bias: Option<Vec<f32>>, f32: bool }
fn v(t: &Tensor) -> Vec<f32> { t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap() }
#[allow(missing_docs)]
impl Linear {
    pub fn dense(w: Tensor, bias: Option<Tensor>) -> super::Result<Self> { let f32 = w.dtype() == DType::F32; Ok(Self { c: w.dim(1)?, w: v(&w), bias: bias.map(|b| v(&b)), f32 }) }
    pub fn quantized(w: QTensor, bias: Option<Tensor>) -> super::Result<Self> { let mut l = Self::dense(w.dequantize(&Device::Cpu)?, bias)?; l.f32 = false; Ok(l) }
    pub fn is_f32(&self) -> bool { self.f32 }
    pub fn forward(&self, x: &Tensor) -> super::Result<Tensor> { let r = x.dim(0)?; let mut out = vec![]; for row in v(x).chunks(self.c.max(1)).take(r) { for (i, w) in self.w.chunks(self.c).enumerate() { out.push(w.iter().zip(row).map(|(a, b)| a * b).sum::<f32>() + self.bias.as_ref().map_or(0.0, |b| b[i])) } } Ok(Tensor::from_vec(out, (r, self.w.len() / self.c), &Device::Cpu)?) }
    pub fn forward_many(ls: &[&Self], x: &Tensor) -> super::Result<Vec<Tensor>> { ls.iter().map(|l| l.forward(x)).collect() }
    pub fn rows(&self, ids: &[u32]) -> super::Result<Tensor> { let mut out = vec![]; for i in ids { out.extend_from_slice(&self.w[*i as usize * self.c..][..self.c]) } Ok(Tensor::from_vec(out, (ids.len(), self.c), &Device::Cpu)?) }
}}
pub use shim::Linear;
