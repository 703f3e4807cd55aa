//! What the model answers with, as grammars and as types.

use data::Grammar;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The paper's kinds of constraints.
const KINDS: [&str; 5] = ["content", "numerical", "stylistic", "format", "linguistic"];
/// Constraints taken from one prompt at most.
const CONSTRAINTS_MAX: usize = 8;
/// Longest constraint or question, in characters: a model that never closes a string is not
/// to spend all of its tokens in it.
pub(crate) const SENTENCE_CHARS: usize = 400;
/// Longest explanations of all verdicts together, in characters; one has at least
/// [`EXPLANATION_CHARS_MIN`] and at most [`SENTENCE_CHARS`] of them.
const EXPLANATIONS_CHARS: usize = 2400;
const EXPLANATION_CHARS_MIN: usize = 100;
/// What a rewritten request may have more than the one before it, in characters.
const REWRITE_CHARS: usize = 768;
/// Limits are multiples of this, so that there are few different grammars.
const LIMIT_STEP: usize = 256;

/// Longest rewrite of `before`, in characters.
pub(crate) fn rewrite_limit(before: &str) -> usize {
    (before.chars().count() + REWRITE_CHARS).next_multiple_of(LIMIT_STEP)
}

/// Whether a string ended only because its limit was reached.
pub(crate) fn is_cut(text: &str, limit: usize) -> bool {
    text.chars().count() >= limit
}

/// A request taken apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Decomposed {
    pub(crate) complex: bool,
    pub(crate) basic_query: String,
    pub(crate) constraints: Vec<Extracted>,
}

/// One constraint of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Extracted {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) constraint: String,
    /// The request without this constraint.
    pub(crate) simplified_query: String,
}

/// A question on a constraint; empty if there is nothing to test.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Question {
    pub(crate) question: String,
}

/// A request with one more constraint.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Composed {
    pub(crate) query: String,
    pub(crate) question: String,
}

/// The same as the published UltraComposer writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Augmented {
    #[serde(rename = "augmented query")]
    pub(crate) query: String,
    pub(crate) question: Vec<String>,
}

/// A written verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WrittenVerdict {
    pub(crate) explanation: String,
    pub(crate) verdict: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct WrittenVerdicts {
    pub(crate) verdicts: Vec<WrittenVerdict>,
}

/// Reads an answer; the first JSON object in it counts, so that a model without a grammar
/// may wrap it.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let start = text.find('{').ok_or("there is no JSON object")?;
    let mut objects = serde_json::Deserializer::from_str(&text[start..]).into_iter::<T>();
    match objects.next() {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("there is no JSON object".into()),
    }
}

/// For an answer that takes `prompt` apart.
pub(crate) fn decompose_grammar(prompt: &str) -> Grammar {
    let rewrite = text(rewrite_limit(prompt));
    let constraint = json!({
        "type": {"enum": KINDS},
        "constraint": text(SENTENCE_CHARS),
        "simplified_query": rewrite,
    });
    let list = json!({
        "type": "array", "maxItems": CONSTRAINTS_MAX, "items": object(&constraint),
    });
    Grammar::JsonSchema(object(&json!({
        "complex": {"type": "boolean"}, "basic_query": rewrite, "constraints": list,
    })))
}

pub(crate) fn question_grammar() -> Grammar {
    Grammar::JsonSchema(object(&json!({"question": text(SENTENCE_CHARS)})))
}

/// For an answer that rewrites `before`.
pub(crate) fn compose_grammar(before: &str) -> Grammar {
    let query = text(rewrite_limit(before));
    Grammar::JsonSchema(object(
        &json!({"query": query, "question": text(SENTENCE_CHARS)}),
    ))
}

/// The same in the published form.
pub(crate) fn augmented_grammar(before: &str) -> Grammar {
    let questions = json!({
        "type": "array", "minItems": 1, "maxItems": 1, "items": text(SENTENCE_CHARS),
    });
    Grammar::JsonSchema(object(&json!({
        "augmented query": text(rewrite_limit(before)), "question": questions,
    })))
}

/// Exactly `questions` verdicts.
pub(crate) fn verdicts_grammar(questions: usize) -> Grammar {
    let share = EXPLANATIONS_CHARS / questions.max(1);
    let explanation = text(share.clamp(EXPLANATION_CHARS_MIN, SENTENCE_CHARS));
    let one = object(&json!({"explanation": explanation, "verdict": {"enum": ["YES", "NO"]}}));
    let list = json!({
        "type": "array", "minItems": questions, "maxItems": questions, "items": one,
    });
    Grammar::JsonSchema(object(&json!({"verdicts": list})))
}

/// A string of at most so many characters.
fn text(limit: usize) -> Value {
    json!({"type": "string", "maxLength": limit})
}

/// An object with these properties, all of them and in this order.
fn object(properties: &Value) -> Value {
    let names: Vec<&String> = properties
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .collect();
    json!({
        "type": "object", "properties": properties, "required": names,
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_may_be_wrapped_and_have_to_be_whole() {
        let expected = Composed {
            query: "Say \"é\"\nnow".into(),
            question: "q".into(),
        };
        let plain = "{\"query\": \"Say \\\"é\\\"\\nnow\", \"question\": \"q\"}";
        for text in [
            plain.to_owned(),
            format!("```json\n{plain}\n```"),
            format!("Sure! {plain} Done."),
        ] {
            assert_eq!(parse::<Composed>(&text).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "no",
            "{",
            "{\"query\": \"x\"}",
            "{\"query\": \"x\", \"question\": [1]}",
        ] {
            assert!(parse::<Composed>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_published_form_is_one_line() {
        let augmented = Augmented {
            query: "a \"b\"\nc é".into(),
            question: vec!["q?".into()],
        };
        let text = serde_json::to_string(&augmented).unwrap();
        assert_eq!(
            text,
            "{\"augmented query\":\"a \\\"b\\\"\\nc é\",\"question\":[\"q?\"]}"
        );
        assert_eq!(parse::<Augmented>(&text).unwrap(), augmented);
    }
    #[test]
    fn every_string_has_a_limit() {
        fn check(schema: &Value) {
            let Value::Object(map) = schema else { return };
            if map.get("type") == Some(&json!("string")) {
                assert!(map["maxLength"].as_u64() > Some(0), "{schema}");
            }
            map.values().for_each(check);
        }
        let grammars = [
            decompose_grammar("Write."),
            question_grammar(),
            compose_grammar("Write."),
            augmented_grammar("Write."),
            verdicts_grammar(3),
        ];
        for grammar in &grammars {
            let Grammar::JsonSchema(schema) = grammar else {
                panic!("{grammar:?}");
            };
            assert!(schema.to_string().contains("maxLength"), "{schema}");
            check(schema);
        }
        // The limits of a request follow its length, in steps.
        assert_eq!(rewrite_limit(""), 768);
        assert_eq!(rewrite_limit("é"), 1024);
        assert_eq!(compose_grammar("a"), compose_grammar("bc"));
        assert!(is_cut("abc", 3) && !is_cut("äb", 3));
    }
}
