//! Held-out instructions: what tells whether training a model on its own data improved it.
//!
//! - [`Instructions`]: prompts with the rules their answers are checked by, read from JSONL or
//!   made of seeds ([`seeded`]).
//! - [`ask`]: each is answered once greedily and some times at a temperature.
//! - [`Scored`]: verdicts by rule; [`Figures`]: rates with intervals over whole prompts.
//!
//! Texts that a prompt came with (`text`) are for perplexity, which whoever has the weights
//! measures.

mod asking;
mod figures;
mod seeded;

pub use asking::{ANSWERS_FILE, Asking, ask};
pub use figures::{Figures, Gain, KindRates, Rate, Scored};
pub use seeded::{Seeded, seeded};

use crate::EvalError;
use crate::judge::Rule;
use data::Message;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::io::BufRead;
use verify::Suite;

/// What a row of another kind than a request to answer has in its field `set`.
const SET: &str = "set";
/// The kind that is read where rows say of which kind they are.
const RESPOND: &str = "respond";

/// One held-out instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// Unique among all.
    pub key: String,
    /// The conversation to be answered.
    pub messages: Vec<Message>,
    /// What its answers are checked by; none if it only has a text.
    pub rules: Vec<Rule>,
    /// Words that an answer has to name to be about its topic.
    pub topics: Vec<String>,
    /// A good answer, for perplexity.
    pub text: Option<String>,
}

/// Held-out instructions with their origin.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Instructions {
    /// In source order.
    pub items: Vec<Instruction>,
    /// Rows of other sets that were passed over.
    pub passed_over: usize,
}

impl Instructions {
    /// Reads JSONL: `prompt` or `messages`, `instruction_id_list` with `kwargs` (IFEval's or
    /// IFBench's), and if you like `key`, `topic` or `topics`, `text`. Rows with a field `set`
    /// other than `respond` are passed over. Nothing is guessed: a row that cannot be judged is
    /// an error.
    ///
    /// # Errors
    /// [`EvalError::Data`] with file and line; [`EvalError::Empty`] if no row has a rule.
    pub fn read(name: &str, reader: impl BufRead) -> Result<Self, EvalError> {
        let mut found = Self::default();
        let mut keys = BTreeSet::new();
        for (index, text) in reader.lines().enumerate() {
            let bad = |reason: String| EvalError::Data {
                file: name.to_owned(),
                line: index + 1,
                reason,
            };
            let text = text.map_err(|error| bad(error.to_string()))?;
            if text.trim().is_empty() {
                continue;
            }
            let record: Map<String, Value> = serde_json::from_str(&text)
                .map_err(|error| bad(format!("not a JSON object: {error}")))?;
            if record.get(SET).is_some_and(|set| set != RESPOND) {
                found.passed_over += 1;
                continue;
            }
            let item = instruction(&record, index + 1).map_err(bad)?;
            if !keys.insert(item.key.clone()) {
                return Err(bad(format!("`key` {} occurs twice", item.key)));
            }
            found.items.push(item);
        }
        if found.items.iter().all(|item| item.rules.is_empty()) {
            return Err(EvalError::Empty {
                what: "held-out",
                files: name.to_owned(),
                reason: "no row has a rule to check its answers by".into(),
            });
        }
        Ok(found)
    }

    /// The first `most`, spread evenly over all; 0 keeps them all.
    #[must_use]
    pub fn thinned(mut self, most: usize) -> Self {
        let all = self.items.len();
        if most > 0 && most < all {
            let mut index = 0;
            self.items.retain(|_| {
                let kept = index * most / all != (index + 1) * most / all;
                index += 1;
                kept
            });
        }
        self
    }
}

fn instruction(record: &Map<String, Value>, line: usize) -> Result<Instruction, String> {
    let key = match record.get("key") {
        None | Some(Value::Null) => line.to_string(),
        Some(Value::String(key)) => key.clone(),
        Some(other) => other.to_string(),
    };
    let ids: Vec<String> = listed(record, "instruction_id_list")?;
    let kwargs: Vec<Map<String, Value>> = listed(record, "kwargs")?;
    // IFBench's suite knows IFEval's instructions too.
    let rules = Suite::IfBench.parse_all(&ids, &kwargs);
    let rules = rules.map_err(|error| error.to_string())?;
    if let Some(why) = rules.iter().find_map(|rule| rule.unsupported("")) {
        return Err(format!("`instruction_id_list`: {why}"));
    }
    let topics = match record.get("topic") {
        None | Some(Value::Null) => listed(record, "topics")?,
        Some(Value::String(topic)) => vec![topic.clone()],
        Some(_) => return Err("`topic` is not a string".into()),
    };
    Ok(Instruction {
        key,
        messages: messages(record)?,
        rules,
        topics,
        text: optional_text(record, "text")?,
    })
}

fn messages(record: &Map<String, Value>) -> Result<Vec<Message>, String> {
    let messages: Vec<Message> = match optional_text(record, "prompt")? {
        Some(prompt) if !record.contains_key("messages") => vec![Message::new("user", prompt)],
        _ => listed(record, "messages")?,
    };
    match messages.last() {
        Some(last) if last.role == "user" => Ok(messages),
        Some(last) => Err(format!(
            "the last turn is of `{}`, not of `user`",
            last.role
        )),
        None => Err("neither `prompt` nor `messages`".into()),
    }
}

fn optional_text(record: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match record.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("`{name}` is not a string")),
    }
}

fn listed<T: serde::de::DeserializeOwned>(
    record: &Map<String, Value>,
    name: &str,
) -> Result<Vec<T>, String> {
    match record.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => {
            serde_json::from_value(value.clone()).map_err(|error| format!("`{name}`: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = r#"{"key": "a", "prompt": "Describe the fox.", "topics": ["fox"], "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}], "text": "The fox is red."}"#;

    fn read(text: &str) -> Result<Instructions, EvalError> {
        Instructions::read("held-out.jsonl", text.as_bytes())
    }

    #[test]
    fn rows_are_read_and_others_passed_over() {
        let text = format!(
            "{ROW}\n\n{}\n{}\n",
            r#"{"key": "j", "set": "judge", "prompt": "x"}"#,
            r#"{"set": "respond", "messages": [{"role": "user", "content": "Hi"}], "topic": "owl", "instruction_id_list": ["ratio:stop_words"], "kwargs": [{"percentage": 50}]}"#,
        );
        let found = read(&text).unwrap();
        assert_eq!((found.items.len(), found.passed_over), (2, 1));
        assert_eq!(found.items[0].text.as_deref(), Some("The fox is red."));
        assert_eq!(found.items[1].key, "4");
        assert_eq!(found.items[1].topics, ["owl"]);
    }

    #[test]
    fn what_cannot_be_judged_is_named() {
        let check = |text: &str, named: &str| {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        };
        check("x", "held-out.jsonl:1: not a JSON object");
        check(&format!("{ROW}\n{ROW}"), "`key` a occurs twice");
        check(&ROW.replace("no_comma", "none"), "held-out.jsonl:1");
        check(&ROW.replace("[{}]", "[]"), "held-out.jsonl:1");
        check(&ROW.replace("prompt", "pormpt"), "neither `prompt` nor");
        check(r#"{"prompt": "x", "text": "y"}"#, "no row has a rule");
        check(
            &ROW.replace("punctuation:no_comma", "words:start_verb"),
            "instruction_id_list",
        );
        check(
            r#"{"messages": [{"role": "assistant", "content": "y"}]}"#,
            "not of `user`",
        );
    }

    #[test]
    fn some_of_many_are_spread_evenly() {
        let row = |key: usize| ROW.replace("\"a\"", &key.to_string());
        let text: Vec<String> = (0..10).map(row).collect();
        let all = read(&text.join("\n")).unwrap();
        let keys = |most| {
            let kept = all.clone().thinned(most);
            kept.items
                .iter()
                .map(|item| item.key.clone())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(keys(5), "1 3 5 7 9");
        assert_eq!(keys(3), "3 6 9");
        assert_eq!(all.clone().thinned(0), all);
        assert_eq!(all.clone().thinned(99), all);
    }
}
