//! What stands behind a record: what it was made from, who was asked what, and how. One JSON
//! text in the column `meta`, with the same keys in every row.

use super::criteria::Instruction;
use super::pools::Item;
use super::{Context, RECIPE, ROLES};
use crate::answers::Sample;
use crate::rules::Rule;
use pipeline::Llm;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Lineage of a record made of `samples`.
pub(super) fn of(
    item: &Item,
    instruction: &Instruction,
    samples: &[&Sample],
    context: &Context,
    llm: &Llm<'_>,
) -> String {
    let respond = context.prompts.get("decif/respond");
    let samples: Vec<Value> = samples
        .iter()
        .map(|one| json!({"sample": one.index, "seed": one.seed, "verdicts": exact(&one.verdicts)}))
        .collect();
    let rules = instruction.draft.rules.iter();
    let rules: Vec<Value> = rules
        .flat_map(|rule| Rule::all([rule.clone()]).records())
        .map(|record| json!({"id": record.id, "args": record.args}))
        .collect();
    let questions: Vec<&str> = instruction
        .criteria
        .iter()
        .map(|one| one.question.as_str())
        .collect();
    let prompts = context.settings.prompts().into_iter().map(|id| {
        let digest = context.prompts.get(id).digest();
        (id.to_owned(), json!(digest))
    });
    let models = ROLES.map(|role| (role.to_owned(), json!(llm.identity(role))));
    let meta = json!({
        "recipe": RECIPE,
        "domain": item.domain,
        "request": item.request,
        "scenario": item.scenario,
        "persona": item.persona,
        "rules": rules,
        "soft": instruction.draft.soft,
        "contradictions": instruction.repairs.problems,
        "questions": questions,
        "sampling": exact(respond.sampling()),
        "max_tokens": respond.max_tokens(),
        "evaluator": context.settings.evaluator,
        "samples": samples,
        "prompts": prompts.collect::<Map<_, _>>(),
        "models": models.into_iter().collect::<Map<_, _>>(),
    });
    meta.to_string()
}

/// As JSON, with the digits that `f32` has: 0.95, not 0.949999988079071.
fn exact(value: impl Serialize) -> Value {
    let text = serde_json::to_string(&value).expect("our own types have string keys");
    serde_json::from_str(&text).expect("what was just written is JSON")
}
