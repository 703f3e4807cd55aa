//! What the model answers with, as grammars and as types.

use data::Grammar;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

pub(crate) fn decompose_grammar() -> Grammar {
    let constraint = json!({
        "type": {"enum": KINDS},
        "constraint": {"type": "string"},
        "simplified_query": {"type": "string"},
    });
    let list = json!({
        "type": "array", "maxItems": CONSTRAINTS_MAX, "items": object(&constraint),
    });
    Grammar::JsonSchema(object(&json!({
        "complex": {"type": "boolean"}, "basic_query": {"type": "string"}, "constraints": list,
    })))
}

pub(crate) fn question_grammar() -> Grammar {
    Grammar::JsonSchema(object(&json!({"question": {"type": "string"}})))
}

pub(crate) fn compose_grammar() -> Grammar {
    let text = json!({"type": "string"});
    Grammar::JsonSchema(object(&json!({"query": text, "question": text})))
}

pub(crate) fn augmented_grammar() -> Grammar {
    let questions = json!({
        "type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "string"},
    });
    Grammar::JsonSchema(object(&json!({
        "augmented query": {"type": "string"}, "question": questions,
    })))
}

/// Exactly `questions` verdicts.
pub(crate) fn verdicts_grammar(questions: usize) -> Grammar {
    let one = object(&json!({
        "explanation": {"type": "string"}, "verdict": {"enum": ["YES", "NO"]},
    }));
    let list = json!({
        "type": "array", "minItems": questions, "maxItems": questions, "items": one,
    });
    Grammar::JsonSchema(object(&json!({"verdicts": list})))
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
}
