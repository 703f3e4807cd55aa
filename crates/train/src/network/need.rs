//! What training takes of a device's memory, by arithmetic.

use super::head::logit_rows;
use super::{PassOptions, Recompute};
use model::{ModelConfig, Projection};

/// Bytes of f32.
const FLOAT: u64 = 4;
/// Bytes of bf16.
const HALF: u64 = 2;
/// Bytes of an encoded matrix that exist unpacked at a time.
pub(super) const UNPACKED_BYTES: usize = 64 << 20;

/// Bytes of a device that training needs beside the frozen weights, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNeed {
    /// What is kept of every layer on the way up.
    pub kept: u64,
    /// One layer on its way down.
    pub layer: u64,
    /// The logits that exist at a time, and the rows they come from.
    pub logits: u64,
    /// What is trained, and its gradients.
    pub trained: u64,
    /// A frozen matrix as it is multiplied with, where it is encoded.
    pub unpacked: u64,
}

impl DeviceNeed {
    /// For packs of `tokens` tokens, all of them targets, with `parameters` trained numbers.
    pub fn new(
        config: &ModelConfig,
        (parameters, tokens): (usize, usize),
        options: &PassOptions,
    ) -> Self {
        let [hidden, inner, q, kv, vocab, layers, tokens] = [
            config.hidden_size,
            config.intermediate_size,
            config.q_size(),
            config.kv_size(),
            config.vocab_size,
            config.num_layers,
            tokens,
        ]
        .map(|size| size as u64);
        // In f32, with the bf16 copies that products are given of normed, mixed, middle and inner.
        let raw = if config.qk_norm { q + kv } else { 0 };
        let attention = 3 * hidden / 2 + raw + q + 2 * kv + 3 * q / 2 + config.num_heads as u64;
        let mlp = hidden + 3 * hidden / 2 + 2 * inner + 3 * inner / 2;
        // Of inner, gate and up while gate and up are there, and of the output.
        let gradients = 3 * inner + 3 * hidden / 2;
        let inputs = hidden * (layers + 1);
        let (kept, layer) = match options.recompute {
            Recompute::Layers => (inputs, attention + mlp - 3 * inner / 2 + gradients),
            Recompute::Nothing => (inputs + (attention + mlp) * layers, gradients),
        };
        let rows = (logit_rows(options, config.vocab_size) as u64).min(tokens);
        let logits = rows * vocab * (FLOAT + HALF) + 6 * FLOAT * tokens * hidden;
        let widest = Projection::ALL.map(|projection| {
            let (out, input) = projection.shape(config);
            out * input
        });
        let widest = widest.into_iter().max().unwrap_or(0);
        let widest = widest.max(config.vocab_size * config.hidden_size) as u64;
        Self {
            kept: FLOAT * tokens * kept,
            layer: FLOAT * tokens * layer,
            logits,
            trained: 2 * FLOAT * parameters as u64,
            unpacked: (HALF * widest).min(UNPACKED_BYTES as u64),
        }
    }

    /// All of it: the logits are gone when the first layer goes down.
    pub fn total(&self) -> u64 {
        self.kept + self.layer.max(self.logits) + self.trained + self.unpacked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_8b_model_with_an_adapter_of_rank_16_fits_24_gb() {
        let config = model::shape("llama-3.1-8b").unwrap().unwrap();
        let per_layer = Projection::ALL.map(|projection| {
            let (out, input) = projection.shape(&config);
            (out * input, 16 * (out + input))
        });
        let sum = |of: fn(&(usize, usize)) -> usize| per_layer.iter().map(of).sum::<usize>();
        let tables = 2 * config.vocab_size * config.hidden_size;
        let weights = 2 * (config.num_layers * sum(|one| one.0) + tables) as u64;
        let adapters = config.num_layers * sum(|one| one.1);
        assert_eq!(adapters, 41_943_040);
        let need = DeviceNeed::new(&config, (adapters, 2048), &PassOptions::default());
        // Inputs of 32 layers and of the norm above them: 2,048 x 4,096 floats each.
        assert_eq!(need.kept, 33 * 2048 * 4096 * 4);
        assert_eq!(need.trained, 2 * 41_943_040 * 4);
        assert!(need.layer < 1_000_000_000, "{need:?}");
        assert!(need.logits < 400_000_000, "{need:?}");
        let all = weights + need.total();
        assert!(weights > 16_000_000_000, "{weights}");
        // The driver and cuBLAS take less than a gigabyte.
        assert!(all + 1_000_000_000 < 24_000_000_000, "{all}: {need:?}");
    }

    #[test]
    fn what_is_lowered_lowers_the_need() {
        let config = model::shape("llama-3.1-8b").unwrap().unwrap();
        let of = |tokens, options: PassOptions| {
            DeviceNeed::new(&config, (1 << 20, tokens), &options).total()
        };
        let base = of(2048, PassOptions::default());
        assert!(of(1024, PassOptions::default()) < base * 6 / 10);
        let kept = PassOptions {
            recompute: Recompute::Nothing,
            ..Default::default()
        };
        assert!(of(2048, kept) > 10 * base);
        let wide = PassOptions {
            logit_rows: Some(2048),
            ..Default::default()
        };
        assert!(of(2048, wide) > base);
    }
}
