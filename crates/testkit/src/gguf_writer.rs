//! GGUF files in memory, for tests that need a good file and then many damaged ones; and weights
//! as a converter would write them, written down apart from the product's own converter so that
//! the two can be held against each other.

use crate::fixtures::{Values, read_weights};
use crate::oracle::{OracleWeights, Pairs, llama3_or_linear};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use indexmap::IndexMap;
use model::{Architecture, GgufArray, GgufHead, GgufValue, ModelConfig, RopeScaling};
use std::collections::BTreeMap;

/// A GGUF file in the making.
#[derive(Debug, Default, Clone)]
pub struct GgufWriter {
    head: GgufHead,
    data: IndexMap<String, (Vec<usize>, u32, Vec<u8>)>,
}

impl GgufWriter {
    fn set(&mut self, key: &str, value: GgufValue) -> &mut Self {
        self.head.set(key, value);
        self
    }

    /// Sets a 32-bit unsigned integer.
    pub fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.set(key, GgufValue::U32(value))
    }

    /// Sets a float.
    pub fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.set(key, GgufValue::F32(value))
    }

    /// Sets a string.
    pub fn string(&mut self, key: &str, value: &str) -> &mut Self {
        self.set(key, GgufValue::String(value.into()))
    }

    /// Sets an array of strings.
    pub fn strings(&mut self, key: &str, values: &[&str]) -> &mut Self {
        let items = values.iter().map(|value| (*value).to_owned()).collect();
        self.set(key, GgufValue::Array(GgufArray::Strings(items)))
    }

    /// Sets an array of 32-bit signed integers.
    pub fn integers(&mut self, key: &str, values: &[i32]) -> &mut Self {
        let items = values.iter().map(|value| i64::from(*value)).collect();
        self.set(key, GgufValue::Array(GgufArray::Integers(items)))
    }

    /// Sets an array of floats.
    pub fn floats(&mut self, key: &str, values: &[f32]) -> &mut Self {
        let items = values.iter().map(|value| f64::from(*value)).collect();
        self.set(key, GgufValue::Array(GgufArray::Floats(items)))
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.head.remove(key);
        self
    }

    /// Adds a tensor: shape slowest axis first, `dtype` as ggml numbers it.
    pub fn tensor(&mut self, name: &str, shape: &[usize], dtype: u32, bytes: Vec<u8>) -> &mut Self {
        self.data.insert(name.into(), (shape.into(), dtype, bytes));
        self
    }

    /// Removes a tensor.
    pub fn remove_tensor(&mut self, name: &str) -> &mut Self {
        self.data.shift_remove(name);
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = self.head.clone();
        for (name, (shape, dtype, bytes)) in &self.data {
            head.tensor(&**name, shape, *dtype, bytes.len());
        }
        let mut file = head.encode();
        for (.., bytes) in self.data.values() {
            file.extend(bytes);
            file.resize(file.len() + GgufHead::padding_after(bytes.len()), 0);
        }
        file
    }
}

/// A model as a converter would write it, and what an oracle must be given to compute the same.
#[derive(Debug)]
pub struct GgufTwin {
    /// The file.
    pub writer: GgufWriter,
    /// The values that are in the file after quantisation, in the file's order of rows.
    pub weights: OracleWeights,
}

/// Writes `weights` (names of transformers) as a GGUF whose matrices are stored as `dtype`.
/// Norms and biases stay f32; for the llama architecture the rows of q and k are reordered and
/// `llama3` scaling becomes `rope_freqs.weight`.
pub fn gguf_twin(
    config: &ModelConfig,
    weights: &BTreeMap<String, Values>,
    dtype: GgmlDType,
) -> GgufTwin {
    let llama = matches!(
        config.architecture,
        Architecture::Llama | Architecture::Mistral
    );
    let mut twin = GgufTwin {
        writer: metadata(config),
        weights: OracleWeights::default(),
    };
    if llama {
        twin.weights.pairs = Pairs::Interleaved;
    }
    for (name, Values { shape, values }) in weights {
        let heads = if name.contains("q_proj") {
            config.num_heads
        } else if name.contains("k_proj") {
            config.num_kv_heads
        } else {
            0
        };
        let values: Vec<f32> = match llama && heads > 0 {
            true => reorder(values, heads, config.head_dim),
            false => values.iter().map(|value| *value as f32).collect(),
        };
        let dtype = if shape.len() == 2 {
            dtype
        } else {
            GgmlDType::F32
        };
        let packed = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)
            .and_then(|values| QTensor::quantize(&values, dtype))
            .expect("a matrix of whole blocks");
        let bytes = packed.data().expect("on the CPU").into_owned();
        twin.writer
            .tensor(&gguf_name(name), shape, ggml_id(dtype), bytes);
        let restored: Vec<f32> = packed
            .dequantize(&Device::Cpu)
            .and_then(|values| values.flatten_all()?.to_vec1())
            .expect("on the CPU");
        twin.weights
            .tensors
            .insert(name.clone(), restored.into_iter().map(f64::from).collect());
    }
    if let scaling @ RopeScaling::Llama3 { .. } = &config.rope.scaling {
        let divisor = |pair: usize| {
            let exponent = -((2 * pair) as f64) / config.head_dim as f64;
            (1.0 / llama3_or_linear(scaling, config.rope.theta.powf(exponent))) as f32
        };
        let divisors: Vec<f32> = (0..config.head_dim / 2).map(divisor).collect();
        let bytes = divisors
            .iter()
            .flat_map(|divisor| divisor.to_le_bytes())
            .collect();
        twin.writer
            .tensor("rope_freqs.weight", &[divisors.len()], 0, bytes);
        twin.weights.rope_divisors = Some(divisors.into_iter().map(f64::from).collect());
    }
    twin
}

/// The twin of a fixture.
pub fn fixture_twin(name: &str, config: &ModelConfig, dtype: GgmlDType) -> GgufTwin {
    gguf_twin(config, &read_weights(&crate::fixtures::folder(name)), dtype)
}

/// Row (head, half j, pair i) goes to (head, pair i, j); works for biases too.
fn reorder(values: &[f64], heads: usize, head_dim: usize) -> Vec<f32> {
    let width = values.len() / (heads * head_dim);
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for row in 0..head_dim {
            let (pair, half) = (row / 2, row % 2);
            let from = head * head_dim + half * head_dim / 2 + pair;
            out.extend(
                values[from * width..][..width]
                    .iter()
                    .map(|value| *value as f32),
            );
        }
    }
    out
}

fn metadata(config: &ModelConfig) -> GgufWriter {
    let arch = match config.architecture {
        Architecture::Llama | Architecture::Mistral => "llama",
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
    };
    let mut writer = GgufWriter::default();
    writer.string("general.architecture", arch);
    for (key, value) in [
        ("block_count", config.num_layers),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_heads),
        ("attention.head_count_kv", config.num_kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
        ("vocab_size", config.vocab_size),
    ] {
        writer.u32(&format!("{arch}.{key}"), value as u32);
    }
    if let Some(window) = config.sliding_windows[0] {
        writer.u32(&format!("{arch}.attention.sliding_window"), window as u32);
    }
    writer.f32(
        &format!("{arch}.attention.layer_norm_rms_epsilon"),
        config.rms_norm_eps,
    );
    writer.f32(&format!("{arch}.rope.freq_base"), config.rope.theta as f32);
    if let RopeScaling::Linear { factor } = config.rope.scaling {
        writer.string(&format!("{arch}.rope.scaling.type"), "linear");
        writer.f32(&format!("{arch}.rope.scaling.factor"), factor as f32);
    }
    if let Some(bos) = config.bos_token_id {
        writer.u32("tokenizer.ggml.bos_token_id", bos);
    }
    if let Some(eos) = config.eos_token_ids.first() {
        writer.u32("tokenizer.ggml.eos_token_id", *eos);
    }
    writer
}

fn gguf_name(name: &str) -> String {
    const PARTS: [(&str, &str); 15] = [
        ("model.embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("model.norm", "output_norm"),
        ("model.layers.", "blk."),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ];
    PARTS
        .iter()
        .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

fn ggml_id(dtype: GgmlDType) -> u32 {
    match dtype {
        GgmlDType::F32 => 0,
        GgmlDType::F16 => 1,
        GgmlDType::Q4_0 => 2,
        GgmlDType::Q4_1 => 3,
        GgmlDType::Q5_0 => 6,
        GgmlDType::Q5_1 => 7,
        GgmlDType::Q8_0 => 8,
        GgmlDType::Q8_1 => 9,
        GgmlDType::Q2K => 10,
        GgmlDType::Q3K => 11,
        GgmlDType::Q4K => 12,
        GgmlDType::Q5K => 13,
        GgmlDType::Q6K => 14,
        GgmlDType::Q8K => 15,
        GgmlDType::BF16 => 30,
    }
}
