//! `train`: adapters and models from conversations and pairs, on the weights that generate.

pub(crate) mod args;
mod course;
mod estimate;
mod lm;
pub(crate) mod mask;
mod presets;
mod rows;
mod samples;
mod tokenizer;
mod watch;

use crate::commands::Env;
use crate::config::Config;
use crate::cuda;
use crate::devices::Devices;
use crate::error::{Failure, STOPPED};
use crate::output;
use crate::session::{self, Opened};
use crate::threads;
use crate::weights::Weights;
use anyhow::{Context, Result};
use args::{MergeArgs, SftReductionArg, TrainArgs, TrainCommand};
use course::{Chosen, Course};
pub(crate) use estimate::check_room;
use model::{AdapterCard, Decoder, Llama, Projection};
pub(crate) use presets::Method;
use presets::Preset;
use rows::Prepared;
use samples::Samples;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::process::ExitCode;
use train::{
    Finished, LoraSettings, Network, Objective, Preference, PreferenceLoss, ReferenceScores,
    RunData, RunSettings, SftReduction, StepOptions, WeightsForm, companions, score_pairs,
};
use watch::Watch;

/// Runs the command.
pub(crate) fn run(env: &mut Env, command: &TrainCommand) -> Result<ExitCode> {
    match command {
        TrainCommand::Sft(args) => tune(env, Method::Sft, args),
        TrainCommand::Dpo(args) => tune(env, Method::Dpo, args),
        TrainCommand::Nca(args) => tune(env, Method::Nca, args),
        TrainCommand::Ipo(args) => tune(env, Method::Ipo, args),
        TrainCommand::Lm(args) => lm::run(env, args),
        TrainCommand::Tokenizer(args) => tokenizer::run(args).map(|()| ExitCode::SUCCESS),
        TrainCommand::Merge(args) => merge(env, args).map(|()| ExitCode::SUCCESS),
        TrainCommand::Presets { json } => list_presets(*json).map(|()| ExitCode::SUCCESS),
    }
}

/// What a training run came to.
pub(crate) struct Trained {
    /// Steps.
    pub(crate) finished: Finished,
    /// Rows trained on.
    pub(crate) rows: usize,
    /// The last step's measurements, if this process took one.
    pub(crate) last: Option<Map<String, Value>>,
    /// Those of the last evaluation.
    evaluation: Option<Map<String, Value>>,
    samples: Samples,
}

impl Trained {
    fn new(finished: Finished, rows: usize, watch: &Watch<'_>, samples: Samples) -> Self {
        Self {
            finished,
            rows,
            last: watch.last().cloned(),
            evaluation: watch.last_evaluation().cloned(),
            samples,
        }
    }
}

fn tune(env: &mut Env, method: Method, args: &TrainArgs) -> Result<ExitCode> {
    for setting in args.model.settings() {
        env.config.insert(setting)?;
    }
    Devices::only_one(&env.config, "training")?;
    match train_once(env, method, args)? {
        Some(trained) => conclude(&args.output, args.course.json, &trained),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Trains an adapter, or all weights of a folder; nothing after a dry run.
///
/// # Errors
/// Flags, rows, a model or a folder that cannot be used; a run that diverges.
pub(crate) fn train_once(
    env: &mut Env,
    method: Method,
    args: &TrainArgs,
) -> Result<Option<Trained>> {
    let preset = presets::choose(args.preset.as_deref(), method)?;
    for setting in args.model.settings() {
        env.config.insert(setting)?;
    }
    threads::apply(&env.config)?;
    let opened = session::open(&args.model, &mut env.config)?;
    opened.check_template()?;
    let (objective, mut chosen) = objective_of(method, args, &preset)?;
    let mut lora = None;
    if !args.full {
        lora = Some(lora_of(args, &preset, &opened, &mut chosen)?);
    }
    let course = Course::of(&args.course, &preset, args.full, opened.context_tokens())?;
    chosen.extend(course.chosen.iter().cloned());
    let settings = course.settings(objective);
    let mut prepared = rows::prepare(args, method, opened.text(), &course)?;
    prepared.tell(&args.data);
    chosen.iter().for_each(|one| output::say(&one.line()));
    if args.full && opened.path().is_none_or(|path| !path.is_dir()) {
        return Err(Failure::usage(
            "--full: all weights can only be trained where they are a folder of safetensors; train an adapter beside this model",
        ));
    }
    let weights = match args.full {
        // The optimiser moves them here, wherever they are multiplied with.
        true => Weights::Host(opened.load(&env.config)?.decoder().clone()),
        false => env.weights(&opened)?,
    };
    let network = network_of(&weights, lora.as_ref(), (args, &opened), &env.config)?;
    let room = cuda::room(&env.config, &weights)?;
    let plan = estimate::plan(&network, &prepared.train, &settings, room)?;
    plan.tell();
    if args.course.dry_run {
        return Ok(None);
    }
    plan.check()?;
    let job = Job {
        args,
        opened: &opened,
        weights: &weights,
        settings: &settings,
        lora: lora.as_ref(),
    };
    job.run(env, network, &mut prepared).map(Some)
}

/// Everything about a run that is known before its first step.
struct Job<'a> {
    args: &'a TrainArgs,
    opened: &'a Opened,
    weights: &'a Weights,
    settings: &'a RunSettings,
    lora: Option<&'a LoraSettings>,
}

impl Job<'_> {
    fn run(&self, env: &Env, mut network: Network, prepared: &mut Prepared) -> Result<Trained> {
        let folder = &self.args.output;
        let _lock = lock(folder)?;
        prepared.write_dropped(folder)?;
        let course = &self.args.course;
        let mut samples = Samples::of(&prepared.prompts, course.samples);
        let start = network.adapter()?;
        samples.answer("before", env, self.opened, (self.weights, start))?;
        let data = RunData {
            references: self.references(&network, &prepared.train, "reference")?,
            held_out_references: self.references(&network, &prepared.held_out, "reference-eval")?,
            train: std::mem::take(&mut prepared.train),
            held_out: std::mem::take(&mut prepared.held_out),
        };
        let form = self.form();
        let mut watch = Watch::new(&env.interrupt);
        let place = (folder.as_path(), &form, self.identity()?);
        let finished = train::run(&mut network, &data, self.settings, place, &mut watch)?;
        watch.finish();
        if finished.is_complete() {
            let after = match self.lora {
                Some(_) => (self.weights.clone(), network.adapter()?),
                None => (Weights::Host(reloaded(folder)?), None),
            };
            samples.answer("after", env, self.opened, (&after.0, after.1))?;
            samples.write(folder)?;
        }
        Ok(Trained::new(finished, data.train.len(), &watch, samples))
    }

    /// What the reference says of each pair; read from the run's folder if it was computed for
    /// the same pairs by the same model.
    fn references(
        &self,
        network: &Network,
        items: &[train::Item],
        name: &str,
    ) -> Result<Vec<ReferenceScores>> {
        if items.is_empty() || matches!(self.settings.objective, Objective::Sft) {
            return Ok(vec![]);
        }
        let path = self.args.output.join(format!("{name}.json"));
        let key = format!("{} {:?}", train::digest(items), self.identity()?);
        if let Some(found) = rows::cached_references(&path, &key)? {
            return Ok(found);
        }
        let other;
        let reference = match self.args.preference.reference.as_str() {
            "start" => network,
            "base" => {
                other = Network::frozen(self.weights.base())?;
                &other
            }
            adapter => {
                let adapter = self.weights.adapter_fit().load(Path::new(adapter))?;
                other = Network::with_adapter(self.weights.base(), &adapter, 0.0)?;
                &other
            }
        };
        let options = StepOptions {
            pass: self.settings.pass,
            pack_tokens: self.settings.pack_tokens,
            workers: self.settings.workers,
            step: 0,
            seed: self.settings.seed,
        };
        let mut done = 0;
        let total = items.len();
        let mut last = std::time::Instant::now();
        let found = score_pairs(reference, items, &options, |pairs| {
            done += pairs;
            if last.elapsed().as_secs() >= 10 {
                last = std::time::Instant::now();
                output::say(&format!("reference: {done} of {total} pairs"));
            }
        })?;
        rows::cache_references(&path, &key, &found)?;
        Ok(found)
    }

    fn form(&self) -> WeightsForm {
        match self.lora {
            Some(lora) => WeightsForm::Adapter {
                fit: Box::new(self.weights.adapter_fit()),
                card: AdapterCard {
                    base_model: self.opened.name().to_owned(),
                    rank: lora.rank,
                    alpha: lora.alpha,
                    dropout: lora.dropout,
                },
            },
            None => WeightsForm::Model {
                companions: self.opened.path().map(companions).unwrap_or_default(),
            },
        }
    }

    /// What must be the same for the run to go on.
    fn identity(&self) -> Result<BTreeMap<String, String>> {
        let reference = match self.settings.objective {
            Objective::Sft => String::new(),
            Objective::Preference(_) => self.args.preference.reference.clone(),
        };
        let base = self.opened.identity(None)?;
        let start = match self.opened.adapter_folder() {
            Some(_) => self.opened.identity(self.opened.adapter_name())?,
            None => String::new(),
        };
        let lora = self
            .lora
            .map_or("all weights".to_owned(), |lora| format!("{lora:?}"));
        Ok(BTreeMap::from([
            ("base".to_owned(), base),
            ("start".to_owned(), start),
            ("trained".to_owned(), lora),
            ("reference".to_owned(), reference),
        ]))
    }
}

/// The model that a run without an adapter wrote.
fn reloaded(folder: &Path) -> Result<Decoder> {
    let files = model::ModelFiles::open(folder)?;
    let llama: Llama = files.load(&model::LoadOptions::default())?;
    Ok(llama.decoder().clone())
}

/// The network that is trained.
fn network_of(
    weights: &Weights,
    lora: Option<&LoraSettings>,
    (args, opened): (&TrainArgs, &Opened),
    config: &Config,
) -> Result<Network> {
    if let (None, Weights::Host(decoder)) = (lora, weights) {
        return cuda::network_onto(config, Network::full(decoder)?);
    }
    let lora = lora.expect("without an adapter the weights are the host's");
    Ok(match opened.adapter_folder() {
        Some(folder) => {
            let adapter = weights.adapter_fit().load(folder)?;
            Network::with_adapter(weights.base(), &adapter, lora.dropout)?
        }
        None => Network::with_new_adapter(weights.base(), lora, args.course.seed)?,
    })
}

fn objective_of(
    method: Method,
    args: &TrainArgs,
    preset: &Preset,
) -> Result<(Objective, Vec<Chosen>)> {
    let given = &args.preference;
    if method == Method::Sft {
        let unused = [
            ("--beta", given.beta.is_some()),
            ("--label-smoothing", given.label_smoothing.is_some()),
            ("--sft-weight", given.sft_weight.is_some()),
        ];
        return match unused.iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) => Err(Failure::usage(format!("{flag}: not for sft"))),
            None => Ok((Objective::Sft, vec![])),
        };
    }
    if given.label_smoothing.is_some() && method != Method::Dpo {
        return Err(Failure::usage("--label-smoothing: for dpo only"));
    }
    let label_smoothing = given.label_smoothing.unwrap_or(0.0);
    if !(0.0..0.5).contains(&label_smoothing) {
        return Err(Failure::usage(
            "--label-smoothing: at least 0 and below 0.5",
        ));
    }
    let loss = match method {
        Method::Nca => PreferenceLoss::Nca,
        Method::Ipo => PreferenceLoss::Ipo,
        Method::Sft | Method::Dpo => PreferenceLoss::Sigmoid { label_smoothing },
    };
    let preference = Preference {
        loss,
        beta: given.beta.unwrap_or(preset.beta),
        sft_weight: given.sft_weight.unwrap_or(preset.sft_weight),
        sft_reduction: match given.sft_reduction {
            SftReductionArg::BatchTokens => SftReduction::BatchTokens,
            SftReductionArg::PerSequence => SftReduction::PerSequence,
        },
    };
    let chosen = vec![
        Chosen::of("beta", preference.beta, given.beta.is_some(), preset),
        Chosen::of(
            "sft weight",
            preference.sft_weight,
            given.sft_weight.is_some(),
            preset,
        ),
        Chosen::of("reference", &given.reference, true, preset),
    ];
    Ok((Objective::Preference(preference), chosen))
}

/// The adapter to train: a new one, or the given one with its own rank.
fn lora_of(
    args: &TrainArgs,
    preset: &Preset,
    opened: &Opened,
    chosen: &mut Vec<Chosen>,
) -> Result<LoraSettings> {
    let given = &args.lora;
    let dropout = given.lora_dropout.unwrap_or(preset.lora_dropout);
    if let Some(folder) = opened.adapter_folder() {
        let found = model::adapter_shape(folder)?;
        let asked = given.lora_rank.is_some_and(|rank| rank != found.rank)
            || given.lora_alpha.is_some_and(|alpha| alpha != found.alpha);
        if asked || !given.lora_targets.is_empty() {
            return Err(Failure::usage(format!(
                "--adapter {}: has rank {} and alpha {}, which training keeps; leave the --lora flags away, or begin a new adapter",
                folder.display(),
                found.rank,
                found.alpha
            )));
        }
        chosen.push(Chosen::of("adapter", folder.display(), true, preset));
        return Ok(LoraSettings {
            rank: found.rank,
            alpha: found.alpha,
            dropout,
            targets: Projection::ALL.to_vec(),
        });
    }
    let mut targets = vec![];
    for name in &given.lora_targets {
        let found = presets::projection(name).ok_or_else(|| {
            Failure::usage(format!(
                "--lora-targets {name}: expected q, k, v, o, gate, up or down"
            ))
        })?;
        targets.push(found);
    }
    let own_targets = !targets.is_empty();
    if !own_targets {
        targets = preset.lora_targets.to_vec();
    }
    targets.sort_unstable();
    targets.dedup();
    let lora = LoraSettings {
        rank: given.lora_rank.unwrap_or(preset.lora_rank),
        alpha: given.lora_alpha.unwrap_or(preset.lora_alpha),
        dropout,
        targets,
    };
    let names: Vec<&str> = lora
        .targets
        .iter()
        .map(|target| presets::short(*target))
        .collect();
    chosen.extend([
        Chosen::of("lora rank", lora.rank, given.lora_rank.is_some(), preset),
        Chosen::of("lora alpha", lora.alpha, given.lora_alpha.is_some(), preset),
        Chosen::of(
            "lora dropout",
            lora.dropout,
            given.lora_dropout.is_some(),
            preset,
        ),
        Chosen::of("lora targets", names.join(", "), own_targets, preset),
    ]);
    Ok(lora)
}

/// Holds the run's folder for one process; made if it is not there.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::usage(format!(
            "{}: another process is at work here",
            folder.display()
        ))),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// What a run came to, and what to do next.
fn conclude(folder: &Path, as_json: bool, trained: &Trained) -> Result<ExitCode> {
    let (finished, samples) = (&trained.finished, &trained.samples);
    let complete = finished.is_complete();
    if as_json {
        output::print_json(&json!({
            "complete": complete, "steps": finished.steps, "total_steps": finished.total_steps,
            "resumed_from": finished.resumed_from, "last": trained.last,
            "evaluation": trained.evaluation, "output": folder, "samples": samples.rows(),
        }))?;
    } else {
        samples.tell();
        let state = if complete { "done" } else { "stopped" };
        let mut line = format!(
            "{state}: {} of {} steps",
            finished.steps, finished.total_steps
        );
        if let Some(loss) = finished.last_loss {
            line.push_str(&format!(", loss {loss:.4}"));
        }
        if let Some(evaluation) = &trained.evaluation {
            line.push_str(&format!(", {}", watch::brief(evaluation)));
        }
        output::print_line(&line)?;
        let next = match complete {
            true => format!("written to {}", folder.display()),
            false => "the same command continues".to_owned(),
        };
        output::say(&next);
    }
    Ok(match complete {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(STOPPED),
    })
}

fn merge(env: &mut Env, args: &MergeArgs) -> Result<()> {
    for setting in args.model.settings() {
        env.config.insert(setting)?;
    }
    threads::apply(&env.config)?;
    let opened = session::open(&args.model, &mut env.config)?;
    let Some(adapter) = opened.adapter_folder() else {
        return Err(Failure::usage("--adapter: which adapter to merge?"));
    };
    if args.output.extension().is_some_and(|end| end == "gguf") {
        return Err(Failure::usage(format!(
            "--output {}: merge writes a folder; `models convert --adapter {}` writes a GGUF file",
            args.output.display(),
            adapter.display()
        )));
    }
    let Some(base) = opened.path() else {
        return Err(Failure::usage(
            "an adapter can only be merged into a folder of safetensors; the embedded model is none",
        ));
    };
    let llama = opened.load(&env.config)?;
    let done = train::merge(llama.decoder(), base, adapter, &args.output)?;
    let checked = samples::compare_merged(&llama, adapter, &args.output, opened.text())?;
    if args.json {
        return output::print_json(&json!({
            "output": args.output, "matrices": done.matrices, "copied": done.copied,
            "files": done.files, "check": checked,
        }));
    }
    output::print_line(&format!(
        "merged {} matrices into {} ({} tensors as they were); beside the adapter: largest difference of a log-probability {:.1e}, the same likeliest token in {} of {}",
        done.matrices,
        args.output.display(),
        done.copied,
        checked.largest_difference,
        checked.same_top,
        checked.tokens,
    ))?;
    Ok(())
}

fn list_presets(as_json: bool) -> Result<()> {
    if as_json {
        return output::print_json(&presets::ALL);
    }
    let head = [
        "preset",
        "for",
        "adapter lr",
        "full lr",
        "epochs",
        "batch",
        "from",
    ];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for preset in &presets::ALL {
        let methods = preset
            .methods
            .iter()
            .map(|method| format!("{method:?}").to_lowercase());
        let batch = match preset.batch {
            presets::BatchSize::Rows(rows) => format!("{rows} rows"),
            presets::BatchSize::Tokens(tokens) => format!("{tokens} tokens"),
        };
        table.push(vec![
            preset.name.into(),
            methods.collect::<Vec<_>>().join(" "),
            format!("{:e} ({})", preset.lr_lora, preset.lr_lora_origin),
            format!("{:e}", preset.lr_full),
            match preset.max_steps {
                Some(steps) => format!("{steps} steps"),
                None => preset.epochs.to_string(),
            },
            batch,
            preset.origin.into(),
        ]);
    }
    Ok(output::print_line(&output::table(&table))?)
}
