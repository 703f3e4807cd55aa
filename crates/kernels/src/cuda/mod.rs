//! The kernels on an NVIDIA device: own kernels (cuda/*.cu) and cuBLAS products over buffers that
//! the caller owns.
//!
//! Compiled with the feature `cuda` (nvcc builds the kernels into the program; the driver and
//! cuBLAS are loaded when a [`Device`] is opened, so that the program runs without them) or with
//! `cuda-emulator` (the C++ compiler builds the same kernels for the host: `Device::emulated`,
//! slow and strict, for tests). Everything below works the same on both.
//!
//! Everything given to a device runs in the order it was given, behind the host's back; reading
//! results waits ([`Buffer::read`], [`Pinned::get`], [`Device::synchronize`]). No operation
//! allocates, so that a step can be captured as a [`Graph`].
//!
//! Operands are views: [`View`] for arrays, [`Matrix`] for rows at a stride (a part of the columns
//! of a wider buffer too). Shapes and types are checked on the host; the *content* of index arrays
//! lies on the device and is the caller's duty. Kernels bound what an index can reach, so that a
//! wrong one gives wrong numbers, not a fault.
//!
//! [`training`] has what a backward pass needs beside.
//!
//! Bits of a row: they depend on that row's inputs and context alone in every operation but
//! [`Products::multiply`] in [`Mode::Fast`] (cuBLAS chooses by the number of rows) and except for
//! which of both attention kernels is asked for a row.

pub use attention::{Attention, AttentionKernel, KvCache, SPLIT, Spans, paged_attention};
pub use buffer::{Buffer, Element, Kind, Matrix, Pinned, View};
pub use device::{Device, DeviceInfo, Event, Graph};
pub use elementwise::{
    Norm, RopeAndCache, RopeTable, add_rms_norm, cast, copy_blocks, embed, gather_rows, rms_norm,
    rope_and_cache, swiglu,
};
#[cfg(feature = "cuda-emulator")]
pub use emulated::run_broken;
pub use linear::{CudaLinear, Mode, Products, ProductsSize};
pub use lora::{LoraAdd, LoraMatrix, LoraTable, NO_ADAPTER, lora_add};
pub use measure::{Rates, measure};
pub use sampler::{Asked, DrawnAt, Question, RawReport, Reported, Sampler, SamplerLimits};

mod attention;
mod backend;
mod buffer;
mod device;
#[cfg(feature = "cuda")]
mod driver;
mod elementwise;
#[cfg(feature = "cuda-emulator")]
mod emulated;
mod linear;
mod lora;
mod measure;
mod sampler;
pub mod training;
