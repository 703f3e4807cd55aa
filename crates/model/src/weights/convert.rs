//! Bytes of a file become what the kernels compute with.

use super::{LoadAs, RawTensor, Role};
use crate::ModelError;
use half::{bf16, f16};
use kernels::{Linear, WeightFormat};

/// True for the formats whose values are plain floats.
pub(super) fn is_dense(format: WeightFormat) -> bool {
    matches!(
        format,
        WeightFormat::F32 | WeightFormat::F16 | WeightFormat::BF16
    )
}

/// Little-endian floats widened to f32, exactly; `None` for blocks.
pub(super) fn widen(bytes: &[u8], format: WeightFormat) -> Option<Vec<f32>> {
    if !is_dense(format) {
        return None;
    }
    let mut values = vec![0.0; bytes.len() / format.block_bytes()];
    widen_into(bytes, format, &mut values);
    Some(values)
}

/// The same for a dense format, into `values`.
pub(crate) fn widen_into(bytes: &[u8], format: WeightFormat, values: &mut [f32]) {
    if format == WeightFormat::F32 {
        for (value, b) in values.iter_mut().zip(bytes.chunks_exact(4)) {
            *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
        return;
    }
    for (value, b) in values.iter_mut().zip(bytes.chunks_exact(2)) {
        let bits = u16::from_le_bytes([b[0], b[1]]);
        *value = match format {
            WeightFormat::F16 => f16::from_bits(bits).to_f32(),
            _ => bf16::from_bits(bits).to_f32(),
        };
    }
}

/// A weight matrix in the format asked for. Values are widened and quantised a few rows at a
/// time, so that no whole matrix in f32 ever exists unless f32 is what was asked for.
pub(super) fn linear(
    name: &str,
    raw: &RawTensor<'_>,
    bias: Option<Vec<f32>>,
    (load_as, role): (LoadAs, Role),
) -> Result<Linear, ModelError> {
    let (out, input) = (raw.shape[0], raw.shape[1]);
    let failed = |source| ModelError::compute(name, source);
    let format = target(name, raw, (load_as, role))?;
    if format == raw.format {
        return Linear::from_bytes(raw.bytes, format, out, input, bias).map_err(failed);
    }
    let row_bytes = raw.bytes.len() / out;
    let mut not_finite = None;
    let linear = Linear::quantize_with(format, out, input, bias, |rows, values| {
        let bytes = &raw.bytes[rows.start * row_bytes..rows.end * row_bytes];
        widen_into(bytes, raw.format, values);
        if !is_dense(format) {
            not_finite = not_finite.or(values.iter().copied().find(|value| !value.is_finite()));
        }
    });
    if let Some(value) = not_finite {
        let expected = "finite numbers, to be quantised";
        return Err(ModelError::field(
            raw.path,
            name,
            expected,
            value.to_string(),
        ));
    }
    linear.map_err(failed)
}

/// The bytes of a weight matrix in the format asked for, those of the file where it is the same.
pub(super) fn encoded<'a>(
    name: &str,
    raw: &RawTensor<'a>,
    (load_as, role): (LoadAs, Role),
) -> Result<(WeightFormat, std::borrow::Cow<'a, [u8]>), ModelError> {
    const VALUES: usize = 1 << 22;
    let (out, input) = (raw.shape[0], raw.shape[1]);
    let format = target(name, raw, (load_as, role))?;
    if format == raw.format {
        return Ok((format, raw.bytes.into()));
    }
    let row_bytes = raw.bytes.len() / out;
    let rows = (VALUES / input).max(1);
    let mut values = vec![0.0; rows * input];
    let mut encoded = Vec::new();
    for part in raw.bytes.chunks(rows * row_bytes) {
        let values = &mut values[..part.len() / row_bytes * input];
        widen_into(part, raw.format, values);
        let finite = is_dense(format) || values.iter().all(|value| value.is_finite());
        if !finite {
            let expected = "finite numbers, to be quantised";
            return Err(ModelError::field(raw.path, name, expected, "others"));
        }
        let bytes = kernels::encode_rows(values, format, input);
        encoded.extend(bytes.map_err(|source| ModelError::compute(name, source))?);
    }
    Ok((format, encoded.into()))
}

/// The format a matrix is to have in memory.
fn target(
    name: &str,
    raw: &RawTensor<'_>,
    (load_as, role): (LoadAs, Role),
) -> Result<WeightFormat, ModelError> {
    if !is_dense(raw.format) {
        return Ok(raw.format);
    }
    let row = raw.shape[1];
    let q4k_fits = row.is_multiple_of(WeightFormat::Q4K.block_size());
    let format = match (load_as, role) {
        (LoadAs::Stored, _) => raw.format,
        (LoadAs::F32, _) => WeightFormat::F32,
        (LoadAs::Q4K, Role::Projection) if q4k_fits => WeightFormat::Q4K,
        (LoadAs::Q4K | LoadAs::Q8_0, _) => WeightFormat::Q8_0,
    };
    if !row.is_multiple_of(format.block_size()) {
        let expected = "rows that are a multiple of 32 long, to be quantised";
        return Err(ModelError::field(
            raw.path,
            name,
            expected,
            format!("shape {:?}", raw.shape),
        ));
    }
    Ok(format)
}
