//! A `model.safetensors.index.json` over one empty shard.
#![no_main]
use libfuzzer_sys::fuzz_target;
use model::ModelFiles;

fuzz_target!(|bytes: &[u8]| {
    fuzz::put("config.json", fuzz::CONFIG.as_bytes());
    fuzz::put("a.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    fuzz::put("model.safetensors.index.json", bytes);
    let files = ModelFiles::open(fuzz::folder()).expect("a folder");
    fuzz::load(&files);
});
