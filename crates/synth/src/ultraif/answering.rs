//! Answers to an instruction: samples in waves, verdicts, and which of them become data.

use super::lineage::{of_instruction, of_responses};
use super::{Context, Instruction};
use crate::answers::{Sample, Want, Waves, respond_in_waves, why_nothing};
use crate::judging::{Bench, Evaluator, Examined, judge};
use crate::ultraif::settings::{Selection, Stage};
use data::{Completion, Generate, Message};
use pipeline::{Llm, Stop, reject};
use serde_json::json;

/// Rounds of composing: asked for, and reached by this row.
#[derive(Debug, Clone, Copy)]
struct Level {
    asked: usize,
    reached: usize,
}

/// Section 2.2: answers to the instruction of each level, judged and selected.
pub(super) async fn respond_and_evaluate(
    instructions: &[Instruction],
    context: &Context,
    llm: &Llm<'_>,
) -> Result<(), Stop> {
    let settings = &context.settings;
    // A row whose composing ended early is answered once, at the level it reached; its pairs
    // belong to the level that asked for it.
    let levels: Vec<Level> = settings
        .answered_after()
        .into_iter()
        .map(|asked| Level {
            asked,
            reached: asked.min(instructions.len()),
        })
        .collect();
    let (mut accepted, mut failure) = (false, None);
    for (index, level) in levels.iter().enumerate() {
        let same = |other: &Level| other.reached == level.reached;
        if levels[..index].iter().any(same) {
            continue;
        }
        let is_last = levels[index + 1..].iter().all(same);
        let mut instruction = instructions[level.reached - 1].clone();
        match settings.evaluator {
            Evaluator::Rules => instruction.criteria.retain(|one| one.rule.is_some()),
            Evaluator::Nobody => instruction.criteria.clear(),
            Evaluator::Explain | Evaluator::Logits | Evaluator::Both => {}
        }
        match answer_one(&instruction, (*level, is_last), context, llm).await {
            Ok(wrote) => accepted |= wrote,
            Err(Stop::Reject(rejection)) => failure = Some(Stop::Reject(rejection)),
            Err(wait) => return Err(wait),
        }
    }
    match failure {
        Some(failure) if !accepted => Err(failure),
        _ => Ok(()),
    }
}

/// Answers one level; whether it gave the row a record of its data.
async fn answer_one(
    instruction: &Instruction,
    (level, is_last): (Level, bool),
    context: &Context,
    llm: &Llm<'_>,
) -> Result<bool, Stop> {
    let settings = &context.settings;
    if context.contamination.contains(&instruction.query) {
        return Err(reject(
            "compose",
            "contaminated",
            "it repeats a benchmark's prompt",
        ));
    }
    if !settings.does(Stage::Respond) {
        let mut record = instruction.as_record(llm.row_id());
        record["meta"] = json!(of_instruction(instruction, context, llm));
        llm.record("composed.jsonl", record);
        return Ok(true);
    }
    let asks_nothing = instruction.criteria.is_empty() && settings.evaluator != Evaluator::Nobody;
    if settings.does(Stage::Evaluate) && asks_nothing {
        return Err(reject(
            "evaluate",
            "no_questions",
            "there is nothing to judge by",
        ));
    }
    let samples = respond(instruction, level.reached, context, llm).await?;
    if settings.does(Stage::Evaluate) {
        return select(instruction, &samples, (level, is_last), context, llm);
    }
    let texts: Vec<&str> = samples.iter().map(|sample| sample.text.as_str()).collect();
    let mut record = instruction.as_record(llm.row_id());
    record["responses"] = json!(texts);
    let samples: Vec<&Sample> = samples.iter().collect();
    record["meta"] = json!(of_responses(instruction, &samples, context, llm));
    llm.record("responses.jsonl", record);
    Ok(true)
}

/// Samples of the response, judged; fewer where they stop early.
async fn respond(
    instruction: &Instruction,
    level: usize,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Vec<Sample>, Stop> {
    let settings = &context.settings;
    let request = respond_request(instruction, llm.seed("respond", level), context)?;
    let stops_early = settings.early_stop
        && settings.select == Selection::First
        && settings.does(Stage::Evaluate)
        && settings.evaluator != Evaluator::Nobody;
    let waves = Waves {
        samples: settings.samples,
        until: stops_early.then_some(settings.want),
    };
    let judge = async |completion: Completion| {
        let sample = Sample::new(&request, &completion, llm);
        judge_sample(instruction, sample, context, llm).await
    };
    respond_in_waves(&request, waves, judge, llm).await
}

/// The first response that fails; where nobody judges, the first that is not the one kept.
fn opposite(samples: &[Sample], evaluator: Evaluator) -> Option<&Sample> {
    if evaluator != Evaluator::Nobody {
        return samples.iter().find(|sample| sample.fails());
    }
    let mut usable = samples.iter().filter(|sample| sample.unusable.is_none());
    let kept = usable.next()?;
    usable.find(|sample| sample.text != kept.text)
}

fn respond_request(
    instruction: &Instruction,
    seed: u64,
    context: &Context,
) -> Result<Generate, Stop> {
    let variables = json!({"query": instruction.query});
    let history = &instruction.history;
    context
        .prompts
        .ask_after(history, "ultraif/respond", variables, seed)
}

async fn judge_sample(
    instruction: &Instruction,
    mut sample: Sample,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Sample, Stop> {
    let settings = &context.settings;
    if settings.select == Selection::AsPublished {
        // An empty text is no response, and nothing to learn.
        sample.unusable = sample.unusable.filter(|fault| *fault == "empty");
    }
    if sample.unusable.is_none() && settings.does(Stage::Evaluate) {
        let examined = Examined {
            history: match settings.judge_sees_history {
                true => instruction.shown_history(),
                false => String::new(),
            },
            instruction: &instruction.query,
            response: &sample.text,
        };
        let bench = Bench {
            prompts: &context.prompts,
            recipe: super::NAME,
            evaluator: settings.evaluator,
            threshold: settings.threshold,
            least_mass: settings.least_mass,
        };
        sample.verdicts = judge(&examined, &instruction.criteria, &bench, llm).await?;
    }
    Ok(sample)
}

/// Which responses become data; whether any did.
fn select(
    instruction: &Instruction,
    samples: &[Sample],
    (level, is_last): (Level, bool),
    context: &Context,
    llm: &Llm<'_>,
) -> Result<bool, Stop> {
    let settings = &context.settings;
    let pass = samples.iter().find(|sample| sample.passes());
    let fail = opposite(samples, settings.evaluator);
    let last = |is: &dyn Fn(&Sample) -> bool| samples.iter().rev().find(|sample| is(sample));
    llm.count("select.responses", samples.len() as u64);
    let passing = samples.iter().filter(|sample| sample.passes()).count();
    llm.count("select.passing", passing as u64);
    let (for_sft, chosen, rejected) = match settings.select {
        Selection::First => (pass, pass, fail),
        Selection::AsPublished => (
            pass.or_else(|| last(&|sample| sample.unusable.is_none())),
            last(&Sample::passes),
            last(&Sample::fails),
        ),
    };
    let mut wrote = false;
    if let (Some(sample), true, true) = (for_sft, is_last, settings.want != Want::Dpo) {
        let mut messages = instruction.as_messages();
        messages.push(Message::new("assistant", sample.text.as_str()));
        llm.record(
            "sft.jsonl",
            json!({
                "id": llm.row_id(), "messages": messages,
                "meta": of_responses(instruction, &[sample], context, llm),
            }),
        );
        wrote = true;
    }
    if let (Some(chosen), Some(rejected), true) = (chosen, rejected, settings.want != Want::Sft) {
        llm.record(
            &settings.pair_file(level.asked),
            json!({
                "id": llm.row_id(), "prompt": instruction.as_messages(),
                "chosen": [Message::new("assistant", chosen.text.as_str())],
                "rejected": [Message::new("assistant", rejected.text.as_str())],
                "meta": of_responses(instruction, &[chosen, rejected], context, llm),
            }),
        );
        wrote = true;
    }
    if wrote {
        return Ok(true);
    }
    let reason = why_nothing(samples, settings.want);
    let Some(reason) = reason else {
        // A response passes at a level that is not the last: nothing to write yet.
        return Ok(false);
    };
    Err(reject(
        "select",
        reason,
        format!("{} responses", samples.len()),
    ))
}
