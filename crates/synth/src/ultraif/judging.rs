//! Verdicts on one response. No verdict is never a pass.

use super::outputs::{WrittenVerdicts, parse, verdicts_grammar};
use super::{Context, Instruction};
use crate::ultraif::settings::Evaluator;
use data::{FinishReason, Prompt, Score};
use futures::future::try_join_all;
use pipeline::{Llm, Stop};
use serde::Serialize;
use serde_json::json;

/// What is said of one question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) question: String,
    pub(crate) yes: bool,
    /// `explain`, `logits`, or why there is no verdict.
    pub(crate) by: String,
    /// Probability of YES among YES and NO, where it was read.
    pub(crate) probability: f32,
    /// What the judge wrote.
    pub(crate) explanation: String,
}

/// Verdicts on every question of `instruction`, in order.
pub(crate) async fn judge(
    instruction: &Instruction,
    response: &str,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Vec<Verdict>, Stop> {
    match context.settings.evaluator {
        Evaluator::Explain => explain(instruction, response, context, llm).await,
        Evaluator::Logits => read(instruction, response, context, llm).await,
        Evaluator::Both => {
            let explained = explain(instruction, response, context, llm).await?;
            let read = read(instruction, response, context, llm).await?;
            for (explained, read) in explained.iter().zip(&read) {
                llm.record(
                    super::AGREEMENT_FILE,
                    json!({
                        "id": llm.row_id(), "question": explained.question,
                        "explain": explained.yes, "logits": read.yes,
                        "probability": read.probability,
                    }),
                );
            }
            Ok(explained)
        }
    }
}

/// The paper's evaluator: one call for all questions, a reason before each verdict.
async fn explain(
    instruction: &Instruction,
    response: &str,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Vec<Verdict>, Stop> {
    let questions = &instruction.questions;
    let variables = json!({
        "history": instruction.shown_history(), "instruction": instruction.query,
        "response": response, "questions": questions,
    });
    let grammar = verdicts_grammar(questions.len());
    let request = context.request("ultraif/judge_explain", variables, 0, grammar)?;
    let answer = llm.generate("judge", "judge", request).await?;
    let written = if answer.finish_reason == FinishReason::Length {
        Err("truncated")
    } else {
        parse::<WrittenVerdicts>(&answer.text)
            .map_err(|_| "unparsed")
            .and_then(|written| {
                let as_many = written.verdicts.len() == questions.len();
                as_many.then_some(written).ok_or("miscounted")
            })
    };
    let verdict = |question: &String, yes, by: &str, explanation: String| Verdict {
        question: question.clone(),
        yes,
        by: by.to_owned(),
        probability: if yes { 1.0 } else { 0.0 },
        explanation,
    };
    Ok(match written {
        Ok(written) => questions
            .iter()
            .zip(written.verdicts)
            .map(|(question, one)| {
                let yes = one.verdict == "YES";
                verdict(question, yes, "explain", one.explanation)
            })
            .collect(),
        Err(reason) => {
            llm.count(&format!("judge.{reason}"), 1);
            let none = |question| verdict(question, false, reason, String::new());
            questions.iter().map(none).collect()
        }
    })
}

/// One scored position per question; request and response come first, so they are read once.
async fn read(
    instruction: &Instruction,
    response: &str,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Vec<Verdict>, Stop> {
    let settings = &context.settings;
    let asked = instruction.questions.iter().map(|question| async move {
        let variables = json!({
            "history": instruction.shown_history(), "instruction": instruction.query,
            "response": response, "question": question,
        });
        let score = Score {
            prefix: Prompt::Messages(context.render("ultraif/judge_logits", variables)?),
            suffixes: Vec::new(),
            labels: vec!["YES".into(), "NO".into()],
            adapter: None,
        };
        let scores = llm.score("judge", "judge", score).await?;
        let one = scores.suffixes.first();
        let probability = one.and_then(|one| one.probabilities.first());
        let probability = probability.copied().unwrap_or(0.0);
        let undecided = one.is_none_or(|one| one.mass.is_nan() || one.mass < settings.least_mass);
        if undecided {
            llm.count("judge.undecided", 1);
        }
        Ok(Verdict {
            question: question.clone(),
            yes: !undecided && probability >= settings.threshold,
            by: if undecided { "undecided" } else { "logits" }.to_owned(),
            probability,
            explanation: String::new(),
        })
    });
    try_join_all(asked).await
}
