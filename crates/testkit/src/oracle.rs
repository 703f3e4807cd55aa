//! The whole forward pass once more: f64, one sequence, no cache, no batch, no candle, written
//! from the papers and not from our kernels. Slow, and short enough to check by eye.

use crate::fixtures::Values;
use model::{ModelConfig, RopeScaling};
use std::collections::{BTreeMap, HashMap};

/// Dequantised tensors under the names transformers gives them.
#[derive(Debug, Clone, Default)]
pub struct OracleWeights {
    /// Row-major values by name, matrices as (out, in).
    pub tensors: HashMap<String, Vec<f64>>,
    /// Which elements of a head turn together.
    pub pairs: Pairs,
    /// A GGUF's divisors of the inverse frequencies (D/2), 1 where there are none.
    pub rope_divisors: Option<Vec<f64>>,
}

/// Order of the rotated pairs in a head of q and k.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pairs {
    /// (i, i + D/2): transformers.
    #[default]
    Halves,
    /// (2i, 2i + 1): GGUF files of the llama architecture.
    Interleaved,
}

impl OracleWeights {
    /// The values of files in the layout of transformers.
    pub fn new(tensors: BTreeMap<String, Values>) -> Self {
        let values = tensors
            .into_iter()
            .map(|(name, tensor)| (name, tensor.values));
        Self {
            tensors: values.collect(),
            ..Self::default()
        }
    }
}

/// Next-token logits (V) after each of `tokens`.
pub fn logits(config: &ModelConfig, weights: &OracleWeights, tokens: &[u32]) -> Vec<Vec<f64>> {
    let oracle = Oracle {
        config,
        weights,
        angles: inverse_frequencies(config, weights),
    };
    let mut rows: Vec<Vec<f64>> = tokens
        .iter()
        .map(|token| oracle.embedding(*token))
        .collect();
    for layer in 0..config.num_layers {
        oracle.attend(layer, &mut rows);
        for row in &mut rows {
            oracle.mlp(layer, row);
        }
    }
    let output = if config.tie_word_embeddings {
        "model.embed_tokens"
    } else {
        "lm_head"
    };
    rows.iter()
        .map(|row| oracle.linear(output, &oracle.norm("model.norm", row)))
        .collect()
}

/// Relative L2 distance of `found` from `expected`.
pub fn relative_l2(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "rows of different length");
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = square(
        &mut found
            .iter()
            .zip(expected)
            .map(|(found, expected)| f64::from(*found) - expected),
    );
    (difference / square(&mut expected.iter().copied())).sqrt()
}

struct Oracle<'a> {
    config: &'a ModelConfig,
    weights: &'a OracleWeights,
    angles: Vec<f64>,
}

impl Oracle<'_> {
    fn tensor(&self, name: &str) -> Option<&[f64]> {
        self.weights.tensors.get(name).map(Vec::as_slice)
    }

    fn embedding(&self, token: u32) -> Vec<f64> {
        let table = self
            .tensor("model.embed_tokens.weight")
            .expect("an embedding");
        let width = self.config.hidden_size;
        table[token as usize * width..][..width].to_vec()
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self
            .tensor(&format!("{name}.weight"))
            .unwrap_or_else(|| panic!("{name}"));
        let bias = self.tensor(&format!("{name}.bias"));
        weight
            .chunks_exact(x.len())
            .enumerate()
            .map(|(out, row)| {
                let dot: f64 = row.iter().zip(x).map(|(w, x)| w * x).sum();
                dot + bias.map_or(0.0, |bias| bias[out])
            })
            .collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self
            .tensor(&format!("{name}.weight"))
            .unwrap_or_else(|| panic!("{name}"));
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + f64::from(self.config.rms_norm_eps)).sqrt();
        x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
    }

    /// q or k of one row: projected, normalised by head where the model does, rotated.
    fn rotated(&self, prefix: &str, which: &str, x: &[f64], position: usize) -> Vec<f64> {
        let dim = self.config.head_dim;
        let mut heads = self.linear(&format!("{prefix}.{which}_proj"), x);
        for head in heads.chunks_exact_mut(dim) {
            if self.config.qk_norm {
                let normed = self.norm(&format!("{prefix}.{which}_norm"), head);
                head.copy_from_slice(&normed);
            }
            for (pair, frequency) in self.angles.iter().enumerate() {
                let (first, second) = match self.weights.pairs {
                    Pairs::Halves => (pair, pair + dim / 2),
                    Pairs::Interleaved => (2 * pair, 2 * pair + 1),
                };
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                let (a, b) = (head[first], head[second]);
                (head[first], head[second]) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
        heads
    }

    fn attend(&self, layer: usize, rows: &mut [Vec<f64>]) {
        let prefix = format!("model.layers.{layer}.self_attn");
        let (dim, config) = (self.config.head_dim, self.config);
        let shared = config.num_heads / config.num_kv_heads;
        let (mut queries, mut keys, mut values) = (vec![], vec![], vec![]);
        for (position, row) in rows.iter().enumerate() {
            let x = self.norm(&format!("model.layers.{layer}.input_layernorm"), row);
            queries.push(self.rotated(&prefix, "q", &x, position));
            keys.push(self.rotated(&prefix, "k", &x, position));
            values.push(self.linear(&format!("{prefix}.v_proj"), &x));
        }
        for (position, row) in rows.iter_mut().enumerate() {
            let window = config.sliding_windows[layer].unwrap_or(usize::MAX);
            let first = (position + 1).saturating_sub(window);
            let mut mixed = vec![0.0; config.num_heads * dim];
            for (head, out) in mixed.chunks_exact_mut(dim).enumerate() {
                let query = &queries[position][head * dim..][..dim];
                let kv = head / shared * dim;
                let score = |key: &Vec<f64>| {
                    let dot: f64 = query.iter().zip(&key[kv..]).map(|(q, k)| q * k).sum();
                    dot / (dim as f64).sqrt()
                };
                let scores: Vec<f64> = keys[first..=position].iter().map(score).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|score| (score - most).exp()).sum();
                for (score, value) in scores.iter().zip(&values[first..]) {
                    let share = (score - most).exp() / total;
                    for (out, value) in out.iter_mut().zip(&value[kv..]) {
                        *out += share * value;
                    }
                }
            }
            let added = self.linear(&format!("{prefix}.o_proj"), &mixed);
            row.iter_mut().zip(added).for_each(|(x, added)| *x += added);
        }
    }

    fn mlp(&self, layer: usize, row: &mut [f64]) {
        let prefix = format!("model.layers.{layer}");
        let x = self.norm(&format!("{prefix}.post_attention_layernorm"), row);
        let gate = self.linear(&format!("{prefix}.mlp.gate_proj"), &x);
        let up = self.linear(&format!("{prefix}.mlp.up_proj"), &x);
        let inner: Vec<f64> = gate
            .iter()
            .zip(up)
            .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
            .collect();
        let added = self.linear(&format!("{prefix}.mlp.down_proj"), &inner);
        row.iter_mut().zip(added).for_each(|(x, added)| *x += added);
    }
}

fn inverse_frequencies(config: &ModelConfig, weights: &OracleWeights) -> Vec<f64> {
    let dim = config.head_dim;
    (0..dim / 2)
        .map(|pair| {
            let plain = config.rope.theta.powf(-((2 * pair) as f64) / dim as f64);
            let divisor = weights
                .rope_divisors
                .as_ref()
                .map_or(1.0, |divisors| divisors[pair]);
            plain * llama3_or_linear(&config.rope.scaling, plain) / divisor
        })
        .collect()
}

/// What a frequency is multiplied by.
pub fn llama3_or_linear(scaling: &RopeScaling, frequency: f64) -> f64 {
    match *scaling {
        RopeScaling::Default => 1.0,
        RopeScaling::Linear { factor } => 1.0 / factor,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: original,
        } => {
            // How many times the original context holds the wavelength decides; the ramp is
            // linear in it.
            let turns = original as f64 * frequency / (2.0 * std::f64::consts::PI);
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            kept + (1.0 - kept) / factor
        }
    }
}
