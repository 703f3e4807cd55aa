//! What a row says: the forms in which prompts, conversations and preferences are written.

use crate::{Example, Message};
use serde_json::Value;

/// Names under which an id is found.
const ID_FIELDS: [&str; 2] = ["id", "key"];
/// Names under which the answer to a `prompt` is found.
const COMPLETION_FIELDS: [&str; 2] = ["completion", "response"];
/// Fields that make a row a row.
const FIELDS: &str = "none of the fields messages, conversations, prompt, instruction";

/// The row's own id, if it has one.
pub(crate) fn id(row: &Value) -> Option<String> {
    let id = ID_FIELDS.iter().find_map(|name| field(row, name))?;
    Some(match id {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// The conversation that a row asks to go on from.
///
/// # Errors
/// Why the row is none.
pub(crate) fn prompt(row: &Value) -> Result<Vec<Message>, String> {
    if let Some(text) = row.as_str() {
        return Ok(vec![Message::new("user", text)]);
    }
    let messages = if let Some(found) = given_turns(row)? {
        found
    } else if let Some(messages) = stated_prompt(row)? {
        messages
    } else if let Some((chosen, rejected)) = both_answers(row)? {
        split_preference(None, chosen, rejected)?.0
    } else {
        return Err(not_a_row(row));
    };
    Ok(with_system(row, messages))
}

/// What a row teaches.
///
/// # Errors
/// Why it teaches nothing.
pub(crate) fn example(row: &Value) -> Result<Example, String> {
    if row.is_string() {
        return Err("a prompt without a completion: there is nothing to learn".into());
    }
    if let Some((chosen, rejected)) = both_answers(row)? {
        let stated = match given_turns(row)? {
            Some(turns) => Some(turns),
            None => stated_prompt(row)?,
        };
        let (prompt, chosen, rejected) = split_preference(stated, chosen, rejected)?;
        return Ok(Example::Preference {
            prompt: with_system(row, prompt),
            chosen,
            rejected,
        });
    }
    let messages = match given_turns(row)? {
        Some(turns) => turns,
        None => prompt_and_completion(row)?,
    };
    if !messages.iter().any(|message| message.role == "assistant") {
        return Err("no turn of the assistant: there is nothing to learn".into());
    }
    Ok(Example::Conversation {
        messages: with_system(row, messages),
    })
}

/// A field that is there; null is absence, as tables have it.
fn field<'a>(row: &'a Value, name: &str) -> Option<&'a Value> {
    row.get(name).filter(|value| !value.is_null())
}

/// A field that has to be a text where it is there.
fn text<'a>(row: &'a Value, name: &str) -> Result<Option<&'a str>, String> {
    field(row, name)
        .map(|value| value.as_str().ok_or(format!("`{name}` is not a string")))
        .transpose()
}

fn not_a_row(row: &Value) -> String {
    if row.is_object() {
        FIELDS.into()
    } else {
        "expected a JSON object or string".into()
    }
}

/// The turns of `messages` or `conversations`.
fn given_turns(row: &Value) -> Result<Option<Vec<Message>>, String> {
    ["messages", "conversations"]
        .into_iter()
        .find_map(|name| field(row, name).map(|value| turns(value, name)))
        .transpose()
}

/// The prompt that a row states apart from its answers.
fn stated_prompt(row: &Value) -> Result<Option<Vec<Message>>, String> {
    if let Some(prompt) = field(row, "prompt") {
        return text_or_turns(prompt, "prompt", "user").map(Some);
    }
    let Some(instruction) = text(row, "instruction")? else {
        return Ok(None);
    };
    let mut messages = Vec::new();
    for (index, pair) in list(row, "history")?.iter().enumerate() {
        let [Some(asked), Some(answered)] =
            [pair.get(0), pair.get(1)].map(|half| half.and_then(Value::as_str))
        else {
            return Err(format!("`history[{index}]` is not a pair of strings"));
        };
        messages.push(Message::new("user", asked));
        messages.push(Message::new("assistant", answered));
    }
    let input = text(row, "input")?.unwrap_or_default();
    let separator = if input.is_empty() { "" } else { "\n\n" };
    messages.push(Message::new(
        "user",
        format!("{instruction}{separator}{input}"),
    ));
    Ok(Some(messages))
}

fn list<'a>(row: &'a Value, name: &str) -> Result<&'a [Value], String> {
    match field(row, name) {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(format!("`{name}` is not a list")),
    }
}

fn prompt_and_completion(row: &Value) -> Result<Vec<Message>, String> {
    let Some(mut messages) = stated_prompt(row)? else {
        return Err(not_a_row(row));
    };
    let names: &[&str] = if field(row, "prompt").is_some() {
        &COMPLETION_FIELDS
    } else {
        &["output"]
    };
    let found = names
        .iter()
        .find_map(|name| field(row, name).map(|value| (*name, value)));
    let Some((name, completion)) = found else {
        let names = names.join("` or `");
        return Err(format!("no `{names}`: there is nothing to learn"));
    };
    messages.extend(text_or_turns(completion, name, "assistant")?);
    Ok(messages)
}

/// Chosen and rejected.
type Answers = (Vec<Message>, Vec<Message>);

/// `chosen` and `rejected`, where the row has them.
fn both_answers(row: &Value) -> Result<Option<Answers>, String> {
    match (field(row, "chosen"), field(row, "rejected")) {
        (None, None) => Ok(None),
        (Some(chosen), Some(rejected)) => {
            // Without turns or a prompt beside them, texts could not be told from their prompt.
            let has_prompt = ["prompt", "messages", "conversations", "instruction"]
                .iter()
                .any(|name| field(row, name).is_some());
            if !has_prompt && (chosen.is_string() || rejected.is_string()) {
                return Err("`chosen` and `rejected` are texts, and there is no `prompt`".into());
            }
            Ok(Some((
                text_or_turns(chosen, "chosen", "assistant")?,
                text_or_turns(rejected, "rejected", "assistant")?,
            )))
        }
        (None, Some(_)) => Err("`rejected` without `chosen`".into()),
        (Some(_), None) => Err("`chosen` without `rejected`".into()),
    }
}

type Preference = (Vec<Message>, Vec<Message>, Vec<Message>);

/// Prompt and answers apart: answers may be whole conversations, that repeat the prompt or
/// are the only place where it stands (TRL's implicit prompts).
fn split_preference(
    stated: Option<Vec<Message>>,
    mut chosen: Vec<Message>,
    mut rejected: Vec<Message>,
) -> Result<Preference, String> {
    if chosen == rejected {
        return Err("`chosen` and `rejected` are equal".into());
    }
    let shared = chosen
        .iter()
        .zip(&rejected)
        .take_while(|(one, other)| one == other)
        .count();
    let prompt = match stated {
        None if shared == 0 => {
            return Err("no `prompt`, and `chosen` and `rejected` begin differently".into());
        }
        None => {
            rejected.drain(..shared);
            chosen.drain(..shared).collect()
        }
        Some(prompt) => {
            // A text as prompt beside whole conversations is their last user's turn.
            let repeated = [&chosen, &rejected]
                .iter()
                .all(|answer| answer.len() > prompt.len() && answer.starts_with(&prompt));
            let is_last = shared > 0
                && prompt.len() == 1
                && chosen[shared - 1].content == prompt[0].content
                && chosen[shared - 1].role == "user";
            if is_last {
                rejected.drain(..shared);
                chosen.drain(..shared).collect()
            } else {
                if repeated {
                    chosen.drain(..prompt.len());
                    rejected.drain(..prompt.len());
                }
                prompt
            }
        }
    };
    for (name, answer) in [("chosen", &chosen), ("rejected", &rejected)] {
        if !answer.iter().any(|message| message.role == "assistant") {
            return Err(format!("`{name}` has no turn of the assistant"));
        }
    }
    Ok((prompt, chosen, rejected))
}

/// A `system` field stands before the first turn, unless a system's turn is there.
fn with_system(row: &Value, mut messages: Vec<Message>) -> Vec<Message> {
    let system = field(row, "system").and_then(Value::as_str).unwrap_or("");
    let is_there = messages.first().is_some_and(|first| first.role == "system");
    if !system.is_empty() && !is_there {
        messages.insert(0, Message::new("system", system));
    }
    messages
}

/// A text as one turn of `role`, one turn, or a list of turns.
fn text_or_turns(value: &Value, name: &str, role: &str) -> Result<Vec<Message>, String> {
    match value {
        Value::String(text) => Ok(vec![Message::new(role, text)]),
        Value::Object(_) => Ok(vec![turn(value, || format!("`{name}`"))?]),
        Value::Array(_) => turns(value, name),
        _ => Err(format!("`{name}` is neither a string nor a list")),
    }
}

fn turns(value: &Value, name: &str) -> Result<Vec<Message>, String> {
    let turns = value
        .as_array()
        .ok_or_else(|| format!("`{name}` is not a list"))?;
    if turns.is_empty() {
        return Err(format!("`{name}` is empty"));
    }
    turns
        .iter()
        .enumerate()
        .map(|(index, one)| turn(one, || format!("`{name}[{index}]`")))
        .collect()
}

/// `role` and `content`, or ShareGPT's `from` and `value`.
fn turn(turn: &Value, place: impl Fn() -> String) -> Result<Message, String> {
    let missing = |key: &str| {
        let place = place();
        format!(
            "{}.{key}` is missing or not a string",
            place.trim_end_matches('`')
        )
    };
    let (role_key, content_key) = if field(turn, "from").is_some() {
        ("from", "value")
    } else {
        ("role", "content")
    };
    let role = field(turn, role_key)
        .and_then(Value::as_str)
        .ok_or_else(|| missing(role_key))?;
    let role = match role {
        "human" => "user",
        "gpt" | "chatgpt" => "assistant",
        role => role,
    };
    let content = match field(turn, content_key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => joined(parts).ok_or_else(|| {
            let place = place();
            format!(
                "{}.{content_key}` has parts that are not text",
                place.trim_end_matches('`')
            )
        })?,
        _ => return Err(missing(content_key)),
    };
    Ok(Message::new(role, content))
}

/// Content in parts, where all of them are text.
fn joined(parts: &[Value]) -> Option<String> {
    let texts = parts.iter().map(|part| {
        let is_text = part.get("type").and_then(Value::as_str) == Some("text");
        part.get("text")?.as_str().filter(|_| is_text)
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Turns as `u:text` and so on.
    fn short(messages: &[Message]) -> String {
        let turns = messages
            .iter()
            .map(|message| format!("{}:{}", &message.role[..1], message.content));
        turns.collect::<Vec<_>>().join("|")
    }

    fn shown(example: &Example) -> String {
        match example {
            Example::Conversation { messages } => short(messages),
            Example::Preference {
                prompt,
                chosen,
                rejected,
            } => format!(
                "{} > {} < {}",
                short(prompt),
                short(chosen),
                short(rejected)
            ),
        }
    }

    fn u(text: &str) -> Value {
        json!({"role": "user", "content": text})
    }

    fn a(text: &str) -> Value {
        json!({"role": "assistant", "content": text})
    }

    #[test]
    fn every_form_of_a_prompt() {
        let check = |row: Value, expected: &str| {
            assert_eq!(short(&prompt(&row).unwrap()), expected, "{row}");
        };
        check(json!("q"), "u:q");
        check(json!({"messages": [u("q")]}), "u:q");
        check(json!({"prompt": "q", "messages": null}), "u:q");
        check(json!({"prompt": [u("p"), a("r"), u("q")]}), "u:p|a:r|u:q");
        check(
            json!({"prompt": "q", "chosen": "c", "rejected": "r"}),
            "u:q",
        );
        check(
            json!({"chosen": [u("q"), a("c")], "rejected": [u("q"), a("r")]}),
            "u:q",
        );
        let turns = json!([{"from": "system", "value": "s"}, {"from": "human", "value": "q"}]);
        check(json!({"conversations": turns}), "s:s|u:q");
        check(
            json!({"instruction": "i", "input": "", "output": "o"}),
            "u:i",
        );
        check(json!({"instruction": "i", "input": "x"}), "u:i\n\nx");
        let row = json!({"instruction": "i", "history": [["p", "r"]], "system": "s"});
        check(row, "s:s|u:p|a:r|u:i");
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        check(
            json!({"messages": [{"role": "user", "content": parts}]}),
            "u:ab",
        );
    }

    #[test]
    fn every_form_of_an_example() {
        let check = |row: Value, expected: &str| {
            assert_eq!(shown(&example(&row).unwrap()), expected, "{row}");
        };
        check(json!({"messages": [u("q"), a("r")]}), "u:q|a:r");
        let turns = json!([{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}]);
        check(
            json!({"conversations": turns, "system": "s"}),
            "s:s|u:q|a:r",
        );
        check(json!({"prompt": "q", "completion": "r"}), "u:q|a:r");
        check(
            json!({"prompt": [u("q")], "completion": [a("r")]}),
            "u:q|a:r",
        );
        check(json!({"prompt": "q", "response": "r"}), "u:q|a:r");
        check(
            json!({"instruction": "i", "input": "x", "output": "o"}),
            "u:i\n\nx|a:o",
        );
        check(
            json!({"prompt": "q", "chosen": "c", "rejected": "r"}),
            "u:q > a:c < a:r",
        );
        let (chosen, rejected) = (json!([a("c")]), json!([a("r")]));
        let row = json!({"prompt": [u("q")], "chosen": chosen, "rejected": rejected});
        check(row, "u:q > a:c < a:r");
        // Whole conversations: with the prompt, with its last turn as a text, without.
        let (whole, other) = (
            json!([u("p"), a("x"), u("q"), a("c")]),
            json!([u("p"), a("x"), u("q"), a("r")]),
        );
        let expected = "u:p|a:x|u:q > a:c < a:r";
        let stated = json!([u("p"), a("x"), u("q")]);
        check(
            json!({"prompt": stated, "chosen": whole, "rejected": other}),
            expected,
        );
        check(
            json!({"prompt": "q", "chosen": whole, "rejected": other}),
            expected,
        );
        check(json!({"chosen": whole, "rejected": other}), expected);
        // LLaMA-Factory: the conversation beside one turn each.
        let row = json!({"conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "c"}, "rejected": {"from": "gpt", "value": "r"}});
        check(row, "u:q > a:c < a:r");
    }

    #[test]
    fn what_is_no_row_says_why() {
        let check = |row: Value, named: &str| {
            let reason = example(&row).unwrap_err();
            assert!(reason.contains(named), "{row}: {reason}");
        };
        check(json!(7), "expected a JSON object");
        check(json!("q"), "nothing to learn");
        check(json!({"x": 1}), "none of the fields");
        check(json!({"messages": []}), "`messages` is empty");
        check(json!({"messages": "q"}), "`messages` is not a list");
        check(json!({"messages": [1]}), "`messages[0].role`");
        check(json!({"messages": [{"role": 1}]}), "`messages[0].role`");
        check(
            json!({"messages": [{"role": "user"}]}),
            "`messages[0].content`",
        );
        check(
            json!({"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
            "not text",
        );
        check(json!({"messages": [u("q")]}), "no turn of the assistant");
        check(json!({"prompt": "q"}), "no `completion` or `response`");
        check(
            json!({"prompt": 1, "completion": "r"}),
            "`prompt` is neither",
        );
        check(json!({"instruction": "i"}), "no `output`");
        check(json!({"instruction": 1}), "`instruction` is not a string");
        check(
            json!({"instruction": "i", "history": [1], "output": "o"}),
            "`history[0]`",
        );
        check(
            json!({"chosen": "c", "rejected": "r"}),
            "there is no `prompt`",
        );
        check(json!({"prompt": "q", "chosen": "c"}), "without `rejected`");
        check(
            json!({"prompt": "q", "chosen": "c", "rejected": "c"}),
            "are equal",
        );
        check(
            json!({"chosen": [a("c")], "rejected": [a("r")]}),
            "begin differently",
        );
        let (long, short) = (json!([u("q"), a("c")]), json!([u("q")]));
        check(
            json!({"chosen": long, "rejected": short}),
            "`rejected` has no turn",
        );
    }

    #[test]
    fn ids_are_texts() {
        assert_eq!(id(&json!({"id": "a", "key": 1})).as_deref(), Some("a"));
        assert_eq!(id(&json!({"id": null, "key": 12})).as_deref(), Some("12"));
        assert_eq!(id(&json!({"prompt": "q"})), None);
    }
}
