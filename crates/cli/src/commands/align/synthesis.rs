//! Rows for a training: a recipe's own run, with the roles played by the loop's adapters.

use super::Loop;
use super::args::{AlignArgs, Control, RecipeArg};
use super::settings::{Judge, Size};
use super::stages::{Arm, COMPOSER, Part, Work};
use super::state::{Facts, RowFacts};
use crate::commands::Env;
use crate::commands::synth::args::SeedArgs;
use crate::commands::synth::complex_to_simple::{ComplexToSimple, SAMPLES_OF_SMALL, within};
use crate::commands::synth::settings::layered;
use crate::commands::synth::ultraif::Ultraif;
use crate::commands::synth::{Ended, House, Job, Recipe, execute, lines_of};
use crate::config::Config;
use crate::error::Failure;
use anyhow::Result;
use serde_json::Value;
use std::path::Path;
use synth::complex_to_simple;
use synth::ultraif::{Composer, Evaluator, NAME, Settings, Stage, Want};

/// Takes seeds apart, or makes the rows of a stage; nothing if the user stopped it.
///
/// # Errors
/// What keeps the recipe from going on.
pub(super) fn synthesise(env: &mut Env, of: &Loop<'_>, part: &Part) -> Result<Option<Facts>> {
    let folder = of.folder.join(&part.folder);
    let rows = match part.work {
        Work::Decompose => 0,
        _ => of.settings.rows,
    };
    let source = SeedArgs {
        seeds: vec![of.inputs.write_seeds(&folder, rows)?],
        decontaminate: vec![of.held_out_file.clone()],
    };
    let job = Job {
        seed: of.seed_of(part),
        concurrency: of.args.concurrency,
        prompts: of.args.prompts.clone(),
        roles: roles(of, part),
        ..Job::new(folder, &of.args.model, &env.config)
    };
    let recipe: Box<dyn Recipe> = match of.args.recipe {
        RecipeArg::Ultraif => {
            let settings = settings(of, part, &env.config)?;
            Box::new(Ultraif::new(&job, settings, &source)?)
        }
        RecipeArg::ComplexToSimple => {
            let settings = contrast(of.size, job.house, &env.config)?;
            Box::new(ComplexToSimple::new(&job, settings, &source)?)
        }
    };
    let ended = execute(env, &job, recipe.as_ref())?;
    if ended.is_stopped() {
        return Ok(None);
    }
    facts(&ended, file_of(part)).map(Some)
}

/// Whether the recipe can be run as it is set.
///
/// # Errors
/// A setting that does not exist, fit or make sense; a control of a recipe that has none.
pub(super) fn check(args: &AlignArgs, (size, house): (Size, House), config: &Config) -> Result<()> {
    let usage = |text: String| Err(Failure::usage(text));
    match args.recipe {
        RecipeArg::Ultraif => {
            let checked = settings_of_all(size, config)?.validate();
            checked.or_else(|error| usage(error.to_string()))
        }
        RecipeArg::ComplexToSimple => {
            if !args.control.is_empty() {
                return usage(
                    "--control: compares judges, and in complex-to-simple rules are the judge"
                        .into(),
                );
            }
            let checked = contrast(size, house, config)?.validate();
            checked.or_else(|error| usage(error.to_string()))
        }
    }
}

/// The recipe's name and its settings, as the state keeps them.
///
/// # Errors
/// A setting that does not exist or fit.
pub(super) fn made_of(
    of: &Loop<'_>,
    house: House,
    config: &Config,
) -> Result<(&'static str, Value)> {
    Ok(match of.args.recipe {
        RecipeArg::Ultraif => {
            let settings = settings_of_all(of.size, config)?;
            (NAME, serde_json::to_value(settings)?)
        }
        RecipeArg::ComplexToSimple => {
            let settings = contrast(of.size, house, config)?;
            (complex_to_simple::NAME, serde_json::to_value(settings)?)
        }
    })
}

/// What Complex-to-Simple is set to: its own defaults, what the model inside the program knows,
/// several answers for each instruction where they cost little, what the user set.
///
/// # Errors
/// A setting that does not exist or fit.
pub(super) fn contrast(
    size: Size,
    house: House,
    config: &Config,
) -> Result<complex_to_simple::Settings> {
    let mut base = within(house, complex_to_simple::Settings::default());
    if size == Size::Small {
        base.samples = SAMPLES_OF_SMALL;
        base.near_duplicates = 0.0;
    }
    layered(complex_to_simple::NAME, &base, config, Vec::new())
}

/// What the recipe is set to for all parts: its own defaults, what the user set, and judging by
/// the model alone unless the user wants rules to judge.
///
/// # Errors
/// A setting that does not exist or fit.
pub(super) fn settings_of_all(size: Size, config: &Config) -> Result<Settings> {
    let mut base = Settings {
        rule_judge: false,
        ..Settings::default()
    };
    if size == Size::Small {
        // Few seeds give many instructions that are much alike; and what a small model writes
        // before its verdict costs more than it helps.
        base.near_duplicates = 0.0;
        base.evaluator = Evaluator::Logits;
    }
    layered(NAME, &base, config, Vec::new())
}

/// What it is set to for one part.
fn settings(of: &Loop<'_>, part: &Part, config: &Config) -> Result<Settings> {
    let mut settings = settings_of_all(of.size, config)?;
    settings.composer_tokens = settings.composer_tokens.min(of.context_tokens / 2);
    if part.work == Work::Decompose {
        settings.stages = vec![Stage::Decompose, Stage::Question, Stage::Composer];
        return Ok(settings);
    }
    let depth = of.settings.depth(part.place);
    settings.stages.retain(|stage| *stage != Stage::Composer);
    if depth == 0 {
        settings.stages.retain(|stage| *stage != Stage::Compose);
    }
    settings.rounds = depth.max(1);
    settings.levels = Vec::new();
    settings.want = if part.place == 0 {
        Want::Sft
    } else {
        Want::Dpo
    };
    settings.composer = of.composer;
    match part.arm {
        Arm::Main => {}
        Arm::Control(Control::Rules) => settings.evaluator = Evaluator::Rules,
        Arm::Control(Control::Unfiltered) => settings.evaluator = Evaluator::Nobody,
    }
    Ok(settings)
}

/// Who plays which role; the base plays the others.
fn roles(of: &Loop<'_>, part: &Part) -> Vec<(String, String)> {
    let role = |name: &str, folder: &Path| {
        let path = of.folder.join(folder);
        (name.to_owned(), path.to_string_lossy().into_owned())
    };
    let mut roles = Vec::new();
    if part.work == Work::Synthesise && of.composer == Composer::Trained {
        roles.push(role("compose", Path::new(COMPOSER)));
    }
    if let Some(policy) = &part.policy {
        roles.push(role("respond", policy));
        if of.settings.judge == Judge::Policy {
            roles.push(role("judge", policy));
        }
    }
    roles
}

/// The file that the rows are in.
fn file_of(part: &Part) -> &'static str {
    match (part.work, part.place) {
        (Work::Decompose, _) => "composer.jsonl",
        (_, 0) => "sft.jsonl",
        _ => "dpo.jsonl",
    }
}

fn facts(ended: &Ended, file: &str) -> Result<Facts> {
    let funnel = &ended.funnel;
    let count = |name: &str| funnel.counts.get(name).copied().unwrap_or(0);
    Ok(Facts::Rows(RowFacts {
        tried: funnel.read,
        accepted: funnel.accepted,
        passing: count("select.passing"),
        responses: count("select.responses"),
        rows: lines_of(&ended.folder.join(file))?,
        rejected: funnel.rejected.clone(),
    }))
}
