//! A `tokenizer.json`.
#![no_main]
use libfuzzer_sys::fuzz_target;
use model::Tokenizer;

fuzz_target!(
    init: fuzz::expect_caught_panics(),
    |bytes: &[u8]| {
        fuzz::put("tokenizer.json", bytes);
        if let Ok(tokenizer) = Tokenizer::from_folder(fuzz::folder()) {
            fuzz::use_tokenizer(&tokenizer);
        }
    }
);
