//! An `adapter_config.json`, over adapter weights that hold nothing.
#![no_main]
use libfuzzer_sys::fuzz_target;
use model::{GgufFile, Llama, LoadOptions, ModelFiles};

thread_local! {
    static MODEL: Llama = {
        let file = GgufFile::from_static(include_bytes!("../../tests/models/tiny/tiny.gguf"));
        let files = ModelFiles::from_gguf(file.expect("a good file"));
        files.load(&LoadOptions::default()).expect("a good model")
    };
}

fuzz_target!(|bytes: &[u8]| {
    fuzz::put("adapter_model.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    fuzz::put("adapter_config.json", bytes);
    MODEL.with(|model| drop(model.load_adapter(fuzz::folder())));
});
