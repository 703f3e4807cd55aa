//! The formats without a kernel of ours, through candle's quantised products.
//!
//! candle sums the activations of Q4_1 and Q5_1 in f16: beyond a sum of 65504 over 32 values the
//! outputs are infinite or NaN, never silently wrong.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};

use super::WeightFormat;
use crate::KernelError;

/// A weight matrix (rows, k) as candle keeps it.
pub(super) struct Fallback {
    matrix: candle_core::quantized::QMatMul,
    tensor: std::sync::Arc<QTensor>,
    format: WeightFormat,
}

impl Fallback {
    /// `bytes`: (rows, k) in a quantised `format`, of the right length.
    pub(super) fn from_bytes(
        bytes: &[u8],
        format: WeightFormat,
        rows: usize,
        k: usize,
    ) -> Result<Self, KernelError> {
        let device = Device::Cpu;
        let storage = if bytes.as_ptr().addr().is_multiple_of(4) {
            QStorage::from_data(Cow::Borrowed(bytes), &device, format.ggml())?
        } else {
            // candle reads blocks in place and asserts their alignment; a new allocation has it.
            QStorage::from_data(Cow::Owned(bytes.to_vec()), &device, format.ggml())?
        };
        let tensor = std::sync::Arc::new(QTensor::new(storage, (rows, k))?);
        let matrix = candle_core::quantized::QMatMul::QTensor(tensor.clone());
        Ok(Self {
            matrix,
            tensor,
            format,
        })
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        self.tensor.storage_size_in_bytes()
    }

    /// (T, k) to (T, rows). A row with a value that is not finite becomes NaN: the integers candle
    /// makes of it would hide it.
    pub(super) fn multiply(&self, x: &Tensor) -> Result<Vec<f32>, KernelError> {
        let (count, k) = x.dims2()?;
        // candle multiplies a single row of Q6_K in another order than several; other processors
        // than x86 have such paths for more formats.
        let lone_differs = self.format == WeightFormat::Q6K || cfg!(not(target_arch = "x86_64"));
        let padded = if count == 1 && lone_differs {
            x.pad_with_zeros(0, 0, 1)?
        } else {
            x.contiguous()?
        };
        let out = self.matrix.forward(&padded)?.flatten_all()?;
        let mut out = out.to_vec1::<f32>()?;
        let rows = out.len() / padded.dim(0)?;
        out.truncate(count * rows);
        let x = x.flatten_all()?.to_vec1::<f32>()?;
        for (x, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(rows)) {
            if !x.iter().all(|value| value.is_finite()) {
                out.fill(f32::NAN);
            }
        }
        Ok(out)
    }

    /// All values, (rows, k).
    pub(super) fn dequantize(&self) -> Result<Vec<f32>, KernelError> {
        Ok(self
            .tensor
            .dequantize(&Device::Cpu)?
            .flatten_all()?
            .to_vec1::<f32>()?)
    }

    /// (len, k) values of these rows, all of them in range.
    pub(super) fn rows(&self, ids: &[u32]) -> Result<Tensor, KernelError> {
        Ok(self.tensor.embedding(&Tensor::new(ids, &Device::Cpu)?)?)
    }
}

/// The file bytes of `values` (rows, k) in `format`, by candle's quantisers.
pub(super) fn encode(values: &[f32], format: GgmlDType, k: usize) -> Result<Vec<u8>, KernelError> {
    let rows = Tensor::from_slice(values, (values.len() / k, k), &Device::Cpu)?;
    Ok(QTensor::quantize(&rows, format)?.data()?.into_owned())
}
