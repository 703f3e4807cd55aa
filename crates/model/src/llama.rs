//! The forward pass of every architecture this crate supports: one decoder, whose parts
//! differ by config only (biases, norms on q and k, windows, the order of rotated pairs).

use crate::adapter::{Adapter, AdapterFit, RowGroups};
use crate::logits::{DrawAnswer, Draws, Hidden, Logits};
use crate::weights::{
    Bias, LoadAs, Loader, Names, Norm, Projection, ROPE_DIVISORS, Role, WeightFiles,
};
use crate::{AdapterId, ForwardBatch, KvPool, KvType, ModelConfig, ModelError};
use candle_core::{Device, Tensor};
use kernels::sampling::SampleError;
use kernels::{
    KvLayer, Linear, Rope, WeightFormat, add_rms_norm, paged_attention, rms_norm, rope_and_cache,
    swiglu,
};
use std::collections::BTreeMap;
use std::ops::{Index, Range};
use std::path::Path;
use std::sync::Arc;

/// A decoder that computes next-token logits over a paged KV cache.
pub trait CausalLm {
    /// What the model is made of.
    fn config(&self) -> &ModelConfig;

    /// Allocates a KV pool where the model computes: `num_blocks` (B) blocks of `block_size`
    /// (N) tokens.
    ///
    /// # Errors
    /// As [`KvPool::new`].
    fn kv_pool(
        &self,
        num_blocks: usize,
        block_size: usize,
        kv_type: KvType,
    ) -> Result<KvPool, ModelError> {
        KvPool::new(self.config(), num_blocks, block_size, kv_type)
    }

    /// Computes one step: writes K and V of every row to the cache and returns the final hidden
    /// states of `batch.logit_rows`, (S, H).
    ///
    /// # Errors
    /// A batch that contradicts itself, the model or the pool; a kernel that fails.
    fn hidden(&self, batch: &ForwardBatch, kv: &KvPool) -> Result<Hidden, ModelError>;

    /// Logits of some rows of what [`CausalLm::hidden`] returned last, (rows, V), at most
    /// [`CausalLm::logit_rows_max`] of them. They are to be asked before the next call.
    ///
    /// # Errors
    /// Rows that are not there; a kernel that fails.
    fn logits(&self, hidden: &Hidden, rows: Range<usize>) -> Result<Logits<'_>, ModelError>;

    /// Rows of logits that are held at a time: a vocabulary is wide, 64 rows of 128k tokens
    /// take 33 MB.
    fn logit_rows_max(&self) -> usize {
        64
    }

    /// Whether [`Logits::ask`] returns before the tokens are drawn, and a batch may be made of
    /// them ([`ForwardBatch::drawn`]) before [`CausalLm::drawn`] is asked for them.
    fn draws_later(&self) -> bool {
        false
    }

    /// Waits for what [`Logits::ask`] has asked of this model's logits. One more step may have
    /// been started since, and asked, too.
    ///
    /// # Errors
    /// The place that the logits were in fails; two later draws were started.
    fn drawn(&self, draws: Draws) -> Result<Vec<Result<DrawAnswer, SampleError>>, ModelError> {
        draws.on_host()
    }

    /// Makes an adapter usable in batches.
    ///
    /// # Errors
    /// A device that has no memory for it.
    fn add_adapter(&mut self, adapter: Adapter) -> Result<AdapterId, ModelError>;

    /// Takes an adapter out again.
    fn remove_adapter(&mut self, id: AdapterId) -> Option<Adapter>;

    /// All logits of a step on the host, (S, V) in f32.
    ///
    /// # Errors
    /// As [`CausalLm::hidden`].
    fn forward(&self, batch: &ForwardBatch, kv: &KvPool) -> Result<Tensor, ModelError> {
        let hidden = self.hidden(batch, kv)?;
        let rows = batch.logit_rows.len();
        let mut parts = Vec::new();
        for first in (0..rows.max(1)).step_by(self.logit_rows_max()) {
            let part = first..rows.min(first + self.logit_rows_max());
            parts.push(self.logits(&hidden, part)?.to_host()?);
        }
        Tensor::cat(&parts, 0).map_err(|source| ModelError::compute("the logits", source))
    }
}

/// How a model is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// What weight matrices become.
    pub weights: LoadAs,
    /// (P) the longest context to prepare for, at most what the model was made for; `None` =
    /// that, up to 2^18.
    pub max_positions: Option<usize>,
}

/// A model of the Llama family: Llama, SmolLM, Mistral, Qwen2, Qwen2.5, Qwen3.
pub struct Llama {
    decoder: Decoder,
    max_positions: usize,
    adapters: BTreeMap<AdapterId, Adapter>,
    next_adapter: u32,
}

/// Positions prepared for unless more are asked for: a table of 256 MiB for heads of 256.
const DEFAULT_MAX_POSITIONS: usize = 1 << 18;

/// The weights of a model as they lie in memory. A clone shares them: training computes with
/// the very weights that generate.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// What the model is made of.
    pub config: ModelConfig,
    /// (V, H)
    pub embedding: Arc<Linear>,
    /// From the embedding up.
    pub layers: Vec<DecoderLayer>,
    /// (H), of the norm before the output.
    pub norm: Tensor,
    /// (V, H); `None` = tied to the embedding.
    pub output: Option<Arc<Linear>>,
    /// Angles, in the layout that the rows of q and k have.
    pub rope: Rope,
}

/// The weights of one layer.
#[derive(Debug, Clone)]
pub struct DecoderLayer {
    /// (H)
    pub attention_norm: Tensor,
    /// In the order of [`Projection::ALL`].
    pub projections: [Arc<Linear>; Projection::ALL.len()],
    /// Weights (D) of the norms on the heads of q and k.
    pub head_norms: Option<(Tensor, Tensor)>,
    /// (H)
    pub mlp_norm: Tensor,
    /// Positions that a token sees, its own included; `None` = all before it.
    pub window: Option<usize>,
}

impl Llama {
    /// Takes the weights out of their files.
    ///
    /// # Errors
    /// A tensor that is missing, unused, of the wrong shape or type.
    pub(crate) fn load(
        config: ModelConfig,
        files: &WeightFiles,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let names = Names::of(files);
        let load = Loader::new(files, options.weights);
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embedding = load.linear(
            names.embedding(),
            (vocab, hidden),
            Bias::None,
            Role::Vocabulary,
        )?;
        let layers = (0..config.num_layers)
            .map(|index| DecoderLayer::load(&config, &load, names, index))
            .collect::<Result<_, _>>()?;
        let norm = load.vector(&format!("{}.weight", names.final_norm()), hidden)?;
        let output = match config.tie_word_embeddings {
            true => None,
            false => Some(load.linear(
                names.output(),
                (vocab, hidden),
                Bias::None,
                Role::Vocabulary,
            )?),
        };
        let max_positions = max_positions(&config, options);
        let rope = load_rope(&config, &load, names, max_positions)?;
        load.finish(&config, names)?;
        let decoder = Decoder {
            config,
            embedding: Arc::new(embedding),
            layers,
            norm,
            output: output.map(Arc::new),
            rope,
        };
        Ok(Self::of(decoder))
    }

    /// A model around weights that others may share, without adapters.
    pub fn of(decoder: Decoder) -> Self {
        let max_positions = decoder.rope.positions();
        Self {
            decoder,
            max_positions,
            adapters: BTreeMap::new(),
            next_adapter: 0,
        }
    }

    /// The weights, to be shared.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// (P) the longest context the model was prepared for.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// f32 if the weights are, else f16: rounding K and V then costs less than the weights' own
    /// rounding did.
    pub fn default_kv_type(&self) -> KvType {
        if self.decoder.layers[0][Projection::K].format() == WeightFormat::F32 {
            KvType::F32
        } else {
            KvType::F16
        }
    }

    /// Reads an adapter in PEFT's layout and checks that it fits this model.
    ///
    /// # Errors
    /// A file missing or damaged, a setting that is not supported, tensors that do not fit.
    pub fn load_adapter(&self, folder: &Path) -> Result<Adapter, ModelError> {
        self.decoder.load_adapter(folder)
    }
}

impl CausalLm for Llama {
    fn config(&self) -> &ModelConfig {
        &self.decoder.config
    }

    fn hidden(&self, batch: &ForwardBatch, kv: &KvPool) -> Result<Hidden, ModelError> {
        batch.check_known(self.config(), kv)?;
        let all = RowGroups::of(&batch.adapters, &self.adapters)?;
        let wanted = match batch.adapters.is_empty() {
            true => vec![],
            false => {
                let rows = batch.logit_rows.iter();
                rows.map(|row| batch.adapters[*row as usize]).collect()
            }
        };
        let wanted = RowGroups::of(&wanted, &self.adapters)?;
        self.decoder
            .compute(batch, kv.host()?, [&all, &wanted])
            .map(Hidden::host)
            .map_err(|source| ModelError::compute("the forward pass", source))
    }

    fn logits(&self, hidden: &Hidden, rows: Range<usize>) -> Result<Logits<'_>, ModelError> {
        let hidden = hidden.on_host()?;
        let compute = || -> kernels::Result<Tensor> {
            self.decoder
                .head()
                .forward(&hidden.narrow(0, rows.start, rows.len())?)
        };
        compute()
            .map(Logits::host)
            .map_err(|source| ModelError::compute("the logits", source))
    }

    fn add_adapter(&mut self, adapter: Adapter) -> Result<AdapterId, ModelError> {
        let id = AdapterId(self.next_adapter);
        self.next_adapter += 1;
        self.adapters.insert(id, adapter);
        Ok(id)
    }

    fn remove_adapter(&mut self, id: AdapterId) -> Option<Adapter> {
        self.adapters.remove(&id)
    }
}

impl Decoder {
    /// The matrix (V, H) that gives logits.
    pub fn head(&self) -> &Arc<Linear> {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// Reads an adapter in PEFT's layout and checks that it fits.
    ///
    /// # Errors
    /// A file missing or damaged, a setting that is not supported, tensors that do not fit.
    pub fn load_adapter(&self, folder: &Path) -> Result<Adapter, ModelError> {
        self.adapter_fit().load(folder)
    }

    /// What adapters of this model must fit.
    pub fn adapter_fit(&self) -> AdapterFit {
        AdapterFit {
            config: self.config.clone(),
            layout: self.rope.layout(),
        }
    }

    /// The adapters are those of all rows, and those of the rows whose logits are wanted.
    fn compute(
        &self,
        batch: &ForwardBatch,
        kv: &[KvLayer],
        [all, wanted]: [&RowGroups<'_>; 2],
    ) -> kernels::Result<Tensor> {
        let logit_rows = Tensor::new(batch.logit_rows.as_slice(), &Device::Cpu)?;
        let mut x = self.embedding.rows(&batch.tokens)?;
        let mut normed = rms_norm(&x, &self.layers[0].attention_norm, self.config.rms_norm_eps)?;
        for (index, cache) in kv.iter().enumerate().take(self.layers.len()) {
            let mut mixed = self.attend(index, &normed, batch, cache, all)?;
            let mut adapters = all;
            if index + 1 == self.layers.len() {
                // From here on rows no longer meet: only those asked for go on.
                mixed = mixed.index_select(&logit_rows, 0)?;
                x = x.index_select(&logit_rows, 0)?;
                adapters = wanted;
            }
            (normed, x) = self.feed_forward(index, &mixed, &x, adapters)?;
        }
        Ok(normed)
    }

    /// Writes K and V of all rows and gives what each row's heads take from its context, (T, Hq*D).
    fn attend(
        &self,
        index: usize,
        normed: &Tensor,
        batch: &ForwardBatch,
        cache: &KvLayer,
        adapters: &RowGroups<'_>,
    ) -> kernels::Result<Tensor> {
        let layer = &self.layers[index];
        let [q, k, v] = layer.project([Projection::Q, Projection::K, Projection::V], normed)?;
        let q = adapters.add(index, Projection::Q, normed, q)?;
        let k = adapters.add(index, Projection::K, normed, k)?;
        let v = adapters.add(index, Projection::V, normed, v)?;
        let (q, k) = layer.norm_heads(q, k, self.config.rms_norm_eps)?;
        let (positions, slots) = (&batch.positions, &batch.slots);
        let q = rope_and_cache((&q, &k, &v), &self.rope, positions, slots, cache)?;
        let scale = 1.0 / (self.config.head_dim as f32).sqrt();
        paged_attention(&q, cache, &batch.spans, scale, layer.window)
    }

    /// The rest of a layer: adds attention's and the MLP's shares to `x`; returns it after the
    /// next norm, and as it is.
    fn feed_forward(
        &self,
        index: usize,
        mixed: &Tensor,
        x: &Tensor,
        adapters: &RowGroups<'_>,
    ) -> kernels::Result<(Tensor, Tensor)> {
        let (layer, eps) = (&self.layers[index], self.config.rms_norm_eps);
        let o = adapters.add(
            index,
            Projection::O,
            mixed,
            layer[Projection::O].forward(mixed)?,
        )?;
        let (normed, x) = add_rms_norm(&o, x, &layer.mlp_norm, eps)?;
        let [gate, up] = layer.project([Projection::Gate, Projection::Up], &normed)?;
        let gate = adapters.add(index, Projection::Gate, &normed, gate)?;
        let up = adapters.add(index, Projection::Up, &normed, up)?;
        let inner = swiglu(&gate, &up)?;
        let down = adapters.add(
            index,
            Projection::Down,
            &inner,
            layer[Projection::Down].forward(&inner)?,
        )?;
        let next = self.layers.get(index + 1);
        let next_norm = next.map_or(&self.norm, |next| &next.attention_norm);
        add_rms_norm(&down, &x, next_norm, eps)
    }
}

/// (P) the longest context that a model is prepared for.
pub(crate) fn max_positions(config: &ModelConfig, options: &LoadOptions) -> usize {
    options
        .max_positions
        .unwrap_or(DEFAULT_MAX_POSITIONS)
        .min(config.max_position_embeddings)
}

/// The table of angles; a GGUF may bring divisors of the frequencies.
pub(crate) fn load_rope(
    config: &ModelConfig,
    load: &Loader<'_>,
    names: Names,
    max_positions: usize,
) -> Result<Rope, ModelError> {
    let divisors = match names {
        Names::Gguf if load.has(ROPE_DIVISORS) => {
            Some(load.floats(ROPE_DIVISORS, config.head_dim / 2)?)
        }
        _ => None,
    };
    let frequencies = config
        .rope
        .inverse_frequencies(config.head_dim, divisors.as_deref());
    let layout = names.rope_layout(config.architecture);
    Rope::new(&frequencies, max_positions, layout)
        .map_err(|source| ModelError::compute("the RoPE table", source))
}

impl Index<Projection> for DecoderLayer {
    type Output = Arc<Linear>;

    fn index(&self, projection: Projection) -> &Arc<Linear> {
        &self.projections[projection as usize]
    }
}

impl DecoderLayer {
    /// Several products with one input (T, in), which is read once for all.
    ///
    /// # Errors
    /// An input of another shape.
    pub fn project<const N: usize>(
        &self,
        projections: [Projection; N],
        x: &Tensor,
    ) -> kernels::Result<[Tensor; N]> {
        let matrices = projections.map(|projection| &*self[projection]);
        let outputs = Linear::forward_many(&matrices, x)?;
        Ok(outputs.try_into().expect("one output for each matrix"))
    }

    fn load(
        config: &ModelConfig,
        load: &Loader<'_>,
        names: Names,
        index: usize,
    ) -> Result<Self, ModelError> {
        let matrix = |projection: Projection| {
            let stem = names.projection(index, projection);
            let bias = Bias::when(projection.has_bias(config));
            let shape = projection.shape(config);
            Ok(Arc::new(load.linear(
                &stem,
                shape,
                bias,
                Role::Projection,
            )?))
        };
        let norm = |norm, len| load.vector(&format!("{}.weight", names.norm(index, norm)), len);
        let attention_norm = norm(Norm::Attention, config.hidden_size)?;
        let mut projections = Vec::with_capacity(Projection::ALL.len());
        for projection in Projection::ALL {
            projections.push(matrix(projection)?);
        }
        Ok(Self {
            attention_norm,
            projections: projections.try_into().expect("one for each projection"),
            head_norms: match config.qk_norm {
                true => Some((
                    norm(Norm::HeadsOfQ, config.head_dim)?,
                    norm(Norm::HeadsOfK, config.head_dim)?,
                )),
                false => None,
            },
            mlp_norm: norm(Norm::Mlp, config.hidden_size)?,
            window: config.sliding_windows[index],
        })
    }

    /// Normalises each head of q and k by itself, where the model does.
    fn norm_heads(&self, q: Tensor, k: Tensor, eps: f32) -> kernels::Result<(Tensor, Tensor)> {
        let Some((q_weight, k_weight)) = &self.head_norms else {
            return Ok((q, k));
        };
        let per_head = |x: Tensor, weight: &Tensor| -> kernels::Result<Tensor> {
            let (rows, width) = x.dims2()?;
            let head = weight.elem_count();
            let normed = rms_norm(&x.reshape((rows * width / head, head))?, weight, eps)?;
            Ok(normed.reshape((rows, width))?)
        };
        Ok((per_head(q, q_weight)?, per_head(k, k_weight)?))
    }
}
