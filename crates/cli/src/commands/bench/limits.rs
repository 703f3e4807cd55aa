//! What the machine could do at best, measured in the same run, and what work comes to.

use crate::config::Config;
use crate::cuda;
use crate::devices::Devices;
use crate::error::Failure;
use crate::footprint;
use crate::machine;
use crate::session::{self, Session};
use anyhow::Result;
use model::ModelConfig;
use serde::Serialize;

/// Speeds of the memory and of products, all devices together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Limits {
    /// On the processor what all threads read; on a GPU what a copy reads and writes.
    pub(crate) bytes_per_s: f64,
    /// A large product, in the weights' format on the processor and in bf16 on a GPU.
    pub(crate) flops: f64,
}

impl Limits {
    /// Measures the configured devices.
    ///
    /// # Errors
    /// A device that cannot be used.
    pub(crate) fn measure(config: &Config, threads: usize) -> Result<Self> {
        match Devices::of(config)? {
            Devices::Cpu { .. } => Ok(Self {
                bytes_per_s: machine::read_bandwidth(threads),
                flops: model::product_flops(session::load_as(config))?,
            }),
            Devices::Cuda(numbers) => {
                let mut all = Self {
                    bytes_per_s: 0.0,
                    flops: 0.0,
                };
                for number in numbers {
                    let one = cuda::measure(number)?;
                    all.bytes_per_s += one.copy_bytes_per_s;
                    all.flops += one.matmul_flops;
                }
                Ok(all)
            }
            Devices::Metal => Err(Failure::usage(
                "--device metal: nothing measures what Metal could do at best, so far",
            )),
        }
    }
}

/// What computing tokens of a model costs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// Weights that a step reads.
    pub(super) weight_bytes: f64,
    pub(super) kv_bytes_per_token: f64,
    /// Weights that a token of a prompt is multiplied with.
    body_weights: f64,
    /// Weights that a token whose successor is drawn is multiplied with beside them.
    head_weights: f64,
    /// Operations per pair of positions: q with k, and the share of v.
    attention_flops: f64,
}

impl Work {
    pub(super) fn of(model: &ModelConfig, session: &Session) -> Self {
        let (all, vocabulary) = footprint::num_weights(model);
        Self {
            weight_bytes: session.weights.streamed_bytes as f64,
            kv_bytes_per_token: session.kv_bytes_per_token as f64,
            body_weights: (all - vocabulary) as f64,
            head_weights: (model.vocab_size * model.hidden_size) as f64,
            attention_flops: (4 * model.q_size() * model.num_layers) as f64,
        }
    }

    /// Seconds at best for prompts of `tokens` tokens each, their last token's logits included.
    pub(super) fn prefill_seconds(&self, prompts: usize, tokens: usize, limits: Limits) -> f64 {
        let pairs = tokens as f64 * (tokens as f64 + 1.0) / 2.0;
        let flops = 2.0 * (tokens as f64 * self.body_weights + self.head_weights)
            + pairs * self.attention_flops;
        prompts as f64 * flops / limits.flops
    }

    /// Seconds at best for a step that decodes `rows` rows in a context of `context` tokens
    /// each: what memory allows, or products if they take longer.
    pub(super) fn decode_seconds(&self, rows: usize, context: usize, limits: Limits) -> f64 {
        let bytes = self.weight_bytes + (rows * context) as f64 * self.kv_bytes_per_token;
        let flops = rows as f64
            * (2.0 * (self.body_weights + self.head_weights)
                + context as f64 * self.attention_flops);
        (bytes / limits.bytes_per_s).max(flops / limits.flops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arithmetic of an 8B in bf16 on a card of 3.35 TB/s and 989 Tflop/s, against numbers
    /// worked out by hand.
    #[test]
    fn an_8b_on_a_known_card() {
        let work = Work {
            weight_bytes: 15.009_316_864e9,
            kv_bytes_per_token: 131_072.0,
            body_weights: 6_979_321_856.0,
            head_weights: 525_336_576.0,
            attention_flops: (4 * 4096 * 32) as f64,
        };
        let card = Limits {
            bytes_per_s: 3.35e12,
            flops: 989e12,
        };
        for (rows, expected) in [(1, 221.3), (64, 9085.0), (256, 17_371.0)] {
            let rate = rows as f64 / work.decode_seconds(rows, 1024, card);
            assert!((rate / expected - 1.0).abs() < 2e-3, "{rows}: {rate}");
        }
        let rate = 1000.0 / work.prefill_seconds(1, 1000, card);
        assert!((rate / 69_300.0 - 1.0).abs() < 2e-2, "{rate}");
        // Arithmetic takes over where rows are many and contexts short.
        let many = work.decode_seconds(4096, 1, card);
        assert!(many > 1.3 * work.weight_bytes / card.bytes_per_s);
    }
}
