//! The weights of a model on a device.

use crate::llama::load_rope;
use crate::weights::{Bias, Loader, Names, Norm, Projection, Role, WeightFiles};
use crate::{LoadOptions, ModelConfig, ModelError};
use kernels::RopeLayout;
use kernels::cuda::{Buffer, CudaLinear, Device, RopeTable};

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
    /// In the order of [`Projection::ALL`].
    pub(super) projections: [CudaLinear; Projection::ALL.len()],
    /// (D), of q and k.
    pub(super) head_norms: Option<[Buffer<f32>; 2]>,
    /// (H)
    pub(super) mlp_norm: Buffer<f32>,
    pub(super) window: Option<usize>,
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
        let table = |stem: &str| load.linear(stem, (vocab, hidden), Bias::None, Role::Vocabulary);
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
        let (output_name, embedding_name) = (
            format!("{}.weight", names.output()),
            format!("{}.weight", names.embedding()),
        );
        let tied = config
            .tie_word_embeddings
            .then_some((&*output_name, &*embedding_name));
        load.load.finish(tied)?;
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
        let layers = self.layers.iter().flat_map(|layer| &layer.projections);
        layers.chain([self.head()])
    }

    /// Bytes of all matrices.
    pub(super) fn size_in_bytes(&self) -> usize {
        let looked_up = self.output.as_ref().map(|_| self.embedding.size_in_bytes());
        let multiplied: usize = self.matrices().map(CudaLinear::size_in_bytes).sum();
        multiplied + looked_up.unwrap_or(0)
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
            let bias = Bias::when(projection.has_bias(config));
            projections.push(load.linear(
                &stem,
                projection.shape(config),
                bias,
                Role::Projection,
            )?);
        }
        Ok(Self {
            attention_norm,
            projections: projections.try_into().expect("one for each projection"),
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
    fn vector(&self, name: &str, len: usize) -> Result<Buffer<f32>, ModelError> {
        let values = self.load.floats(name, len)?;
        Buffer::from_slice(self.device, &values).map_err(|source| ModelError::compute(name, source))
    }

    fn linear(
        &self,
        stem: &str,
        shape: (usize, usize),
        bias: Bias,
        role: Role,
    ) -> Result<CudaLinear, ModelError> {
        let bias = match bias {
            Bias::None => None,
            Bias::Vector => Some(self.load.floats(&format!("{stem}.bias"), shape.0)?),
        };
        self.load.encoded(stem, shape, role, |format, bytes| {
            CudaLinear::from_bytes(self.device, bytes, format, shape, bias.as_deref())
                .map_err(|source| ModelError::compute(stem, source))
        })
    }
}
