//! Rows of the data, what stands behind them, and the check that none leaves which is not what
//! it claims to be.

use super::settings::{Correction, Settings};
use super::{Answer, Context, NAME, RECIPE, ROLES, Task};
use crate::filters::NearDuplicates;
use data::{Message, Outcome, Record, Rejection, Verdict};
use pipeline::{Admit, Llm};
use serde_json::{Map, Value, json};
use verify::{Constraint, strict};

/// Writes a response to learn from. Ids and parameters of its constraints stand beside it, each
/// set of parameters as one JSON text, so that every row has columns of the same types.
pub(super) fn response(
    task: &Task,
    answer: &Answer,
    steps: &[usize],
    context: &Context,
    llm: &Llm<'_>,
) {
    let mut messages = task.prompt();
    messages.push(Message::new("assistant", answer.text.as_str()));
    llm.record(
        "sft.jsonl",
        json!({
            "id": llm.row_id(), "messages": messages,
            "instruction_id_list": ids(task), "kwargs": kwargs(task),
            "meta": lineage(task, steps, context, llm),
        }),
    );
    for constraint in &task.constraints {
        llm.count(&format!("constraint {}", constraint.id()), 1);
    }
    let added = task.constraints.len() - task.own;
    llm.count(&format!("constraints: {added}"), 1);
    if task.own > 0 {
        llm.count("constraints_of_the_seed", task.own as u64);
    }
}

/// Writes a pair of one that satisfies all constraints and one that does not.
pub(super) fn pair(
    task: &Task,
    (chosen, rejected): (&Answer, &Answer),
    (index, step): (usize, Option<usize>),
    context: &Context,
    llm: &Llm<'_>,
) {
    let steps: Vec<usize> = step.into_iter().collect();
    llm.record(
        "dpo.jsonl",
        json!({
            "id": format!("{}#{index}", llm.row_id()), "prompt": task.prompt(),
            "chosen": [Message::new("assistant", chosen.text.as_str())],
            "rejected": [Message::new("assistant", rejected.text.as_str())],
            "instruction_id_list": ids(task), "kwargs": kwargs(task),
            "meta": lineage(task, &steps, context, llm),
        }),
    );
}

fn ids(task: &Task) -> Vec<&'static str> {
    task.constraints.iter().map(Constraint::id).collect()
}

fn kwargs(task: &Task) -> Vec<String> {
    let each = task.constraints.iter();
    each.map(|one| Value::Object(one.kwargs()).to_string())
        .collect()
}

/// Recipe, prompts, models, the constraints in words, and which of them were corrected.
fn lineage(task: &Task, steps: &[usize], context: &Context, llm: &Llm<'_>) -> String {
    let prompts = context.settings.prompts().into_iter().map(|id| {
        let digest = context.prompts.get(id).digest();
        (id.to_owned(), json!(digest))
    });
    let models = ROLES.map(|role| (role.to_owned(), json!(llm.identity(role))));
    let corrected: Vec<&str> = steps
        .iter()
        .map(|index| task.constraints[*index].id())
        .collect();
    json!({
        "recipe": RECIPE,
        "prompts": prompts.collect::<Map<_, _>>(),
        "models": models.into_iter().collect::<Map<_, _>>(),
        "variant": context.settings.variant,
        "correction": context.settings.correction,
        "constraints": task.texts,
        "corrected": corrected,
    })
    .to_string()
}

/// What is judged in source order, at the time of counting and again at the time of writing:
/// that every row is what it claims to be, by its own columns, and that no instruction is there
/// twice.
#[derive(Debug)]
pub struct Admission {
    claims: Correction,
    near_duplicates: Option<NearDuplicates>,
}

impl Admission {
    /// Of a run with these settings. What is made as published is let go as it is.
    pub fn new(settings: &Settings) -> Self {
        let threshold = settings.near_duplicates;
        Self {
            claims: settings.correction,
            near_duplicates: (threshold > 0.0).then(|| NearDuplicates::new(threshold)),
        }
    }
}

impl Admit for Admission {
    fn admit(&mut self, id: &str, outcome: &mut Outcome) {
        if self.claims == Correction::Checked {
            let false_claim = outcome
                .records
                .iter()
                .find_map(|record| claim(record).err());
            if let Some(detail) = false_claim {
                let detail = format!("{NAME}: {detail}");
                outcome.verdict =
                    Verdict::Rejected(Rejection::new("export", "false_claim", detail));
                outcome.records.clear();
                return;
            }
        }
        if let Some(near_duplicates) = &mut self.near_duplicates {
            near_duplicates.admit(id, outcome);
        }
    }
}

/// Checks a record against its own columns: what is chosen or learnt from satisfies all of its
/// constraints, what is rejected breaks one.
fn claim(record: &Record) -> Result<(), String> {
    let constraints = constraints_of(&record.value).ok_or("the constraints cannot be read")?;
    if constraints.is_empty() {
        return Err("there are no constraints".to_owned());
    }
    let text = |field: &str| -> Result<Option<&str>, String> {
        let Some(turns) = record.value.get(field) else {
            return Ok(None);
        };
        let last = turns.as_array().and_then(|turns| turns.last());
        let text = last.and_then(|turn| turn["content"].as_str());
        text.map(Some)
            .ok_or_else(|| format!("`{field}` has no text"))
    };
    let broken = |text: &str| {
        let verdicts = strict(&constraints, text);
        let index = verdicts.iter().position(|verdict| !verdict.followed)?;
        Some(constraints[index].id())
    };
    let good = match text("chosen")? {
        Some(text) => Some(text),
        None => text("messages")?,
    };
    let good = good.ok_or("there is no answer")?;
    if let Some(id) = broken(good) {
        return Err(format!("the answer breaks {id}"));
    }
    match text("rejected")? {
        Some(bad) if broken(bad).is_none() => Err("what is rejected breaks nothing".to_owned()),
        _ => Ok(()),
    }
}

fn constraints_of(row: &Value) -> Option<Vec<Constraint>> {
    let ids = row["instruction_id_list"].as_array()?;
    let kwargs = row["kwargs"].as_array()?;
    if ids.len() != kwargs.len() {
        return None;
    }
    let pairs = ids.iter().zip(kwargs);
    pairs
        .map(|(id, kwargs)| {
            let kwargs: Map<String, Value> = serde_json::from_str(kwargs.as_str()?).ok()?;
            Constraint::from_ifeval(id.as_str()?, &kwargs).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: Value) -> Outcome {
        Outcome {
            verdict: Verdict::Accepted,
            records: vec![Record {
                file: "dpo.jsonl".into(),
                value,
            }],
            counts: std::collections::BTreeMap::new(),
        }
    }

    fn row(chosen: &str, rejected: &str, kwargs: &str) -> Value {
        json!({
            "id": "r#0", "prompt": [{"role": "user", "content": "q"}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "instruction_id_list": ["punctuation:no_comma"], "kwargs": [kwargs],
        })
    }

    #[test]
    fn no_row_leaves_that_is_not_what_it_claims() {
        let check = |value: Value, correction, expected: Option<&str>| {
            let settings = Settings {
                correction,
                ..Settings::default()
            };
            let mut outcome = record(value);
            Admission::new(&settings).admit("r", &mut outcome);
            match (&outcome.verdict, expected) {
                (Verdict::Accepted, None) => assert_eq!(outcome.records.len(), 1),
                (Verdict::Rejected(why), Some(expected)) => {
                    assert_eq!(
                        (why.stage.as_str(), why.reason.as_str()),
                        ("export", "false_claim")
                    );
                    assert!(why.detail.contains(expected), "{}", why.detail);
                    assert!(outcome.records.is_empty());
                }
                other => panic!("{other:?}"),
            }
        };
        let checked = Correction::Checked;
        check(row("a b", "a, b", "{}"), checked, None);
        check(
            row("a, b", "a, b", "{}"),
            checked,
            Some("breaks punctuation:no_comma"),
        );
        check(row("a b", "a b", "{}"), checked, Some("breaks nothing"));
        check(
            row("", "a, b", "{}"),
            checked,
            Some("breaks punctuation:no_comma"),
        );
        check(row("a b", "a, b", "{"), checked, Some("cannot be read"));
        check(
            json!({"id": "r", "instruction_id_list": [], "kwargs": []}),
            checked,
            Some("no constraints"),
        );
        check(row("a, b", "a b", "{}"), Correction::AsPublished, None);
    }
}
