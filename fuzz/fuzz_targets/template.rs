//! The source of a chat template.
#![no_main]
use libfuzzer_sys::fuzz_target;
use model::ChatTemplate;

fuzz_target!(
    init: fuzz::expect_caught_panics(),
    |source: &str| {
        let tokenizer = fuzz::tokenizer();
        if let Ok(template) = ChatTemplate::from_source("template", source, tokenizer) {
            fuzz::use_template(&template, tokenizer);
        }
    }
);
