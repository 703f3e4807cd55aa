//! Rows as people read them.

use crate::forms;
use crate::{Example, Message, SourceRow};
use serde_json::Value;
use std::fmt::Write;

/// A row as text: each turn under its role, both answers of a preference, then the row's
/// other fields. Control characters are made visible: rows are written by models.
pub fn show_row(row: &SourceRow<Value>) -> String {
    let mut text = format!("── {} (line {})\n", visible(&row.id), row.line);
    let mut told: &[&str] = &["id", "key"];
    match forms::example(&row.value) {
        Ok(Example::Conversation { messages }) => {
            told = &[
                "id",
                "key",
                "messages",
                "conversations",
                "prompt",
                "completion",
                "response",
                "instruction",
                "input",
                "output",
                "history",
                "system",
            ];
            write_turns(&mut text, "", &messages);
        }
        Ok(Example::Preference {
            prompt,
            chosen,
            rejected,
        }) => {
            told = &[
                "id",
                "key",
                "messages",
                "conversations",
                "prompt",
                "chosen",
                "rejected",
                "instruction",
                "input",
                "history",
                "system",
            ];
            write_turns(&mut text, "", &prompt);
            write_turns(&mut text, "chosen: ", &chosen);
            write_turns(&mut text, "rejected: ", &rejected);
        }
        Err(_) => {}
    }
    match &row.value {
        Value::Object(fields) => {
            for (name, value) in fields
                .iter()
                .filter(|(name, _)| !told.contains(&name.as_str()))
            {
                write_field(&mut text, name, value);
            }
        }
        other => write_field(&mut text, "row", other),
    }
    text
}

fn write_turns(text: &mut String, before: &str, turns: &[Message]) {
    for turn in turns {
        let _ = writeln!(text, "[{before}{}]", visible(&turn.role));
        let _ = writeln!(text, "{}", visible(&turn.content));
    }
}

/// A field on a line of its own; a text of several lines below its name. Texts that hold JSON
/// are shown as it.
fn write_field(text: &mut String, name: &str, value: &Value) {
    let shown = match value {
        Value::String(string) => string.clone(),
        other => other.to_string(),
    };
    let separator = if shown.contains('\n') { '\n' } else { ' ' };
    let _ = writeln!(text, "{}:{separator}{}", visible(name), visible(&shown));
}

/// The text without characters that would steer a terminal.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' && character != '\t' {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_are_told_once_and_harmlessly() {
        let check = |value: Value, expected: &str| {
            let row = SourceRow {
                file: "a.jsonl".into(),
                line: 3,
                id: "x".into(),
                value,
            };
            assert_eq!(show_row(&row), format!("── x (line 3)\n{expected}"));
        };
        let turns = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a\u{1b}[2J\nb"}]);
        check(
            json!({"id": "x", "messages": turns, "meta": "{}"}),
            "[user]\nq\n[assistant]\na\\u{1b}[2J\nb\nmeta: {}\n",
        );
        check(
            json!({"prompt": "q", "chosen": "c", "rejected": "r", "n": 1}),
            "[user]\nq\n[chosen: assistant]\nc\n[rejected: assistant]\nr\nn: 1\n",
        );
        check(
            json!({"stage": "read", "detail": "a\nb"}),
            "stage: read\ndetail:\na\nb\n",
        );
        check(json!(["a"]), "row: [\"a\"]\n");
    }
}
