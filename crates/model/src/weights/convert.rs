//! Bytes of a file become what the kernels compute with.

use super::{RawTensor, Role, Storage, LoadAs};
use crate::{FloatType, ModelError};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use kernels::Linear;
use std::borrow::Cow;

/// Weights widened to f32 at a time while quantising: 4 MiB, so that no whole matrix ever is.
const CHUNK_ELEMENTS: usize = 1 << 20;

/// Little-endian floats widened to f32; exact.
pub(crate) fn to_f32(bytes: &[u8], dtype: FloatType) -> Vec<f32> {
    let pairs = || bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    match dtype {
        FloatType::F32 => quads(bytes),
        FloatType::F16 => pairs().map(|bits| f16::from_bits(bits).to_f32()).collect(),
        FloatType::Bf16 => pairs().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
    }
}

fn quads(bytes: &[u8]) -> Vec<f32> {
    let quad = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    bytes.chunks_exact(4).map(quad).collect()
}

/// A weight matrix in the format asked for.
pub(super) fn linear(
    name: &str,
    raw: &RawTensor<'_>,
    bias: Option<Tensor>,
    (format, role): (LoadAs, Role),
) -> Result<Linear, ModelError> {
    let failed = |source| ModelError::compute(name, source);
    match raw.storage {
        Storage::Blocks(blocks) => {
            let matrix = from_blocks(name, raw, blocks)?;
            Linear::quantized(matrix, bias).map_err(failed)
        }
        Storage::Dense(dtype) => match target(name, raw, (format, role))? {
            Some(blocks) => {
                let matrix = quantise(name, raw, dtype, blocks)?;
                Linear::quantized(matrix, bias).map_err(failed)
            }
            None => {
                let wide = format == LoadAs::F32;
                let weight = dense(raw, if wide { Wanted::F32 } else { Wanted::Same }, dtype);
                let weight = weight.map_err(|source| ModelError::compute(name, source))?;
                Linear::dense(weight, bias).map_err(failed)
            }
        },
    }
}

enum Wanted {
    F32,
    Same,
}

fn dense(raw: &RawTensor<'_>, wanted: Wanted, dtype: FloatType) -> candle_core::Result<Tensor> {
    let bits = || raw.bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    match (wanted, dtype) {
        (Wanted::F32, _) | (_, FloatType::F32) => {
            Tensor::from_vec(to_f32(raw.bytes, dtype), raw.shape, &Device::Cpu)
        }
        (_, FloatType::F16) => {
            let values: Vec<f16> = bits().map(f16::from_bits).collect();
            Tensor::from_vec(values, raw.shape, &Device::Cpu)
        }
        (_, FloatType::Bf16) => {
            let values: Vec<bf16> = bits().map(bf16::from_bits).collect();
            Tensor::from_vec(values, raw.shape, &Device::Cpu)
        }
    }
}

/// The block format a dense matrix is to become, if any.
fn target(
    name: &str,
    raw: &RawTensor<'_>,
    (format, role): (LoadAs, Role),
) -> Result<Option<GgmlDType>, ModelError> {
    let row = raw.shape[1];
    let blocks = match format {
        LoadAs::Stored | LoadAs::F32 => return Ok(None),
        LoadAs::Q4K if role == Role::Projection && row.is_multiple_of(256) => GgmlDType::Q4K,
        LoadAs::Q4K | LoadAs::Q8_0 => GgmlDType::Q8_0,
    };
    if !row.is_multiple_of(blocks.block_size()) {
        let expected = "rows that are a multiple of 32 long, to be quantised";
        return Err(ModelError::field(raw.path, name, expected, format!("shape {:?}", raw.shape)));
    }
    Ok(Some(blocks))
}

fn quantise(
    name: &str,
    raw: &RawTensor<'_>,
    dtype: FloatType,
    blocks: GgmlDType,
) -> Result<QTensor, ModelError> {
    let failed = |source| ModelError::compute(name, source);
    let (rows, row) = (raw.shape[0], raw.shape[1]);
    let row_bytes = raw.bytes.len() / rows;
    let rows_at_once = (CHUNK_ELEMENTS / row).max(1);
    let mut packed = Vec::with_capacity(rows * row / blocks.block_size() * blocks.type_size());
    for bytes in raw.bytes.chunks(rows_at_once * row_bytes) {
        let values = to_f32(bytes, dtype);
        if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
            let expected = "finite numbers, to be quantised";
            return Err(ModelError::field(raw.path, name, expected, bad.to_string()));
        }
        let chunk = Tensor::from_vec(values, (bytes.len() / row_bytes, row), &Device::Cpu)
            .and_then(|chunk| QTensor::quantize(&chunk, blocks))
            .map_err(failed)?;
        packed.extend_from_slice(&chunk.data().map_err(failed)?);
    }
    QStorage::from_data(Cow::Owned(packed), &Device::Cpu, blocks)
        .and_then(|storage| QTensor::new(storage, raw.shape))
        .map_err(failed)
}

fn from_blocks(
    name: &str,
    raw: &RawTensor<'_>,
    blocks: GgmlDType,
) -> Result<QTensor, ModelError> {
    if blocks == GgmlDType::Q8K || blocks == GgmlDType::Q8_1 {
        let expected = "a type for weights (this one is for activations)";
        return Err(ModelError::field(raw.path, name, expected, format!("{blocks:?}")));
    }
    // candle asserts that blocks are aligned; a GGUF may ask for less, and bytes compiled into
    // the program lie anywhere. A fresh allocation is aligned.
    let bytes = if raw.bytes.as_ptr().align_offset(align_of::<u32>()) == 0 {
        Cow::Borrowed(raw.bytes)
    } else {
        Cow::Owned(raw.bytes.to_vec())
    };
    QStorage::from_data(bytes, &Device::Cpu, blocks)
        .and_then(|storage| QTensor::new(storage, raw.shape))
        .map_err(|source| ModelError::compute(name, source))
}
