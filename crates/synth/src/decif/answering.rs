//! Responses to an instruction, their verdicts, and which of them become data.

use super::Context;
use super::criteria::Instruction;
use super::lineage;
use super::pools::Item;
use super::settings::Want;
use crate::answers::{Sample, Waves, respond_in_waves, why_nothing};
use crate::judging::{Bench, Examined, judge};
use data::{Completion, Message};
use pipeline::{Llm, Stop, reject};
use serde_json::json;
use verify::compose::Kind;

/// Samples of the response, judged; fewer where they stop early.
pub(super) async fn respond(
    instruction: &Instruction,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Vec<Sample>, Stop> {
    let settings = &context.settings;
    let variables = json!({"query": instruction.draft.text});
    let seed = llm.seed("respond", 0);
    let request = context
        .prompts
        .ask("decif/respond", variables, seed, None)?;
    let waves = Waves {
        samples: settings.samples,
        until: settings.early_stop.then_some(settings.want),
    };
    let bench = Bench {
        prompts: &context.prompts,
        recipe: super::NAME,
        evaluator: settings.evaluator,
        threshold: settings.threshold,
        least_mass: settings.least_mass,
    };
    let validate = async |completion: Completion| {
        let mut sample = Sample::new(&request, &completion, llm);
        if sample.unusable.is_none() {
            let examined = Examined {
                history: String::new(),
                instruction: &instruction.draft.text,
                response: &sample.text,
            };
            sample.verdicts = judge(&examined, &instruction.criteria, &bench, llm).await?;
        }
        Ok(sample)
    };
    respond_in_waves(&request, waves, validate, llm).await
}

/// Writes the first response that passes, and the pair of it with the first that fails.
///
/// # Errors
/// Why no response becomes data.
pub(super) fn select(
    item: &Item,
    instruction: &Instruction,
    samples: &[Sample],
    context: &Context,
    llm: &Llm<'_>,
) -> Result<(), Stop> {
    let want = context.settings.want;
    let pass = samples.iter().find(|sample| sample.passes());
    let fail = samples.iter().find(|sample| sample.fails());
    llm.count("select.responses", samples.len() as u64);
    let passing = samples.iter().filter(|sample| sample.passes()).count();
    llm.count("select.passing", passing as u64);
    if let Some(reason) = why_nothing(samples, want) {
        let detail = format!("{} responses", samples.len());
        return Err(reject("select", reason, detail));
    }
    let meta = |samples: &[&Sample]| lineage::of(item, instruction, samples, context, llm);
    let asked = Message::new("user", instruction.draft.text.as_str());
    let answered = |sample: &Sample| Message::new("assistant", sample.text.as_str());
    if let (Some(pass), true) = (pass, want != Want::Dpo) {
        llm.record(
            "sft.jsonl",
            json!({
                "id": llm.row_id(), "messages": [asked, answered(pass)], "meta": meta(&[pass]),
            }),
        );
    }
    if let (Some(pass), Some(fail), true) = (pass, fail, want != Want::Sft) {
        llm.record(
            "dpo.jsonl",
            json!({
                "id": llm.row_id(), "prompt": [asked], "chosen": [answered(pass)],
                "rejected": [answered(fail)], "meta": meta(&[pass, fail]),
            }),
        );
    }
    let made = instruction.draft.rules.len() + instruction.draft.soft.len();
    llm.count(&format!("constraints: {made}"), 1);
    for rule in &instruction.draft.rules {
        llm.count(&format!("constraint {}", Kind::of(rule)), 1);
    }
    for soft in &instruction.draft.soft {
        llm.count(&format!("constraint soft: {}", soft.kind), 1);
    }
    Ok(())
}
