//! How fast this processor multiplies: the limit that prefill is held against.

use crate::{LoadAs, ModelError};
use candle_core::{Device, Tensor};
use kernels::{Linear, WeightFormat};
use std::time::Instant;

/// Rows of the product that is timed: a prefill chunk.
const ROWS: usize = 512;
/// Columns, and rows of the weights.
const SIZE: usize = 2048;
/// Products timed; the fastest counts.
const REPEATS: usize = 5;

/// Floating-point operations per second (a multiplication and an addition are two) of a
/// product of 512 rows with weights as `load_as` holds them, on all threads.
///
/// # Errors
/// Not enough memory for 16 MB of weights.
pub fn product_flops(load_as: LoadAs) -> Result<f64, ModelError> {
    let format = match load_as {
        LoadAs::Stored => WeightFormat::BF16,
        LoadAs::F32 => WeightFormat::F32,
        LoadAs::Q8_0 => WeightFormat::Q8_0,
        LoadAs::Q4K => WeightFormat::Q4K,
    };
    let measure = || -> kernels::Result<f64> {
        let values = |count: usize| -> Vec<f32> {
            let value = |index: usize| (index * 2_654_435_761 % 4093) as f32 / 4093.0 - 0.5;
            (0..count).map(value).collect()
        };
        let weights = Linear::quantize(&values(SIZE * SIZE), format, SIZE, SIZE, None)?;
        let x = Tensor::from_vec(values(ROWS * SIZE), (ROWS, SIZE), &Device::Cpu)?;
        let mut fastest = f64::INFINITY;
        for _ in 0..REPEATS {
            let start = Instant::now();
            std::hint::black_box(weights.forward(&x)?);
            fastest = fastest.min(start.elapsed().as_secs_f64());
        }
        Ok((2 * ROWS * SIZE * SIZE) as f64 / fastest.max(1e-9))
    };
    measure().map_err(|source| ModelError::compute("measuring a product", source))
}
