//! A `config.json`.
#![no_main]
use libfuzzer_sys::fuzz_target;
use model::ModelConfig;

fuzz_target!(|text: &str| {
    if let Ok(config) = ModelConfig::from_hf_json("config.json".as_ref(), text) {
        config.rope.inverse_frequencies(config.head_dim, None);
    }
});
