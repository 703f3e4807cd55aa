//! UltraIF as a command, and the agreement of its two evaluators.

use super::args::{SeedArgs, UltraifArgs};
use super::settings::{Preset, admit, contamination, layered, preset};
use super::{Ended, Export, Facts, Job, Pass, Recipe, Rows, Shown, Source, execute, prompts};
use crate::commands::Env;
use crate::error::Failure;
use crate::output;
use crate::request;
use crate::seeds::Seeds;
use anyhow::Result;
use pipeline::{Llm, Report};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use synth::prompts::PromptSet;
use synth::ultraif::{self, Composer, Context, Evaluator, NAME, Settings};

/// Runs UltraIF.
pub(crate) fn run(env: &mut Env, args: &UltraifArgs) -> Result<ExitCode> {
    let ended = of_args(env, args, |_| ())?;
    ended.tell(Shown::of_flag(args.run.json))?;
    Ok(ended.exit_code())
}

/// Runs UltraIF with both evaluators, and says how far they agree.
pub(crate) fn agree(env: &mut Env, args: &UltraifArgs) -> Result<ExitCode> {
    let ended = of_args(env, args, |settings| {
        settings.evaluator = Evaluator::Both;
        // Every sample is compared, not only those that decide a row.
        settings.early_stop = false;
    })?;
    let path = ended.folder.join(ultraif::AGREEMENT_FILE);
    let text = fs::read_to_string(&path).map_err(|error| request::unreadable(&path, &error))?;
    let rows: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let found = ultraif::agreement(&rows);
    if args.run.json {
        output::print_json(&found)?;
    } else {
        ended.tell(Shown::Text)?;
        output::print_line(&format!(
            "{} questions: {:.1} % equal verdicts, kappa {:.2}; YES {:.1} % written, {:.1} % read ({:+.1} points)",
            found.questions,
            found.rate * 100.0,
            found.kappa,
            found.explain_yes * 100.0,
            found.logits_yes * 100.0,
            (found.logits_yes - found.explain_yes) * 100.0,
        ))?;
    }
    Ok(ended.exit_code())
}

fn of_args(env: &mut Env, args: &UltraifArgs, change: impl FnOnce(&mut Settings)) -> Result<Ended> {
    let job = Job::of_args(&args.run, (NAME, &args.role), &env.config)?;
    let base = preset(&args.run.preset, &presets())?;
    let base = job.house.adapted(base);
    let base = Settings {
        composer: if job.casts("compose") {
            Composer::Trained
        } else {
            base.composer
        },
        ..base
    };
    let mut flags = Vec::new();
    if !args.stages.is_empty() {
        flags.push(("stages", json!(args.stages), "--stages"));
    }
    if let Some(evaluator) = &args.evaluator {
        flags.push(("evaluator", json!(evaluator), "--evaluator"));
    }
    let mut settings = layered(NAME, &base, &env.config, flags)?;
    change(&mut settings);
    execute(env, &job, &Ultraif::new(&job, settings, &args.source)?)
}

fn presets() -> [Preset<Settings>; 2] {
    [
        ("paper", Settings::default),
        ("as-published", Settings::as_published),
    ]
}

/// A run of UltraIF.
pub(crate) struct Ultraif {
    context: Context,
    seeds: Seeds,
    decontaminate: Vec<PathBuf>,
}

impl Ultraif {
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
}

impl Recipe for Ultraif {
    fn facts(&self) -> Facts {
        Facts {
            name: NAME,
            version: ultraif::RECIPE,
            roles: &ultraif::ROLES,
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
        let rows = Rows {
            rows: self.seeds.rows_of()?,
            count: self.seeds.rows(),
        };
        let recipe = async |seed: &Vec<data::Message>, llm: &Llm<'_>| {
            ultraif::run(seed, llm, &self.context).await
        };
        let mut admit = admit(self.context.settings.near_duplicates);
        pass.last(NAME, rows, &recipe, admit.as_mut())
    }
}

fn export(settings: &Settings) -> Export {
    Export {
        phase: NAME,
        files: settings.files(),
        admit: admit(settings.near_duplicates),
    }
}

/// What becomes files of a run with these settings, as its manifest keeps them.
///
/// # Errors
/// Settings that are not this recipe's.
pub(super) fn export_of(settings: Value) -> Result<Export> {
    Ok(export(&serde_json::from_value(settings)?))
}
