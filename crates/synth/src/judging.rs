//! Verdicts on one response. No verdict is never a pass.

use crate::outputs::{WrittenVerdicts, parse, verdicts_grammar};
use crate::prompts::PromptSet;
use crate::rules::{Rule, RuleRecord};
use data::{FinishReason, Prompt, Score};
use futures::future::try_join_all;
use pipeline::{Llm, Stop};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Verdicts of both evaluators, where both judge.
pub(crate) const AGREEMENT_FILE: &str = "agreement.jsonl";

/// How responses are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evaluator {
    /// The papers': a reason and a verdict for each question, written.
    Explain,
    /// The probability of YES after each question, read.
    Logits,
    /// Both, to compare them; `explain` decides.
    Both,
    /// Rules alone: questions that no rule decides are not asked, and an instruction with no
    /// other is rejected. What a perfect judge would give, to compare with.
    Rules,
    /// Nobody: the first response is kept, and the next other one is its opposite. What
    /// training without a judge would give, to compare with.
    Nobody,
}

/// What an answer is judged by: a question for a model, and a rule if there is one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Criterion {
    pub(crate) question: String,
    pub(crate) rule: Option<Rule>,
}

/// Who judges, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bench<'a> {
    pub(crate) prompts: &'a PromptSet,
    /// Folder of the prompts `judge_explain` and `judge_logits`.
    pub(crate) recipe: &'static str,
    pub(crate) evaluator: Evaluator,
    /// Probability of YES, among YES and NO, from which on it is YES.
    pub(crate) threshold: f32,
    /// Probability that YES and NO have to have together.
    pub(crate) least_mass: f32,
}

/// What is judged.
#[derive(Debug, Clone)]
pub(crate) struct Examined<'a> {
    /// Turns before the instruction, if they are shown.
    pub(crate) history: String,
    pub(crate) instruction: &'a str,
    pub(crate) response: &'a str,
}

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

/// Verdicts on every criterion, in order: by rule where there is one, by the model where
/// there is none.
pub(crate) async fn judge(
    examined: &Examined<'_>,
    criteria: &[Criterion],
    bench: &Bench<'_>,
    llm: &Llm<'_>,
) -> Result<Vec<Verdict>, Stop> {
    let without_rule = criteria.iter().filter(|one| one.rule.is_none());
    let questions: Vec<&str> = without_rule.map(|one| one.question.as_str()).collect();
    let by_rule = criteria.len() - questions.len();
    if by_rule > 0 {
        llm.count("judge.by_rule", by_rule as u64);
    }
    let by_model = if questions.is_empty() {
        Vec::new()
    } else {
        llm.count("judge.by_model", questions.len() as u64);
        bench.ask(examined, &questions, llm).await?
    };
    let mut by_model = by_model.into_iter();
    let verdicts = criteria.iter().map(|one| match &one.rule {
        Some(rule) => Verdict::of_rule(&one.question, rule, examined.response),
        None => by_model
            .next()
            .unwrap_or_else(|| Verdict::none(&one.question, "miscounted")),
    });
    Ok(verdicts.collect())
}

impl Bench<'_> {
    fn prompt(&self, step: &str) -> String {
        format!("{}/{step}", self.recipe)
    }

    /// The model's verdicts, as many as questions.
    async fn ask(
        &self,
        examined: &Examined<'_>,
        questions: &[&str],
        llm: &Llm<'_>,
    ) -> Result<Vec<Verdict>, Stop> {
        match self.evaluator {
            Evaluator::Rules | Evaluator::Nobody => Ok(Vec::new()),
            Evaluator::Explain => self.explain(examined, questions, llm).await,
            Evaluator::Logits => self.read(examined, questions, llm).await,
            Evaluator::Both => {
                let explained = self.explain(examined, questions, llm).await?;
                let read = self.read(examined, questions, llm).await?;
                for (explained, read) in explained.iter().zip(&read) {
                    llm.record(
                        AGREEMENT_FILE,
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
        &self,
        examined: &Examined<'_>,
        questions: &[&str],
        llm: &Llm<'_>,
    ) -> Result<Vec<Verdict>, Stop> {
        let variables = json!({
            "history": examined.history, "instruction": examined.instruction,
            "response": examined.response, "questions": questions,
        });
        let grammar = verdicts_grammar(questions.len());
        let id = self.prompt("judge_explain");
        let request = self.prompts.ask(&id, variables, 0, Some(grammar))?;
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
        &self,
        examined: &Examined<'_>,
        questions: &[&str],
        llm: &Llm<'_>,
    ) -> Result<Vec<Verdict>, Stop> {
        let id = self.prompt("judge_logits");
        let id = id.as_str();
        let asked = questions.iter().map(|question| async move {
            let variables = json!({
                "history": examined.history, "instruction": examined.instruction,
                "response": examined.response, "question": question,
            });
            let score = Score {
                prefix: Prompt::Messages(self.prompts.turns(id, variables)?),
                suffixes: Vec::new(),
                labels: vec!["YES".into(), "NO".into()],
                adapter: None,
            };
            let scores = llm.score("judge", "judge", score).await?;
            let found = scores.suffixes.first().and_then(|one| {
                let yes = *one.probabilities.first()?;
                // Nothing that is not a number, and no share of nothing, is a verdict.
                let decided = one.mass > 0.0 && one.mass >= self.least_mass && one.mass.is_finite();
                (decided && (0.0..=1.0).contains(&yes)).then_some(yes)
            });
            Ok(match found {
                Some(probability) => Verdict {
                    probability,
                    ..Verdict::of_model(question, probability >= self.threshold, String::new())
                },
                None => {
                    llm.count("judge.undecided", 1);
                    Verdict::none(question, "undecided")
                }
            })
        });
        try_join_all(asked).await
    }
}
