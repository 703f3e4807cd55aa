//! Networks from a model in memory, or from nothing but a configuration.

use super::block::Block;
use super::body::Body;
use super::compute::Compute;
use super::host::Host;
use super::matrix::{Below, Lora, Matrix};
use super::vector::Vector;
use super::{Network, Place};
use crate::parameters::{Kind, Parameter, Parameters, tensor};
use crate::{Result, TrainError};
use candle_core::{Device, Tensor};
use kernels::training::AttentionShape;
use kernels::{Rope, RopeLayout};
use model::{Adapter, AdapterFit, AdapterPart, Decoder, DecoderLayer, ModelConfig, Projection};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::BTreeMap;

/// Which matrices of each layer get an adapter.
pub type Targets = Vec<Projection>;

/// A new adapter (Hu et al. 2021).
#[derive(Debug, Clone, PartialEq)]
pub struct LoraSettings {
    /// r
    pub rank: usize,
    /// alpha; the product's factor is alpha / r.
    pub alpha: f64,
    /// Share of the adapter's inputs that are zeroed while training.
    pub dropout: f64,
    /// Which matrices.
    pub targets: Targets,
}

/// The frozen weights that something is trained beside, where they are.
#[derive(Debug, Clone, Copy)]
pub enum Base<'a> {
    /// On the host.
    Host(&'a Decoder),
    /// On a device.
    #[cfg(feature = "device")]
    Device(&'a model::CudaDecoder),
}

impl<'a> From<&'a Decoder> for Base<'a> {
    fn from(decoder: &'a Decoder) -> Self {
        Self::Host(decoder)
    }
}

#[cfg(feature = "device")]
impl<'a> From<&'a model::CudaDecoder> for Base<'a> {
    fn from(decoder: &'a model::CudaDecoder) -> Self {
        Self::Device(decoder)
    }
}

impl Base<'_> {
    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Self::Host(decoder) => &decoder.config,
            #[cfg(feature = "device")]
            Self::Device(decoder) => decoder.config(),
        }
    }

    /// Longest sequence it is prepared for.
    pub fn positions(&self) -> usize {
        match self {
            Self::Host(decoder) => decoder.rope.positions(),
            #[cfg(feature = "device")]
            Self::Device(decoder) => decoder.rope().positions(),
        }
    }

    /// What adapters must fit.
    pub fn adapter_fit(&self) -> AdapterFit {
        match self {
            Self::Host(decoder) => decoder.adapter_fit(),
            #[cfg(feature = "device")]
            Self::Device(decoder) => decoder.adapter_fit(),
        }
    }
}

/// Standard deviation of the first weights of a model from scratch, as GPT-2's.
const INIT_STD: f64 = 0.02;

impl Network {
    /// A new adapter beside the frozen weights of `base`: A is uniform within
    /// 1/sqrt(in), as PEFT draws it, B is zero, so that the network begins as the base.
    ///
    /// # Errors
    /// A rank of 0, no target.
    pub fn with_new_adapter<'a>(
        base: impl Into<Base<'a>>,
        lora: &LoraSettings,
        seed: u64,
    ) -> Result<Self> {
        let base = base.into();
        let config = base.config();
        if lora.rank == 0 {
            return Err(TrainError::setting("lora rank", "at least 1", 0));
        }
        if lora.targets.is_empty() {
            return Err(TrainError::setting(
                "lora targets",
                "at least one matrix",
                "none",
            ));
        }
        let scale = (lora.alpha / lora.rank as f64) as f32;
        let mut parts = vec![];
        for layer in 0..config.num_layers {
            for projection in &lora.targets {
                let (out, input) = projection.shape(config);
                let name = adapter_name(layer, *projection, "lora_A");
                let bound = 1.0 / (input as f64).sqrt();
                let mut rng = draws(seed, &name);
                let values = (0..lora.rank * input)
                    .map(|_| ((2.0 * unit(&mut rng) - 1.0) * bound) as f32)
                    .collect();
                parts.push(AdapterPart {
                    layer,
                    projection: *projection,
                    a: tensor(values, &[lora.rank, input])?,
                    b: tensor(vec![0.0; out * lora.rank], &[out, lora.rank])?,
                    scale,
                });
            }
        }
        Self::beside(base, &parts, lora.dropout)
    }

    /// An adapter that was loaded for `base`, to be trained on; its tensors are copied.
    ///
    /// # Errors
    /// Those of candle; a device that has no room.
    pub fn with_adapter<'a>(
        base: impl Into<Base<'a>>,
        adapter: &Adapter,
        dropout: f64,
    ) -> Result<Self> {
        let copied = adapter.parts().map(|part| {
            Ok(AdapterPart {
                a: part.a.copy()?,
                b: part.b.copy()?,
                ..part
            })
        });
        Self::beside(base.into(), &copied.collect::<Result<Vec<_>>>()?, dropout)
    }

    /// The model as it is, with nothing trained: to score with.
    ///
    /// # Errors
    /// Those of candle; a device that has no room.
    pub fn frozen<'a>(base: impl Into<Base<'a>>) -> Result<Self> {
        Self::beside(base.into(), &[], 0.0)
    }

    fn beside(base: Base<'_>, parts: &[AdapterPart], dropout: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&dropout) {
            return Err(TrainError::setting(
                "dropout",
                "at least 0 and below 1",
                dropout,
            ));
        }
        let (parameters, loras) = listed(parts);
        let place = match base {
            Base::Host(decoder) => {
                let frozen = Frozen::of_decoder(decoder)?;
                Place::Host(frozen.beside(&decoder.config, &loras))
            }
            #[cfg(feature = "device")]
            Base::Device(decoder) => {
                let frozen = Frozen::of_device(decoder)?;
                Place::Device(Box::new(frozen.beside(decoder.config(), &loras)))
            }
        };
        Ok(Self {
            config: base.config().clone(),
            parameters,
            loras,
            dropout,
            positions: base.positions(),
            place,
        })
    }

    /// All weights of `decoder`, copied to f32.
    ///
    /// # Errors
    /// Those of candle.
    pub fn full(decoder: &Decoder) -> Result<Self> {
        let config = &decoder.config;
        let mut list = vec![];
        let mut add =
            |name: String, value: Tensor, kind| list.push(Parameter { name, value, kind });
        add(
            EMBEDDING.into(),
            decoder.embedding.dequantize()?,
            Kind::Vocabulary,
        );
        if let Some(output) = &decoder.output {
            add(OUTPUT.into(), output.dequantize()?, Kind::Vocabulary);
        }
        add(NORM.into(), decoder.norm.copy()?, Kind::Vector);
        for (index, layer) in decoder.layers.iter().enumerate() {
            for (name, value) in layer_vectors(index, layer) {
                add(name, value.copy()?, Kind::Vector);
            }
            for projection in Projection::ALL {
                let linear = &layer[projection];
                let stem = format!("model.layers.{index}.{}", projection.module());
                let order = |value: Tensor| in_halves(value, projection, decoder);
                add(
                    format!("{stem}.weight"),
                    order(linear.dequantize()?)?,
                    Kind::Matrix,
                );
                if let Some(bias) = linear.bias() {
                    let bias = order(tensor(bias.to_vec(), &[bias.len()])?)?;
                    add(format!("{stem}.bias"), bias, Kind::Vector);
                }
            }
        }
        let rope = decoder.rope.with_layout(RopeLayout::Halves);
        Self::of_parameters(config, &rope, Parameters::new(list))
    }

    /// A model with random weights: normal with a deviation of 0.02, those that write to the
    /// residual stream smaller by sqrt(2 * layers) (GPT-2), norms 1, biases 0.
    ///
    /// # Errors
    /// Those of candle.
    pub fn from_scratch(config: &ModelConfig, seed: u64) -> Result<Self> {
        let residual = INIT_STD / (2.0 * config.num_layers as f64).sqrt();
        let normal = |name: &str, shape: [usize; 2], std: f64| {
            let mut rng = draws(seed, name);
            let values = (0..shape[0] * shape[1])
                .map(|_| (normal(&mut rng) * std) as f32)
                .collect();
            tensor(values, &shape)
        };
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let mut list = vec![];
        let mut add =
            |name: String, value: Tensor, kind| list.push(Parameter { name, value, kind });
        let ones = |len: usize| tensor(vec![1.0; len], &[len]);
        add(
            EMBEDDING.into(),
            normal(EMBEDDING, [vocab, hidden], INIT_STD)?,
            Kind::Vocabulary,
        );
        if !config.tie_word_embeddings {
            add(
                OUTPUT.into(),
                normal(OUTPUT, [vocab, hidden], INIT_STD)?,
                Kind::Vocabulary,
            );
        }
        add(NORM.into(), ones(hidden)?, Kind::Vector);
        for layer in 0..config.num_layers {
            for (which, len) in norm_lengths(config) {
                add(
                    format!("model.layers.{layer}.{which}.weight"),
                    ones(len)?,
                    Kind::Vector,
                );
            }
            for projection in Projection::ALL {
                let stem = format!("model.layers.{layer}.{}", projection.module());
                let writes = matches!(projection, Projection::O | Projection::Down);
                let (out, input) = projection.shape(config);
                let name = format!("{stem}.weight");
                let std = if writes { residual } else { INIT_STD };
                let value = normal(&name, [out, input], std)?;
                add(name, value, Kind::Matrix);
                if projection.has_bias(config) {
                    add(
                        format!("{stem}.bias"),
                        tensor(vec![0.0; out], &[out])?,
                        Kind::Vector,
                    );
                }
            }
        }
        let frequencies = config.rope.inverse_frequencies(config.head_dim, None);
        let positions = config.max_position_embeddings;
        let rope = Rope::new(&frequencies, positions, RopeLayout::Halves)?;
        Self::of_parameters(config, &rope, Parameters::new(list))
    }

    /// Everything trained, by the names of transformers.
    fn of_parameters(config: &ModelConfig, rope: &Rope, parameters: Parameters) -> Result<Self> {
        let body = Body::trained(Host::new(rope)?, config, &parameters);
        Ok(Self {
            config: config.clone(),
            parameters,
            loras: BTreeMap::new(),
            dropout: 0.0,
            positions: rope.positions(),
            place: Place::Host(body),
        })
    }

    /// The same network on a device, where all of it is trained: nothing of it is frozen on the
    /// host.
    ///
    /// # Errors
    /// A network with frozen weights (load those onto the device: [`Base`]); a device that has no
    /// room.
    #[cfg(feature = "device")]
    pub fn onto(self, device: &kernels::cuda::Device) -> Result<Self> {
        let Place::Host(body) = &self.place else {
            return Ok(self);
        };
        if !matches!(body.embedding, Matrix::Trained { .. }) {
            let expected = "a network of which everything is trained";
            return Err(TrainError::setting("device", expected, "frozen weights"));
        }
        let table = kernels::cuda::RopeTable::new(device, body.compute.angles())?;
        let compute = super::cuda::Cuda::with_angles(device, table)?;
        let body = Body::trained(compute, &self.config, &self.parameters);
        Ok(Self {
            place: Place::Device(Box::new(body)),
            ..self
        })
    }

    /// A copy of the adapter as it is now; nothing if the network has none.
    ///
    /// # Errors
    /// Those of candle.
    pub fn adapter(&self) -> Result<Option<Adapter>> {
        let mut parts = vec![];
        for (&(layer, projection), lora) in &self.loras {
            parts.push(AdapterPart {
                layer,
                projection,
                a: self.parameters.value(lora.a).copy()?,
                b: self.parameters.value(lora.b).copy()?,
                scale: lora.scale,
            });
        }
        match parts.is_empty() {
            true => Ok(None),
            false => Ok(Some(Adapter::new(&self.config, parts)?)),
        }
    }
}

/// Weights that stay as they are.
pub(super) struct Frozen<C: Compute> {
    pub(super) compute: C,
    /// (V, H)
    pub(super) embedding: C::Linear,
    pub(super) layers: Vec<FrozenLayer<C>>,
    /// (H)
    pub(super) norm: C::Array,
    /// (V, H); `None` = the embedding.
    pub(super) output: Option<C::Linear>,
}

/// Those of a layer.
pub(super) struct FrozenLayer<C: Compute> {
    /// (H)
    pub(super) attention_norm: C::Array,
    /// In the order of [`Projection::ALL`].
    pub(super) projections: [C::Linear; Projection::ALL.len()],
    /// (D) each, of q and k.
    pub(super) head_norms: Option<[C::Array; 2]>,
    /// (H)
    pub(super) mlp_norm: C::Array,
}

impl Frozen<Host> {
    fn of_decoder(decoder: &Decoder) -> Result<Self> {
        let layers = decoder.layers.iter().map(|layer| FrozenLayer {
            attention_norm: layer.attention_norm.clone(),
            projections: layer.projections.clone(),
            head_norms: layer
                .head_norms
                .as_ref()
                .map(|(q, k)| [q.clone(), k.clone()]),
            mlp_norm: layer.mlp_norm.clone(),
        });
        Ok(Self {
            compute: Host::new(&decoder.rope)?,
            embedding: decoder.embedding.clone(),
            layers: layers.collect(),
            norm: decoder.norm.clone(),
            output: decoder.output.clone(),
        })
    }
}

impl<C: Compute> Frozen<C> {
    /// With adapters beside some matrices.
    pub(super) fn beside(
        self,
        config: &ModelConfig,
        loras: &BTreeMap<(usize, Projection), Lora>,
    ) -> Body<C> {
        let lowest = loras.keys().next().map_or(0, |(layer, _)| *layer);
        let matrix = |base, lora| Matrix::Frozen { base, lora };
        let layers = self.layers.into_iter().enumerate();
        let blocks = layers.map(|(index, layer)| {
            let mut projections = Projection::ALL.into_iter();
            Block {
                attention_norm: Vector::Frozen(layer.attention_norm),
                projections: layer.projections.map(|base| {
                    let projection = projections.next().expect("there is one for each");
                    matrix(base, loras.get(&(index, projection)).copied())
                }),
                head_norms: layer.head_norms.map(|norms| norms.map(Vector::Frozen)),
                mlp_norm: Vector::Frozen(layer.mlp_norm),
                attention: attention_shape(config, config.sliding_windows[index]),
                below: if index > lowest {
                    Below::Trained
                } else {
                    Below::Frozen
                },
            }
        });
        Body {
            blocks: blocks.collect(),
            compute: self.compute,
            embedding: matrix(self.embedding, None),
            norm: Vector::Frozen(self.norm),
            output: self.output.map(|output| matrix(output, None)),
        }
    }
}

impl<C: Compute> Body<C> {
    /// Everything trained.
    pub(super) fn trained(compute: C, config: &ModelConfig, parameters: &Parameters) -> Self {
        let id = |name: &str| parameters.id_of(name).expect("every tensor was listed");
        let vector = |name: String| Vector::Trained(id(&name));
        let matrix = |stem: &str| Matrix::Trained {
            weight: id(&format!("{stem}.weight")),
            bias: parameters.id_of(&format!("{stem}.bias")),
        };
        let table = |weight| Matrix::Trained { weight, bias: None };
        let blocks = (0..config.num_layers).map(|index| {
            let layer = format!("model.layers.{index}");
            Block {
                attention_norm: vector(format!("{layer}.input_layernorm.weight")),
                projections: Projection::ALL
                    .map(|projection| matrix(&format!("{layer}.{}", projection.module()))),
                head_norms: config.qk_norm.then(|| {
                    ["q_norm", "k_norm"]
                        .map(|norm| vector(format!("{layer}.self_attn.{norm}.weight")))
                }),
                mlp_norm: vector(format!("{layer}.post_attention_layernorm.weight")),
                attention: attention_shape(config, config.sliding_windows[index]),
                below: Below::Trained,
            }
        });
        Self {
            blocks: blocks.collect(),
            compute,
            embedding: table(id(EMBEDDING)),
            norm: vector(NORM.to_owned()),
            output: parameters.id_of(OUTPUT).map(table),
        }
    }
}

/// Adapters as parameters, and where each of them is.
fn listed(parts: &[AdapterPart]) -> (Parameters, BTreeMap<(usize, Projection), Lora>) {
    let names = |part: &AdapterPart| {
        ["lora_A", "lora_B"].map(|which| adapter_name(part.layer, part.projection, which))
    };
    let mut list = vec![];
    for part in parts {
        let [a, b] = names(part);
        for (name, value) in [(a, &part.a), (b, &part.b)] {
            list.push(Parameter {
                name,
                value: value.clone(),
                kind: Kind::Adapter,
            });
        }
    }
    let parameters = Parameters::new(list);
    let id = |name: &str| parameters.id_of(name).expect("it was just listed");
    let mut loras = BTreeMap::new();
    for part in parts {
        let [a, b] = names(part).map(|name| id(&name));
        let lora = Lora {
            a,
            b,
            scale: part.scale,
            site: (part.layer * Projection::ALL.len() + part.projection as usize) as u64,
        };
        loras.insert((part.layer, part.projection), lora);
    }
    (parameters, loras)
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const OUTPUT: &str = "lm_head.weight";
const NORM: &str = "model.norm.weight";

fn adapter_name(layer: usize, projection: Projection, which: &str) -> String {
    format!(
        "model.layers.{layer}.{}.{which}.weight",
        projection.module()
    )
}

fn attention_shape(config: &ModelConfig, window: Option<usize>) -> AttentionShape {
    AttentionShape {
        query_heads: config.num_heads,
        kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        window,
    }
}

fn layer_vectors(index: usize, layer: &DecoderLayer) -> Vec<(String, &Tensor)> {
    let mut found = vec![
        ("input_layernorm", &layer.attention_norm),
        ("post_attention_layernorm", &layer.mlp_norm),
    ];
    if let Some((q, k)) = &layer.head_norms {
        found.extend([("self_attn.q_norm", q), ("self_attn.k_norm", k)]);
    }
    let named = found.into_iter();
    named
        .map(|(which, value)| (format!("model.layers.{index}.{which}.weight"), value))
        .collect()
}

fn norm_lengths(config: &ModelConfig) -> Vec<(&'static str, usize)> {
    let mut found = vec![
        ("input_layernorm", config.hidden_size),
        ("post_attention_layernorm", config.hidden_size),
    ];
    if config.qk_norm {
        let head = config.head_dim;
        found.extend([("self_attn.q_norm", head), ("self_attn.k_norm", head)]);
    }
    found
}

/// Rows of q and k as transformers has them.
fn in_halves(value: Tensor, projection: Projection, decoder: &Decoder) -> Result<Tensor> {
    let layout = decoder.rope.layout();
    if !matches!(projection, Projection::Q | Projection::K) || layout == RopeLayout::Halves {
        return Ok(value);
    }
    let rows = layout.rows_for(RopeLayout::Halves, value.dim(0)?, decoder.config.head_dim);
    Ok(value.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?)
}

/// Numbers of one tensor's own, whatever else is drawn.
fn draws(seed: u64, name: &str) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let digest = blake3::hash(name.as_bytes());
    let stream = digest
        .as_bytes()
        .first_chunk()
        .expect("a digest has 32 bytes");
    rng.set_stream(u64::from_le_bytes(*stream));
    rng
}

/// Uniform in [0, 1).
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Standard normal (Box and Muller 1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - unit(rng)).ln()).sqrt();
    radius * (2.0 * std::f64::consts::PI * unit(rng)).cos()
}
