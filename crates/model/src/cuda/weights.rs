//! The weights of a model on a device.

use crate::llama::load_rope;
use crate::weights::{Loader, Names, Norm, Projection, Role, WeightFiles};
use crate::{LoadOptions, ModelConfig, ModelError};
use kernels::cuda::{Buffer, CudaLinear, Device, RopeTable};
use kernels::{RopeLayout, WeightFormat};
use std::ops::Range;

/// As they lie on the device.
#[derive(Debug)]
pub(super) struct Weights {
    /// (V, H)
    pub(super) embedding: CudaLinear,
    pub(super) layers: Vec<Layer>,
    /// (H)
    pub(super) norm: Buffer<f32>,
    /// (V, H); `None` = tied to the embedding.
    pub(super) output: Option<CudaLinear>,
    pub(super) rope: RopeTable,
    pub(super) rope_layout: RopeLayout,
}

/// One layer's.
#[derive(Debug)]
pub(super) struct Layer {
    /// (H)
    pub(super) attention_norm: Buffer<f32>,
    /// (Hq*D + 2*Hkv*D, H)
    pub(super) qkv: Joined,
    /// (H, Hq*D)
    pub(super) o: Joined,
    /// (2*F, H)
    pub(super) gate_up: Joined,
    /// (H, F)
    pub(super) down: Joined,
    /// (D), of q and k.
    pub(super) head_norms: Option<[Buffer<f32>; 2]>,
    /// (H)
    pub(super) mlp_norm: Buffer<f32>,
    pub(super) window: Option<usize>,
}

/// Matrices that read the same input, one below the other: one product for all of them, as far
/// as they are in one format.
#[derive(Debug)]
pub(super) struct Joined {
    /// In the order of their outputs.
    pub(super) parts: Vec<CudaLinear>,
    /// Each with the outputs that are its own.
    pub(super) projections: Vec<(Projection, Range<usize>)>,
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
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let table = |stem: &str| load.table(stem, (vocab, hidden));
        let embedding = table(names.embedding())?;
        let layers = (0..config.num_layers)
            .map(|index| Layer::load(config, &load, names, index))
            .collect::<Result<_, _>>()?;
        let norm = load.vector(&format!("{}.weight", names.final_norm()), hidden)?;
        let output = match config.tie_word_embeddings {
            true => None,
            false => Some(table(names.output())?),
        };
        let positions = crate::llama::max_positions(config, options);
        let rope = load_rope(config, &load.load, names, positions)?;
        load.load.finish(config, names)?;
        Ok(Self {
            embedding,
            layers,
            norm,
            output,
            rope_layout: rope.layout(),
            rope: RopeTable::new(device, &rope)
                .map_err(|source| ModelError::compute("the RoPE table", source))?,
        })
    }

    /// The matrix (V, H) that gives logits.
    pub(super) fn head(&self) -> &CudaLinear {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// Every matrix that something is multiplied with.
    pub(super) fn matrices(&self) -> impl Iterator<Item = &CudaLinear> {
        let layers = self.layers.iter().flat_map(Layer::joined);
        layers.flat_map(|joined| &joined.parts).chain([self.head()])
    }

    /// Bytes of all matrices.
    pub(super) fn size_in_bytes(&self) -> usize {
        let looked_up = self.output.as_ref().map(|_| self.embedding.size_in_bytes());
        let multiplied: usize = self.matrices().map(CudaLinear::size_in_bytes).sum();
        multiplied + looked_up.unwrap_or(0)
    }
}

impl Layer {
    pub(super) fn joined(&self) -> [&Joined; 4] {
        [&self.qkv, &self.o, &self.gate_up, &self.down]
    }

    fn load(
        config: &ModelConfig,
        load: &OnDevice<'_>,
        names: Names,
        index: usize,
    ) -> Result<Self, ModelError> {
        let norm = |norm, len| load.vector(&format!("{}.weight", names.norm(index, norm)), len);
        let attention_norm = norm(Norm::Attention, config.hidden_size)?;
        let joined =
            |projections: &[Projection]| Joined::load(config, load, (names, index), projections);
        Ok(Self {
            attention_norm,
            qkv: joined(&[Projection::Q, Projection::K, Projection::V])?,
            o: joined(&[Projection::O])?,
            gate_up: joined(&[Projection::Gate, Projection::Up])?,
            down: joined(&[Projection::Down])?,
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

impl Joined {
    fn load(
        config: &ModelConfig,
        load: &OnDevice<'_>,
        (names, index): (Names, usize),
        projections: &[Projection],
    ) -> Result<Self, ModelError> {
        let mut pieces: Vec<Piece> = Vec::new();
        let (mut outputs, mut own) = (0, Vec::new());
        for &projection in projections {
            let stem = names.projection(index, projection);
            let (out, input) = projection.shape(config);
            let bias = match projection.has_bias(config) {
                true => load.load.floats(&format!("{stem}.bias"), out)?,
                false => Vec::new(),
            };
            own.push((projection, outputs..outputs + out));
            outputs += out;
            let role = Role::Projection;
            load.load
                .encoded(&stem, (out, input), role, |format, bytes| {
                    let fits = |piece: &&mut Piece| {
                        piece.format == format && piece.bias.is_empty() == bias.is_empty()
                    };
                    match pieces.last_mut().filter(fits) {
                        Some(piece) => {
                            piece.bytes.extend_from_slice(bytes);
                            piece.bias.extend_from_slice(&bias);
                            piece.shape.0 += out;
                        }
                        None => pieces.push(Piece {
                            stem: stem.clone(),
                            format,
                            bytes: bytes.to_vec(),
                            bias: bias.clone(),
                            shape: (out, input),
                        }),
                    }
                    Ok(())
                })?;
        }
        let parts = pieces.iter().map(|piece| piece.put_on(load.device));
        Ok(Self {
            parts: parts.collect::<Result<_, _>>()?,
            projections: own,
        })
    }
}

/// Rows of weights in one format, on their way to a device.
struct Piece {
    stem: String,
    format: WeightFormat,
    bytes: Vec<u8>,
    /// Empty or one for each row.
    bias: Vec<f32>,
    shape: (usize, usize),
}

impl Piece {
    fn put_on(&self, device: &Device) -> Result<CudaLinear, ModelError> {
        let bias = (!self.bias.is_empty()).then_some(self.bias.as_slice());
        CudaLinear::from_bytes(device, &self.bytes, self.format, self.shape, bias)
            .map_err(|source| ModelError::compute(&self.stem, source))
    }
}

/// A loader whose results go to a device.
struct OnDevice<'a> {
    device: &'a Device,
    load: Loader<'a>,
}

impl OnDevice<'_> {
    fn vector(&self, name: &str, len: usize) -> Result<Buffer<f32>, ModelError> {
        let values = self.load.floats(name, len)?;
        Buffer::from_slice(self.device, &values).map_err(|source| ModelError::compute(name, source))
    }

    /// The embedding or the output.
    fn table(&self, stem: &str, shape: (usize, usize)) -> Result<CudaLinear, ModelError> {
        self.load
            .encoded(stem, shape, Role::Vocabulary, |format, bytes| {
                CudaLinear::from_bytes(self.device, bytes, format, shape, None)
                    .map_err(|source| ModelError::compute(stem, source))
            })
    }
}
