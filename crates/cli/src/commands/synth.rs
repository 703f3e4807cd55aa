//! `synth`: recipes over the engine. Everything that can be known to fail fails before any
//! weights are read.

use crate::args::SynthArgs;
use crate::card;
use crate::commands::Env;
use crate::commands::run::funnel_table;
use crate::config::{Config, unknown};
use crate::error::{Failure, SHORT, STOPPED};
use crate::fleet::{Cast, Loaded};
use crate::output;
use crate::request;
use crate::run_progress::RunProgress;
use crate::seeds::Seeds;
use crate::session::{Opened, Session};
use crate::threads;
use anyhow::{Context as _, Result};
use data::Generator;
use pipeline::{
    Admit, AdmitAll, DriveOptions, Funnel, Llm, Manifest, OnChange, Report, Roles, Run, Shard,
    StopSignal, Target,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use synth::filters::{Contamination, NearDuplicates};
use synth::prompts::PromptSet;
use synth::ultraif::{self, Composer, Context, Evaluator, Settings};

/// The recipe's one phase.
pub(crate) const PHASE: &str = "ultraif";

/// Runs UltraIF.
pub(crate) fn ultraif(env: &mut Env, args: &SynthArgs) -> Result<ExitCode> {
    let plan = Plan::new(env, args, |_| ())?;
    let ended = execute(env, args, &plan)?;
    ended.tell(args)?;
    Ok(ended.exit_code(args))
}

/// Runs UltraIF with both evaluators, and says how far they agree.
pub(crate) fn agree(env: &mut Env, args: &SynthArgs) -> Result<ExitCode> {
    let plan = Plan::new(env, args, |settings| {
        settings.evaluator = Evaluator::Both;
        // Every sample is compared, not only those that decide a row.
        settings.early_stop = false;
    })?;
    let ended = execute(env, args, &plan)?;
    let path = ended.folder.join(ultraif::AGREEMENT_FILE);
    let text = fs::read_to_string(&path).map_err(|error| request::unreadable(&path, &error))?;
    let rows: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let found = ultraif::agreement(&rows);
    if args.json {
        output::print_json(&found)?;
    } else {
        ended.tell(args)?;
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
    Ok(ended.exit_code(args))
}

/// Everything about a run that is known before it begins.
struct Plan {
    cast: Cast,
    context: Context,
    seeds: Seeds,
    shard: Shard,
}

impl Plan {
    fn new(env: &mut Env, args: &SynthArgs, change: impl FnOnce(&mut Settings)) -> Result<Self> {
        for setting in args.model.settings() {
            env.config.insert(setting)?;
        }
        if args.concurrency == 0 {
            return Err(Failure::usage("--concurrency 0: at least 1 row"));
        }
        let cast = Cast::new(&args.model, &args.role, &ultraif::ROLES, &env.config)?;
        let mut settings = settings(args, &env.config, &cast)?;
        change(&mut settings);
        settings
            .validate()
            .map_err(|error| Failure::usage(error.to_string()))?;
        let prompts = match &args.prompts {
            None => PromptSet::embedded(),
            Some(folder) => PromptSet::with_overrides(folder)
                .map_err(|error| Failure::usage(error.to_string()))?,
        };
        let seeds = Seeds::open(&args.seeds)?;
        let contamination = contamination(args)?;
        threads::apply(&env.config)?;
        Ok(Self {
            cast,
            context: Context {
                prompts,
                settings,
                contamination,
            },
            seeds,
            shard: match args.shard {
                Some(shard) => shard,
                None => slurm_shard(|name| std::env::var(name).ok())?,
            },
        })
    }

    fn manifest(&self, args: &SynthArgs, opened: &[Opened]) -> Result<Manifest> {
        let mut models = BTreeMap::new();
        for role in ultraif::ROLES {
            let part = self.cast.of(role);
            models.insert(
                role.to_owned(),
                opened[part.model()].identity(part.adapter())?,
            );
        }
        let mut settings = serde_json::to_value(&self.context.settings)?;
        settings["decontaminate"] = json!(args.decontaminate);
        Ok(Manifest {
            program: concat!("autodidact ", env!("CARGO_PKG_VERSION")).into(),
            recipe: ultraif::RECIPE.into(),
            seed: args.seed,
            source: self.seeds.digest().to_owned(),
            shard: self.shard,
            models,
            settings,
            prompts: self.context.prompts.digests("ultraif"),
        })
    }
}

fn execute(env: &mut Env, args: &SynthArgs, plan: &Plan) -> Result<Ended> {
    let opened = plan.cast.open(&args.model, &mut env.config)?;
    for one in &opened {
        one.check_template()
            .with_context(|| format!("model {}", one.name()))?;
    }
    let manifest = plan.manifest(args, &opened)?;
    let on_change = if args.allow_changes {
        OnChange::Allow
    } else {
        OnChange::Refuse
    };
    let run = Run::open(&args.output, manifest, on_change)?;
    let names = card::names(
        run.manifest(),
        (&plan.cast, &opened),
        &args.seeds,
        &plan.context.prompts,
    );
    write_run_file(&run, args, &names)?;
    for change in run.changes() {
        output::say(&format!("changed since the last time: {change}"));
    }
    let loaded = plan.cast.start(opened, &env.config)?;
    let stop = StopSignal::default();
    let options = DriveOptions {
        concurrency: args.concurrency,
        accept: args.accept,
        max_rows: args.max_rows,
        stop: stop.clone(),
    };
    let mut progress = RunProgress::new(args.accept, plan.seeds.rows(), &plan.shard);
    let orderly = env.interrupt.orderly();
    let report = drive(env, args, plan, (&run, loaded), (&options, &mut progress))?;
    drop(orderly);
    progress.finish();
    let files = plan.context.settings.files();
    let file_names: Vec<&str> = files.iter().map(String::as_str).collect();
    let mut admit = admit(&plan.context.settings);
    let funnel = run.export(PHASE, &file_names, args.accept, admit.as_mut())?;
    card::describe(run.folder(), &files, (run.manifest(), names), &funnel)?;
    Ok(Ended {
        folder: run.folder().join("data"),
        files,
        report,
        funnel,
    })
}

/// Drives the rows, with all models in memory or one after the other until no row waits.
fn drive(
    env: &mut Env,
    args: &SynthArgs,
    plan: &Plan,
    (run, loaded): (&Run, Loaded),
    (options, progress): (&DriveOptions, &mut RunProgress),
) -> Result<Report> {
    let interrupt = env.interrupt.clone();
    let identities = &run.manifest().models;
    let recipe = async |seed: &Vec<data::Message>, llm: &Llm<'_>| {
        ultraif::run(seed, llm, &plan.context).await
    };
    let mut pass = |sessions: &[Option<&Session>]| -> Result<Report> {
        let roles = roles(&plan.cast, sessions, identities);
        let report = run.drive(
            PHASE,
            plan.seeds.rows_of()?,
            &roles,
            options,
            &recipe,
            admit(&plan.context.settings).as_mut(),
            &mut |state| {
                if interrupt.requested() && options.stop.times() == 0 {
                    output::say("\nfinishing what is under way; once more stops now, and loses nothing either");
                    options.stop.request();
                }
                if interrupt.takes_snapshot_request() {
                    progress.snapshot(state);
                }
                progress.tell(state);
            },
        )?;
        Ok(report)
    };
    let mut waiting = match loaded {
        Loaded::Together(sessions) => {
            let sessions: Vec<Option<&Session>> = sessions.iter().map(Some).collect();
            return pass(&sessions);
        }
        Loaded::InTurns(first) => first,
    };
    output::say("the models do not fit in memory together: they take turns");
    let (mut index, mut last_parked) = (0, Vec::new());
    loop {
        let session = match waiting.take() {
            Some(session) => *session,
            None => plan.cast.start_one(index, &args.model, &mut env.config)?,
        };
        let mut sessions = vec![None; plan.cast.len()];
        sessions[index] = Some(&session);
        let report = pass(&sessions)?;
        last_parked.push(report.parked);
        let turns = plan.cast.len();
        let stuck = last_parked.len() > 2 * turns
            && last_parked[last_parked.len() - 1 - turns] == report.parked
            && report
                .progress
                .stages
                .values()
                .all(|stage| stage.asked == 0);
        if report.parked == 0 || report.interrupted || stuck {
            return Ok(report);
        }
        drop(session);
        index = (index + 1) % plan.cast.len();
    }
}

/// Who answers whom with these models loaded.
fn roles(
    cast: &Cast,
    sessions: &[Option<&Session>],
    identities: &BTreeMap<String, String>,
) -> Roles {
    let target = |role: &str| {
        let part = cast.of(role);
        Target {
            generator: sessions[part.model()]
                .map(|session| Arc::clone(&session.engine) as Arc<dyn Generator>),
            identity: identities.get(role).cloned().unwrap_or_default(),
            adapter: part.adapter().map(str::to_owned),
        }
    };
    let roles = Roles::new(target("respond"));
    ultraif::ROLES
        .iter()
        .fold(roles, |roles, role| roles.with(role, target(role)))
}

/// What is judged in source order.
fn admit(settings: &Settings) -> Box<dyn Admit> {
    if settings.near_duplicates > 0.0 {
        Box::new(NearDuplicates::new(settings.near_duplicates))
    } else {
        Box::new(AdmitAll)
    }
}

/// Files and order-dependent rules of a run, from its manifest.
///
/// # Errors
/// A manifest that is not of this recipe.
pub(crate) fn export_rules(manifest: &Manifest) -> Result<(Vec<String>, Box<dyn Admit>)> {
    let mut settings = manifest.settings.clone();
    if let Some(settings) = settings.as_object_mut() {
        settings.remove("decontaminate");
    }
    let settings: Settings = serde_json::from_value(settings)
        .with_context(|| format!("the run is of `{}`", manifest.recipe))?;
    Ok((settings.files(), admit(&settings)))
}

/// Preset, then configuration, then flags.
fn settings(args: &SynthArgs, config: &Config, cast: &Cast) -> Result<Settings> {
    let base = match args.preset.as_str() {
        "paper" => Settings::default(),
        "as-published" => Settings::as_published(),
        other => {
            let message = format!("--preset {other}: there are paper and as-published");
            return Err(Failure::usage(message));
        }
    };
    let base = Settings {
        composer: if cast.is_given("compose") {
            Composer::Trained
        } else {
            base.composer
        },
        ..base
    };
    let mut value = serde_json::to_value(base)?;
    let known: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.clone())
        .collect();
    let mut set = |key: &str, new: Value, origin: &str| -> Result<()> {
        if !known.iter().any(|name| name == key) {
            let names = known.iter().map(|name| format!("ultraif.{name}"));
            return Err(Failure::usage(unknown(
                &format!("ultraif.{key}"),
                origin,
                names,
            )));
        }
        value[key] = new;
        // Checked one by one, so that the message can say which.
        serde_json::from_value::<Settings>(value.clone())
            .map(drop)
            .map_err(|error| Failure::usage(format!("{origin}: ultraif.{key}: {error}")))
    };
    for (key, given, origin) in config.recipe("ultraif") {
        set(key, serde_json::to_value(given)?, &origin.to_string())?;
    }
    if !args.stages.is_empty() {
        set("stages", json!(args.stages), "--stages")?;
    }
    if let Some(evaluator) = &args.evaluator {
        set("evaluator", json!(evaluator), "--evaluator")?;
    }
    Ok(serde_json::from_value(value)?)
}

fn contamination(args: &SynthArgs) -> Result<Contamination> {
    let mut prompts = Vec::new();
    for path in &args.decontaminate {
        for row in data::read_prompts(path)? {
            let row = row.map_err(|problem| Failure::input(problem.to_string()))?;
            prompts.extend(row.messages.into_iter().map(|message| message.content));
        }
    }
    Ok(Contamination::new(prompts.iter().map(String::as_str)))
}

/// The part that a Slurm array job is to do; all rows outside of one.
fn slurm_shard(variable: impl Fn(&str) -> Option<String>) -> Result<Shard> {
    let (Some(id), Some(count)) = (
        variable("SLURM_ARRAY_TASK_ID"),
        variable("SLURM_ARRAY_TASK_COUNT"),
    ) else {
        return Ok(Shard::ALL);
    };
    let first = variable("SLURM_ARRAY_TASK_MIN").unwrap_or_else(|| "0".into());
    let number = |text: &str| text.parse::<u32>().ok();
    let shard = (|| {
        let index = number(&id)?.checked_sub(number(&first)?)?;
        Shard::new(index, number(&count)?)
    })();
    shard.ok_or_else(|| {
        Failure::usage(format!(
            "$SLURM_ARRAY_TASK_ID {id} from {first} of {count}: not a part; give --shard I/N"
        ))
    })
}

/// What the run was started with, for people.
fn write_run_file(run: &Run, args: &SynthArgs, names: &data::Names) -> Result<()> {
    let command: Vec<String> = std::env::args().collect();
    let facts = json!({
        "command": command.join(" "), "manifest": run.manifest(), "accept": args.accept,
        "seeds": args.seeds, "names": names,
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

/// A run at its end, with its files written.
struct Ended {
    /// Where the files are.
    folder: PathBuf,
    files: Vec<String>,
    report: Report,
    funnel: Funnel,
}

impl Ended {
    fn is_stopped(&self) -> bool {
        self.report.interrupted || self.report.parked > 0
    }

    fn is_short(&self, args: &SynthArgs) -> bool {
        args.accept
            .is_some_and(|accept| self.funnel.accepted < accept)
    }

    fn exit_code(&self, args: &SynthArgs) -> ExitCode {
        if self.is_stopped() {
            ExitCode::from(STOPPED)
        } else if self.is_short(args) {
            ExitCode::from(SHORT)
        } else {
            ExitCode::SUCCESS
        }
    }

    /// The funnel, what it cost, the files, and what to do next.
    fn tell(&self, args: &SynthArgs) -> Result<()> {
        let (report, funnel) = (&self.report, &self.funnel);
        if args.json {
            output::print_json(&json!({
                "funnel": funnel, "stages": report.progress.stages, "parked": report.parked,
                "interrupted": report.interrupted, "data": self.folder, "files": self.files,
                "seconds": report.progress.elapsed.as_secs_f64(),
            }))?;
        } else {
            output::print_line(&funnel_table(funnel))?;
            output::say(&totals(report));
            for name in &self.files {
                let path = self.folder.join(name);
                let rows = lines_of(&path).with_context(|| path.display().to_string())?;
                output::say(&format!("{rows:>7} rows  {}", path.display()));
            }
        }
        if self.is_stopped() {
            output::say("stopped; the same command continues");
        } else if self.is_short(args) {
            output::say(&format!(
                "short of {} accepted rows: the seeds are used up; give more seeds",
                args.accept.unwrap_or(0)
            ));
        } else {
            output::say(&format!(
                "next: autodidact data check {}",
                args.output.display()
            ));
        }
        Ok(())
    }
}

/// Lines of a file of any size.
fn lines_of(path: &Path) -> std::io::Result<usize> {
    let mut reader = BufReader::new(fs::File::open(path)?);
    let mut lines = 0;
    while reader.skip_until(b'\n')? > 0 {
        lines += 1;
    }
    Ok(lines)
}

/// Calls, tokens and rates of this invocation.
fn totals(report: &Report) -> String {
    let stages = report.progress.stages.values();
    let sum = |of: fn(&pipeline::StageUse) -> u64| stages.clone().map(of).sum::<u64>();
    let seconds = report.progress.elapsed.as_secs_f64();
    let (read, written) = (sum(|s| s.prompt_tokens), sum(|s| s.completion_tokens));
    format!(
        "{} calls, {} from the log | {read} tokens read, {} of them cached, {written} written | {seconds:.1} s, {:.0} tok/s written",
        sum(|s| s.asked),
        sum(|s| s.reused),
        sum(|s| s.cached_tokens),
        written as f64 / seconds.max(1e-9),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slurm_says_which_part() {
        let check = |set: &[(&str, &str)], expected: Option<&str>| {
            let shard = slurm_shard(|name| {
                let found = set
                    .iter()
                    .find(|(key, _)| format!("SLURM_ARRAY_TASK_{key}") == name);
                found.map(|(_, value)| (*value).to_owned())
            });
            assert_eq!(
                shard.ok().map(|shard| shard.to_string()).as_deref(),
                expected
            );
        };
        check(&[], Some("1/1"));
        check(&[("ID", "2"), ("COUNT", "4"), ("MIN", "0")], Some("3/4"));
        check(&[("ID", "4"), ("COUNT", "4"), ("MIN", "1")], Some("4/4"));
        check(&[("ID", "9"), ("COUNT", "4"), ("MIN", "1")], None);
        check(&[("ID", "x"), ("COUNT", "4")], None);
    }

    #[test]
    fn toml_takes_what_json_had() {
        let value = without_nulls(json!({"a": null, "b": [{"c": null, "d": 1}]}));
        assert_eq!(value, json!({"b": [{"d": 1}]}));
    }
}
