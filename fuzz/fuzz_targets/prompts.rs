//! Rows of prompts.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for row in data::read_prompts(bytes) {
        if let Err(error) = row {
            assert!(error.to_string().starts_with("line "), "{error}");
        }
    }
});
