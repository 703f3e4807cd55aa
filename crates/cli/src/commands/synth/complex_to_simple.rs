//! Complex-to-Simple as a command.

use super::args::{ComplexToSimpleArgs, SeedArgs};
use super::job::House;
use super::settings::{Preset, contamination, layered, preset};
use super::{Export, Facts, Job, Pass, Recipe, Rows, Shown, Source, execute, prompts};
use crate::commands::Env;
use crate::error::Failure;
use crate::seeds::Seeds;
use anyhow::Result;
use data::Message;
use pipeline::{Llm, Report, Sourced};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use synth::complex_to_simple::{self as recipe, Admission, Context, NAME, Settings};
use synth::prompts::PromptSet;

/// Runs Complex-to-Simple.
pub(crate) fn run(env: &mut Env, args: &ComplexToSimpleArgs) -> Result<ExitCode> {
    let job = Job::of_args(&args.run, (NAME, &args.role), &env.config)?;
    let base = preset(&args.run.preset, &presets())?;
    let base = within(job.house, base);
    let mut flags = Vec::new();
    if args.atom {
        flags.push(("fewest", json!(1), "--atom"));
        flags.push(("most", json!(1), "--atom"));
    }
    if let Some((fewest, most)) = args.constraints {
        flags.push(("fewest", json!(fewest), "--constraints"));
        flags.push(("most", json!(most), "--constraints"));
    }
    if let Some(variant) = &args.variant {
        flags.push(("variant", json!(variant), "--variant"));
    }
    if let Some(rewrite) = &args.rewrite {
        flags.push(("rewrite", json!(rewrite), "--rewrite"));
    }
    let settings = layered(NAME, &base, &env.config, flags)?;
    let ended = execute(
        env,
        &job,
        &ComplexToSimple::new(&job, settings, &args.source)?,
    )?;
    ended.tell(Shown::of_flag(args.run.json))?;
    Ok(ended.exit_code())
}

fn presets() -> [Preset<Settings>; 2] {
    [
        ("paper", Settings::default),
        ("as-published", Settings::as_published),
    ]
}

/// Answers of a small model: they cost little, and the more there are the more pairs.
pub(crate) const SAMPLES_OF_SMALL: usize = 5;

/// The settings with what the model knows, where it knows little: its types of constraints,
/// and no more of them at once than it was trained with.
pub(crate) fn within(house: House, settings: Settings) -> Settings {
    match house {
        House::Program => settings,
        House::Embedded => Settings {
            fewest: 1,
            most: 3,
            samples: SAMPLES_OF_SMALL,
            kinds: house.kinds().into_iter().map(str::to_owned).collect(),
            ..settings
        },
    }
}

/// A run of Complex-to-Simple.
pub(crate) struct ComplexToSimple {
    context: Context,
    seeds: Seeds,
    decontaminate: Vec<PathBuf>,
}

impl ComplexToSimple {
    /// Checks the settings, reads the prompts, looks at the seeds.
    ///
    /// # Errors
    /// Settings out of range, prompts, seeds or benchmarks that cannot be read.
    pub(crate) fn new(job: &Job<'_>, settings: Settings, source: &SeedArgs) -> Result<Self> {
        settings
            .validate()
            .map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Self {
            context: Context {
                prompts: prompts(job)?,
                settings,
                contamination: contamination(&source.decontaminate)?,
            },
            seeds: Seeds::open(&source.seeds, job.house.seeds())?,
            decontaminate: source.decontaminate.clone(),
        })
    }

    /// Each seed as often as the settings say, under ids of their own.
    fn rows(&self) -> Result<impl Iterator<Item = Sourced<Vec<Message>>> + use<>> {
        let copies = self.context.settings.per_seed;
        let rows = self.seeds.rows_of()?;
        Ok(rows.flat_map(move |row| {
            (0..copies).map(move |copy| Sourced {
                id: match copy {
                    0 => row.id.clone(),
                    copy => format!("{}+{copy}", row.id),
                },
                row: row.row.clone(),
            })
        }))
    }
}

impl Recipe for ComplexToSimple {
    fn facts(&self) -> Facts {
        Facts {
            name: NAME,
            version: recipe::RECIPE,
            roles: &recipe::ROLES,
        }
    }

    fn settings(&self) -> Result<Value> {
        Ok(serde_json::to_value(&self.context.settings)?)
    }

    fn decontaminate(&self) -> &[PathBuf] {
        &self.decontaminate
    }

    fn prompts(&self) -> &PromptSet {
        &self.context.prompts
    }

    fn source(&self) -> Source {
        Source {
            digest: self.seeds.digest().to_owned(),
            files: self.seeds.files().to_vec(),
        }
    }

    fn export(&self) -> Export {
        export(&self.context.settings)
    }

    fn drive(&self, pass: &mut Pass<'_>) -> Result<Report> {
        let settings = &self.context.settings;
        let rows = Rows {
            rows: self.rows()?,
            count: self.seeds.rows() * settings.per_seed as u64,
        };
        let recipe =
            async |seed: &Vec<Message>, llm: &Llm<'_>| recipe::run(seed, llm, &self.context).await;
        pass.last(NAME, rows, &recipe, &mut Admission::new(settings))
    }

    fn next(&self, job: &Job<'_>) -> String {
        let file = job.output.join("data/sft.jsonl");
        format!(
            "autodidact data check {}; autodidact verify {}",
            job.output.display(),
            file.display()
        )
    }
}

fn export(settings: &Settings) -> Export {
    Export {
        phase: NAME,
        files: settings.files(),
        admit: Box::new(Admission::new(settings)),
    }
}

/// What becomes files of a run with these settings, as its manifest keeps them.
///
/// # Errors
/// Settings that are not this recipe's.
pub(super) fn export_of(settings: Value) -> Result<Export> {
    Ok(export(&serde_json::from_value(settings)?))
}
