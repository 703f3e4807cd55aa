//! Decomposition: what an answer is judged by, each criterion with a rule where there is one.

use super::Context;
use super::conflicts::{Repairs, added_rules};
use super::instructing::Draft;
use super::outputs::{Found, criteria_grammar};
use super::settings::Criteria;
use crate::filters::words;
use crate::judging::Criterion;
use crate::outputs::{SENTENCE_CHARS, is_cut, parse_whole};
use crate::rules::{Rule, recognise};
use pipeline::{Llm, Stop, reject};
use serde_json::json;
use std::collections::BTreeSet;
use verify::Constraint;
use verify::compose::{conflict, describe, mentions_parameters};

/// Share of the words of two questions from which on they ask the same.
const SAME_WORDS: f64 = 0.7;

/// An instruction that is ready to be answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Instruction {
    pub(super) draft: Draft,
    pub(super) repairs: Repairs,
    pub(super) criteria: Vec<Criterion>,
}

/// Takes the instruction apart.
///
/// # Errors
/// An answer that cannot be read; nothing to judge by; rules that no answer can meet.
pub(super) async fn decompose(
    (draft, repairs): (Draft, Repairs),
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Instruction, Stop> {
    let variables = json!({"instruction": draft.text});
    let request = context
        .prompts
        .ask("decif/criteria", variables, 0, Some(criteria_grammar()))?;
    let answer = llm.generate("judge", "criteria", request).await?;
    let found: Found = parse_whole(&answer, "criteria")?;
    let mut criteria = match context.settings.criteria {
        Criteria::All => known(&draft),
        Criteria::Decomposed => Vec::new(),
    };
    for question in found.criteria {
        match criterion(&question, &draft, &criteria, context) {
            Ok(new) => criteria.push(new),
            Err(fault) => llm.count(&format!("criteria.{fault}"), 1),
        }
    }
    if criteria.is_empty() {
        return Err(reject("criteria", "none", "there is nothing to judge by"));
    }
    let rules = || criteria.iter().filter_map(|one| one.rule.as_ref());
    let constraints: Vec<Constraint> = rules().filter_map(Rule::constraints).flatten().collect();
    if let Some(found) = conflict(&constraints) {
        return Err(reject("criteria", "conflict", found.to_string()));
    }
    llm.count("criteria.by_rule", rules().count() as u64);
    llm.count(
        "criteria.by_model",
        (criteria.len() - rules().count()) as u64,
    );
    Ok(Instruction {
        draft,
        repairs,
        criteria,
    })
}

/// The constraints that were drawn, and rules that the instruction states beside them.
fn known(draft: &Draft) -> Vec<Criterion> {
    let added = added_rules(draft);
    let rules = draft.rules.iter().chain(&added).map(|rule| Criterion {
        question: format!("Does the answer do this? {}", describe(rule, 0)),
        rule: Some(Rule::all([rule.clone()])),
    });
    let soft = draft.soft.iter().map(|soft| Criterion {
        question: soft.question.clone(),
        rule: None,
    });
    rules.chain(soft).collect()
}

/// A question as a criterion, or why it is none.
fn criterion(
    question: &str,
    draft: &Draft,
    before: &[Criterion],
    context: &Context,
) -> Result<Criterion, &'static str> {
    let question = question.trim();
    if is_cut(question, SENTENCE_CHARS) {
        return Err("truncated");
    }
    if !question.ends_with('?') || words(question).len() < 2 {
        return Err("no_question");
    }
    let rule = match context.settings.rule_judge {
        true => recognise(question, &draft.text),
        false => None,
    };
    let of_drawn = |drawn: &Constraint| asks_for(question, drawn);
    let known = match (&rule, context.settings.criteria) {
        (Some(rule), _) => before.iter().any(|one| one.rule.as_ref() == Some(rule)),
        (None, Criteria::All) => draft.rules.iter().any(of_drawn),
        (None, Criteria::Decomposed) => false,
    };
    if known || before.iter().any(|one| is_like(&one.question, question)) {
        return Err("known");
    }
    Ok(Criterion {
        question: question.to_owned(),
        rule,
    })
}

/// Whether the question says every parameter of a rule that has some.
fn asks_for(question: &str, rule: &Constraint) -> bool {
    !rule.kwargs().is_empty() && mentions_parameters(rule, question).is_ok()
}

/// Whether two questions have most words in common.
fn is_like(one: &str, other: &str) -> bool {
    let of = |text: &str| words(text).into_iter().collect::<BTreeSet<String>>();
    let (one, other) = (of(one), of(other));
    let all = one.union(&other).count();
    one.intersection(&other).count() as f64 >= SAME_WORDS * all as f64
}
