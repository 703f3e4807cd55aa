//! Completions of a random model at temperature 1.5 belong to the language asked for.

use crate::common::{Choices, Sizes, load, start};
use candle_core::quantized::GgmlDType;
use data::{Author, FinishReason, Generate, Generator, Grammar, Prompt, RequestError, Sampling};
use serde_json::{Value, json};

/// Asks for `count` completions under `grammar` and returns those that ended by themselves.
fn complete(grammar: &Grammar, count: usize, max_tokens: usize) -> Vec<String> {
    let engine = start(
        load(GgmlDType::Q8_0),
        &Sizes {
            kv_tokens: 8192,
            ..Sizes::default()
        },
    );
    let request = |index: u64| Generate {
        sampling: Sampling {
            temperature: 1.5,
            ..Sampling::default()
        },
        grammar: Some(grammar.clone()),
        max_tokens: Some(max_tokens),
        seed: index,
        n: 10,
        ..Generate::new(Prompt::Tokens(Choices(index).tokens(6)))
    };
    let pending: Vec<_> = (0..count as u64 / 10)
        .map(|i| engine.generate(request(i)))
        .collect();
    let completions: Vec<_> = pending
        .into_iter()
        .flat_map(|answer| answer.wait().unwrap())
        .collect();
    assert_eq!(completions.len(), count);
    completions
        .into_iter()
        .filter(|completion| completion.finish_reason == FinishReason::Stop)
        .map(|completion| completion.text)
        .collect()
}

#[test]
fn a_thousand_choices_conform() {
    let choices = ["YES", "NO", "maybe \"so\"", "naïve\n"].map(str::to_owned);
    let texts = complete(&Grammar::Choice(choices.to_vec()), 1000, 40);
    assert_eq!(texts.len(), 1000);
    for text in &texts {
        assert!(choices.contains(text), "{text:?}");
    }
    for choice in &choices {
        assert!(texts.contains(choice), "{choice:?} was never drawn");
    }
}

#[test]
fn a_thousand_matches_of_a_regex_conform() {
    let texts = complete(
        &Grammar::Regex("[A-C]{2,5}-[0-9]{1,3}(x|yz)".into()),
        1000,
        40,
    );
    assert_eq!(texts.len(), 1000);
    for text in &texts {
        let (letters, rest) = text.split_once('-').unwrap();
        assert!((2..=5).contains(&letters.len()), "{text:?}");
        assert!(
            letters.chars().all(|letter| ('A'..='C').contains(&letter)),
            "{text:?}"
        );
        let digits = rest.strip_suffix("yz").or(rest.strip_suffix('x')).unwrap();
        assert!((1..=3).contains(&digits.len()), "{text:?}");
        assert!(
            digits.chars().all(|digit| digit.is_ascii_digit()),
            "{text:?}"
        );
    }
}

#[test]
fn a_thousand_documents_of_a_schema_conform() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "score": { "type": "integer", "minimum": 0, "maximum": 99 },
            "kind": { "enum": ["a", "bb", null] },
            "tags": { "type": "array", "items": { "type": "boolean" }, "minItems": 1, "maxItems": 3 },
        },
        "required": ["name", "score", "kind", "tags"],
        "additionalProperties": false,
    });
    let texts = complete(&Grammar::JsonSchema(schema), 1000, 300);
    assert!(
        texts.len() >= 990,
        "{} of 1000 ended within 300 tokens",
        texts.len()
    );
    for text in &texts {
        let document: Value =
            serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
        let fields = document.as_object().unwrap();
        assert_eq!(fields.len(), 4, "{text}");
        assert!(
            fields["name"].as_str().unwrap().chars().count() <= 12,
            "{text}"
        );
        assert!(
            (0..=99).contains(&fields["score"].as_i64().unwrap()),
            "{text}"
        );
        assert!(
            [json!("a"), json!("bb"), Value::Null].contains(&fields["kind"]),
            "{text}"
        );
        let tags = fields["tags"].as_array().unwrap();
        assert!(
            (1..=3).contains(&tags.len()) && tags.iter().all(Value::is_boolean),
            "{text}"
        );
    }
}

#[test]
fn forced_tokens_are_marked_and_bad_grammars_refused() {
    let engine = start(load(GgmlDType::Q8_0), &Sizes::default());
    let request = |grammar| Generate {
        grammar: Some(grammar),
        max_tokens: Some(20),
        ..Generate::new(Prompt::Tokens(vec![5, 6]))
    };
    let choice = Grammar::Choice(vec!["\u{1}\u{2}".into()]);
    let written = engine.generate(request(choice)).wait().unwrap().remove(0);
    assert_eq!(written.text, "\u{1}\u{2}");
    assert!(written.authors.contains(&Author::Forced), "{written:?}");
    assert_eq!(written.authors.len(), written.tokens.len());
    for grammar in [
        Grammar::Choice(vec![]),
        Grammar::Choice(vec!["a".into(), String::new()]),
        Grammar::Regex("(".into()),
        Grammar::Lark("start: nowhere".into()),
        Grammar::JsonSchema(json!({ "type": "no such type" })),
    ] {
        let error = engine
            .generate(request(grammar.clone()))
            .wait()
            .unwrap_err();
        assert!(
            matches!(error, RequestError::Grammar(_)),
            "{grammar:?}: {error}"
        );
    }
}
