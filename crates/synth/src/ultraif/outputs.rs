//! What the model answers with, as grammars and as types.

use crate::outputs::{SENTENCE_CHARS, object, rewrite_limit, text};
use data::Grammar;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The paper's kinds of constraints.
const KINDS: [&str; 5] = ["content", "numerical", "stylistic", "format", "linguistic"];
/// Constraints taken from one prompt at most.
const CONSTRAINTS_MAX: usize = 8;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outputs::{is_cut, parse, verdicts_grammar};
    use serde_json::Value;

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
