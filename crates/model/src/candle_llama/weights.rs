//! The weights of a model in tensors of candle.

use crate::llama::{load_rope, max_positions};
use crate::weights::{Loader, Names, Norm, Projection, Role, WeightFiles};
use crate::{LoadOptions, ModelConfig, ModelError};
use candle_core::quantized::{QMatMul, QStorage, QTensor};
use candle_core::{DType, Device, Module, Tensor};
use kernels::{RopeLayout, WeightFormat};
use std::borrow::Cow;
use std::sync::Arc;

/// As they lie on the device.
pub(super) struct Weights {
    /// (V, H)
    pub(super) embedding: Matrix,
    pub(super) layers: Vec<Layer>,
    /// (H)
    pub(super) norm: Tensor,
    /// (V, H); `None` = tied to the embedding.
    output: Option<Matrix>,
    /// Cosines and sines, (P, D/2).
    pub(super) angles: [Tensor; 2],
    pub(super) rope_layout: RopeLayout,
}

/// One layer's.
pub(super) struct Layer {
    /// (H)
    pub(super) attention_norm: Tensor,
    /// In the order of [`Projection::ALL`].
    pub(super) projections: [Matrix; Projection::ALL.len()],
    /// (D), of q and k.
    pub(super) head_norms: Option<[Tensor; 2]>,
    /// (H)
    pub(super) mlp_norm: Tensor,
    pub(super) window: Option<usize>,
}

/// A matrix (out, in) with its bias (out).
pub(super) struct Matrix {
    weights: QMatMul,
    bias: Option<Tensor>,
}

impl Matrix {
    /// The product with x (T, in) and the bias, (T, out); f32 both. Weights in 16 bits multiply
    /// rows rounded to their type: in f16, values above 65,504 end as NaN.
    pub(super) fn multiply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let product = match &self.weights {
            QMatMul::Tensor(weights) => {
                let product = x.to_dtype(weights.dtype())?.matmul(&weights.t()?)?;
                product.to_dtype(DType::F32)?
            }
            quantised => quantised.forward(x)?,
        };
        match &self.bias {
            None => Ok(product),
            Some(bias) => product.broadcast_add(bias),
        }
    }

    /// Some of the rows, in f32.
    pub(super) fn rows(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        self.weights.embedding(rows)?.to_dtype(DType::F32)
    }
}

impl Weights {
    /// Takes the weights out of their files.
    ///
    /// # Errors
    /// A tensor that is missing, unused, of the wrong shape or type; not enough memory.
    pub(super) fn load(
        device: &Device,
        config: &ModelConfig,
        files: &WeightFiles,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let names = Names::of(files);
        let load = OnDevice {
            device,
            load: Loader::new(files, options.weights),
        };
        let table = |stem: &str| {
            let shape = (config.vocab_size, config.hidden_size);
            load.matrix(stem, shape, Role::Vocabulary)
        };
        let embedding = table(names.embedding())?;
        let layers = (0..config.num_layers)
            .map(|index| Layer::load(config, &load, names, index))
            .collect::<Result<_, _>>()?;
        let norm = load.vector(
            &format!("{}.weight", names.final_norm()),
            config.hidden_size,
        )?;
        let output = match config.tie_word_embeddings {
            true => None,
            false => Some(table(names.output())?),
        };
        let rope = load_rope(config, &load.load, names, max_positions(config, options))?;
        let angle = |table: &Tensor| load.put("the RoPE table", table);
        let angles = [angle(rope.cos())?, angle(rope.sin())?];
        load.load.finish(config, names)?;
        Ok(Self {
            embedding,
            layers,
            norm,
            output,
            angles,
            rope_layout: rope.layout(),
        })
    }

    /// The matrix (V, H) that gives logits.
    pub(super) fn head(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }
}

impl Layer {
    fn load(
        config: &ModelConfig,
        load: &OnDevice<'_>,
        names: Names,
        index: usize,
    ) -> Result<Self, ModelError> {
        let norm = |norm, len| load.vector(&format!("{}.weight", names.norm(index, norm)), len);
        let attention_norm = norm(Norm::Attention, config.hidden_size)?;
        let mut projections = Vec::with_capacity(Projection::ALL.len());
        for projection in Projection::ALL {
            let stem = names.projection(index, projection);
            let shape = projection.shape(config);
            let mut matrix = load.matrix(&stem, shape, Role::Projection)?;
            if projection.has_bias(config) {
                matrix.bias = Some(load.vector(&format!("{stem}.bias"), shape.0)?);
            }
            projections.push(matrix);
        }
        let projections = projections.try_into().ok();
        Ok(Self {
            attention_norm,
            projections: projections.expect("one for each projection"),
            head_norms: match config.qk_norm {
                true => Some([
                    norm(Norm::HeadsOfQ, config.head_dim)?,
                    norm(Norm::HeadsOfK, config.head_dim)?,
                ]),
                false => None,
            },
            mlp_norm: norm(Norm::Mlp, config.hidden_size)?,
            window: config.sliding_windows[index],
        })
    }
}

/// A loader whose results go to a device.
struct OnDevice<'a> {
    device: &'a Device,
    load: Loader<'a>,
}

impl OnDevice<'_> {
    fn put(&self, name: &str, tensor: &Tensor) -> Result<Tensor, ModelError> {
        tensor
            .to_device(self.device)
            .map_err(|source| ModelError::compute(name, source))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Tensor, ModelError> {
        self.put(name, &self.load.vector(name, len)?)
    }

    fn matrix(&self, stem: &str, shape: (usize, usize), role: Role) -> Result<Matrix, ModelError> {
        self.load.encoded(stem, shape, role, |format, bytes| {
            let weights = matrix(self.device, (format, bytes), shape);
            Ok(Matrix {
                weights: weights.map_err(|source| ModelError::compute(stem, source))?,
                bias: None,
            })
        })
    }
}

/// Weights as candle multiplies with them; bf16 becomes f32 where candle has no products in it.
fn matrix(
    device: &Device,
    (format, bytes): (WeightFormat, &[u8]),
    (out, input): (usize, usize),
) -> candle_core::Result<QMatMul> {
    let dtype = match format {
        WeightFormat::F32 => DType::F32,
        WeightFormat::F16 => DType::F16,
        WeightFormat::BF16 => DType::BF16,
        _ => {
            // candle reads blocks in place and asserts their alignment; a new allocation has it.
            let bytes = match bytes.as_ptr().addr().is_multiple_of(4) {
                true => Cow::Borrowed(bytes),
                false => Cow::Owned(bytes.to_vec()),
            };
            let storage = QStorage::from_data(bytes, device, format.ggml())?;
            let tensor = QTensor::new(storage, (out, input))?;
            return Ok(QMatMul::QTensor(Arc::new(tensor)));
        }
    };
    let held = match dtype {
        DType::BF16 => device.bf16_default_to_f32(),
        other => other,
    };
    let weights = Tensor::from_raw_buffer(bytes, dtype, &[out, input], &Device::Cpu)?;
    Ok(QMatMul::Tensor(weights.to_dtype(held)?.to_device(device)?))
}
