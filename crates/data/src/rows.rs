//! Prompt rows from files: JSONL with `messages`, ShareGPT `conversations`, `prompt` or
//! Alpaca fields, or plain text.

use crate::Message;
use std::io::BufRead;

/// One usable row of an input file.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptRow {
    /// Line in the file, from 1.
    pub line: usize,
    /// The row's own `id` or `key`, if it has one.
    pub id: Option<String>,
    /// The conversation up to and including the turn to be answered.
    pub messages: Vec<Message>,
}

/// A row that cannot be used, or a file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// Reading failed.
    #[error("line {line}: {source}")]
    Io {
        /// Line, from 1.
        line: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The line is not a row we understand.
    #[error("line {line}: {reason}")]
    Row {
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads prompt rows; each line yields a row or the reason why it is none. Blank lines
/// are skipped.
pub fn read_prompts(reader: impl BufRead) -> impl Iterator<Item = Result<PromptRow, RowsError>> {
    reader.lines().enumerate().filter_map(|(index, text)| {
        let line = index + 1;
        match text {
            Err(source) => Some(Err(RowsError::Io { line, source })),
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => Some(
                parse_row(&text)
                    .map(|(id, messages)| PromptRow { line, id, messages })
                    .map_err(|reason| RowsError::Row { line, reason }),
            ),
        }
    })
}

type Parsed = (Option<String>, Vec<Message>);

fn parse_row(text: &str) -> Result<Parsed, String> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    if let Some(prompt) = value.as_str() {
        return Ok((None, vec![Message::new("user", prompt)]));
    }
    let Some(object) = value.as_object() else {
        return Err("expected a JSON object or string".into());
    };
    let id = ["id", "key"]
        .iter()
        .find_map(|name| object.get(*name))
        .map(|id| match id {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        });
    let text_of = |name: &str| object.get(name).and_then(|field| field.as_str());
    let messages = if let Some(turns) = object.get("messages") {
        conversation(turns, "messages", "role", "content")?
    } else if let Some(turns) = object.get("conversations") {
        conversation(turns, "conversations", "from", "value")?
    } else if let Some(prompt) = object.get("prompt") {
        match prompt.as_str() {
            Some(prompt) => vec![Message::new("user", prompt)],
            None => conversation(prompt, "prompt", "role", "content")?,
        }
    } else if let Some(instruction) = text_of("instruction") {
        let input = text_of("input").unwrap_or_default();
        let separator = if input.is_empty() { "" } else { "\n\n" };
        vec![Message::new(
            "user",
            format!("{instruction}{separator}{input}"),
        )]
    } else {
        return Err("none of the fields messages, conversations, prompt, instruction".into());
    };
    Ok((id, messages))
}

fn conversation(
    turns: &serde_json::Value,
    field: &str,
    role_key: &str,
    content_key: &str,
) -> Result<Vec<Message>, String> {
    let turns = turns
        .as_array()
        .ok_or_else(|| format!("`{field}` is not a list"))?;
    if turns.is_empty() {
        return Err(format!("`{field}` is empty"));
    }
    turns
        .iter()
        .enumerate()
        .map(|(index, turn)| {
            let part = |key: &str| {
                turn.get(key)
                    .and_then(|value| value.as_str())
                    .ok_or_else(|| format!("`{field}[{index}].{key}` is missing or not a string"))
            };
            let role = match part(role_key)? {
                "human" => "user",
                "gpt" => "assistant",
                role => role,
            };
            Ok(Message::new(role, part(content_key)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: &[Result<(&str, usize), &str>]) {
        let rows: Vec<_> = read_prompts(input.as_bytes()).collect();
        assert_eq!(rows.len(), expected.len(), "{input}");
        for (row, expected) in rows.iter().zip(expected) {
            match (row, expected) {
                (Ok(row), Ok((last, turns))) => {
                    assert_eq!(row.messages.last().unwrap().content, *last);
                    assert_eq!(row.messages.len(), *turns);
                }
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                other => panic!("{input}: {other:?}"),
            }
        }
    }

    #[test]
    fn every_accepted_form() {
        check(
            concat!(
                "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n\n",
                "{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\",\"value\":\"r\"},{\"from\":\"human\",\"value\":\"b\"}]}\n",
                "{\"prompt\":\"c\"}\n\"d\"\n{\"instruction\":\"e\",\"input\":\"f\"}\n",
            ),
            &[
                Ok(("a", 1)),
                Ok(("b", 3)),
                Ok(("c", 1)),
                Ok(("d", 1)),
                Ok(("e\n\nf", 1)),
            ],
        );
    }

    #[test]
    fn every_rejected_form_names_its_line() {
        check(
            "{\n{\"messages\":[]}\n{\"messages\":[{\"role\":1}]}\n{\"x\":1}\n7\n",
            &[
                Err("line 1: not JSON"),
                Err("line 2: `messages` is empty"),
                Err("line 3: `messages[0].role`"),
                Err("line 4: none of"),
                Err("line 5: expected a JSON object"),
            ],
        );
    }
}
