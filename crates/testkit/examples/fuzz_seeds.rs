//! Writes what the fuzz targets start from: a folder of small good files for each of them.
//!
//!     cargo run --package testkit --example fuzz_seeds -- fuzz/corpus

use serde_json::json;
use std::path::PathBuf;
use testkit::tiny::{self, Vocabulary};

/// (target, name, content)
type Seed = (&'static str, &'static str, Vec<u8>);

fn main() -> std::io::Result<()> {
    let root = PathBuf::from(std::env::args().nth(1).unwrap_or("fuzz/corpus".into()));
    let seeds = [weights(), texts(), tokenizers(), small_files()].concat();
    for (target, name, bytes) in seeds {
        let folder = root.join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}

fn weights() -> Vec<Seed> {
    let pairs = tiny::gguf(Vocabulary::BytePairs).bytes();
    let pieces = tiny::gguf(Vocabulary::SentencePiece).bytes();
    let tensors = tiny::safetensors();
    let index = json!({"metadata": {"total_size": 8}, "weight_map": {"a.weight": "a.safetensors"}});
    vec![
        ("gguf", "pairs", pairs),
        ("gguf", "pieces", pieces),
        ("safetensors", "tiny", tensors),
        ("index", "one", index.to_string().into()),
        ("config", "llama", tiny::CONFIG.into()),
        ("config", "rope", ROPE.into()),
    ]
}

const ROPE: &str = r#"{"architectures": ["Qwen2ForCausalLM"], "hidden_size": 4,
 "intermediate_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 12,
 "max_position_embeddings": 8, "use_sliding_window": true, "sliding_window": 4,
 "max_window_layers": 1, "rope_parameters": {"rope_type": "llama3", "rope_theta": 1e6,
 "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4,
 "original_max_position_embeddings": 8192}, "dtype": "bfloat16", "eos_token_id": [1, 2]}"#;

fn texts() -> Vec<Seed> {
    let calls = "{% set n = namespace(x=[]) %}{% macro f(a, b=2) %}{{ a ~ b }}{% endmacro %}\
        {% for m in messages[1:] %}{% if loop.first and m.content is string %}\
        {{ m.content.strip().split('x')[-1] | upper | indent(2) }}{% set n.x = n.x + [m] %}\
        {% elif not m %}{{ raise_exception('no') }}{% endif %}{% endfor %}\
        {{ n.x | tojson(indent=1) }}{{ f(1) }}{{ '%05.2f' | format(1.5) }}{{ '{:>3}'.format(1) }}\
        {{ strftime_now('%d %b %Y') }}{{ {'a': (1,)} | items | list }}{{ messages[::-1] | length }}";
    let messages = json!([{"role": "user", "content": "hi <|end|> there"},
        {"role": "assistant", "content": null, "tool_calls": [{"name": "f", "arguments": {"x": 1.5e300}}]}]);
    vec![
        ("template", "turns", tiny::TEMPLATE.into()),
        ("template", "calls", calls.into()),
        ("messages", "two", messages.to_string().into()),
    ]
}

fn tokenizers() -> Vec<Seed> {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "special": true, "normalized": id > 0,
               "single_word": false, "lstrip": true, "rstrip": false})
    };
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    let pieces = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<s>"), special(1, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "byte_fallback": true, "unk_token": null, "merges": ["▁ a", "▁a b"],
            "vocab": {"<s>": 0, "</s>": 1, "▁": 2, "a": 3, "b": 4, "▁a": 5, "▁ab": 6,
                      "<0xC3>": 7, "<0xA9>": 8}},
    });
    let mut bytes = pieces.clone();
    bytes["normalizer"] = json!({"type": "NFC"});
    bytes["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}|\\s+(?!\\S)"}, "behavior": "Isolated", "invert": false},
        level]});
    bytes["decoder"] = level;
    bytes["post_processor"] = serde_json::Value::Null;
    bytes["model"]["merges"] = json!([["a", "b"]]);
    bytes["model"]["vocab"] = json!({"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4, "Ġ": 5});
    let mut unigram = pieces.clone();
    unigram["model"] = json!({"type": "Unigram", "unk_id": 0, "byte_fallback": false,
        "vocab": [["<s>", 0.0], ["</s>", 0.0], ["▁", -1.0], ["a", -2.0], ["▁a", -1.5]]});
    vec![
        ("tokenizer", "pieces", pieces.to_string().into()),
        ("tokenizer", "bytes", bytes.to_string().into()),
        ("tokenizer", "unigram", unigram.to_string().into()),
    ]
}

fn small_files() -> Vec<Seed> {
    let adapter = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": true,
        "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"model.layers.0": 2},
        "alpha_pattern": {"q_proj": 1.5}, "bias": "none", "init_lora_weights": true});
    let generation =
        json!({"eos_token_id": [1, 2], "temperature": 0.7, "top_k": 20, "do_sample": true});
    let rows = concat!(
        "{\"id\":7,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n\n",
        "{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\",\"value\":\"r\"}]}\n",
        "{\"prompt\":\"c\"}\n\"d\"\r\n{\"instruction\":\"e\",\"input\":\"f\"}\n",
    );
    vec![
        ("adapter", "lora", adapter.to_string().into()),
        ("generation_config", "all", generation.to_string().into()),
        ("prompts", "all", rows.into()),
    ]
}
