//! No text and no parameter makes a checker panic or hang.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};
use verify::{Check, Constraint, Error, judge, loose_variants, nltk, python};

fn parse(id: &str, kwargs: &Value) -> Result<Constraint, Error> {
    Constraint::from_ifeval(id, kwargs.as_object().expect("an object"))
}

/// One of each type.
fn all() -> Vec<Constraint> {
    let specs = [
        ("keywords:existence", json!({"keywords": ["cat", "a.*b"]})),
        (
            "keywords:frequency",
            json!({"keyword": "i", "relation": "at least", "frequency": 2}),
        ),
        (
            "keywords:forbidden_words",
            json!({"forbidden_words": ["cat", "s"]}),
        ),
        (
            "keywords:letter_frequency",
            json!({"letter": "#", "let_relation": "at least", "let_frequency": 4}),
        ),
        ("language:response_language", json!({"language": "de"})),
        (
            "length_constraints:number_sentences",
            json!({"relation": "less than", "num_sentences": 3}),
        ),
        (
            "length_constraints:number_paragraphs",
            json!({"num_paragraphs": 2}),
        ),
        (
            "length_constraints:number_words",
            json!({"relation": "at least", "num_words": 30}),
        ),
        (
            "length_constraints:nth_paragraph_first_word",
            json!({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "İσΣ"}),
        ),
        (
            "detectable_content:number_placeholders",
            json!({"num_placeholders": 2}),
        ),
        (
            "detectable_content:postscript",
            json!({"postscript_marker": "P.P.S"}),
        ),
        (
            "detectable_format:number_bullet_lists",
            json!({"num_bullets": 2}),
        ),
        ("detectable_format:constrained_response", json!({})),
        (
            "detectable_format:number_highlighted_sections",
            json!({"num_highlights": 2}),
        ),
        (
            "detectable_format:multiple_sections",
            json!({"section_spliter": "Day", "num_sections": 2}),
        ),
        ("detectable_format:json_format", json!({})),
        ("detectable_format:title", json!({})),
        ("combination:two_responses", json!({})),
        (
            "combination:repeat_prompt",
            json!({"prompt_to_repeat": "Hello\u{0}"}),
        ),
        ("startend:end_checker", json!({"end_phrase": "the end"})),
        (
            "change_case:capital_word_frequency",
            json!({"capital_relation": "at least", "capital_frequency": 2}),
        ),
        ("change_case:english_capital", json!({})),
        ("change_case:english_lowercase", json!({})),
        ("punctuation:no_comma", json!({})),
        ("startend:quotation", json!({})),
    ];
    let all: Vec<Constraint> = specs
        .iter()
        .map(|(id, kwargs)| parse(id, kwargs).expect("a constraint"))
        .collect();
    let ids: Vec<&str> = all.iter().map(Check::id).collect();
    assert_eq!(ids, Constraint::IDS);
    all
}

#[test]
fn kwargs_are_the_inverse_of_reading() {
    for constraint in all() {
        let again = Constraint::from_ifeval(constraint.id(), &constraint.kwargs());
        assert_eq!(again.as_ref(), Ok(&constraint));
    }
}

#[test]
fn a_megabyte_of_anything_is_judged_in_time() {
    let constraints = all();
    // A thousand times the length of an answer for those that stress a rule each; for the
    // rest, long enough for anything quadratic to show.
    let megabyte = [
        "a", "A", " ", "\n", ".", "a. ", "\"", "'", "* \n", "[[", "cannot ", "é", "cat", "\u{0}",
    ];
    let shorter = [
        "a",
        "A",
        " ",
        "\n",
        ".",
        "!",
        "-",
        "*",
        "**",
        "***",
        "* \n",
        "-\n\n",
        "\"",
        "'",
        "''",
        "`",
        "[",
        "]",
        "[[",
        "{",
        "[1,",
        "<<",
        "<<>>\n",
        "a. ",
        "a.",
        "A.B. ",
        "? ",
        ". . ",
        ".\u{a0}",
        "1,",
        "U.S. A",
        "Day 1",
        "p. p.",
        "cat",
        "i",
        "é",
        "\u{0}",
        "\u{1c}",
        "\u{2028}",
        "\u{3000}",
        "語",
        "😀",
        "\u{301}",
        "'s ",
        "cannot ",
        "a' ",
        "http://a.b/",
        "\\ud800",
        "\"\\ud800\",",
        "x\u{85}",
        ":,",
        "can",
        "a\u{200d}",
    ];
    let texts = megabyte.iter().map(|piece| (piece, 1 << 20));
    for (piece, size) in texts.chain(shorter.iter().map(|piece| (piece, 1 << 16))) {
        let text = piece.repeat(size / piece.len());
        for constraint in &constraints {
            let started = Instant::now();
            let _verdict = constraint.check(&text);
            let taken = started.elapsed();
            let limit = Duration::from_secs(10);
            assert!(taken < limit, "{piece:?} {}: {taken:?}", constraint.id());
        }
    }
}

#[test]
fn any_regex_is_decided_or_given_up_in_time() {
    let long = "a".repeat(1 << 20);
    let texts = [
        long.as_str(),
        &"aé ".repeat(30_000),
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
    ];
    for keyword in [
        "(a+)+$",
        "(a|a)*b",
        "(a|aa)+$",
        "(.*)*x",
        "(a*)*b",
        "(?=(a+))\\1b",
        "a{0,500}b",
        "(?:a{0,500}b){0,50}",
        "[ab]*a[ab]{1000}c",
        "(a?){60}a{60}",
        "(?:a?){5000}x",
        "\\b(\\w+)\\b.*\\1x",
        ".*.*.*x",
        "(?<!b)a(?!a)",
        "a.*b|a",
        "((a{1,50}){1,50}){1,50}b",
        "(?s:.*?x)",
        "(?:(?:)*)*x",
        "\\w+\\s*\\w+\\s*x",
        "(?>a+)b",
        "a++b",
        "^(a+)+x",
        "(?i:(ſ|s|S)+)x",
    ] {
        for (id, kwargs) in [
            ("keywords:existence", json!({"keywords": [keyword]})),
            (
                "keywords:frequency",
                json!({"keyword": keyword, "relation": "at least", "frequency": 3}),
            ),
            (
                "keywords:forbidden_words",
                json!({"forbidden_words": [keyword]}),
            ),
        ] {
            let constraint = match parse(id, &kwargs) {
                Ok(constraint) => constraint,
                Err(Error::BadKeyword { reason, .. }) => {
                    assert!(reason.starts_with("too large"), "{keyword}: {reason}");
                    continue;
                }
                Err(error) => panic!("{keyword}: {error}"),
            };
            for text in texts {
                let started = Instant::now();
                let _verdict = constraint.check(text);
                let taken = started.elapsed();
                assert!(taken < Duration::from_secs(8), "{keyword} {id}: {taken:?}");
            }
        }
    }
}

#[test]
fn a_search_given_up_says_so() {
    let constraint =
        parse("keywords:existence", &json!({"keywords": ["(?:a|a)*(?!)"]})).expect("valid");
    let verdict = constraint.check(&"a".repeat(5000));
    let reason = verdict.reason.expect("a reason");
    assert!(
        !verdict.followed && reason.starts_with("undecided"),
        "{reason}"
    );
}

#[test]
fn a_keyword_that_is_no_regex_is_named() {
    for keyword in [
        "(", "a)", "[", "*a", "a**", "\\", "(?<=a+)b", "(?P<1>a)", "\\1", "(?", "a{3,2}", "[z-a]",
        "(?i", "\\q", "x(?i)",
    ] {
        for (id, name) in [
            ("keywords:existence", "keywords"),
            ("keywords:forbidden_words", "forbidden_words"),
        ] {
            // Between word boundaries, a backslash at the end escapes one of them.
            if keyword == "\\" && name == "forbidden_words" {
                continue;
            }
            match parse(id, &json!({name: [keyword]})) {
                Err(error @ Error::BadKeyword { .. }) => {
                    assert!(
                        error.to_string().contains(&format!("{keyword:?}")),
                        "{error}"
                    );
                }
                other => panic!("{id} {keyword}: {other:?}"),
            }
        }
    }
    let deep = format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000));
    for keyword in [deep.as_str(), "((a|b){1000}){1000}", "(?:(?:ab){600}){600}"] {
        let parsed = parse("keywords:existence", &json!({"keywords": [keyword]}));
        assert!(matches!(parsed, Err(Error::BadKeyword { .. })));
    }
}

fn text() -> impl Strategy<Value = String> {
    let marks = "[-aAbsSiIıİſ .!?,;:'\"`*#@(){}<>\\[\\]\n\r\t\u{0}\u{1c}\u{85}\u{a0}\u{2028}é語😀\u{301}_1٣$&»”’«“‘„]{0,60}";
    prop_oneof![marks, any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_judged(text in text()) {
        let judged = judge(&all(), &text);
        for (strict, loose) in judged.strict.iter().zip(&judged.loose) {
            prop_assert!(loose.followed || !strict.followed);
            prop_assert_eq!(strict.followed, strict.reason.is_none());
        }
        prop_assert!(loose_variants(&text).len() <= 8);
    }

    #[test]
    fn sentences_are_in_order_and_hold_all_but_white_space(text in text()) {
        let mut end = 0;
        for span in nltk::sentence_spans(&text) {
            prop_assert!(python::is_blank(&text[end..span.start]));
            prop_assert!(span.start < span.end);
            end = span.end;
        }
        prop_assert!(python::is_blank(&text[end..]));
    }

    #[test]
    fn any_keyword_is_read_or_refused(keyword in "[-ab.*+?|(){}\\[\\]^$\\\\<>=!:P#x1,2i]{1,14}", text in text()) {
        for id in ["keywords:existence", "keywords:forbidden_words"] {
            let name = if id.ends_with("existence") { "keywords" } else { "forbidden_words" };
            if let Ok(constraint) = parse(id, &json!({name: [keyword]})) {
                let _verdict = constraint.check(&text);
            }
        }
    }

    #[test]
    fn any_parameters_are_read_or_refused(id in 0..25_usize, name in "[a-z_]{0,12}", number in any::<f64>(), text in text()) {
        let mut kwargs = Map::new();
        kwargs.insert(name, json!(number));
        for known in all()[id].kwargs().keys() {
            kwargs.insert(known.clone(), json!(text));
        }
        let _constraint = Constraint::from_ifeval(Constraint::IDS[id], &kwargs);
    }
}
