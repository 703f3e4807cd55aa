//! What the model answers with, as grammars and as types.

use super::steps::Step;
use crate::outputs::{SENTENCE_CHARS, object, rewrite_limit, text};
use data::Grammar;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Longest domain or request, in characters.
pub(crate) const NAME_CHARS: usize = 80;
/// Longest part of a scenario, in characters.
pub(crate) const PART_CHARS: usize = 120;
/// Criteria of one instruction, at most.
const CRITERIA_MAX: usize = 16;
/// Longest instruction, in characters.
pub(crate) const INSTRUCTION_CHARS: usize = 2048;

/// A situation in which somebody asks for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Who asks.
    pub persona: String,
    /// When.
    pub time: String,
    /// Where.
    pub place: String,
    /// Why now.
    pub trigger: String,
}

impl Scenario {
    /// The situation without its person, as prompts show it.
    pub(crate) fn shown(&self) -> String {
        format!("{}, {}: {}", self.time, self.place, self.trigger)
    }

    pub(crate) fn shown_with_persona(&self) -> String {
        format!("{}, {}", self.persona, self.shown())
    }
}

/// A constraint that only a reader can judge, with its question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Soft {
    /// What it is about.
    #[serde(default)]
    pub kind: String,
    /// The demand.
    pub constraint: String,
    /// A question that YES answers where the demand was met.
    pub question: String,
}

/// An instruction, new or repaired.
#[derive(Debug, Deserialize)]
pub(crate) struct Written {
    pub(crate) instruction: String,
}

/// Whether an instruction contradicts itself.
#[derive(Debug, Deserialize)]
pub(crate) struct Examined {
    pub(crate) explanation: String,
    pub(crate) conflict: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Found {
    pub(crate) criteria: Vec<String>,
}

/// A list of at most `count` entries.
pub(crate) fn list_grammar(step: Step, count: usize) -> Grammar {
    let entry = match step {
        Step::Domains | Step::Requests => text(NAME_CHARS),
        Step::Personas => text(PART_CHARS),
        Step::Scenarios => object(&json!({
            "persona": text(PART_CHARS), "time": text(PART_CHARS),
            "place": text(PART_CHARS), "trigger": text(PART_CHARS),
        })),
        Step::Constraints => object(&json!({
            "constraint": text(SENTENCE_CHARS), "question": text(SENTENCE_CHARS),
        })),
    };
    one(step.name(), &list(&entry, count.max(1)))
}

pub(crate) fn instruction_grammar() -> Grammar {
    one("instruction", &text(INSTRUCTION_CHARS))
}

/// For an answer that rewrites `before`.
pub(crate) fn repair_grammar(before: &str) -> Grammar {
    one("instruction", &text(rewrite_limit(before)))
}

pub(crate) fn conflict_grammar() -> Grammar {
    Grammar::JsonSchema(object(&json!({
        "explanation": text(SENTENCE_CHARS), "conflict": {"enum": ["YES", "NO", "UNSURE"]},
    })))
}

pub(crate) fn criteria_grammar() -> Grammar {
    one("criteria", &list(&text(SENTENCE_CHARS), CRITERIA_MAX))
}

fn list(entry: &Value, most: usize) -> Value {
    json!({"type": "array", "minItems": 1, "maxItems": most, "items": entry})
}

/// An object with one key.
fn one(key: &str, schema: &Value) -> Grammar {
    let mut properties = serde_json::Map::new();
    properties.insert(key.to_owned(), schema.clone());
    Grammar::JsonSchema(object(&Value::Object(properties)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_and_list_has_a_limit() {
        fn check(schema: &Value) {
            let Value::Object(map) = schema else { return };
            match map.get("type").and_then(Value::as_str) {
                Some("string") => assert!(map["maxLength"].as_u64() > Some(0), "{schema}"),
                Some("array") => assert!(map["maxItems"].as_u64() > Some(0), "{schema}"),
                _ => {}
            }
            map.values().for_each(check);
        }
        let lists = Step::ALL.map(|step| list_grammar(step, 3));
        let others = [
            instruction_grammar(),
            repair_grammar("Write."),
            conflict_grammar(),
            criteria_grammar(),
        ];
        for grammar in lists.iter().chain(&others) {
            let Grammar::JsonSchema(schema) = grammar else {
                panic!("{grammar:?}");
            };
            assert!(schema.to_string().contains("maxLength"), "{schema}");
            check(schema);
        }
    }
}
