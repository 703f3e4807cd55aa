//! Rules for constraints in words: "at least 3 sentences" needs no model to be judged.
//!
//! What is recognised is recognised whole: every word of a constraint or question has to be
//! accounted for, else there is no rule and the model judges. [`recognise`] knows
//!
//! - each phrasing of the checkers' own describer (`described.rs`),
//! - each of the plain phrasebook that the embedded model speaks (`phrasebook.rs`), and
//! - how people and models usually put the same demands (`phrased.rs`, over the normal form of
//!   `normal.rs`).

mod described;
mod normal;
mod phrasebook;
mod phrased;
mod phrases;

pub use phrasebook::{PHRASEBOOK, Phrases};
pub use phrases::{capture, fill, fill_with, number, phrases, read_demand, read_question};

use normal::Normal;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use verify::{Constraint, Instruction, Suite, Verdict};

/// What decides a constraint: all of some instructions are followed, and none of others.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    all: Vec<Instruction>,
    /// "At least 3 bullets" is none of "exactly 0", "1" and "2".
    none: Vec<Instruction>,
}

/// One instruction of a rule, as it stands in the lineage of a record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleRecord {
    /// Id of the instruction, such as `length_constraints:number_words`.
    pub id: String,
    /// Its parameters, under the names of the benchmark's data.
    pub args: Map<String, Value>,
    /// Whether the instruction must not be followed.
    pub negated: bool,
}

impl Rule {
    /// All of these have to be followed; at least one.
    pub(crate) fn all(constraints: impl IntoIterator<Item = Constraint>) -> Self {
        Self {
            all: constraints.into_iter().map(Instruction::IfEval).collect(),
            none: Vec::new(),
        }
    }

    /// None of these may be followed.
    pub(crate) fn none(constraints: impl IntoIterator<Item = Constraint>) -> Self {
        Self {
            all: Vec::new(),
            none: constraints.into_iter().map(Instruction::IfEval).collect(),
        }
    }

    /// The constraints that have to be followed; `None` if some must not be, or if one is not
    /// IFEval's.
    pub(crate) fn constraints(&self) -> Option<Vec<Constraint>> {
        let all = self.all.iter().map(|one| match one {
            Instruction::IfEval(constraint) => Some(constraint.clone()),
            Instruction::IfBench(_) | Instruction::MultiIf(_) => None,
        });
        all.collect::<Option<Vec<_>>>()
            .filter(|_| self.none.is_empty())
    }

    /// The reference's strict verdict on `response`; a blank one follows nothing.
    pub fn check(&self, response: &str) -> Verdict {
        let wanted = Suite::IfEval.judge(&self.all, response).strict;
        if let Some(failed) = wanted.into_iter().find(|verdict| !verdict.followed) {
            return failed;
        }
        let unwanted = Suite::IfEval.judge(&self.none, response).strict;
        let broken = unwanted.iter().position(|verdict| verdict.followed);
        match broken {
            _ if response.trim().is_empty() => Verdict::failed("the response is blank"),
            Some(index) => {
                let record = record(&self.none[index], Negated::Yes);
                let args = Value::Object(record.args);
                Verdict::failed(format!("follows {} {args}, which is not to be", record.id))
            }
            None => Verdict::followed(),
        }
    }

    /// Ids and parameters.
    pub fn records(&self) -> Vec<RuleRecord> {
        let all = self.all.iter().map(|one| record(one, Negated::No));
        let none = self.none.iter().map(|one| record(one, Negated::Yes));
        all.chain(none).collect()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Negated {
    Yes,
    No,
}

fn record(instruction: &Instruction, negated: Negated) -> RuleRecord {
    use verify::Check;
    let args = match instruction {
        Instruction::IfEval(constraint) => constraint.kwargs(),
        Instruction::IfBench(_) | Instruction::MultiIf(_) => Map::new(),
    };
    RuleRecord {
        id: instruction.id().to_owned(),
        args,
        negated: negated == Negated::Yes,
    }
}

/// The rule that says what `text` says, a demand on an answer or a question about one; `None`
/// wherever there is doubt. Letter case has a rule only for English, so `request`, what the
/// answer is to, has to be English for that.
pub fn recognise(text: &str, request: &str) -> Option<Rule> {
    if text.len() > LONGEST {
        return None;
    }
    let described = described::recognise(text.trim());
    let plain = || read_demand(text).or_else(|| read_question(text));
    let plain = || plain().filter(|one| phrased::admits(one, request));
    let known = described.or_else(plain).map(|one| Rule::all([one]));
    known.or_else(|| phrased::recognise(&Normal::of(text)?, request))
}

/// The constraint that `text` demands, if it is one and no other.
pub(crate) fn constraint_in(text: &str, request: &str) -> Option<Constraint> {
    let rule = recognise(text, request)?;
    match (rule.all.as_slice(), rule.none.as_slice()) {
        ([Instruction::IfEval(constraint)], []) => Some(constraint.clone()),
        _ => None,
    }
}

/// Longer texts say more than a rule checks, in bytes.
const LONGEST: usize = 600;

/// The rule for a constraint that is judged by `question`: where both are recognised they have
/// to be the same, and where only the constraint is, the question may ask for nothing countable
/// that the constraint does not have.
pub fn rule_for(constraint: Option<&str>, question: &str, request: &str) -> Option<Rule> {
    let said = constraint.and_then(|text| recognise(text, request));
    let asked = recognise(question, request);
    match (said, asked) {
        (Some(said), Some(asked)) => (said == asked).then_some(said),
        (None, asked) => asked,
        (Some(said), None) => {
            let of_constraint = countable(constraint.unwrap_or_default())?;
            let of_question = countable(question)?;
            of_question.is_subset(&of_constraint).then_some(said)
        }
    }
}

/// Numbers and quoted texts, in lower case; `None` if quotes are not closed.
fn countable(text: &str) -> Option<BTreeSet<String>> {
    let normal = Normal::of(text)?;
    let digits = normal.text.split(|c: char| !c.is_ascii_digit());
    let numbers = digits.filter(|run| !run.is_empty()).map(str::to_owned);
    let quoted = normal.quoted.iter().map(|text| text.to_lowercase());
    Some(numbers.chain(quoted).collect())
}

#[cfg(test)]
mod tests;
