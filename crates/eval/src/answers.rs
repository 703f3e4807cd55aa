//! Recorded answers: what a run wrote, or what another tool did.

use crate::EvalError;
use crate::item::{Item, Turn};
use data::FinishReason;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::BufRead;

/// What a model said in one turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The text as it came, reasoning included.
    pub text: String,
    /// Why it ended, where the file says so.
    pub finish_reason: Option<FinishReason>,
    /// The prompt that it answers, where the file says so.
    pub prompt: Option<String>,
}

/// Answers to a benchmark, found by the item's key and turn, else by the prompt's text.
#[derive(Debug, Default)]
pub struct Answers {
    file: String,
    by_key: HashMap<(String, usize), Answer>,
    by_prompt: HashMap<String, Answer>,
    /// Key → why there is no answer.
    failures: HashMap<String, String>,
}

impl Answers {
    /// Reads JSONL. A line has a `key` (or `id`, `question_id`) or a `prompt`, or both, and
    /// a `response`; optionally `turn` (from 1) and `finish_reason`. Also understood:
    /// `responses` (one per turn), lm-eval's samples (`doc`, `resps`) and LiveBench's
    /// answers (`question_id`, `choices`). A null response is no answer.
    ///
    /// # Errors
    /// [`EvalError::Data`] with the line: not such an object, or a second answer to the same
    /// turn; [`EvalError::Empty`] if there is no line at all.
    pub fn read(file: &str, reader: impl BufRead) -> Result<Self, EvalError> {
        let mut answers = Self {
            file: file.to_owned(),
            ..Self::default()
        };
        let mut lines: HashMap<(String, usize), usize> = HashMap::new();
        for (index, text) in reader.lines().enumerate() {
            let line = index + 1;
            let bad = |reason: String| EvalError::Data {
                file: file.to_owned(),
                line,
                reason,
            };
            let text = text.map_err(|error| bad(error.to_string()))?;
            if text.trim().is_empty() {
                continue;
            }
            let row = Row::parse(&text).map_err(bad)?;
            let name = row.key.as_ref().or(row.prompt.as_ref());
            let name = name.expect("a row has a key or a prompt").clone();
            for turn in row.turns() {
                if let Some(first) = lines.insert((name.clone(), turn), line) {
                    return Err(bad(format!(
                        "a second response to {name:?} turn {turn} (the first is in line {first})"
                    )));
                }
            }
            answers.insert(row);
        }
        if lines.is_empty() {
            return Err(EvalError::Empty {
                what: "responses",
                files: file.to_owned(),
                reason: "the file has no records".into(),
            });
        }
        Ok(answers)
    }

    /// Why items have no answer, by key: shown instead of "no response".
    pub fn explain_missing(&mut self, failures: HashMap<String, String>) {
        self.failures = failures;
    }

    /// The file they came from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Number of answers.
    pub fn len(&self) -> usize {
        self.by_key.len() + self.by_prompt.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The answer to a turn.
    pub fn get(&self, item: &Item, turn: &Turn) -> Option<&Answer> {
        self.by_key
            .get(&(item.key.clone(), turn.number))
            .or_else(|| self.by_prompt.get(&turn.prompt))
    }

    /// Why there is no answer to an item.
    pub fn why_missing(&self, item: &Item) -> String {
        let reason = self.failures.get(&item.key);
        reason.cloned().unwrap_or_else(|| "no response".into())
    }

    fn insert(&mut self, row: Row) {
        for (offset, text) in row.texts.into_iter().enumerate() {
            let Some(text) = text else { continue };
            let answer = Answer {
                text,
                finish_reason: row.finish_reason,
                prompt: row.prompt.clone(),
            };
            match &row.key {
                Some(key) => self
                    .by_key
                    .insert((key.clone(), row.first_turn + offset), answer),
                None => self
                    .by_prompt
                    .insert(row.prompt.clone().unwrap_or_default(), answer),
            };
        }
    }
}

/// A line of a responses file; at least one of key and prompt is there.
struct Row {
    key: Option<String>,
    prompt: Option<String>,
    first_turn: usize,
    texts: Vec<Option<String>>,
    finish_reason: Option<FinishReason>,
}

impl Row {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let row: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
        let doc = row.get("doc").and_then(Value::as_object).unwrap_or(&row);
        let key = ["key", "question_id", "id"]
            .iter()
            .find_map(|name| doc.get(*name).filter(|key| !key.is_null()));
        let key = match key {
            None => None,
            Some(Value::String(key)) => Some(key.clone()),
            Some(Value::Number(key)) => Some(key.to_string()),
            Some(_) => return Err("`key` is neither a number nor a string".into()),
        };
        let prompt = doc.get("prompt").and_then(Value::as_str).map(str::to_owned);
        if key.is_none() && prompt.is_none() {
            return Err("neither `key` nor `prompt`: whose response is it?".into());
        }
        let first_turn = match row.get("turn") {
            None | Some(Value::Null) => 1,
            Some(turn) => turn
                .as_u64()
                .filter(|turn| (1..=1000).contains(turn))
                .and_then(|turn| usize::try_from(turn).ok())
                .ok_or_else(|| format!("`turn` is {turn}, expected a number from 1"))?,
        };
        let texts = texts(&row)?;
        if texts.len() > 1 && key.is_none() {
            return Err("a row with several turns needs a `key`".into());
        }
        let finish_reason = row.get("finish_reason").and_then(Value::as_str);
        Ok(Self {
            key,
            prompt,
            first_turn,
            texts,
            finish_reason: match finish_reason {
                Some("length") => Some(FinishReason::Length),
                Some("stop") => Some(FinishReason::Stop),
                _ => None,
            },
        })
    }

    fn turns(&self) -> std::ops::Range<usize> {
        self.first_turn..self.first_turn + self.texts.len()
    }
}

/// The response of each turn of a row; `None` where it is null.
fn texts(row: &Map<String, Value>) -> Result<Vec<Option<String>>, String> {
    let text = |value: &Value, name: &str| match value {
        Value::String(text) => Ok(Some(text.clone())),
        Value::Null => Ok(None),
        _ => Err(format!("`{name}` is neither text nor null")),
    };
    let all = |list: &[Value], name: &str| list.iter().map(|one| text(one, name)).collect();
    if let Some(response) = row.get("response") {
        return Ok(vec![text(response, "response")?]);
    }
    if let Some(Value::Array(list)) = row.get("responses") {
        return all(list, "responses");
    }
    if let Some(list) = row.get("resps") {
        let first = list.pointer("/0/0").unwrap_or(&Value::Null);
        return Ok(vec![text(first, "resps[0][0]")?]);
    }
    if let Some(Value::Array(turns)) = row
        .get("choices")
        .and_then(|choices| choices.pointer("/0/turns"))
    {
        return all(turns, "choices[0].turns");
    }
    Err("`response` is missing".into())
}

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// The answer without a reasoning model's thoughts: every `<think>…</think>` is cut, and so
/// is what stands before a `</think>` whose beginning was part of the prompt; a text that
/// never stops thinking has no answer. What is left is trimmed; without thoughts the text
/// is returned as it is.
pub fn split_reasoning(text: &str) -> Cow<'_, str> {
    let mut rest = text;
    let mut answer = String::new();
    let mut cut = false;
    if let Some(close) = text.find(CLOSE)
        && text.find(OPEN).is_none_or(|open| close < open)
    {
        rest = &text[close + CLOSE.len()..];
        cut = true;
    }
    while let Some(open) = rest.find(OPEN) {
        let Some(length) = rest[open..].find(CLOSE) else {
            break;
        };
        answer.push_str(&rest[..open]);
        rest = &rest[open + length + CLOSE.len()..];
        cut = true;
    }
    if answer.trim().is_empty() && rest.trim_start().starts_with(OPEN) {
        return Cow::Borrowed("");
    }
    if !cut {
        return Cow::Borrowed(text);
    }
    answer.push_str(rest);
    Cow::Owned(answer.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_are_cut() {
        for (text, answer) in [
            (" plain \n", " plain \n"),
            ("<think>a\nb</think>\n\nyes\n", "yes"),
            ("a <think>b</think> c <think>d</think>", "a  c"),
            ("still thinking</think>\nyes", "yes"),
            ("x</think>y<think>z</think>w", "yw"),
            ("<think>never ends", ""),
            ("\n<think>", ""),
            ("<think>a</think><think>b", ""),
            ("the tag <think> alone", "the tag <think> alone"),
            ("", ""),
        ] {
            assert_eq!(split_reasoning(text), answer, "{text:?}");
        }
    }

    fn item(key: &str, prompts: &[&str]) -> Item {
        let turns = prompts.iter().enumerate();
        Item {
            key: key.into(),
            doc: Value::Null,
            group: String::new(),
            turns: turns
                .map(|(index, prompt)| Turn {
                    number: index + 1,
                    prompt: (*prompt).into(),
                    rules: Vec::new(),
                })
                .collect(),
        }
    }

    #[test]
    fn every_form_of_a_responses_file() {
        let item = item("7", &["hello", "and then"]);
        for (line, first, second) in [
            (r#"{"key":7,"response":"a"}"#, Some("a"), None),
            (
                r#"{"key":"7","turn":2,"response":"b","finish_reason":"length"}"#,
                None,
                Some("b"),
            ),
            (r#"{"prompt":"hello","response":"c"}"#, Some("c"), None),
            (r#"{"id":"7","responses":["d","e"]}"#, Some("d"), Some("e")),
            (
                r#"{"doc_id":0,"doc":{"key":7,"prompt":"x"},"resps":[["f"]]}"#,
                Some("f"),
                None,
            ),
            (
                r#"{"question_id":"7","choices":[{"index":0,"turns":["g"]}]}"#,
                Some("g"),
                None,
            ),
            (r#"{"key":7,"response":null}"#, None, None),
            (r#"{"key":8,"response":"other"}"#, None, None),
        ] {
            let answers = Answers::read("r.jsonl", format!("\n{line}\n").as_bytes()).unwrap();
            let text = |turn: &Turn| answers.get(&item, turn).map(|answer| answer.text.as_str());
            assert_eq!(text(&item.turns[0]), first, "{line}");
            assert_eq!(text(&item.turns[1]), second, "{line}");
        }
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, reason) in [
            ("{}", "r:1: neither `key` nor `prompt`"),
            ("\n[]", "r:2: not a JSON object"),
            (r#"{"key":1}"#, "r:1: `response` is missing"),
            (r#"{"key":1,"response":2}"#, "`response` is neither"),
            (r#"{"key":[],"response":"a"}"#, "`key` is neither"),
            (r#"{"key":1,"turn":0,"response":"a"}"#, "`turn` is 0"),
            (r#"{"prompt":"p","responses":["a","b"]}"#, "needs a `key`"),
            (
                "{\"key\":1,\"response\":\"a\"}\n{\"key\":\"1\",\"response\":\"b\"}",
                "r:2: a second response to \"1\" turn 1 (the first is in line 1)",
            ),
            ("\n\n", "no responses items"),
        ] {
            let error = Answers::read("r", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
