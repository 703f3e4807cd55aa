//! LoRA adapters beside PEFT's logits, mixed in a batch, and the ones that are refused.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use candle_core::quantized::GgmlDType;
use common::{Part, batch, bits, flat, logits_in_chunks, worst};
use model::{CausalLm, KvPool, KvType, Llama, LoadAs, LoadOptions, ModelFiles};
use std::path::Path;
use testkit::fixtures::{self, Golden};
use testkit::gguf_writer::fixture_twin;

fn base() -> Llama {
    let options = LoadOptions {
        weights: LoadAs::F32,
        ..Default::default()
    };
    ModelFiles::open(&fixtures::folder("llama3_1"))
        .unwrap()
        .load(&options)
        .unwrap()
}

#[test]
fn logits_equal_peft() {
    for name in ["adapter", "adapter_rslora"] {
        let mut model = base();
        let folder = fixtures::folder("llama3_1").join(name);
        let golden = Golden::read(&folder);
        let adapter = model.load_adapter(&folder).unwrap();
        let id = model.add_adapter(adapter).unwrap();
        for length in [7, 33] {
            let tokens = golden.tokens(length);
            let found = logits_in_chunks(&model, &tokens, &[5], Some(id), KvType::F32);
            let distance = worst(&found, golden.logits("logits", length), 64);
            println!("{name}, {length} tokens: {distance:.2e}");
            assert!(distance < 1e-5, "{name}, {length} tokens: {distance:e}");
        }
    }
}

/// A GGUF of the llama architecture has the rows of q and k in another order; PEFT's files
/// have not.
#[test]
fn an_adapter_fits_the_gguf_of_its_base() {
    let mut plain = base();
    let twin = fixture_twin("llama3_1", plain.config(), GgmlDType::F32);
    let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
    std::fs::write(file.path(), twin.writer.bytes()).unwrap();
    let options = LoadOptions::default();
    let mut gguf = ModelFiles::open(file.path())
        .unwrap()
        .load(&options)
        .unwrap();
    let folder = fixtures::folder("llama3_1").join("adapter");
    let tokens: Vec<u32> = (0..20).map(|index| index * 7 % 64).collect();
    let logits = |model: &mut Llama| {
        let adapter = model.load_adapter(&folder).unwrap();
        let id = model.add_adapter(adapter).unwrap();
        logits_in_chunks(model, &tokens, &[20], Some(id), KvType::F32)
    };
    let expected: Vec<f64> = logits(&mut plain).iter().map(|x| f64::from(*x)).collect();
    let distance = worst(&logits(&mut gguf), &expected, 64);
    assert!(distance < 1e-5, "{distance:e}");
}

#[test]
fn rows_with_different_adapters_share_a_batch() {
    let mut model = base();
    let folder = fixtures::folder("llama3_1");
    let ids = ["adapter", "adapter_rslora"].map(|name| {
        let adapter = model.load_adapter(&folder.join(name)).unwrap();
        model.add_adapter(adapter).unwrap()
    });
    let tokens: Vec<u32> = (0..12).map(|index| index * 5 % 64).collect();
    let choices = [Some(ids[1]), None, Some(ids[0]), Some(ids[1])];
    let alone =
        choices.map(|adapter| logits_in_chunks(&model, &tokens, &[12], adapter, KvType::F32));
    assert!(bits(&alone[0]) != bits(&alone[1]));
    assert!(bits(&alone[0]) != bits(&alone[2]));
    let pool = KvPool::new(model.config(), 4, common::BLOCK, KvType::F32).unwrap();
    let blocks = [[0], [1], [2], [3]];
    let parts: Vec<Part<'_>> = choices
        .iter()
        .zip(&blocks)
        .map(|(adapter, blocks)| Part {
            tokens: &tokens,
            places: 0..12,
            blocks,
            adapter: *adapter,
        })
        .collect();
    let together = flat(&model.forward(&batch(&parts), &pool).unwrap());
    assert!(bits(&together) == bits(&alone.concat()));
    // The last layer computes only the rows asked for, each with its own adapter.
    let mut some = batch(&parts);
    some.logit_rows = vec![47, 24, 13, 3];
    let some = flat(&model.forward(&some, &pool).unwrap());
    let rows = [(3, 11), (2, 0), (1, 1), (0, 3)].map(|(part, row)| &alone[part][row * 64..][..64]);
    assert!(bits(&some) == bits(&rows.concat()));

    model.remove_adapter(ids[0]).unwrap();
    let error = model
        .forward(&batch(&parts), &pool)
        .unwrap_err()
        .to_string();
    assert!(error.contains("AdapterId(0) is not loaded"), "{error}");
}

/// Copies the good adapter, changes it and returns what loading says.
fn refusal(change: impl Fn(&Path)) -> String {
    let copy = tempfile::tempdir().unwrap();
    let folder = fixtures::folder("llama3_1").join("adapter");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(folder.join(file), copy.path().join(file)).unwrap();
    }
    change(copy.path());
    base().load_adapter(copy.path()).unwrap_err().to_string()
}

#[test]
fn settings_that_change_the_mathematics_are_refused_by_name() {
    let set = |field: &str, value: serde_json::Value, words: &str| {
        let error = refusal(|folder| {
            let path = folder.join("adapter_config.json");
            let text = std::fs::read_to_string(&path).unwrap();
            let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
            config[field] = value.clone();
            std::fs::write(path, config.to_string()).unwrap();
        });
        assert!(
            error.contains(words) && error.contains("adapter_config.json"),
            "{error}"
        );
    };
    set("use_dora", true.into(), "use_dora");
    set("bias", "all".into(), "bias");
    set("peft_type", "IA3".into(), "peft_type");
    set("fan_in_fan_out", true.into(), "fan_in_fan_out");
    set("lora_bias", true.into(), "lora_bias");
    set("modules_to_save", vec!["lm_head"].into(), "modules_to_save");
    set("init_lora_weights", "pissa".into(), "init_lora_weights");
    set("target_parameters", vec!["x"].into(), "target_parameters");
    set(
        "alora_invocation_tokens",
        vec![1].into(),
        "alora_invocation_tokens",
    );
    set("something_new", 1.into(), "something_new");
    set("r", 0.into(), "r: expected a rank");
    set("lora_alpha", "much".into(), "lora_alpha");
    set(
        "rank_pattern",
        serde_json::json!({"^q": 3}),
        "rank_pattern.^q",
    );
    set("use_rslora", 1.into(), "use_rslora");
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let check = |error: String, words: &[&str]| {
        for word in words {
            assert!(error.contains(word), "{error} lacks {word}");
        }
    };
    let rewrite = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len(), "the header keeps its length");
        refusal(|folder| {
            let path = folder.join("adapter_model.safetensors");
            let mut bytes = std::fs::read(&path).unwrap();
            let at = bytes
                .windows(from.len())
                .position(|w| w == from.as_bytes())
                .unwrap();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            std::fs::write(path, bytes).unwrap();
        })
    };
    let down = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight";
    check(
        rewrite(down, &down.replace("down_proj", "dawn_proj")),
        &["layers.0.mlp.down_proj.lora_A"],
    );
    check(
        rewrite(down, &down.replace("layers.0", "layers.9")),
        &["layers.0.mlp.down_proj.lora_A"],
    );
    let missing = refusal(|folder| {
        std::fs::remove_file(folder.join("adapter_model.safetensors")).unwrap();
    });
    check(missing, &["adapter_model.safetensors is missing"]);
    let truncated = refusal(|folder| {
        let path = folder.join("adapter_model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    });
    check(truncated, &["adapter_model.safetensors", "header"]);
    let rank = refusal(|folder| {
        let path = folder.join("adapter_config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text.replace("\"r\": 4", "\"r\": 5")).unwrap();
    });
    check(rank, &["lora_A", "shape [5, 64]", "shape [4, 64]"]);
}
