//! Random weights for a config, drawn here so that no file need be kept.

use crate::fixtures::Values;
use model::ModelConfig;
use std::collections::BTreeMap;

/// Every tensor of the model under the names of transformers: matrices with a spread of
/// 0.8 / sqrt(inputs), norms around 1, biases around 0. The same seed gives the same values.
pub fn random_weights(config: &ModelConfig, seed: u64) -> BTreeMap<String, Values> {
    let mut state = seed;
    let mut tensors = BTreeMap::new();
    let mut add = |name: String, shape: &[usize], centre: f64, spread: f64| {
        let count = shape.iter().product();
        let values = (0..count).map(|_| f64::from((centre + spread * normal(&mut state)) as f32));
        tensors.insert(
            name,
            Values {
                shape: shape.to_vec(),
                values: values.collect(),
            },
        );
    };
    let (hidden, inner, vocab) = (
        config.hidden_size,
        config.intermediate_size,
        config.vocab_size,
    );
    add(
        "model.embed_tokens.weight".into(),
        &[vocab, hidden],
        0.0,
        0.3,
    );
    add("model.norm.weight".into(), &[hidden], 1.0, 0.3);
    if !config.tie_word_embeddings {
        add(
            "lm_head.weight".into(),
            &[vocab, hidden],
            0.0,
            0.8 / (hidden as f64).sqrt(),
        );
    }
    for layer in 0..config.num_layers {
        let prefix = format!("model.layers.{layer}");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            add(format!("{prefix}.{norm}.weight"), &[hidden], 1.0, 0.3);
        }
        if config.qk_norm {
            for norm in ["q_norm", "k_norm"] {
                let name = format!("{prefix}.self_attn.{norm}.weight");
                add(name, &[config.head_dim], 1.0, 0.3);
            }
        }
        for (module, out, input, bias) in [
            ("self_attn.q_proj", config.q_size(), hidden, config.qkv_bias),
            (
                "self_attn.k_proj",
                config.kv_size(),
                hidden,
                config.qkv_bias,
            ),
            (
                "self_attn.v_proj",
                config.kv_size(),
                hidden,
                config.qkv_bias,
            ),
            ("self_attn.o_proj", hidden, config.q_size(), config.o_bias),
            ("mlp.gate_proj", inner, hidden, config.mlp_bias),
            ("mlp.up_proj", inner, hidden, config.mlp_bias),
            ("mlp.down_proj", hidden, inner, config.mlp_bias),
        ] {
            let spread = 0.8 / (input as f64).sqrt();
            add(
                format!("{prefix}.{module}.weight"),
                &[out, input],
                0.0,
                spread,
            );
            if bias {
                add(format!("{prefix}.{module}.bias"), &[out], 0.0, 0.5);
            }
        }
    }
    tensors
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
