//! Linear layers: (T, in) to (T, out) with weights in any format of GGUF or safetensors.
//!
//! One copy of the weights is kept, in the layout its kernel reads. Activations and outputs are
//! f32. Row i of an output depends on row i of the input alone, bit for bit: not on the other
//! rows, their number, the number of threads or the instructions used for them.
//!
//! | format | kernel | activations |
//! |---|---|---|
//! | Q8_0 | `packed` + `vnni` / `amx` | 8 bits, a scale per 32 |
//! | Q4_K, Q6_K | `packed` + `vnni` / `amx` | 8 bits, a scale per 256 |
//! | F32, F16, BF16 | `dense` | f32 |
//! | Q4_1, Q5_0, Q5_1 with an odd number of blocks in a row | `dense`, as f32 | f32 |
//! | the others, and all quantised ones without AVX-512 VNNI | `fallback` (candle) | candle's |
//!
//! A NaN or infinity in a row of the input makes every output of that row NaN where weights are
//! quantised, and follows IEEE arithmetic where they are dense; other rows are untouched. A NaN
//! scale in the weights reaches the outputs of its row of weights.
//!
//! Nothing here knows what a layer is for.

#[cfg(target_arch = "x86_64")]
mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
mod cpu;
mod dense;
mod fallback;
mod format;
#[cfg(target_arch = "x86_64")]
mod integer;
mod memory;
#[cfg(target_arch = "x86_64")]
mod packed;
#[cfg(target_arch = "x86_64")]
mod simd;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Mutex;

use candle_core::utils::barrier_pool;
use candle_core::{DType, Device, Storage, Tensor};

use self::dense::Dense;
use self::fallback::{Fallback, encode};
pub use self::format::WeightFormat;
#[cfg(target_arch = "x86_64")]
use self::{
    activations::{Activations, Grain},
    integer::{Product, Unit, multiply},
    packed::{Packed, PackedFormat},
};
use crate::KernelError;
use crate::parallel;

/// A weight matrix (out, in) with an optional bias (out).
pub struct Linear {
    weights: Weights,
    bias: Option<Vec<f32>>,
    format: WeightFormat,
    out_features: usize,
    in_features: usize,
}

/// The one copy of the weights, by the kernel that reads it.
enum Weights {
    #[cfg(target_arch = "x86_64")]
    Packed(Packed),
    Dense(Dense),
    Fallback(Fallback),
}

impl std::fmt::Debug for Linear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Linear({:?}, {} -> {})",
            self.format, self.in_features, self.out_features
        )
    }
}

impl Linear {
    /// A layer from the bytes of a file: (out, in) row-major in `format`, little endian. They are
    /// copied; the caller may release them. `bias`: (out).
    ///
    /// # Errors
    /// A shape the format cannot hold, or another number of bytes or bias values than it takes.
    pub fn from_bytes(
        bytes: &[u8],
        format: WeightFormat,
        out_features: usize,
        in_features: usize,
        bias: Option<Vec<f32>>,
    ) -> Result<Self, KernelError> {
        let expected = format.bytes(out_features, in_features)?;
        if bytes.len() != expected {
            let got = bytes.len();
            return Err(invalid(format!(
                "weights {out_features}x{in_features} in {format:?} take {expected} bytes, got {got}"
            )));
        }
        let mut build = Build::new(format, out_features, in_features, bias)?;
        build.write(0..out_features, Cow::Borrowed(bytes));
        build.finish()
    }

    /// A layer in `format` from f32 values (out, in).
    ///
    /// # Errors
    /// As [`Linear::from_bytes`].
    pub fn quantize(
        weights: &[f32],
        format: WeightFormat,
        out_features: usize,
        in_features: usize,
        bias: Option<Vec<f32>>,
    ) -> Result<Self, KernelError> {
        format.bytes(out_features, in_features)?;
        check_count("weights", out_features * in_features, weights.len())?;
        Self::quantize_with(format, out_features, in_features, bias, |rows, values| {
            values.copy_from_slice(&weights[rows.start * in_features..rows.end * in_features]);
        })
    }

    /// A layer in `format` from values that are made as they are needed: `fill(rows, values)`
    /// writes those rows (len, in), in order; no copy of the whole matrix in f32 ever exists.
    ///
    /// # Errors
    /// As [`Linear::from_bytes`].
    pub fn quantize_with(
        format: WeightFormat,
        out_features: usize,
        in_features: usize,
        bias: Option<Vec<f32>>,
        mut fill: impl FnMut(Range<usize>, &mut [f32]),
    ) -> Result<Self, KernelError> {
        const VALUES: usize = 1 << 22;
        format.bytes(out_features, in_features)?;
        let mut build = Build::new(format, out_features, in_features, bias)?;
        // Whole tiles of every kernel.
        let step = (VALUES / in_features).next_multiple_of(32);
        let mut values = Vec::new();
        for first in (0..out_features).step_by(step) {
            let rows = first..out_features.min(first + step);
            values.resize(rows.len() * in_features, 0f32);
            fill(rows.clone(), &mut values);
            build.write(rows, Cow::Owned(encode_rows(&values, format, in_features)?));
        }
        build.finish()
    }

    /// `x` (T, in) f32 on the CPU to (T, out) f32, contiguous.
    ///
    /// # Errors
    /// Another shape, type or device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let mut outputs = Self::forward_many(&[self], x)?;
        Ok(outputs.pop().expect("one output per layer"))
    }

    /// [`Linear::forward`] of several layers on one input; activations are quantised once and the
    /// layers share a parallel region (q, k and v; gate and up). Outputs in the order of `layers`.
    ///
    /// # Errors
    /// As [`Linear::forward`], for any of the layers.
    pub fn forward_many(layers: &[&Self], x: &Tensor) -> Result<Vec<Tensor>, KernelError> {
        for layer in layers {
            layer.check_input(x)?;
        }
        // The one place that chooses by device: another device's products belong beside this call.
        match x.device() {
            Device::Cpu => cpu_forward(layers, x),
            device => Err(wrong_device(device)),
        }
    }

    fn check_input(&self, x: &Tensor) -> Result<(), KernelError> {
        if x.dtype() != DType::F32 {
            return Err(KernelError::DType {
                op: OP,
                operand: "x",
                expected: "F32",
                got: x.dtype(),
            });
        }
        match *x.dims() {
            [_, features] if features == self.in_features => Ok(()),
            _ => {
                let expected = format!("(T, {})", self.in_features);
                Err(KernelError::Shape {
                    op: OP,
                    operand: "x",
                    expected,
                    got: x.dims().to_vec(),
                })
            }
        }
    }

    /// Rows of the weight matrix as f32 (len, in): the embedding lookup on tied weights.
    ///
    /// # Errors
    /// An id beyond the matrix.
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor, KernelError> {
        let len = self.out_features;
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= len) {
            return Err(KernelError::OutOfRange {
                op: OP,
                what: "row of the weights",
                index: id as usize,
                len,
            });
        }
        let k = self.in_features;
        let mut values = vec![0f32; ids.len() * k];
        match &self.weights {
            #[cfg(target_arch = "x86_64")]
            Weights::Packed(weights) => parallel::chunks(&mut values, k, |i, out| {
                weights.decode_row(ids[i] as usize, out);
            }),
            Weights::Dense(weights) => parallel::chunks(&mut values, k, |i, out| {
                weights.decode_row(ids[i] as usize, out);
            }),
            Weights::Fallback(weights) => return weights.rows(ids),
        }
        Ok(Tensor::from_vec(values, (ids.len(), k), &Device::Cpu)?)
    }

    /// The weight matrix as f32 (out, in): exactly the values its format encodes.
    ///
    /// # Errors
    /// Those of candle.
    pub fn dequantize(&self) -> Result<Tensor, KernelError> {
        let ids: Vec<u32> = (0..).take(self.out_features).collect();
        self.rows(&ids)
    }

    /// What is added to every row of the output, (out).
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Columns of the weight matrix.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Rows of the weight matrix.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// How the weights are encoded.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Bytes the weights and the bias take in memory.
    pub fn size_in_bytes(&self) -> usize {
        let weights = match &self.weights {
            #[cfg(target_arch = "x86_64")]
            Weights::Packed(weights) => weights.size_in_bytes(),
            Weights::Dense(weights) => weights.size_in_bytes(),
            Weights::Fallback(weights) => weights.size_in_bytes(),
        };
        weights + self.bias.as_deref().map_or(0, size_of_val)
    }
}

fn check_count(what: &'static str, expected: usize, got: usize) -> Result<(), KernelError> {
    if expected == got {
        Ok(())
    } else {
        Err(invalid(format!(
            "{what}: expected {expected} values, got {got}"
        )))
    }
}

/// The kernel's name in errors.
const OP: &str = "linear";

fn invalid(problem: String) -> KernelError {
    KernelError::Invalid { op: OP, problem }
}

fn wrong_device(got: &Device) -> KernelError {
    invalid(format!("x: expected the CPU, got {:?}", got.location()))
}

/// A layer whose rows arrive in pieces, as bytes of its format.
struct Build<'a> {
    pieces: Pieces<'a>,
    bias: Option<Vec<f32>>,
    format: WeightFormat,
    out_features: usize,
    in_features: usize,
}

enum Pieces<'a> {
    #[cfg(target_arch = "x86_64")]
    Packed(Packed),
    /// Borrowed where all rows came at once, so that no second copy is made.
    Bytes(Cow<'a, [u8]>),
}

impl<'a> Build<'a> {
    fn new(
        format: WeightFormat,
        out_features: usize,
        in_features: usize,
        bias: Option<Vec<f32>>,
    ) -> Result<Self, KernelError> {
        if let Some(bias) = &bias {
            check_count("bias", out_features, bias.len())?;
        }
        #[cfg(target_arch = "x86_64")]
        let pieces = match packed_format(format) {
            Some(packed) => Pieces::Packed(Packed::zeros(packed, out_features, in_features)),
            None => Pieces::Bytes(Cow::default()),
        };
        #[cfg(not(target_arch = "x86_64"))]
        let pieces = Pieces::Bytes(Cow::default());
        Ok(Self {
            pieces,
            bias,
            format,
            out_features,
            in_features,
        })
    }

    /// Takes the next rows.
    fn write(&mut self, rows: Range<usize>, bytes: Cow<'a, [u8]>) {
        match &mut self.pieces {
            #[cfg(target_arch = "x86_64")]
            Pieces::Packed(packed) => packed.pack(rows, &bytes),
            Pieces::Bytes(all) if rows.start == 0 => *all = bytes,
            Pieces::Bytes(all) => all.to_mut().extend_from_slice(&bytes),
        }
    }

    fn finish(self) -> Result<Linear, KernelError> {
        let Self {
            pieces,
            bias,
            format,
            out_features,
            in_features,
        } = self;
        let weights = match pieces {
            #[cfg(target_arch = "x86_64")]
            Pieces::Packed(packed) => Weights::Packed(packed),
            Pieces::Bytes(bytes) if format.is_dense() => {
                Weights::Dense(Dense::from_bytes(&bytes, format, out_features, in_features))
            }
            Pieces::Bytes(bytes) if candle_panics(format, in_features) => {
                let layer = Fallback::from_bytes(&bytes, format, out_features, in_features)?;
                let values = layer.dequantize()?;
                let bytes: Vec<u8> = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                Weights::Dense(Dense::from_bytes(
                    &bytes,
                    WeightFormat::F32,
                    out_features,
                    in_features,
                ))
            }
            Pieces::Bytes(bytes) => Weights::Fallback(Fallback::from_bytes(
                &bytes,
                format,
                out_features,
                in_features,
            )?),
        };
        Ok(Linear {
            weights,
            bias,
            format,
            out_features,
            in_features,
        })
    }
}

/// Formats whose dot products candle asserts to have an even number of blocks; such odd rows are
/// kept as the f32 values they encode.
fn candle_panics(format: WeightFormat, in_features: usize) -> bool {
    let even_only = matches!(
        format,
        WeightFormat::Q4_1 | WeightFormat::Q5_0 | WeightFormat::Q5_1
    );
    even_only && !(in_features / format.block_size()).is_multiple_of(2)
}

/// The layout of ours for this format, if it has one and this processor its instructions.
#[cfg(target_arch = "x86_64")]
fn packed_format(format: WeightFormat) -> Option<PackedFormat> {
    let packed = match format {
        WeightFormat::Q8_0 => PackedFormat::Q8,
        WeightFormat::Q4K => PackedFormat::Q4,
        WeightFormat::Q6K => PackedFormat::Q6,
        _ => return None,
    };
    cpu::has_vnni().then_some(packed)
}

/// The bytes of `values` (rows, k) in `format` as a file holds them, a few rows per thread at a
/// time. They do not depend on the number of threads or on how rows are grouped.
///
/// # Errors
/// Rows that are not whole blocks, or values that are not whole rows.
pub fn encode_rows(values: &[f32], format: WeightFormat, k: usize) -> Result<Vec<u8>, KernelError> {
    const ROWS: usize = 16;
    let rows = values.len() / k.max(1);
    format.bytes(rows, k)?;
    check_count("values", rows * k, values.len())?;
    let parts: Vec<&[f32]> = values.chunks(k * ROWS).collect();
    let encoded: Vec<Mutex<Result<Vec<u8>, KernelError>>> =
        parts.iter().map(|_| Mutex::new(Ok(Vec::new()))).collect();
    barrier_pool().execute_chunked(parts.len(), |range| {
        for i in range {
            let bytes = encode(parts[i], format.ggml(), k);
            *encoded[i].lock().expect("nobody panics while holding it") = bytes;
        }
    });
    let mut bytes = Vec::new();
    for part in encoded {
        bytes.extend(part.into_inner().expect("nobody panics while holding it")?);
    }
    Ok(bytes)
}

/// The products of `layers` with one checked input on the CPU.
fn cpu_forward(layers: &[&Linear], x: &Tensor) -> Result<Vec<Tensor>, KernelError> {
    let x = x.contiguous()?;
    let rows = x.dim(0)?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(wrong_device(x.device()));
    };
    let values =
        &storage.as_slice::<f32>()?[layout.start_offset()..][..layout.shape().elem_count()];
    let mut outputs: Vec<Vec<f32>> = layers
        .iter()
        .map(|l| vec![0f32; rows * l.out_features])
        .collect();
    if rows > 0 {
        #[cfg(target_arch = "x86_64")]
        packed_forward(layers, values, &mut outputs);
        for (layer, out) in layers.iter().zip(&mut outputs) {
            match &layer.weights {
                #[cfg(target_arch = "x86_64")]
                Weights::Packed(_) => {}
                Weights::Dense(weights) => weights.multiply(values, layer.bias.as_deref(), out),
                Weights::Fallback(weights) => {
                    *out = weights.multiply(&x)?;
                    add_bias(out, layer.bias.as_deref());
                }
            }
        }
    }
    let tensors = layers.iter().zip(outputs);
    tensors
        .map(|(l, out)| Ok(Tensor::from_vec(out, (rows, l.out_features), &Device::Cpu)?))
        .collect()
}

fn add_bias(out: &mut [f32], bias: Option<&[f32]>) {
    let Some(bias) = bias else { return };
    for row in out.chunks_exact_mut(bias.len()) {
        for (out, bias) in row.iter_mut().zip(bias) {
            *out += bias;
        }
    }
}

/// The products of those layers whose weights are packed.
#[cfg(target_arch = "x86_64")]
fn packed_forward(layers: &[&Linear], x: &[f32], outputs: &mut [Vec<f32>]) {
    let quantised = [Grain::Fine, Grain::Coarse].map(|grain| {
        let user = layers
            .iter()
            .find(|l| matches!(&l.weights, Weights::Packed(w) if Grain::of(w.format) == grain));
        user.map(|l| Activations::quantise(x, l.in_features, grain))
    });
    let mut products = Vec::with_capacity(layers.len());
    for (layer, out) in layers.iter().zip(outputs) {
        let Weights::Packed(weights) = &layer.weights else {
            continue;
        };
        let grain = Grain::of(weights.format);
        let x = quantised.iter().flatten().find(|x| x.grain == grain);
        products.push(Product {
            weights,
            bias: layer.bias.as_deref(),
            x: x.expect("quantised above for every grain in use"),
            out: crate::parallel::Shared::new(out),
            unit: Unit::best(weights.format),
        });
    }
    multiply(&products);
}
