//! Asking the model: one user turn, or Multi-IF's up to three with the model's own answers
//! between them. Greedy, by the chat template, no system message.

use crate::answers::{Answers, split_reasoning};
use crate::item::Item;
use data::{Generate, Message, Prompt, Sampling};
use pipeline::{Llm, Stop};
use serde_json::json;

/// File of a run's answers; [`Answers::read`] reads it back.
pub const RESPONSES_FILE: &str = "responses.jsonl";

/// Name of this stage in the call log.
const STAGE: &str = "answer";

/// How answers are asked for.
#[derive(Debug, Clone)]
pub struct Asking {
    /// Role in the pipeline, which decides model and adapter.
    pub role: String,
    /// File that the answers are recorded in.
    pub file: String,
    /// Tokens that one answer may have.
    pub max_tokens: usize,
}

/// Asks every turn of an item and records each answer as soon as it is there.
///
/// # Errors
/// Why the row ended early: a turn that does not fit in the context, an engine error, or
/// the run was stopped.
pub async fn ask(item: &Item, llm: &Llm<'_>, asking: &Asking) -> Result<(), Stop> {
    let mut messages = Vec::new();
    for turn in &item.turns {
        messages.push(Message::new("user", &turn.prompt));
        let request = request(messages.clone(), asking.max_tokens);
        let completion = llm.generate(&asking.role, STAGE, request).await?;
        llm.record(
            &asking.file,
            json!({
                "key": item.key, "turn": turn.number, "prompt": turn.prompt,
                "response": completion.text, "finish_reason": completion.finish_reason,
                "prompt_tokens": completion.usage.prompt_tokens,
                "completion_tokens": completion.usage.completion_tokens,
            }),
        );
        let answer = split_reasoning(&completion.text).into_owned();
        messages.push(Message::new("assistant", answer));
    }
    Ok(())
}

/// The request for the next answer of a conversation.
pub fn request(messages: Vec<Message>, max_tokens: usize) -> Generate {
    Generate {
        sampling: Sampling::greedy(),
        max_tokens: Some(max_tokens),
        ..Generate::new(Prompt::Messages(messages))
    }
}

/// What the model reads before its answer to turn `number`: the user's turns up to it, and
/// between them the answers given, without reasoning; a missing answer is left empty.
pub fn conversation(item: &Item, number: usize, answers: &Answers) -> Vec<Message> {
    let mut messages = Vec::new();
    for turn in &item.turns {
        messages.push(Message::new("user", &turn.prompt));
        if turn.number >= number {
            break;
        }
        let answer = answers.get(item, turn).map_or("", |answer| &answer.text);
        messages.push(Message::new("assistant", split_reasoning(answer)));
    }
    messages
}
