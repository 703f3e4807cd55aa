//! Training as one of the loop's parts: an ordinary `train` run, on the weights in memory.

use super::Loop;
use super::args::RecipeArg;
use super::settings::{Course, Pairs, Settings, Size};
use super::stages::{COMPOSER, Method, Part, Work};
use super::state::{Facts, TrainingFacts};
use crate::args::{Cli, Command};
use crate::commands::Env;
use crate::commands::train::args::{TrainArgs, TrainCommand};
use crate::commands::train::{self, Method as TrainMethod};
use crate::output;
use anyhow::{Context, Result};
use clap::Parser;
use serde_json::Value;
use std::path::Path;

/// Steps between checkpoints.
const CHECKPOINT_STEPS: &str = "50";

/// Share of the steps in which Complex-to-Simple's rate rises: 100 of 810, as published.
const CONTRAST_WARMUP: &str = "0.12";

/// Trains the adapter of a part; nothing if the user stopped it. A control takes as many rows
/// and as many steps as its twin.
///
/// # Errors
/// No row to train on, a run that diverges, a file that cannot be written.
pub(super) fn train(
    env: &mut Env,
    of: &Loop<'_>,
    part: &Part,
    twin: Option<&TrainingFacts>,
) -> Result<Option<Facts>> {
    let (method, name, args) = arguments(of, part, twin)?;
    let trained = train::train_once(env, method, &args)
        .with_context(|| format!("{} of {}", part.stage, part.arm.name()))?
        .context("a training was only planned")?;
    if !trained.finished.is_complete() {
        return Ok(None);
    }
    Ok(Some(Facts::Training(TrainingFacts {
        method: name.to_owned(),
        rows: trained.rows,
        steps: trained.finished.steps,
        last: trained.last.map_or(Value::Null, Value::Object),
    })))
}

/// The `train` command that a part is.
fn arguments(
    of: &Loop<'_>,
    part: &Part,
    twin: Option<&TrainingFacts>,
) -> Result<(TrainMethod, &'static str, TrainArgs)> {
    let settings = &of.settings;
    let source = part.source.as_deref().unwrap_or(Path::new(""));
    let (method, name, preset, file, flags) = match part.work {
        Work::Train(Method::Sft) => (
            TrainMethod::Sft,
            Method::Sft.name(),
            "ultraif-sft",
            "sft.jsonl",
            of_course(&settings.sft),
        ),
        Work::Train(Method::Dpo) => (
            TrainMethod::Dpo,
            Method::Dpo.name(),
            match of.args.recipe {
                RecipeArg::Ultraif => "ultraif-dpo",
                RecipeArg::ComplexToSimple => "complex-to-simple",
            },
            "dpo.jsonl",
            of_pairs(&settings.dpo),
        ),
        Work::Train(Method::Nca) => (
            TrainMethod::Nca,
            Method::Nca.name(),
            "ultraif-nca",
            "dpo.jsonl",
            of_pairs(&settings.nca),
        ),
        Work::Compose | Work::Decompose | Work::Synthesise | Work::Evaluate => (
            TrainMethod::Sft,
            "composer",
            "ultraif-composer",
            "composer.jsonl",
            of_course(&settings.composer),
        ),
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut words: Vec<String> = ["autodidact", "train"].map(str::to_owned).to_vec();
    words.push(if name == "composer" { "sft" } else { name }.to_owned());
    let mut flag = |flag: &str, value: String| words.extend([format!("--{flag}"), value]);
    flag(
        "data",
        text(&of.folder.join(source).join("data").join(file)),
    );
    flag("output", text(&of.folder.join(&part.folder)));
    flag("preset", preset.to_owned());
    flag("seed", of.seed_of(part).to_string());
    flag("samples", "0".to_owned());
    flag("checkpoint-steps", CHECKPOINT_STEPS.to_owned());
    if of.size == Size::Small {
        flag("recompute", "nothing".to_owned());
    }
    let contrast = match of.args.recipe {
        RecipeArg::Ultraif => Vec::new(),
        RecipeArg::ComplexToSimple => of_contrast(settings, part),
    };
    for (name, value) in flags.into_iter().chain(contrast) {
        flag(name, value);
    }
    if let Some(twin) = twin {
        flag("max-rows", twin.rows.to_string());
        flag("max-steps", twin.steps.to_string());
    }
    output::say(&format!("as: {}", words.join(" ")));
    let mut args = parsed(&words)?;
    args.model = of.args.model.clone();
    if let (Some(policy), true) = (&part.policy, part.folder != Path::new(COMPOSER)) {
        args.model.adapter = Some(text(&of.folder.join(policy)));
    }
    Ok((method, name, args))
}

fn of_course(course: &Course) -> Vec<(&'static str, String)> {
    vec![
        ("lr", course.lr.to_string()),
        ("epochs", course.epochs.to_string()),
        ("batch-tokens", course.batch_tokens.to_string()),
        ("lora-rank", course.rank.to_string()),
        ("lora-alpha", course.alpha.to_string()),
    ]
}

fn of_pairs(pairs: &Pairs) -> Vec<(&'static str, String)> {
    vec![
        ("lr", pairs.lr.to_string()),
        ("epochs", pairs.epochs.to_string()),
        ("batch-tokens", pairs.batch_tokens.to_string()),
        ("beta", pairs.beta.to_string()),
        ("sft-weight", pairs.sft_weight.to_string()),
    ]
}

/// What Complex-to-Simple's pairs have beside the others': the first round begins an adapter.
fn of_contrast(settings: &Settings, part: &Part) -> Vec<(&'static str, String)> {
    let mut flags = vec![("warmup-ratio", CONTRAST_WARMUP.to_owned())];
    if part.policy.is_none() {
        flags.push(("lora-rank", settings.sft.rank.to_string()));
        flags.push(("lora-alpha", settings.sft.alpha.to_string()));
    }
    flags
}

/// The words of a `train` command as its arguments.
fn parsed(words: &[String]) -> Result<TrainArgs> {
    match Cli::try_parse_from(words)?.command {
        Command::Train(
            TrainCommand::Sft(args) | TrainCommand::Dpo(args) | TrainCommand::Nca(args),
        ) => Ok(*args),
        _ => anyhow::bail!("not a training command: {}", words.join(" ")),
    }
}
