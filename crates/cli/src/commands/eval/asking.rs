//! Asking models: a run's folder, one engine at a time, every answer logged before it counts.

use super::{EvalArgs, Parties, Party, inputs, outputs};
use crate::args::ModelArgs;
use crate::commands::Env;
use crate::config::Config;
use crate::error::Failure;
use crate::interrupt::Interrupt;
use crate::output::{self, Progress};
use crate::session::{self, EMBEDDED, Opened, Session};
use crate::threads;
use ::eval::recipe::{self, Asking, RESPONSES_FILE};
use ::eval::{Answers, Benchmark, Item, lm_eval};
use anyhow::Result;
use data::{Message, Prompt};
use pipeline::{
    AdmitAll, DriveOptions, Llm, Manifest, OnChange, PipelineError, Report, Roles, Run, Shard,
    Sourced, StopSignal, Target,
};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Changes whenever what is asked for the same item does.
const RECIPE: &str = "eval 1";
/// Role and file of the model under test.
const OURS: (&str, &str) = ("answer", RESPONSES_FILE);
/// The same of the model that it is compared with.
const OTHER: (&str, &str) = ("compare", "compare.jsonl");

/// What `--compare` means.
enum Against {
    Nobody,
    Responses(PathBuf),
    /// The model without its adapter.
    Base,
    /// Another adapter on the same model: name, folder.
    Adapter(String, PathBuf),
    Model(String),
}

impl Against {
    fn of(args: &EvalArgs) -> Result<Self> {
        let Some(other) = args.compare.as_deref() else {
            return Ok(Self::Nobody);
        };
        if let Some(file) = inputs::responses_file(other) {
            return Ok(Self::Responses(file));
        }
        if other == "base" {
            return match args.model.adapter {
                Some(_) => Ok(Self::Base),
                None => Err(Failure::usage(
                    "--compare base: the model without its adapter; there is no --adapter",
                )),
            };
        }
        let (name, folder) = session::adapter_of(other);
        let is_adapter =
            folder.join("adapter_config.json").is_file() && !folder.join("config.json").is_file();
        Ok(if is_adapter {
            // Two adapters may come from folders of the same name.
            Self::Adapter(format!("{name} (compared)"), folder)
        } else {
            Self::Model(other.to_owned())
        })
    }

    fn name(&self, model: &str) -> String {
        match self {
            Self::Nobody => String::new(),
            Self::Responses(file) => file.display().to_string(),
            Self::Base => model.to_owned(),
            Self::Adapter(name, _) => name.clone(),
            Self::Model(name) => name.clone(),
        }
    }
}

/// Who is asked in one phase.
struct Player<'a> {
    role: &'static str,
    /// Phase of the run; one per model that ours is compared with.
    phase: &'a str,
    file: &'static str,
    identity: &'a str,
    adapter: Option<String>,
}

/// Everything that stays the same between phases.
struct Setting<'a> {
    run: Run,
    benchmark: &'a Benchmark,
    max_tokens: usize,
    concurrency: usize,
    interrupt: &'a Interrupt,
    stop: StopSignal,
}

/// Asks the model, and the other one if there is one, for every item.
///
/// # Errors
/// A model that cannot be used, a folder made with something else, an engine that stopped.
pub(super) fn ask(
    env: &mut Env,
    args: &EvalArgs,
    benchmark: &Benchmark,
    files: &[inputs::DataFile],
) -> Result<Parties> {
    for setting in args.model.settings() {
        env.config.insert(setting)?;
    }
    threads::apply(&env.config)?;
    let max_tokens = match args.max_tokens {
        Some(tokens) => usize::try_from(tokens).unwrap_or(usize::MAX),
        None => benchmark.suite.max_tokens(),
    };
    let cast = Cast::of(env, args)?;
    for opened in cast.second.iter().chain([&cast.opened]) {
        opened.check_template()?;
        check_fits(opened, benchmark, max_tokens)?;
    }
    let folder = folder(args, benchmark, &cast.name);
    let manifest = manifest(benchmark, files, max_tokens, &cast.identity);
    let setting = Setting {
        run: open_run(&folder, manifest)?,
        benchmark,
        max_tokens,
        concurrency: usize::try_from(args.concurrency).unwrap_or(usize::MAX),
        interrupt: &env.interrupt,
        stop: StopSignal::default(),
    };
    let origin = outputs::Origin::model(&cast.opened, args, &cast.identity, max_tokens, folder);
    setting.conclude(&env.config, cast, origin)
}

/// The models, found but not loaded, and what tells them apart.
struct Cast {
    against: Against,
    opened: Opened,
    /// The other model, where it is not the same.
    second: Option<Opened>,
    /// Name of the model under test, with its adapter's.
    name: String,
    adapter: Option<String>,
    identity: String,
    /// Identity and adapter of who is asked beside it.
    other: Option<(String, Option<String>)>,
}

impl Cast {
    fn of(env: &mut Env, args: &EvalArgs) -> Result<Self> {
        let against = Against::of(args)?;
        let opened = open(env, args, &against)?;
        let second = match &against {
            Against::Model(name) => Some(open_second(env, args, name)?),
            _ => None,
        };
        let adapter = args.model.adapter.as_deref().map(session::adapter_of);
        let adapter = adapter.map(|(name, _)| name);
        let name = match &adapter {
            None => opened.name().to_owned(),
            Some(adapter) => format!("{}+{adapter}", opened.name()),
        };
        let other = match (&against, &second) {
            (_, Some(second)) => Some((second.identity(None)?, None)),
            (Against::Base, None) => Some((opened.identity(None)?, None)),
            (Against::Adapter(name, _), None) => {
                Some((opened.identity(Some(name))?, Some(name.clone())))
            }
            _ => None,
        };
        Ok(Self {
            identity: opened.identity(adapter.as_deref())?,
            against,
            opened,
            second,
            name,
            adapter,
            other,
        })
    }
}

fn open(env: &mut Env, args: &EvalArgs, against: &Against) -> Result<Opened> {
    let model = env.config.text("model").unwrap_or(EMBEDDED).to_owned();
    let own = args.model.adapter.as_deref().map(session::adapter_of);
    let mut adapters: Vec<(String, PathBuf)> = own.into_iter().collect();
    if let Against::Adapter(name, folder) = against {
        adapters.push((name.clone(), folder.clone()));
    }
    session::open_named(&model, adapters, &args.model, &mut env.config)
}

/// The model that ours is compared with: its own text side, the same date and variables.
fn open_second(env: &mut Env, args: &EvalArgs, name: &str) -> Result<Opened> {
    let own = ModelArgs {
        date: args.model.date.clone(),
        template_var: args.model.template_var.clone(),
        ..ModelArgs::default()
    };
    session::open_named(name, Vec::new(), &own, &mut env.config)
}

/// Refuses before the weights are read what no item could be asked with; items that alone
/// do not fit fail alone.
fn check_fits(opened: &Opened, benchmark: &Benchmark, max_tokens: usize) -> Result<()> {
    let mut first_error = None;
    for item in &benchmark.items {
        let messages: Vec<Message> = item
            .turns
            .first()
            .map(|turn| Message::new("user", &turn.prompt))
            .into_iter()
            .collect();
        let request = recipe::request(messages.clone(), max_tokens);
        match opened.check(&Prompt::Messages(messages), &request) {
            Ok(()) => return Ok(()),
            Err(error) => first_error.get_or_insert(error),
        };
    }
    first_error.map_or(Ok(()), Err)
}

fn manifest(
    benchmark: &Benchmark,
    files: &[inputs::DataFile],
    max_tokens: usize,
    identity: &str,
) -> Manifest {
    Manifest {
        program: format!("autodidact {}", env!("CARGO_PKG_VERSION")),
        recipe: format!("{RECIPE}, {}", benchmark.suite.name()),
        seed: 0,
        source: inputs::digest(files),
        shard: Shard::ALL,
        models: BTreeMap::from([(OURS.0.to_owned(), identity.to_owned())]),
        settings: serde_json::json!({ "max_tokens": max_tokens, "temperature": 0 }),
        prompts: BTreeMap::new(),
    }
}

fn folder(args: &EvalArgs, benchmark: &Benchmark, name: &str) -> PathBuf {
    args.output.clone().unwrap_or_else(|| {
        let suite = benchmark.suite.name().replace('_', "-");
        Path::new("runs").join(format!("eval-{suite}-{}", lm_eval::folder_name(name)))
    })
}

fn open_run(folder: &Path, manifest: Manifest) -> Result<Run> {
    let run = Run::open(folder, manifest, OnChange::Refuse);
    let run = run.map_err(|error| match error {
        PipelineError::Changed { .. } => Failure::usage(error.to_string()),
        error => error.into(),
    })?;
    for change in run.changes() {
        output::say(&format!("changed since last time: {change}"));
    }
    Ok(run)
}

impl Setting<'_> {
    /// Asks everybody and gathers the answers.
    fn conclude(&self, config: &Config, cast: Cast, origin: outputs::Origin) -> Result<Parties> {
        let model = cast.opened.name().to_owned();
        let (other_identity, other_adapter) = cast.other.unzip();
        let other_phase = other_identity
            .as_deref()
            .map(|one| format!("{} {one}", OTHER.0));
        let other_phase = other_phase.unwrap_or_default();
        let ours = Player {
            role: OURS.0,
            phase: OURS.0,
            file: OURS.1,
            identity: &cast.identity,
            adapter: cast.adapter,
        };
        let other = other_identity.as_deref().map(|identity| Player {
            role: OTHER.0,
            phase: &other_phase,
            file: OTHER.1,
            identity,
            adapter: other_adapter.flatten(),
        });
        let stopped = match (other, cast.second) {
            (Some(other), Some(second)) => {
                self.ask(config, cast.opened, &[ours])? || self.ask(config, second, &[other])?
            }
            (Some(other), None) => self.ask(config, cast.opened, &[ours, other])?,
            (None, _) => self.ask(config, cast.opened, &[ours])?,
        };
        // The other's files first: of the rejected rows, those of the model under test stay.
        let other = match &cast.against {
            Against::Nobody => None,
            Against::Responses(file) => Some(inputs::party(file)?),
            against => Some(Party {
                name: against.name(&model),
                answers: self.answers(&other_phase, OTHER.1)?,
            }),
        };
        Ok(Parties {
            ours: Party {
                name: cast.name,
                answers: self.answers(OURS.0, OURS.1)?,
            },
            other,
            origin,
            stopped,
        })
    }

    /// Asks one model in each of its parts; true if the user stopped it. Its weights are
    /// read only if the log does not have every answer.
    fn ask(&self, config: &Config, opened: Opened, players: &[Player<'_>]) -> Result<bool> {
        let mut waiting = false;
        for player in players {
            waiting |= self.drive(player, None)?.parked > 0;
        }
        if !waiting {
            return Ok(false);
        }
        let session = opened.start(config)?;
        for player in players {
            if self.drive(player, Some(&session))?.interrupted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn drive(&self, player: &Player<'_>, session: Option<&Session>) -> Result<Report> {
        let generator = session.map(|session| Arc::clone(&session.engine) as Arc<_>);
        let roles = Roles::new(Target {
            generator,
            identity: player.identity.to_owned(),
            adapter: player.adapter.clone(),
        });
        let asking = Asking {
            role: player.role.to_owned(),
            file: player.file.to_owned(),
            max_tokens: self.max_tokens,
        };
        let options = DriveOptions {
            concurrency: self.concurrency,
            stop: self.stop.clone(),
            ..DriveOptions::default()
        };
        let source = self.benchmark.items.iter().map(|item| Sourced {
            id: item.key.clone(),
            row: Ok(item),
        });
        let line = Arc::new(Mutex::new(None));
        let shown = Arc::clone(&line);
        let progress = session.map(|_| Progress::start(move || lock(&shown).clone()));
        let _orderly = self.interrupt.orderly();
        let all = self.benchmark.items.len();
        let report = self.run.drive(
            player.phase,
            source,
            &roles,
            &options,
            &async |item: &&Item, llm: &Llm<'_>| recipe::ask(item, llm, &asking).await,
            &mut AdmitAll,
            &mut |now| {
                if self.interrupt.requested() && self.stop.times() == 0 {
                    self.stop.request();
                }
                *lock(&line) = Some(told(now, all));
            },
        );
        drop(progress);
        let report = report?;
        if let Some(session) = session {
            output::say(&summary(&report, session));
        }
        Ok(report)
    }

    /// The answers of a phase, with why others are missing.
    fn answers(&self, phase: &str, file: &str) -> Result<Answers> {
        self.run.export(phase, &[file], None, &mut AdmitAll)?;
        let data = self.run.folder().join("data");
        let path = data.join(file);
        let nothing = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == 0);
        let mut answers = if nothing {
            Answers::default()
        } else {
            inputs::answers(&path)?
        };
        answers.explain_missing(failures(&data.join(pipeline::REJECTED_FILE))?);
        Ok(answers)
    }
}

/// Why rows failed, by id.
fn failures(path: &Path) -> Result<HashMap<String, String>> {
    let text = std::fs::read_to_string(path)?;
    let mut failures = HashMap::new();
    for line in text.lines() {
        let row: serde_json::Value = serde_json::from_str(line)?;
        let part = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        failures.insert(part("id"), part("reason"));
    }
    Ok(failures)
}

fn told(now: &pipeline::Progress, all: usize) -> String {
    let tokens: u64 = now
        .stages
        .values()
        .map(|stage| stage.completion_tokens)
        .sum();
    let seconds = now.elapsed.as_secs_f64().max(1e-3);
    format!(
        "{} of {all} items, {} being answered, {:.0} tok/s",
        now.rows_done,
        now.rows_in_flight,
        tokens as f64 / seconds
    )
}

fn summary(report: &Report, session: &Session) -> String {
    let mut parts = vec![format!("{} items answered", report.funnel.accepted)];
    let failed = report.funnel.rejected_in_all();
    if failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    let reused: u64 = report
        .progress
        .stages
        .values()
        .map(|stage| stage.reused)
        .sum();
    if reused > 0 || report.progress.rows_from_before > 0 {
        let from_before = report.progress.rows_from_before;
        parts.push(format!(
            "{from_before} items from before, {reused} calls reused"
        ));
    }
    parts.push(format!("{:.1} s", report.progress.elapsed.as_secs_f64()));
    parts.extend(session.speeds());
    format!("[{}]", parts.join(", "))
}

fn lock(line: &Mutex<Option<String>>) -> std::sync::MutexGuard<'_, Option<String>> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}
