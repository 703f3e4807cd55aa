//! A `model.safetensors` beside a good config.
#![no_main]
use libfuzzer_sys::fuzz_target;
use model::ModelFiles;

fuzz_target!(|bytes: &[u8]| {
    fuzz::put("config.json", fuzz::CONFIG.as_bytes());
    fuzz::put("model.safetensors", bytes);
    let files = ModelFiles::open(fuzz::folder()).expect("a folder");
    fuzz::load(&files);
});
