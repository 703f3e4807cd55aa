//! `synth`: recipes over the engine. Everything that can be known to fail fails before any
//! weights are read.
//!
//! A recipe is a [`Recipe`]: what it is made of, what it writes, and its phases. [`execute`]
//! runs any of them, from the command line or from another command.
//!
//! - `job.rs`: where, how much and with which models, without a command line.
//! - `settings.rs`: preset, configuration, flags; benchmarks to keep clear of.
//! - `pass.rs`: phases over the models that are in memory; models that take turns.
//! - `ended.rs`: what a run came to, for people and programs.
//! - `ultraif.rs`, `decif.rs`, `complex_to_simple.rs`: the recipes' own parts.

pub(crate) mod args;
pub(crate) mod complex_to_simple;
pub(crate) mod decif;
mod ended;
mod job;
mod pass;
pub(crate) mod settings;
pub(crate) mod ultraif;

pub(crate) use ended::{Ended, Shown, lines_of};
pub(crate) use job::{House, Job};
pub(crate) use pass::{Pass, Rows};

use crate::card;
use crate::commands::Env;
use crate::error::Failure;
use crate::fleet::Cast;
use crate::output;
use crate::session::Opened;
use crate::threads;
use anyhow::{Context as _, Result};
use args::SynthCommand;
use pipeline::{Admit, Manifest, Report, Run};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use synth::prompts::PromptSet;

/// Where a manifest's settings name the benchmarks that instructions must not repeat.
const DECONTAMINATE: &str = "decontaminate";

/// Runs the command.
pub(crate) fn run(env: &mut Env, command: &SynthCommand) -> Result<ExitCode> {
    match command {
        SynthCommand::Ultraif(args) => ultraif::run(env, args),
        SynthCommand::Decif(args) => decif::run(env, args),
        SynthCommand::ComplexToSimple(args) => complex_to_simple::run(env, args),
        SynthCommand::Agree(args) => ultraif::agree(env, args),
    }
}

/// What a recipe supplies; the rest of a run is the same for all.
pub(crate) trait Recipe {
    /// Name, version and roles.
    fn facts(&self) -> Facts;
    /// Its settings. [`export_of`] has to understand them.
    fn settings(&self) -> Result<Value>;
    /// Files with benchmarks that instructions must not repeat.
    fn decontaminate(&self) -> &[PathBuf];
    /// What is said.
    fn prompts(&self) -> &PromptSet;
    /// What the rows come from.
    fn source(&self) -> Source;
    /// What becomes files.
    fn export(&self) -> Export;
    /// Drives the phases in order. A phase whose report is not whole ends the pass: its report
    /// is returned. The pass is repeated, against the log, while models take turns.
    ///
    /// # Errors
    /// What the pass says.
    fn drive(&self, pass: &mut Pass<'_>) -> Result<Report>;
    /// What its card tells beside the tables, in Markdown, once the files in the run's folder
    /// are written.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    fn notes(&self, _folder: &Path) -> Result<String> {
        Ok(String::new())
    }
    /// What to do after a run that was not stopped and not short.
    fn next(&self, job: &Job) -> String {
        format!("autodidact data check {}", job.output.display())
    }
}

/// What never changes of a recipe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// Its table of settings and its folder of prompts.
    pub(crate) name: &'static str,
    /// Name and version, for the manifest: the version is raised when what becomes of a row
    /// changes.
    pub(crate) version: &'static str,
    /// Roles that may have a model of their own.
    pub(crate) roles: &'static [&'static str],
}

/// What rows come from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Digest of all of it.
    pub(crate) digest: String,
    /// Its files; none if it is built in.
    pub(crate) files: Vec<PathBuf>,
}

/// What of a run becomes files.
pub(crate) struct Export {
    /// The last phase, whose records they are.
    pub(crate) phase: &'static str,
    /// Files that are written, even if empty.
    pub(crate) files: Vec<String>,
    /// What is judged in source order.
    pub(crate) admit: Box<dyn Admit>,
}

/// What of a run with this manifest becomes files.
///
/// # Errors
/// A manifest that is of no recipe of this program.
pub(crate) fn export_of(manifest: &Manifest) -> Result<Export> {
    let (name, _) = manifest
        .recipe
        .split_once(' ')
        .unwrap_or((&manifest.recipe, ""));
    let mut settings = manifest.settings.clone();
    if let Some(settings) = settings.as_object_mut() {
        settings.remove(DECONTAMINATE);
    }
    let export = match name {
        synth::ultraif::NAME => ultraif::export_of(settings),
        synth::decif::NAME => decif::export_of(settings),
        synth::complex_to_simple::NAME => complex_to_simple::export_of(settings),
        _ => Err(Failure::input("this program has no such recipe")),
    };
    export.with_context(|| format!("the run is of `{}`", manifest.recipe))
}

/// Prompts of the program, with those of a folder in their place.
///
/// # Errors
/// A folder with a file that is no prompt of ours.
pub(crate) fn prompts(job: &Job) -> Result<PromptSet> {
    match &job.prompts {
        None => Ok(job.house.prompts()),
        Some(folder) => {
            PromptSet::with_overrides(folder).map_err(|error| Failure::usage(error.to_string()))
        }
    }
}

/// Runs a recipe to its end, or until it is stopped, and writes its files.
///
/// # Errors
/// Whatever keeps it from beginning or from going on; nothing that was logged is lost.
pub(crate) fn execute(env: &mut Env, job: &Job, recipe: &dyn Recipe) -> Result<Ended> {
    for setting in job.model.settings() {
        env.config.insert(setting)?;
    }
    if job.concurrency == 0 {
        return Err(Failure::usage("--concurrency 0: at least 1 row"));
    }
    let facts = recipe.facts();
    let cast = Cast::new(job.model, &job.roles, facts.roles, &env.config)?;
    threads::apply(&env.config)?;
    let opened = cast.open(job.model, &mut env.config)?;
    for one in &opened {
        one.check_template()
            .with_context(|| format!("model {}", one.name()))?;
    }
    let manifest = manifest(job, recipe, (&cast, &opened))?;
    let run = Run::open(&job.output, manifest, job.on_change)?;
    let names = card::names(
        run.manifest(),
        (&cast, &opened),
        &recipe.source().files,
        recipe.prompts(),
    );
    write_run_file(&run, job, recipe, &names)?;
    for change in run.changes() {
        output::say(&format!("changed since the last time: {change}"));
    }
    let loaded = cast.start(opened, env)?;
    let (report, totals) = pass::drive(env, job, recipe, (&run, &cast, loaded))?;
    let mut export = recipe.export();
    let file_names: Vec<&str> = export.files.iter().map(String::as_str).collect();
    let funnel = run.export(export.phase, &file_names, job.accept, export.admit.as_mut())?;
    let notes = recipe.notes(run.folder())?;
    card::describe(
        run.folder(),
        &export.files,
        (run.manifest(), names, notes),
        &funnel,
    )?;
    Ok(Ended {
        folder: run.folder().join("data"),
        files: export.files,
        report,
        totals,
        funnel,
        accept: job.accept,
        next: recipe.next(job),
    })
}

fn manifest(
    job: &Job,
    recipe: &dyn Recipe,
    (cast, opened): (&Cast, &[Opened]),
) -> Result<Manifest> {
    let facts = recipe.facts();
    let mut settings = recipe.settings()?;
    settings[DECONTAMINATE] = json!(recipe.decontaminate());
    let mut models = BTreeMap::new();
    for role in facts.roles {
        let part = cast.of(role);
        let identity = opened[part.model()].identity(part.adapter())?;
        models.insert((*role).to_owned(), identity);
    }
    Ok(Manifest {
        program: concat!("autodidact ", env!("CARGO_PKG_VERSION")).into(),
        recipe: facts.version.into(),
        seed: job.seed,
        source: recipe.source().digest,
        shard: job.shard,
        models,
        settings,
        prompts: recipe.prompts().digests(facts.name),
    })
}

/// What the run was started with, for people.
fn write_run_file(run: &Run, job: &Job, recipe: &dyn Recipe, names: &data::Names) -> Result<()> {
    let command: Vec<String> = std::env::args().collect();
    let facts = json!({
        "command": command.join(" "), "manifest": run.manifest(), "accept": job.accept,
        "seeds": recipe.source().files, "names": names,
    });
    let text = toml::to_string_pretty(&without_nulls(facts))?;
    let path = run.folder().join(card::RUN_FILE);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// TOML has no null.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_takes_what_json_had() {
        let value = without_nulls(json!({"a": null, "b": [{"c": null, "d": 1}]}));
        assert_eq!(value, json!({"b": [{"d": 1}]}));
    }
}
