//! GPUs: what there are, and a model on some of them. Without the feature `cuda` there are
//! none, and whoever asks for one is told how to get them.

#[cfg(feature = "cuda")]
pub(crate) use with::{gpus, measure, start};
#[cfg(not(feature = "cuda"))]
pub(crate) use without::{gpus, measure, start};

use serde::Serialize;

/// Tokens of a step on a GPU, unless told otherwise.
pub(crate) const STEP_TOKENS: usize = 2048;
/// Sequences of a step.
pub(crate) const STEP_ROWS: usize = 256;

/// A GPU as its driver describes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Gpu {
    pub(crate) number: usize,
    pub(crate) name: String,
    /// Such as 9.0.
    pub(crate) compute_capability: String,
    /// The newest CUDA that the driver speaks, such as 13.0.
    pub(crate) driver: String,
    pub(crate) memory_bytes: u64,
    pub(crate) free_bytes: u64,
}

/// What a GPU can do, measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct GpuSpeed {
    /// Bytes read and written per second by a copy.
    pub(crate) copy_bytes_per_s: f64,
    /// Floating-point operations per second of a large product in bf16.
    pub(crate) matmul_flops: f64,
}

#[cfg(not(feature = "cuda"))]
mod without {
    use super::{Gpu, GpuSpeed};
    use crate::config::Config;
    use crate::error::Failure;
    use crate::session::{Opened, Session};
    use anyhow::Result;

    const WHY: &str = "this program was built without CUDA; `cargo xtask cuda-build` makes one with it (see the README)";

    pub(crate) fn gpus() -> Result<Vec<Gpu>, String> {
        Err(WHY.into())
    }

    pub(crate) fn measure(number: usize) -> Result<GpuSpeed> {
        Err(Failure::usage(format!("--device cuda:{number}: {WHY}")))
    }

    pub(crate) fn start(
        _: &Opened,
        _: &Config,
        numbers: &[usize],
        _: Option<usize>,
    ) -> Result<Session> {
        let number = numbers.first().copied().unwrap_or(0);
        Err(Failure::usage(format!("--device cuda:{number}: {WHY}")))
    }
}
