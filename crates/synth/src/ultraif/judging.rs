//! Verdicts on one response. No verdict is never a pass.

use super::outputs::{WrittenVerdicts, parse, verdicts_grammar};
use super::{Context, Instruction};
use crate::rules::{Rule, RuleRecord};
use crate::ultraif::settings::Evaluator;
use data::{FinishReason, Prompt, Score};
use futures::future::try_join_all;
use pipeline::{Llm, Stop};
use serde::Serialize;
use serde_json::json;

/// Who gave a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Judge {
    Rule,
    Model,
}

/// What is said of one question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) question: String,
    pub(crate) yes: bool,
    pub(crate) by: Judge,
    /// Why there is no verdict; empty if there is one.
    pub(crate) missing: &'static str,
    /// The rule that judged; empty if none did.
    pub(crate) rule: Vec<RuleRecord>,
    /// Probability of YES among YES and NO where it was read, else 1 or 0.
    pub(crate) probability: f32,
    /// What the judge wrote, or why the rule says NO.
    pub(crate) explanation: String,
}

impl Verdict {
    fn of_model(question: &str, yes: bool, explanation: String) -> Self {
        Self {
            question: question.to_owned(),
            yes,
            by: Judge::Model,
            missing: "",
            rule: Vec::new(),
            probability: if yes { 1.0 } else { 0.0 },
            explanation,
        }
    }

    /// No verdict, which is never a pass.
    fn none(question: &str, missing: &'static str) -> Self {
        Self {
            missing,
            ..Self::of_model(question, false, String::new())
        }
    }

    fn of_rule(question: &str, rule: &Rule, response: &str) -> Self {
        let checked = rule.check(response);
        Self {
            by: Judge::Rule,
            rule: rule.records(),
            ..Self::of_model(
                question,
                checked.followed,
                checked.reason.unwrap_or_default(),
            )
        }
    }

    /// Whether it is a NO, and not the lack of a verdict.
    pub(crate) fn is_no(&self) -> bool {
        !self.yes && self.missing.is_empty()
    }
}

/// What the model is to judge by.
struct Examined<'a> {
    /// Turns before the instruction, if they are shown.
    history: String,
    instruction: &'a str,
    response: &'a str,
    questions: Vec<&'a str>,
}

/// Verdicts on every question of `instruction`, in order: by rule where there is one, by the
/// model where there is none.
pub(crate) async fn judge(
    instruction: &Instruction,
    response: &str,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Vec<Verdict>, Stop> {
    let criteria = instruction.criteria.iter();
    let without_rule = criteria.clone().filter(|one| one.rule.is_none());
    let examined = Examined {
        history: match context.settings.judge_sees_history {
            true => instruction.shown_history(),
            false => String::new(),
        },
        instruction: &instruction.query,
        response,
        questions: without_rule.map(|one| one.question.as_str()).collect(),
    };
    let by_rule = instruction.criteria.len() - examined.questions.len();
    if by_rule > 0 {
        llm.count("judge.by_rule", by_rule as u64);
    }
    let by_model = if examined.questions.is_empty() {
        Vec::new()
    } else {
        llm.count("judge.by_model", examined.questions.len() as u64);
        ask(&examined, context, llm).await?
    };
    let mut by_model = by_model.into_iter();
    let verdicts = criteria.map(|one| match &one.rule {
        Some(rule) => Verdict::of_rule(&one.question, rule, response),
        None => by_model
            .next()
            .unwrap_or_else(|| Verdict::none(&one.question, "miscounted")),
    });
    Ok(verdicts.collect())
}

/// The model's verdicts, as many as questions.
async fn ask(
    examined: &Examined<'_>,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Vec<Verdict>, Stop> {
    match context.settings.evaluator {
        Evaluator::Explain => explain(examined, context, llm).await,
        Evaluator::Logits => read(examined, context, llm).await,
        Evaluator::Rules | Evaluator::Nobody => Ok(Vec::new()),
        Evaluator::Both => {
            let explained = explain(examined, context, llm).await?;
            let read = read(examined, context, llm).await?;
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
    examined: &Examined<'_>,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Vec<Verdict>, Stop> {
    let questions = &examined.questions;
    let variables = json!({
        "history": examined.history, "instruction": examined.instruction,
        "response": examined.response, "questions": questions,
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
    let written = match written {
        Ok(written) => written,
        Err(reason) => {
            llm.count(&format!("judge.{reason}"), 1);
            let none = |question: &&str| Verdict::none(question, reason);
            return Ok(questions.iter().map(none).collect());
        }
    };
    let pairs = questions.iter().zip(written.verdicts);
    let verdicts = pairs.map(|(question, one)| match one.verdict.as_str() {
        "YES" => Verdict::of_model(question, true, one.explanation),
        "NO" => Verdict::of_model(question, false, one.explanation),
        _ => {
            llm.count("judge.neither", 1);
            Verdict::none(question, "neither")
        }
    });
    Ok(verdicts.collect())
}

/// One scored position per question; request and response come first, so they are read once.
async fn read(
    examined: &Examined<'_>,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Vec<Verdict>, Stop> {
    let settings = &context.settings;
    let asked = examined.questions.iter().map(|question| async move {
        let variables = json!({
            "history": examined.history, "instruction": examined.instruction,
            "response": examined.response, "question": question,
        });
        let score = Score {
            prefix: Prompt::Messages(context.render("ultraif/judge_logits", variables)?),
            suffixes: Vec::new(),
            labels: vec!["YES".into(), "NO".into()],
            adapter: None,
        };
        let scores = llm.score("judge", "judge", score).await?;
        let found = scores.suffixes.first().and_then(|one| {
            let yes = *one.probabilities.first()?;
            // Nothing that is not a number, and no share of nothing, is a verdict.
            let decided = one.mass > 0.0 && one.mass >= settings.least_mass && one.mass.is_finite();
            (decided && (0.0..=1.0).contains(&yes)).then_some(yes)
        });
        Ok(match found {
            Some(probability) => Verdict {
                probability,
                ..Verdict::of_model(question, probability >= settings.threshold, String::new())
            },
            None => {
                llm.count("judge.undecided", 1);
                Verdict::none(question, "undecided")
            }
        })
    });
    try_join_all(asked).await
}
