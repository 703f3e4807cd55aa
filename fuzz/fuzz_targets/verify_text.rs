//! A response, judged by every kind of constraint.
#![no_main]
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use verify::Constraint;

static CONSTRAINTS: LazyLock<Vec<Constraint>> = LazyLock::new(|| {
    let read = |line: &str| {
        let (id, kwargs) = line.split_once(' ').expect("an id and parameters");
        let kwargs = serde_json::from_str(kwargs).expect("an object");
        Constraint::from_ifeval(id, &kwargs).expect("a constraint")
    };
    SPECS.lines().map(read).collect()
});

const SPECS: &str = r#"keywords:existence {"keywords": ["cat", "a.*b"]}
keywords:frequency {"keyword": "i", "relation": "at least", "frequency": 2}
keywords:forbidden_words {"forbidden_words": ["cat", "s"]}
keywords:letter_frequency {"letter": "!", "let_relation": "less than", "let_frequency": 4}
language:response_language {"language": "de"}
length_constraints:number_sentences {"relation": "less than", "num_sentences": 3}
length_constraints:number_paragraphs {"num_paragraphs": 2}
length_constraints:number_words {"relation": "at least", "num_words": 30}
length_constraints:nth_paragraph_first_word {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "a"}
detectable_content:number_placeholders {"num_placeholders": 2}
detectable_content:postscript {"postscript_marker": "P.P.S"}
detectable_format:number_bullet_lists {"num_bullets": 2}
detectable_format:constrained_response {}
detectable_format:number_highlighted_sections {"num_highlights": 2}
detectable_format:multiple_sections {"section_spliter": "Day", "num_sections": 2}
detectable_format:json_format {}
detectable_format:title {}
combination:two_responses {}
combination:repeat_prompt {"prompt_to_repeat": "Hello"}
startend:end_checker {"end_phrase": "the end"}
change_case:capital_word_frequency {"capital_relation": "at least", "capital_frequency": 2}
change_case:english_capital {}
change_case:english_lowercase {}
punctuation:no_comma {}
startend:quotation {}"#;

fuzz_target!(|text: &str| {
    let judged = verify::judge(&CONSTRAINTS, text);
    for (strict, loose) in judged.strict.iter().zip(&judged.loose) {
        assert!(loose.followed || !strict.followed);
    }
    let mut end = 0;
    for span in verify::nltk::sentence_spans(text) {
        assert!(end <= span.start && span.start < span.end);
        end = span.end;
    }
});
