//! The smallest whole models: a few hundred bytes of weights, with vocabulary and template, so
//! that a test can damage each of their bytes in turn and a fuzzer starts from something good.

use crate::gguf_writer::{GgufWriter, gguf_twin};
use crate::random_model::random_weights;
use candle_core::quantized::GgmlDType;
use model::ModelConfig;
use safetensors::{Dtype, tensor::TensorView};

/// `config.json` of these models: H = 4, F = 4, D = 2, one layer, 12 tokens.
pub const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
 "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
 "num_key_value_heads": 1, "head_dim": 2, "vocab_size": 12, "max_position_embeddings": 8,
 "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
 "bos_token_id": 1, "eos_token_id": 2}"#;

/// A template with a loop, a condition and a filter.
pub const TEMPLATE: &str =
    "{% for m in messages %}{% if m.role %}<s>{{ m.content | trim }}</s>{% endif %}{% endfor %}";

const TOKENS: [&str; 12] = [
    "<unk>",
    "<s>",
    "</s>",
    "\u{2581}",
    "a",
    "b",
    "c",
    "\u{2581}a",
    "ab",
    "abc",
    "<0x0A>",
    "\u{120}",
];
/// ggml's token types: unknown, control, normal, byte.
const TYPES: [i32; 12] = [2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 6, 1];

/// What kind of vocabulary a tiny GGUF carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vocabulary {
    /// Byte-level BPE (`gpt2`).
    BytePairs,
    /// SentencePiece (`llama`).
    SentencePiece,
}

/// The configuration of these models.
pub fn config() -> ModelConfig {
    ModelConfig::from_hf_json("config.json".as_ref(), CONFIG).expect("a good config")
}

/// A whole GGUF model of less than 4 kB.
pub fn gguf(vocabulary: Vocabulary) -> GgufWriter {
    let config = config();
    let mut writer = gguf_twin(&config, &random_weights(&config, 1), GgmlDType::F32).writer;
    writer
        .strings("tokenizer.ggml.tokens", &TOKENS)
        .integers("tokenizer.ggml.token_type", &TYPES)
        .string("tokenizer.chat_template", TEMPLATE);
    match vocabulary {
        Vocabulary::BytePairs => writer
            .string("tokenizer.ggml.model", "gpt2")
            .string("tokenizer.ggml.pre", "llama-bpe")
            .strings("tokenizer.ggml.merges", &["a b", "ab c"]),
        Vocabulary::SentencePiece => writer
            .string("tokenizer.ggml.model", "llama")
            .floats("tokenizer.ggml.scores", &[0.0; TOKENS.len()]),
    };
    writer
}

/// The `model.safetensors` that belongs to [`CONFIG`].
pub fn safetensors() -> Vec<u8> {
    let weights = random_weights(&config(), 1);
    let bytes: Vec<_> = weights
        .iter()
        .map(|(name, tensor)| {
            let data: Vec<u8> = tensor
                .values
                .iter()
                .flat_map(|value| (*value as f32).to_le_bytes())
                .collect();
            (name, &tensor.shape, data)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), data);
        (name, view.expect("as long as its shape says"))
    });
    safetensors::serialize(views, None).expect("tensors of one type")
}
