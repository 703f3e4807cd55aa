//! A GGUF file: header, config, vocabulary, template, weights.
#![no_main]
use libfuzzer_sys::fuzz_target;
use model::{GgufFile, ModelFiles};

fuzz_target!(
    init: fuzz::expect_caught_panics(),
    |bytes: &[u8]| {
        let Ok(file) = GgufFile::from_vec(bytes.to_vec()) else {
            return;
        };
        let files = ModelFiles::from_gguf(file);
        fuzz::use_texts(&files);
        fuzz::load(&files);
    }
);
