//! What models answer with, for all recipes: JSON by grammar, read whole.

use data::{Completion, FinishReason, Grammar};
use pipeline::{Stop, reject};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

/// Whether something is asked: a statement has no verdict.
pub(crate) fn is_question(text: &str) -> bool {
    text.contains(['?', '？', '؟'])
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

/// A whole answer, read; else the row is rejected at `stage`.
pub(crate) fn parse_whole<T: DeserializeOwned>(
    answer: &Completion,
    stage: &str,
) -> Result<T, Stop> {
    if answer.finish_reason == FinishReason::Length {
        return Err(reject(
            stage,
            "truncated",
            "the answer was cut by the token limit",
        ));
    }
    parse(&answer.text).map_err(|reason| reject(stage, "unparsed", reason))
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
pub(crate) fn text(limit: usize) -> Value {
    json!({"type": "string", "maxLength": limit})
}

/// An object with these properties, all of them and in this order.
pub(crate) fn object(properties: &Value) -> Value {
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
