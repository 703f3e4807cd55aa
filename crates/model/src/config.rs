//! What a model is made of, read from `config.json` or from a GGUF's metadata.
//!
//! Reading is strict: a field that this crate does not know and that could change what the
//! model computes is refused by name, rather than computing something else silently.

mod gguf;
mod hf;

use crate::ModelError;
use std::path::Path;

/// The `architectures` entries this crate computes.
pub const SUPPORTED_ARCHITECTURES: [&str; 4] = [
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
];

/// Which family's rules apply to a config and to its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 2, 3, 3.1, 3.2, 3.3, SmolLM and whatever else says `LlamaForCausalLM`.
    Llama,
    /// Mistral (dense): Llama with an optional sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: Llama with biases on q, k and v.
    Qwen2,
    /// Qwen3 (dense): Llama with an RMSNorm on each head of q and k.
    Qwen3,
}

/// How rotary frequencies are stretched for contexts longer than those first trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// Every frequency divided by `factor` (position interpolation, Chen et al. 2023).
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// Llama 3.1's: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// At least 1.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are divided by `factor`.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context of the pre-training, in tokens.
        original_max_position_embeddings: usize,
    },
}

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Stretching. A GGUF's `rope_freqs.weight` comes on top (see [`RopeConfig::inverse_frequencies`]).
    pub scaling: RopeScaling,
}

/// The element type weights were trained or saved in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// 32 bits.
    F32,
    /// IEEE half.
    F16,
    /// Upper half of an f32.
    Bf16,
}

/// Everything the forward pass depends on besides the weights. Every instance has passed
/// the checks of sizes and ranges.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Whose rules apply.
    pub architecture: Architecture,
    /// (V)
    pub vocab_size: usize,
    /// (H)
    pub hidden_size: usize,
    /// (F)
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_layers: usize,
    /// (Hq)
    pub num_heads: usize,
    /// (Hkv); divides `num_heads`.
    pub num_kv_heads: usize,
    /// (D); even.
    pub head_dim: usize,
    /// Added to the mean square in every RMSNorm.
    pub rms_norm_eps: f32,
    /// (P) The longest context the model was made for.
    pub max_position_embeddings: usize,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// Per layer: how many positions, its own included, a token sees; `None` = all before it.
    pub sliding_windows: Vec<Option<usize>>,
    /// q, k and v have biases.
    pub qkv_bias: bool,
    /// The attention output has a bias.
    pub o_bias: bool,
    /// gate, up and down have biases.
    pub mlp_bias: bool,
    /// Each head of q and k passes through an RMSNorm before rotation.
    pub qk_norm: bool,
    /// The output matrix is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// First token of every sequence, where the model wants one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence, any of them; `generation_config.json` may add more.
    pub eos_token_ids: Vec<u32>,
    /// Type the weights were saved in, as far as the config says.
    pub dtype: Option<FloatType>,
}

/// What is wrong with one field; becomes a [`ModelError`] where the file is known.
#[derive(Debug)]
pub(crate) struct Problem {
    field: String,
    expected: String,
    got: String,
}

type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    pub(crate) fn in_file(self, path: &Path) -> ModelError {
        ModelError::field(path, self.field, self.expected, self.got)
    }
}

fn refuse(
    field: impl Into<String>,
    got: impl std::fmt::Display,
    expected: impl Into<String>,
) -> Problem {
    Problem {
        field: field.into(),
        expected: expected.into(),
        got: got.to_string(),
    }
}

/// At most the first 80 characters of a value, for messages.
fn clip(text: String) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl ModelConfig {
    /// Rows of q: Hq * D.
    pub fn q_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Rows of k, and of v: Hkv * D.
    pub fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Checks that sizes are possible and small enough that no product of two overflows.
    ///
    /// # Errors
    /// The first field that is out of range, with what is allowed.
    fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 18),
            ("intermediate_size", self.intermediate_size, 1 << 20),
            ("num_hidden_layers", self.num_layers, 1 << 12),
            ("num_attention_heads", self.num_heads, 1 << 12),
            ("num_key_value_heads", self.num_kv_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 12),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                1 << 24,
            ),
        ];
        for (field, value, most) in sizes {
            if value == 0 || value > most {
                return Err(refuse(field, value, format!("between 1 and {most}")));
            }
        }
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            let expected = format!("a divisor of num_attention_heads = {}", self.num_heads);
            return Err(refuse("num_key_value_heads", self.num_kv_heads, expected));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(refuse(
                "head_dim",
                self.head_dim,
                "an even number (RoPE turns pairs)",
            ));
        }
        let eps = self.rms_norm_eps;
        if !(eps.is_finite() && (0.0..0.1).contains(&eps)) {
            return Err(refuse("rms_norm_eps", eps, "at least 0 and below 0.1"));
        }
        if self.sliding_windows.len() != self.num_layers {
            let expected = format!("one entry for each of {} layers", self.num_layers);
            return Err(refuse("layer_types", self.sliding_windows.len(), expected));
        }
        if self.sliding_windows.contains(&Some(0)) {
            return Err(refuse("sliding_window", 0, "at least 1, or null"));
        }
        let tokens = self.eos_token_ids.iter().map(|id| ("eos_token_id", *id));
        for (field, id) in tokens.chain(self.bos_token_id.map(|id| ("bos_token_id", id))) {
            if id as usize >= self.vocab_size {
                return Err(refuse(
                    field,
                    id,
                    format!("below vocab_size = {}", self.vocab_size),
                ));
            }
        }
        self.rope.validate()
    }
}

impl RopeConfig {
    fn validate(&self) -> Result<()> {
        let at_least_one = |field: &str, value: f64| {
            let ok = value.is_finite() && (1.0..=1e6).contains(&value);
            if ok {
                Ok(())
            } else {
                Err(refuse(field, value, "between 1 and 1e6"))
            }
        };
        if !(self.theta.is_finite() && self.theta > 1.0 && self.theta <= 1e12) {
            return Err(refuse("rope_theta", self.theta, "above 1, at most 1e12"));
        }
        match self.scaling {
            RopeScaling::Default => Ok(()),
            RopeScaling::Linear { factor } => at_least_one("rope_scaling.factor", factor),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                at_least_one("rope_scaling.factor", factor)?;
                if !(low.is_finite() && low > 0.0) {
                    return Err(refuse("rope_scaling.low_freq_factor", low, "above 0"));
                }
                if !(high.is_finite() && high > low) {
                    let expected = format!("above low_freq_factor = {low}");
                    return Err(refuse("rope_scaling.high_freq_factor", high, expected));
                }
                if original == 0 || original > 1 << 27 {
                    let field = "rope_scaling.original_max_position_embeddings";
                    return Err(refuse(field, original, "between 1 and 2^27"));
                }
                Ok(())
            }
        }
    }

    /// Radians per position of each of the D/2 rotated pairs, fastest first; f32 values.
    ///
    /// Computed in f32, operation for operation as HF transformers does: at position p an
    /// error of one unit in the last place of a frequency is p times as large in the angle,
    /// so f64 here would be "more right" and yet further from what the model was trained with.
    /// `divisors` are a GGUF's `rope_freqs.weight` (D/2), 1 where a frequency is kept.
    pub fn inverse_frequencies(&self, head_dim: usize, divisors: Option<&[f32]>) -> Vec<f64> {
        let base = self.theta as f32;
        (0..head_dim / 2)
            .map(|pair| {
                let exponent = (2 * pair) as f32 / head_dim as f32;
                let frequency = 1.0 / base.powf(exponent);
                let divisor = divisors.map_or(1.0, |divisors| divisors[pair]);
                f64::from(self.scaling.apply(frequency) / divisor)
            })
            .collect()
    }
}

impl RopeScaling {
    fn apply(&self, frequency: f32) -> f32 {
        match *self {
            Self::Default => frequency,
            Self::Linear { factor } => frequency / factor as f32,
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let original = original_max_position_embeddings as f32;
                let (factor, low, high) = (
                    factor as f32,
                    low_freq_factor as f32,
                    high_freq_factor as f32,
                );
                let wavelength = 2.0 * std::f32::consts::PI / frequency;
                if wavelength > original / low {
                    frequency / factor
                } else if wavelength < original / high {
                    frequency
                } else {
                    let kept = (original / wavelength - low) / (high - low);
                    (1.0 - kept) * (frequency / factor) + kept * frequency
                }
            }
        }
    }
}
