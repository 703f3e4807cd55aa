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
//! 6. [`training`] holds the backward rules.
//! 7. `cuda` (features `cuda` and `cuda-emulator`) has the same on NVIDIA devices.

#[cfg(any(feature = "cuda", feature = "cuda-emulator"))]
pub mod cuda;
pub mod sampling;
pub mod training;

pub use attention::{SequenceSpan, paged_attention};
pub use blocks::{KvLayer, copy_blocks};
pub use error::{KernelError, Result};
pub use linear::{Linear, WeightFormat, encode_rows};
pub use lora::{LoraWeights, lora_add};
pub use norm::{add_rms_norm, rms_norm};
pub use rope::{Rope, RopeLayout, rope, rope_and_cache};
pub use rows::{Rows, for_each_mut, read_rows};
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
