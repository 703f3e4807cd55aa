//! What stands behind a record: who was asked what, and how. One JSON text in the column `meta`,
//! with the same keys in every row, so that files keep one type per column.

use super::outputs::Extracted;
use super::{Context, Instruction, RECIPE, ROLES};
use crate::answers::Sample;
use pipeline::Llm;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Lineage of a record made of `samples`.
pub(crate) fn of_responses(
    instruction: &Instruction,
    samples: &[&Sample],
    context: &Context,
    llm: &Llm<'_>,
) -> String {
    let respond = context.prompts.get("ultraif/respond");
    let samples: Vec<Value> = samples
        .iter()
        .map(|one| json!({"sample": one.index, "seed": one.seed, "verdicts": exact(&one.verdicts)}))
        .collect();
    let mut meta = of_run(context, llm);
    meta["constraints_added"] = json!(instruction.added);
    meta["questions"] = json!(instruction.questions());
    meta["sampling"] = exact(respond.sampling());
    meta["max_tokens"] = json!(respond.max_tokens());
    meta["evaluator"] = json!(context.settings.evaluator);
    meta["samples"] = json!(samples);
    meta.to_string()
}

/// Lineage of an instruction that was not answered.
pub(crate) fn of_instruction(
    instruction: &Instruction,
    context: &Context,
    llm: &Llm<'_>,
) -> String {
    let mut meta = of_run(context, llm);
    meta["constraints_added"] = json!(instruction.added);
    meta.to_string()
}

/// Lineage of a row for training a composer.
pub(crate) fn of_composer_row(part: &Extracted, context: &Context, llm: &Llm<'_>) -> String {
    let mut meta = of_run(context, llm);
    meta["type"] = json!(part.kind);
    meta["constraint"] = json!(part.constraint);
    meta.to_string()
}

/// What all records of a run share: recipe, digests of its prompts, models by role.
fn of_run(context: &Context, llm: &Llm<'_>) -> Value {
    let prompts = context.settings.prompts().into_iter().map(|id| {
        let digest = context.prompts.get(id).digest();
        (id.to_owned(), json!(digest))
    });
    let models = ROLES.map(|role| (role.to_owned(), json!(llm.identity(role))));
    json!({
        "recipe": RECIPE,
        "prompts": prompts.collect::<Map<_, _>>(),
        "models": models.into_iter().collect::<Map<_, _>>(),
    })
}

/// As JSON, with the digits that `f32` has: 0.95, not 0.949999988079071.
fn exact(value: impl Serialize) -> Value {
    let text = serde_json::to_string(&value).expect("our own types have string keys");
    serde_json::from_str(&text).expect("what was just written is JSON")
}
