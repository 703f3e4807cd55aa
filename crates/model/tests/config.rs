//! Configs as the published models have them, and those that are refused.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use model::{Architecture, FloatType, GgufFile, ModelConfig, RopeScaling};
use serde_json::{Value, json};
use std::path::Path;
use testkit::fixtures::{self, MODELS};
use testkit::gguf_writer::fixture_twin;

fn read(value: &Value) -> Result<ModelConfig, String> {
    ModelConfig::from_hf_json(Path::new("config.json"), &value.to_string())
        .map_err(|error| error.to_string())
}

fn llama_3_1_8b() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 128_000, "eos_token_id": [128_001, 128_008, 128_009], "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 131_072, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "pretraining_tp": 1, "rms_norm_eps": 1e-5, "rope_scaling": {"factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        "rope_type": "llama3"}, "rope_theta": 500_000.0, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.43.0.dev0", "use_cache": true,
        "vocab_size": 128_256
    })
}

fn qwen2_5_7b() -> Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151_643,
        "eos_token_id": 151_645, "hidden_act": "silu", "hidden_size": 3584,
        "initializer_range": 0.02, "intermediate_size": 18944, "max_position_embeddings": 32768,
        "max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 28,
        "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0, "sliding_window": 131_072, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.43.1", "use_cache": true,
        "use_sliding_window": false, "vocab_size": 152_064
    })
}

fn with(mut base: Value, changes: &Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

#[test]
fn published_models() {
    let config = read(&llama_3_1_8b()).unwrap();
    assert_eq!(config.architecture, Architecture::Llama);
    assert_eq!(
        (config.head_dim, config.q_size(), config.kv_size()),
        (128, 4096, 1024)
    );
    assert_eq!(config.eos_token_ids, [128_001, 128_008, 128_009]);
    assert_eq!(config.bos_token_id, Some(128_000));
    assert_eq!(config.dtype, Some(FloatType::Bf16));
    assert!(matches!(
        config.rope.scaling,
        RopeScaling::Llama3 { factor: 8.0, .. }
    ));

    let config = read(&qwen2_5_7b()).unwrap();
    assert!(config.qkv_bias && !config.o_bias && !config.qk_norm);
    assert!(config.sliding_windows.iter().all(Option::is_none));

    // SmolLM2's config carries a few fields of its makers' tools.
    let smollm = with(
        llama_3_1_8b(),
        &json!({
            "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
            "bos_token_id": 1, "eos_token_id": 2, "is_llama_config": true, "rope_interleaved": false,
            "rope_scaling": null, "tie_word_embeddings": true, "pad_token_id": 2,
            "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
        }),
    );
    assert!(read(&smollm).unwrap().tie_word_embeddings);

    let mistral = with(
        llama_3_1_8b(),
        &json!({
            "architectures": ["MistralForCausalLM"], "sliding_window": 4096, "rope_scaling": null,
            "rope_theta": 10000.0, "vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2,
            "model_type": "mistral"
        }),
    );
    assert_eq!(read(&mistral).unwrap().sliding_windows, [Some(4096); 32]);

    let qwen3 = with(
        qwen2_5_7b(),
        &json!({
            "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "head_dim": 128,
            "hidden_size": 2560, "num_attention_heads": 32, "num_key_value_heads": 8,
            "model_type": "qwen3", "sliding_window": null, "rope_scaling": null
        }),
    );
    let config = read(&qwen3).unwrap();
    assert!(config.qk_norm && !config.qkv_bias);
    assert_eq!((config.q_size(), config.hidden_size), (4096, 2560));
}

#[test]
fn windows_follow_each_familys_rule() {
    let some_layers = with(
        qwen2_5_7b(),
        &json!({"use_sliding_window": true, "max_window_layers": 20}),
    );
    let config = read(&some_layers).unwrap();
    assert_eq!(config.sliding_windows[19..21], [None, Some(131_072)]);
    let layers = json!({"use_sliding_window": true, "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"]});
    let config = read(&with(qwen2_5_7b(), &layers)).unwrap();
    assert_eq!(config.sliding_windows, [Some(131_072), None]);
}

#[test]
fn rope_in_either_layout() {
    let new = |parameters: &Value| {
        with(
            llama_3_1_8b(),
            &json!({"rope_scaling": null, "rope_theta": null, "rope_parameters": parameters}),
        )
    };
    let config = read(&new(
        &json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 3e4}),
    ))
    .unwrap();
    assert_eq!(config.rope.scaling, RopeScaling::Linear { factor: 4.0 });
    assert_eq!(config.rope.theta, 3e4);
    let config = read(&with(
        llama_3_1_8b(),
        &json!({"rope_scaling": {"type": "linear", "factor": 2}}),
    ))
    .unwrap();
    assert_eq!(config.rope.scaling, RopeScaling::Linear { factor: 2.0 });
    let frequencies = config.rope.inverse_frequencies(4, None);
    assert_eq!(frequencies[0], 0.5);
    assert_eq!(
        config.rope.inverse_frequencies(4, Some(&[2.0, 1.0]))[0],
        0.25
    );
}

/// What is changed, and words the message must hold: the field and, mostly, its value.
#[test]
fn what_could_change_the_mathematics_is_refused_by_name() {
    let check = |changes: &Value, words: &[&str]| {
        let error = read(&with(llama_3_1_8b(), changes)).expect_err(&changes.to_string());
        for word in words.iter().chain(&["config.json"]) {
            assert!(error.contains(word), "{error} lacks {word}");
        }
    };
    check(
        &json!({"architectures": ["GemmaForCausalLM"]}),
        &["architectures", "GemmaForCausalLM", "Qwen3ForCausalLM"],
    );
    check(&json!({"architectures": []}), &["architectures"]);
    check(&json!({"architectures": 3}), &["architectures"]);
    check(
        &json!({"hidden_act": "gelu"}),
        &["hidden_act", "gelu", "silu"],
    );
    check(&json!({"pretraining_tp": 2}), &["pretraining_tp"]);
    check(
        &json!({"partial_rotary_factor": 0.5}),
        &["partial_rotary_factor", "0.5"],
    );
    check(&json!({"num_experts": 8}), &["num_experts", "8"]);
    check(
        &json!({"attn_logit_softcapping": 50.0}),
        &["attn_logit_softcapping", "50"],
    );
    check(
        &json!({"quantization_config": {"bits": 4}}),
        &["quantization_config"],
    );
    check(&json!({"auto_map": {"AutoModel": "x.py"}}), &["auto_map"]);
    check(&json!({"a_new_field": "on"}), &["a_new_field", "on"]);
    check(
        &json!({"sliding_window": 4096}),
        &["sliding_window", "4096"],
    );
    check(&json!({"rope_interleaved": true}), &["rope_interleaved"]);
}

#[test]
fn rope_settings_that_are_not_known_are_refused_by_name() {
    let check = |changes: &Value, words: &[&str]| {
        let error = read(&with(llama_3_1_8b(), changes)).expect_err(&changes.to_string());
        for word in words.iter().chain(&["config.json"]) {
            assert!(error.contains(word), "{error} lacks {word}");
        }
    };
    for kind in ["yarn", "dynamic", "longrope", "su"] {
        check(
            &json!({"rope_scaling": {"rope_type": kind, "factor": 4.0}}),
            &["rope_type", kind, "llama3"],
        );
    }
    check(
        &json!({"rope_scaling": {"rope_type": "linear", "factor": 4.0, "beta": 2}}),
        &["rope_scaling.beta"],
    );
    check(
        &json!({"rope_scaling": {"rope_type": "linear"}}),
        &["rope_scaling.factor", "nothing"],
    );
    check(
        &json!({"rope_scaling": {"rope_type": "linear", "type": "yarn", "factor": 2.0}}),
        &["rope_scaling.type"],
    );
    check(
        &json!({"rope_parameters": {"rope_type": "default"}}),
        &["rope_scaling", "rope_parameters"],
    );
    check(
        &json!({"layer_types": ["mamba"]}),
        &["layer_types", "mamba"],
    );
    check(
        &json!({"layer_types": ["full_attention"]}),
        &["layer_types", "32 layers"],
    );
    check(
        &json!({"torch_dtype": "float8_e4m3fn"}),
        &["dtype", "float8_e4m3fn"],
    );
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    let check = |field: &str, value: Value| {
        let error = read(&with(llama_3_1_8b(), &json!({ field: value })));
        let error = error.expect_err(field);
        assert!(error.contains(field), "{error} lacks {field}");
    };
    for field in [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
    ] {
        for value in [
            json!(0),
            json!(-1),
            json!(1.5),
            json!("4"),
            json!(4_000_000_000u32),
            json!(u64::MAX),
        ] {
            check(field, value);
        }
    }
    for field in [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "max_position_embeddings",
    ] {
        check(field, Value::Null);
    }
    check("num_key_value_heads", json!(5));
    check("head_dim", json!(127));
    check("rms_norm_eps", json!(-1.0));
    check("rms_norm_eps", json!(1e30));
    check("rope_theta", json!(0.0));
    check("eos_token_id", json!(128_256));
    check("eos_token_id", json!(["a"]));
    check("bos_token_id", json!(1u64 << 40));
    check("tie_word_embeddings", json!("yes"));
    for (field, value) in [
        ("factor", json!(0.5)),
        ("low_freq_factor", json!(0.0)),
        ("high_freq_factor", json!(1.0)),
        ("original_max_position_embeddings", json!(0)),
    ] {
        let mut config = llama_3_1_8b();
        config["rope_scaling"][field] = value;
        let error = read(&config).unwrap_err();
        assert!(error.contains(field), "{error} lacks {field}");
    }
}

#[test]
fn what_is_no_config_is_refused() {
    for text in [
        "",
        "[]",
        "null",
        "{",
        "{}",
        "7",
        "{\"architectures\": null}",
        "\u{feff}{}",
    ] {
        let error = ModelConfig::from_hf_json(Path::new("c.json"), text)
            .unwrap_err()
            .to_string();
        assert!(error.contains("c.json"), "{error}");
    }
    let deep = "[".repeat(100_000);
    assert!(ModelConfig::from_hf_json(Path::new("c.json"), &deep).is_err());
}

proptest::proptest! {
    /// Whatever is in a field, reading ends in a config or an error.
    #[test]
    fn any_value_in_any_field_is_handled(
        field in 0usize..30, number in proptest::num::f64::ANY, kind in 0u8..6,
    ) {
        let mut config = llama_3_1_8b();
        let names: Vec<String> = config.as_object().unwrap().keys().cloned().collect();
        config[&names[field % names.len()]] = match kind {
            0 => json!(number),
            1 => json!(number as i64),
            2 => json!([number]),
            3 => json!({"rope_type": number.to_string(), "factor": number}),
            4 => json!(number.to_string()),
            _ => json!(number as u64),
        };
        let _ = read(&config);
    }
}

fn twin_config(
    name: &str,
    change: impl Fn(&mut testkit::gguf_writer::GgufWriter),
) -> Result<ModelConfig, String> {
    let path = fixtures::folder(name).join("config.json");
    let config =
        ModelConfig::from_hf_json(&path, &std::fs::read_to_string(&path).unwrap()).unwrap();
    let mut twin = fixture_twin(name, &config, candle_core::quantized::GgmlDType::F32);
    change(&mut twin.writer);
    let file = GgufFile::from_vec(twin.writer.bytes()).unwrap();
    ModelConfig::from_gguf(&file).map_err(|error| error.to_string())
}

#[test]
fn gguf_metadata_says_the_same() {
    for name in MODELS.into_iter().filter(|name| *name != "qwen2_window") {
        let path = fixtures::folder(name).join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut expected = ModelConfig::from_hf_json(&path, &text).unwrap();
        expected.dtype = None;
        expected.eos_token_ids.truncate(1); // the writer's one eos key
        if expected.architecture == Architecture::Mistral {
            expected.architecture = Architecture::Llama; // GGUF has no other name for it
        }
        if matches!(expected.rope.scaling, RopeScaling::Llama3 { .. }) {
            expected.rope.scaling = RopeScaling::Default; // it is in rope_freqs.weight
        }
        assert_eq!(twin_config(name, |_| ()).unwrap(), expected, "{name}");
    }
}

#[test]
fn gguf_metadata_that_is_refused() {
    let check = |change: &dyn Fn(&mut testkit::gguf_writer::GgufWriter), words: &[&str]| {
        let error = twin_config("llama2", change).unwrap_err();
        for word in words {
            assert!(error.contains(word), "{error} lacks {word}");
        }
    };
    check(
        &|w| _ = w.string("general.architecture", "gemma3"),
        &["general.architecture", "gemma3", "qwen3"],
    );
    check(
        &|w| _ = w.remove("general.architecture"),
        &["general.architecture"],
    );
    check(
        &|w| _ = w.remove("llama.block_count"),
        &["llama.block_count"],
    );
    check(
        &|w| _ = w.u32("llama.block_count", u32::MAX),
        &["llama.block_count"],
    );
    check(
        &|w| _ = w.u32("llama.attention.head_count", 0),
        &["num_attention_heads"],
    );
    check(
        &|w| _ = w.u32("llama.expert_count", 8),
        &["llama.expert_count"],
    );
    check(
        &|w| _ = w.f32("llama.logit_scale", 0.5),
        &["llama.logit_scale", "0.5"],
    );
    check(
        &|w| _ = w.u32("llama.rope.dimension_count", 8),
        &["llama.rope.dimension_count", "16"],
    );
    check(
        &|w| _ = w.string("llama.rope.scaling.type", "yarn"),
        &["llama.rope.scaling.type", "yarn"],
    );
    check(
        &|w| _ = w.string("llama.rope.scaling.type", "linear"),
        &["llama.rope.scaling.factor"],
    );
    check(
        &|w| _ = w.remove_tensor("token_embd.weight"),
        &["token_embd.weight"],
    );
    assert!(twin_config("llama2", |w| _ = w.u32("llama.expert_count", 0)).is_ok());
}
