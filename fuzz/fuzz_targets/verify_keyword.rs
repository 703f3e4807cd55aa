//! A keyword, read as a regular expression of Python's, and a text to search: the first line
//! and the rest of the input.
#![no_main]
use libfuzzer_sys::fuzz_target;
use verify::Keyword;

fuzz_target!(|input: &str| {
    let (keyword, text) = input.split_once('\n').unwrap_or((input, "a cat\nsat"));
    for read in [
        Keyword::anywhere,
        Keyword::counted,
        Keyword::whole_word,
        Keyword::section,
        Keyword::postscript,
    ] {
        if let Ok(keyword) = read(keyword) {
            if let (Ok(found), Ok(count)) = (keyword.is_in(text), keyword.count_in(text)) {
                assert_eq!(found, count > 0);
            }
        }
    }
});
