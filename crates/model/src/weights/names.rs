//! What each tensor is called in a checkpoint of transformers and in a GGUF.

use super::WeightFiles;
use crate::{Architecture, ModelConfig};
use kernels::RopeLayout;

/// The seven matrices of a layer that may carry an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projection {
    /// Queries, (Hq*D, H).
    Q,
    /// Keys, (Hkv*D, H).
    K,
    /// Values, (Hkv*D, H).
    V,
    /// Attention's output, (H, Hq*D).
    O,
    /// The gate of the MLP, (F, H).
    Gate,
    /// What the gate is multiplied with, (F, H).
    Up,
    /// The MLP's output, (H, F).
    Down,
}

impl Projection {
    /// All seven, in the order of their use.
    pub const ALL: [Self; 7] = [
        Self::Q,
        Self::K,
        Self::V,
        Self::O,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// Module path inside a layer of the transformers model.
    pub fn module(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// (out, in) of the weight matrix.
    pub fn shape(self, config: &ModelConfig) -> (usize, usize) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        match self {
            Self::Q => (config.q_size(), hidden),
            Self::K | Self::V => (config.kv_size(), hidden),
            Self::O => (hidden, config.q_size()),
            Self::Gate | Self::Up => (inner, hidden),
            Self::Down => (hidden, inner),
        }
    }

    /// Whether the model adds a bias (out) to the product.
    pub fn has_bias(self, config: &ModelConfig) -> bool {
        match self {
            Self::Q | Self::K | Self::V => config.qkv_bias,
            Self::O => config.o_bias,
            Self::Gate | Self::Up | Self::Down => config.mlp_bias,
        }
    }

    fn gguf(self) -> &'static str {
        match self {
            Self::Q => "attn_q",
            Self::K => "attn_k",
            Self::V => "attn_v",
            Self::O => "attn_output",
            Self::Gate => "ffn_gate",
            Self::Up => "ffn_up",
            Self::Down => "ffn_down",
        }
    }
}

/// The norms of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Norm {
    Attention,
    Mlp,
    HeadsOfQ,
    HeadsOfK,
}

/// A GGUF's `rope_freqs.weight` (D/2): what each inverse frequency is divided by.
pub(crate) const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// One of the two ways to name tensors. Stems: `.weight` or `.bias` follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    Transformers,
    Gguf,
}

impl Names {
    pub(crate) fn of(files: &WeightFiles) -> Self {
        match files {
            WeightFiles::SafeTensors(_) | WeightFiles::Random(_) => Self::Transformers,
            WeightFiles::Gguf(_) => Self::Gguf,
        }
    }

    pub(crate) fn embedding(self) -> &'static str {
        match self {
            Self::Transformers => "model.embed_tokens",
            Self::Gguf => "token_embd",
        }
    }

    pub(crate) fn output(self) -> &'static str {
        match self {
            Self::Transformers => "lm_head",
            Self::Gguf => "output",
        }
    }

    pub(crate) fn final_norm(self) -> &'static str {
        match self {
            Self::Transformers => "model.norm",
            Self::Gguf => "output_norm",
        }
    }

    pub(crate) fn projection(self, layer: usize, projection: Projection) -> String {
        match self {
            Self::Transformers => format!("model.layers.{layer}.{}", projection.module()),
            Self::Gguf => format!("blk.{layer}.{}", projection.gguf()),
        }
    }

    pub(crate) fn norm(self, layer: usize, norm: Norm) -> String {
        let (transformers, gguf) = match norm {
            Norm::Attention => ("input_layernorm", "attn_norm"),
            Norm::Mlp => ("post_attention_layernorm", "ffn_norm"),
            Norm::HeadsOfQ => ("self_attn.q_norm", "attn_q_norm"),
            Norm::HeadsOfK => ("self_attn.k_norm", "attn_k_norm"),
        };
        match self {
            Self::Transformers => format!("model.layers.{layer}.{transformers}"),
            Self::Gguf => format!("blk.{layer}.{gguf}"),
        }
    }

    /// Converters to GGUF reorder the rows of q and k of the llama architecture so that the
    /// two elements that turn together are neighbours; nobody else does.
    pub(crate) fn rope_layout(self, architecture: Architecture) -> RopeLayout {
        match (self, architecture) {
            (Self::Gguf, Architecture::Llama | Architecture::Mistral) => RopeLayout::Interleaved,
            _ => RopeLayout::Halves,
        }
    }
}
