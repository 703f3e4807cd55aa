//! Random weights for a config, drawn here so that no file need be kept.

use crate::fixtures::Values;
use model::ModelConfig;
use std::collections::BTreeMap;

/// Every tensor of the model under the names of transformers: matrices with a spread of
/// 0.8 / sqrt(inputs), norms around 1, biases around 0. The same seed gives the same values.
pub fn random_weights(config: &ModelConfig, seed: u64) -> BTreeMap<String, Values> {
    let mut state = seed;
    let mut tensors = BTreeMap::new();
    for (name, shape) in shapes(config) {
        let (centre, spread) = match shape[..] {
            [_] if name.ends_with(".bias") => (0.0, 0.5),
            [_] => (1.0, 0.3),
            _ if name.contains("embed_tokens") => (0.0, 0.3),
            _ => (0.0, 0.8 / (shape[1] as f64).sqrt()),
        };
        let count = shape.iter().product();
        let draw = |_| f64::from((centre + spread * normal(&mut state)) as f32);
        let values = (0..count).map(draw).collect();
        tensors.insert(name, Values { shape, values });
    }
    tensors
}

/// Name and shape of every tensor, in a fixed order.
fn shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (hidden, inner, vocab) = (
        config.hidden_size,
        config.intermediate_size,
        config.vocab_size,
    );
    let (q, kv, head) = (config.q_size(), config.kv_size(), config.head_dim);
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    if !config.tie_word_embeddings {
        shapes.push(("lm_head.weight".to_owned(), vec![vocab, hidden]));
    }
    for layer in 0..config.num_layers {
        let mut add = |part: &str, shape: &[usize]| {
            shapes.push((format!("model.layers.{layer}.{part}"), shape.to_vec()));
        };
        add("input_layernorm.weight", &[hidden]);
        add("post_attention_layernorm.weight", &[hidden]);
        if config.qk_norm {
            add("self_attn.q_norm.weight", &[head]);
            add("self_attn.k_norm.weight", &[head]);
        }
        for (module, out, input, bias) in [
            ("self_attn.q_proj", q, hidden, config.qkv_bias),
            ("self_attn.k_proj", kv, hidden, config.qkv_bias),
            ("self_attn.v_proj", kv, hidden, config.qkv_bias),
            ("self_attn.o_proj", hidden, q, config.o_bias),
            ("mlp.gate_proj", inner, hidden, config.mlp_bias),
            ("mlp.up_proj", inner, hidden, config.mlp_bias),
            ("mlp.down_proj", hidden, inner, config.mlp_bias),
        ] {
            add(&format!("{module}.weight"), &[out, input]);
            if bias {
                add(&format!("{module}.bias"), &[out]);
            }
        }
    }
    shapes
}

/// Uniform in (0, 1): SplitMix64 (Steele, Lea, Flood 2014).
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    ((z >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

/// Standard normal (Box and Muller 1958).
fn normal(state: &mut u64) -> f64 {
    let (a, b) = (uniform(state), uniform(state));
    (-2.0 * a.ln()).sqrt() * (2.0 * std::f64::consts::PI * b).cos()
}
