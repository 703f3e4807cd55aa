//! Answers meet rules.

use crate::answers::{Answers, split_reasoning};
use crate::item::{Benchmark, Item, Turn};
use crate::suite::Suite;
use crate::tally::Tally;
use data::FinishReason;
use serde_json::{Map, Value};
use std::borrow::Cow;
use verify::Check;

/// One instruction of a prompt with its parameters.
pub type Rule = verify::Instruction;

/// What was found for one instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    /// The instruction's id.
    pub id: String,
    /// The answer as it is follows it.
    pub strict: bool,
    /// The answer, or one of its loose variants, follows it.
    pub loose: bool,
    /// Why the answer as it is does not follow it.
    pub reason: Option<String>,
    /// Why no verdict can be given; the row is then left out of every number.
    pub unsupported: Option<&'static str>,
}

/// The judgement of one turn of one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Index of the item in the benchmark.
    pub item: usize,
    /// The item's key.
    pub key: String,
    /// Turn, from 1.
    pub turn: usize,
    /// Task in tables and files.
    pub task: String,
    /// LiveBench's task, Multi-IF's language.
    pub group: String,
    /// One per instruction, in the item's order.
    pub rulings: Vec<Ruling>,
    /// The response as it came.
    pub raw: Option<String>,
    /// Why the response ended, where known.
    pub finish_reason: Option<FinishReason>,
    /// Why there is no response; such a row fails every instruction.
    pub missing: Option<String>,
    /// The responses file names another prompt under this key.
    pub other_wording: bool,
}

impl Judged {
    /// Can every instruction of the row be judged?
    pub fn is_judged(&self) -> bool {
        self.rulings
            .iter()
            .all(|ruling| ruling.unsupported.is_none())
    }

    /// The verdicts as counts.
    pub fn tally(&self) -> Tally {
        let verdicts = self.rulings.iter();
        Tally::of_prompt(verdicts.map(|ruling| (ruling.strict, ruling.loose)))
    }
}

/// Judges every turn that has rules, in the benchmark's order.
///
/// # Errors
/// [`crate::EvalError::Unrelated`] if there are answers but not one of them is to an item.
pub fn judge(benchmark: &Benchmark, answers: &Answers) -> Result<Vec<Judged>, crate::EvalError> {
    let mut rows = Vec::new();
    for (index, item) in benchmark.items.iter().enumerate() {
        for turn in item.turns.iter().filter(|turn| !turn.rules.is_empty()) {
            rows.push(judge_turn(benchmark, index, turn, answers));
        }
    }
    let unrelated = !answers.is_empty() && rows.iter().all(|row| row.raw.is_none());
    if unrelated && !rows.is_empty() {
        return Err(crate::EvalError::Unrelated {
            file: answers.file().to_owned(),
            num_answers: answers.len(),
            num_items: benchmark.items.len(),
        });
    }
    Ok(rows)
}

fn judge_turn(benchmark: &Benchmark, index: usize, turn: &Turn, answers: &Answers) -> Judged {
    let item: &Item = &benchmark.items[index];
    let answer = answers.get(item, turn);
    let text = answer.map(|answer| prepare(benchmark.suite, &answer.text));
    let rulings = match &text {
        Some(text) => rulings(benchmark.suite, &turn.rules, text),
        None => failed(&turn.rules, &answers.why_missing(item)),
    };
    Judged {
        item: index,
        key: item.key.clone(),
        turn: turn.number,
        task: benchmark.task_of(item, turn),
        group: item.group.clone(),
        rulings,
        raw: answer.map(|answer| answer.text.clone()),
        finish_reason: answer.and_then(|answer| answer.finish_reason),
        missing: answer.is_none().then(|| answers.why_missing(item)),
        other_wording: answer
            .and_then(|answer| answer.prompt.as_ref())
            .is_some_and(|prompt| *prompt != turn.prompt),
    }
}

fn rulings(suite: Suite, rules: &[Rule], text: &str) -> Vec<Ruling> {
    let verify::Judgement { strict, loose } = suite.rules().judge(rules, text);
    let verdicts = rules.iter().zip(strict.into_iter().zip(loose));
    verdicts
        .map(|(rule, (strict, loose))| Ruling {
            id: rule.id().to_owned(),
            strict: strict.followed,
            loose: loose.followed,
            reason: strict.reason,
            unsupported: rule.unsupported(text),
        })
        .collect()
}

fn failed(rules: &[Rule], reason: &str) -> Vec<Ruling> {
    let failed = |rule: &Rule| Ruling {
        id: rule.id().to_owned(),
        strict: false,
        loose: false,
        reason: Some(reason.to_owned()),
        // What fails for want of a response fails whatever the rule.
        unsupported: None,
    };
    rules.iter().map(failed).collect()
}

/// The response without a reasoning model's thoughts. LiveBench's own rules cut them in
/// their own way.
fn prepare(suite: Suite, response: &str) -> Cow<'_, str> {
    match suite {
        Suite::LiveBench => Cow::Borrowed(response),
        Suite::IfEval | Suite::IfBench | Suite::MultiIf => split_reasoning(response),
    }
}

/// The rule for an instruction of a suite.
///
/// # Errors
/// An instruction that the suite does not have, a parameter that is missing or wrong.
pub(crate) fn rule(suite: Suite, id: &str, kwargs: &Map<String, Value>) -> Result<Rule, String> {
    let rule = suite.rules().parse(id, kwargs);
    rule.map_err(|error| error.to_string())
}
