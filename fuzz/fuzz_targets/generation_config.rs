//! A `generation_config.json`.
#![no_main]
use libfuzzer_sys::fuzz_target;
use model::GenerationConfig;

fuzz_target!(|bytes: &[u8]| {
    fuzz::put("generation_config.json", bytes);
    let _ = GenerationConfig::from_folder(fuzz::folder());
});
