//! Answers to a held-out instruction: the likeliest one, and samples.

use super::Instruction;
use data::{Completion, FinishReason, Generate, Prompt, Sampling};
use pipeline::{Llm, Stop};
use serde_json::{Value, json};

/// File of a run's answers; [`super::Scored`] reads it.
pub const ANSWERS_FILE: &str = "answers.jsonl";

/// Role and stage in the call log.
const ROLE: &str = "answer";

/// How answers are asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asking {
    /// Samples beside the greedy answer.
    pub samples: usize,
    /// How samples are drawn.
    pub sampling: Sampling,
    /// Tokens that an answer may have.
    pub max_tokens: usize,
}

/// Asks one instruction and records its answers together. One without rules is not asked.
///
/// # Errors
/// Why it has no answers: a prompt that does not fit, an engine error, a run that was stopped.
pub async fn ask(item: &Instruction, llm: &Llm<'_>, asking: &Asking) -> Result<(), Stop> {
    if item.rules.is_empty() {
        return Ok(());
    }
    let request = |sampling: Sampling, seed| Generate {
        sampling,
        seed,
        max_tokens: Some(asking.max_tokens),
        ..Generate::new(Prompt::Messages(item.messages.clone()))
    };
    let greedy = request(Sampling::greedy(), 0);
    let drawn = request(asking.sampling.clone(), llm.seed(ROLE, 0));
    let greedy = llm.generate(ROLE, "greedy", greedy).await?;
    let samples = llm.samples(ROLE, "sample", &drawn, 0..asking.samples);
    let samples = samples.await?;
    llm.record(
        ANSWERS_FILE,
        json!({
            "key": item.key, "greedy": answer(&greedy),
            "samples": samples.iter().map(answer).collect::<Vec<_>>(),
        }),
    );
    Ok(())
}

fn answer(completion: &Completion) -> Value {
    json!({
        "text": completion.text, "tokens": completion.usage.completion_tokens,
        "cut": completion.finish_reason == FinishReason::Length,
    })
}
