//! Sizes of well-known models, so that speed and memory can be measured where there are no
//! weights: [`crate::ModelFiles::random`] fills them.

use crate::{ModelConfig, ModelError};

/// Names of the shapes, smallest first.
pub const SHAPES: [&str; 10] = [
    "tiny",
    "smollm2-135m",
    "qwen2.5-0.5b",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "qwen3-4b",
    "mistral-7b-v0.3",
    "qwen2.5-7b",
    "llama-3.1-8b",
    "qwen3-8b",
];

/// The config of the model of this name; `None` for a name that is not in [`SHAPES`].
///
/// # Errors
/// None for the names above: a test reads all of them.
pub fn shape(name: &str) -> Option<Result<ModelConfig, ModelError>> {
    let fields = fields(name)?;
    let path = format!("<shape {name}>");
    Some(ModelConfig::from_hf_json(
        path.as_ref(),
        &fields.to_string(),
    ))
}

/// `config.json` as the model's makers publish it, as far as it says what is computed.
fn fields(name: &str) -> Option<serde_json::Value> {
    let sizes = |sizes: [usize; 7]| {
        let [hidden, inner, layers, heads, kv_heads, head, vocab] = sizes;
        serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head,
            "vocab_size": vocab, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        })
    };
    let llama3 = |factor: f64| {
        serde_json::json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        })
    };
    let (sizes, changes) = match name {
        "tiny" => (
            sizes([256, 512, 2, 8, 2, 32, 2048]),
            serde_json::json!({ "max_position_embeddings": 2048 }),
        ),
        "smollm2-135m" => (
            sizes([576, 1536, 30, 9, 3, 64, 49_152]),
            serde_json::json!({ "max_position_embeddings": 8192, "rope_theta": 100_000.0 }),
        ),
        "qwen2.5-0.5b" => (sizes([896, 4864, 24, 14, 2, 64, 151_936]), qwen2(true)),
        "llama-3.2-1b" => (
            sizes([2048, 8192, 16, 32, 8, 64, 128_256]),
            serde_json::json!({ "rope_scaling": llama3(32.0) }),
        ),
        "llama-3.2-3b" => (
            sizes([3072, 8192, 28, 24, 8, 128, 128_256]),
            serde_json::json!({ "rope_scaling": llama3(32.0) }),
        ),
        "qwen3-4b" => (sizes([2560, 9728, 36, 32, 8, 128, 151_936]), qwen3(true)),
        "mistral-7b-v0.3" => (
            sizes([4096, 14_336, 32, 32, 8, 128, 32_768]),
            serde_json::json!({
                "architectures": ["MistralForCausalLM"], "model_type": "mistral",
                "max_position_embeddings": 32_768, "rope_theta": 1e6,
                "tie_word_embeddings": false,
            }),
        ),
        "qwen2.5-7b" => (sizes([3584, 18_944, 28, 28, 4, 128, 152_064]), qwen2(false)),
        "llama-3.1-8b" => (
            sizes([4096, 14_336, 32, 32, 8, 128, 128_256]),
            serde_json::json!({ "rope_scaling": llama3(8.0), "tie_word_embeddings": false }),
        ),
        "qwen3-8b" => (sizes([4096, 12_288, 36, 32, 8, 128, 151_936]), qwen3(false)),
        _ => return None,
    };
    let mut fields = sizes;
    for (field, value) in changes.as_object()? {
        fields[field] = value.clone();
    }
    Some(fields)
}

fn qwen2(is_tied: bool) -> serde_json::Value {
    serde_json::json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rope_theta": 1e6,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 32_768, "tie_word_embeddings": is_tied,
    })
}

fn qwen3(is_tied: bool) -> serde_json::Value {
    serde_json::json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "rope_theta": 1e6,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 40_960, "tie_word_embeddings": is_tied,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CausalLm, ForwardBatch, KvPool, KvType, LoadAs, LoadOptions, ModelFiles};
    use kernels::SequenceSpan;

    /// Weights in matrices, norms and biases.
    fn parameters(config: &ModelConfig) -> usize {
        let hidden = config.hidden_size;
        let attention = 2 * hidden * (config.q_size() + config.kv_size());
        let norms = 2 * hidden
            + if config.qk_norm {
                2 * config.head_dim
            } else {
                0
            };
        let biases = match config.qkv_bias {
            true => config.q_size() + 2 * config.kv_size(),
            false => 0,
        };
        let layer = attention + 3 * hidden * config.intermediate_size + norms + biases;
        let tables = if config.tie_word_embeddings { 1 } else { 2 };
        layer * config.num_layers + tables * hidden * config.vocab_size + hidden
    }

    #[test]
    fn published_numbers_of_parameters() {
        let known = [
            ("smollm2-135m", 134_515_008),
            ("qwen2.5-0.5b", 494_032_768),
            ("llama-3.2-1b", 1_235_814_400),
            ("llama-3.2-3b", 3_212_749_824),
            ("qwen3-4b", 4_022_468_096),
            ("mistral-7b-v0.3", 7_248_023_552),
            ("qwen2.5-7b", 7_615_616_512),
            ("llama-3.1-8b", 8_030_261_248),
            ("qwen3-8b", 8_190_735_360),
        ];
        for (name, expected) in known {
            let config = shape(name).unwrap().unwrap();
            assert_eq!(parameters(&config), expected, "{name}");
        }
        for name in SHAPES {
            shape(name).unwrap().unwrap();
        }
        assert!(shape("llama-9b").is_none());
    }

    #[test]
    fn the_cache_of_an_8b() {
        let config = shape("llama-3.1-8b").unwrap().unwrap();
        assert_eq!(KvPool::bytes_per_token(&config, KvType::F16), 131_072);
    }

    #[test]
    fn random_weights_compute_in_every_format() {
        let config = shape("tiny").unwrap().unwrap();
        for weights in [LoadAs::Stored, LoadAs::F32, LoadAs::Q8_0, LoadAs::Q4K] {
            let options = LoadOptions {
                weights,
                max_positions: Some(64),
            };
            let model = ModelFiles::random("tiny", config.clone())
                .load(&options)
                .unwrap();
            let pool = KvPool::new(model.config(), 1, 16, KvType::F32).unwrap();
            let batch = ForwardBatch {
                tokens: vec![1, 2, 3],
                positions: vec![0, 1, 2],
                slots: vec![0, 1, 2],
                spans: vec![SequenceSpan {
                    query: 0..3,
                    context_len: 3,
                    blocks: vec![0],
                }],
                adapters: vec![],
                logit_rows: vec![0, 2],
                drawn: vec![],
            };
            let logits = model.forward(&batch, &pool).unwrap();
            let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let spread = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>() / row.len() as f32;
            for row in logits.chunks(config.vocab_size) {
                assert!(spread(row) > 1e-6 && spread(row) < 1e3, "{weights:?}");
            }
            assert_ne!(logits[..2048], logits[2048..], "{weights:?}");
        }
    }
}
