//! A training run: steps, measurements, checkpoints, and going on after any interruption.

use crate::checkpoint::{self, State};
use crate::items::{self, Batch, Item};
use crate::objective::{self, Objective, ReferenceScores, StepOptions, StepSums};
use crate::optimizer::{Optimizer, OptimizerSettings, Rates};
use crate::schedule::{Schedule, Shape};
use crate::weights_file::WeightsForm;
use crate::{Network, PassOptions, Result, TrainError, global_norm};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

const METRICS: &str = "metrics.jsonl";

/// How long the learning rate rises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Warmup {
    /// Share of all steps, rounded up.
    Ratio(f64),
    /// Steps.
    Steps(u64),
}

/// Everything that decides what a run computes.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSettings {
    /// What is made small.
    pub objective: Objective,
    /// Times every row is seen.
    pub epochs: u32,
    /// Stops after so many steps; the schedule then ends there.
    pub max_steps: Option<u64>,
    /// Rows of a step.
    pub batch: Batch,
    /// Tokens of a pack: memory grows with it, results do not depend on it.
    pub pack_tokens: usize,
    /// Packs computed at a time, each on one thread; results do not depend on it. On a device
    /// packs come one after the other, and these are the optimiser's threads.
    pub workers: usize,
    /// Highest learning rate.
    pub rate: f64,
    /// What the rate does after warming up.
    pub shape: Shape,
    /// How long it rises.
    pub warmup: Warmup,
    /// Longest gradient; longer ones are scaled down. `None` = any.
    pub clip: Option<f64>,
    /// How parameters move.
    pub optimizer: OptimizerSettings,
    /// Of data order and dropout.
    pub seed: u64,
    /// How passes are computed.
    pub pass: PassOptions,
    /// Steps between checkpoints; there is one at the end in any case.
    pub checkpoint_every: u64,
    /// Checkpoints that are kept.
    pub keep: usize,
    /// Steps between evaluations on held-out rows.
    pub evaluate_every: u64,
}

/// The rows of a run.
#[derive(Debug, Clone, Default)]
pub struct RunData {
    /// To train on.
    pub train: Vec<Item>,
    /// The reference's scores of those, where pairs are compared.
    pub references: Vec<ReferenceScores>,
    /// Held out.
    pub held_out: Vec<Item>,
    /// The reference's scores of those.
    pub held_out_references: Vec<ReferenceScores>,
}

/// Watches a run.
pub trait Observer {
    /// After every step.
    fn on_step(&mut self, step: &StepReport);
    /// After every evaluation on held-out rows.
    fn on_evaluation(&mut self, step: u64, metrics: &Map<String, Value>);
    /// Asked after every step: whether to stop here, with a checkpoint.
    fn should_stop(&self) -> bool;
    /// Most memory the process has used so far, in bytes, where that is known.
    fn memory_peak_bytes(&self) -> Option<u64>;
}

/// One step, for whoever watches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Steps done.
    pub step: u64,
    /// Steps of the run.
    pub total_steps: u64,
    /// What `metrics.jsonl` says, under TRL's names.
    pub metrics: Map<String, Value>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Steps done.
    pub steps: u64,
    /// Steps of the run.
    pub total_steps: u64,
    /// The step it went on from, 0 = the beginning.
    pub resumed_from: u64,
    /// Loss of the last step of this process; nothing if there was none to do.
    pub last_loss: Option<f64>,
}

impl Finished {
    /// Whether every step is done.
    pub fn is_complete(&self) -> bool {
        self.steps == self.total_steps
    }
}

/// Trains `network` in `folder`, from its newest checkpoint if there is one, and writes the
/// result there. `identity` names what must be the same when a run goes on (the base, the
/// adapter it began with); settings and data are added to it.
///
/// # Errors
/// No row; settings out of range; a checkpoint of another run; a loss or a gradient that is not
/// finite; a file that cannot be written. The last checkpoint stays in every case.
pub fn run(
    network: &mut Network,
    data: &RunData,
    settings: &RunSettings,
    (folder, form, identity): (&Path, &WeightsForm, BTreeMap<String, String>),
    observer: &mut dyn Observer,
) -> Result<Finished> {
    settings.check()?;
    let mut run = Run::open(network, data, settings, (folder, form, identity))?;
    let resumed_from = run.state.step;
    let mut last_loss = None;
    while run.state.step < run.total_steps {
        last_loss = Some(run.advance(observer)?);
        let step = run.state.step;
        if step == run.total_steps || step.is_multiple_of(settings.evaluate_every) {
            run.evaluate(observer)?;
        }
        let stop = observer.should_stop();
        if stop || step == run.total_steps || step.is_multiple_of(settings.checkpoint_every) {
            run.save()?;
        }
        if stop {
            break;
        }
    }
    let finished = Finished {
        steps: run.state.step,
        total_steps: run.total_steps,
        resumed_from,
        last_loss,
    };
    if finished.is_complete() {
        form.write(network, folder)?;
    }
    Ok(finished)
}

/// Steps a run would take, with the rows of each.
///
/// # Errors
/// A batch of nothing; no row at all.
pub fn plan_steps(items: &[Item], settings: &RunSettings) -> Result<Vec<Vec<usize>>> {
    if items.is_empty() {
        return Err(TrainError::NoRows {
            rows: 0,
            reasons: "none of them can be trained on".into(),
        });
    }
    let mut steps = items::schedule_rows(items, settings.batch, settings.epochs, settings.seed)?;
    if let Some(most) = settings.max_steps {
        // More steps than the epochs have: the order goes on with further epochs.
        let mut epochs = settings.epochs;
        while (steps.len() as u64) < most {
            epochs = epochs.saturating_mul(2).max(1);
            steps = items::schedule_rows(items, settings.batch, epochs, settings.seed)?;
        }
        steps.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    }
    Ok(steps)
}

impl RunSettings {
    fn check(&self) -> Result<()> {
        let positive = |field, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(TrainError::setting(field, "above 0", value)),
        };
        positive("learning rate", self.rate)?;
        if let Some(clip) = self.clip {
            positive("max grad norm", clip)?;
        }
        if let Objective::Preference(preference) = &self.objective {
            positive("beta", preference.beta)?;
            if !(preference.sft_weight.is_finite() && preference.sft_weight >= 0.0) {
                return Err(TrainError::setting(
                    "sft weight",
                    "at least 0",
                    preference.sft_weight,
                ));
            }
        }
        if let Warmup::Ratio(ratio) = self.warmup
            && !(0.0..=1.0).contains(&ratio)
        {
            return Err(TrainError::setting(
                "warm-up ratio",
                "between 0 and 1",
                ratio,
            ));
        }
        for (field, value) in [
            ("pack tokens", self.pack_tokens as u64),
            ("epochs", u64::from(self.epochs)),
            ("checkpoint steps", self.checkpoint_every),
            ("evaluation steps", self.evaluate_every),
        ] {
            if value == 0 {
                return Err(TrainError::setting(field, "at least 1", 0));
            }
        }
        Ok(())
    }

    /// The learning rate over `total_steps`.
    pub fn schedule(&self, total_steps: u64) -> Schedule {
        let warmup_steps = match self.warmup {
            Warmup::Steps(steps) => steps,
            Warmup::Ratio(ratio) => (ratio * total_steps as f64).ceil() as u64,
        };
        Schedule {
            peak: self.rate,
            warmup_steps,
            total_steps,
            shape: self.shape,
        }
    }

    /// What must stay the same for a run to go on.
    fn identity(&self) -> [(&'static str, String); 9] {
        [
            ("objective", format!("{:?}", self.objective)),
            ("epochs", self.epochs.to_string()),
            ("max steps", format!("{:?}", self.max_steps)),
            ("batch", format!("{:?}", self.batch)),
            ("pack tokens", self.pack_tokens.to_string()),
            (
                "learning rate",
                format!("{} {:?} {:?}", self.rate, self.shape, self.warmup),
            ),
            ("max grad norm", format!("{:?}", self.clip)),
            ("optimizer", format!("{:?}", self.optimizer)),
            ("seed", self.seed.to_string()),
        ]
    }
}

/// A run under way.
struct Run<'a> {
    network: &'a mut Network,
    optimizer: Optimizer,
    data: &'a RunData,
    settings: &'a RunSettings,
    folder: PathBuf,
    form: &'a WeightsForm,
    steps: Vec<Vec<usize>>,
    /// Steps of an epoch, for the share of an epoch that is done.
    epoch_steps: f64,
    total_steps: u64,
    schedule: Schedule,
    state: State,
    metrics: File,
}

impl<'a> Run<'a> {
    fn open(
        network: &'a mut Network,
        data: &'a RunData,
        settings: &'a RunSettings,
        (folder, form, mut identity): (&Path, &'a WeightsForm, BTreeMap<String, String>),
    ) -> Result<Self> {
        let steps = plan_steps(&data.train, settings)?;
        let epoch = items::schedule_rows(&data.train, settings.batch, 1, settings.seed)?;
        identity.insert("data".into(), items::digest(&data.train));
        for (name, value) in settings.identity() {
            identity.insert(name.into(), value);
        }
        let mut optimizer = Optimizer::new(settings.optimizer, network.parameters())?;
        let mut state = State {
            step: 0,
            tokens: 0,
            metrics_bytes: 0,
            identity,
        };
        fs::create_dir_all(folder).map_err(|e| TrainError::io(folder, "create", e))?;
        if let Some((path, found)) = checkpoint::latest(folder)? {
            same_run(&path, &found.identity, &state.identity)?;
            checkpoint::restore(&path, found.step, network, &mut optimizer, form)?;
            state = found;
        }
        let total_steps = steps.len() as u64;
        Ok(Self {
            network,
            optimizer,
            data,
            settings,
            folder: folder.into(),
            form,
            steps,
            epoch_steps: epoch.len() as f64,
            total_steps,
            schedule: settings.schedule(total_steps),
            metrics: open_metrics(&folder.join(METRICS), state.metrics_bytes)?,
            state,
        })
    }

    /// One optimiser step; gives its loss.
    fn advance(&mut self, observer: &mut dyn Observer) -> Result<f64> {
        let began = Instant::now();
        let index = self.state.step;
        let rows = &self.steps[usize::try_from(index).expect("steps are in memory")];
        let items: Vec<&Item> = rows.iter().map(|row| &self.data.train[*row]).collect();
        let references: Vec<ReferenceScores> = match self.data.references.is_empty() {
            true => vec![],
            false => rows.iter().map(|row| self.data.references[*row]).collect(),
        };
        let (how, objective) = (self.step_options(index + 1), &self.settings.objective);
        let (sums, gradients) =
            objective::step(self.network, &items, &references, (objective, &how))?;
        let gradients = gradients.complete(self.network.parameters())?;
        let norm = global_norm(&gradients)?;
        if !norm.is_finite() {
            let mut ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
            ids.truncate(8);
            return Err(TrainError::Diverged {
                step: index + 1,
                norm,
                rows: ids.join(", "),
            });
        }
        let rate = self.schedule.rate(index);
        let rates = Rates {
            rate,
            share: rate / self.schedule.peak,
            gradient_scale: clipping(self.settings.clip, norm),
        };
        self.optimizer.step(
            self.network.parameters(),
            &gradients,
            (rates, self.settings.workers),
        )?;
        self.state.step += 1;
        self.state.tokens += sums.tokens as u64;
        let seconds = began.elapsed().as_secs_f64();
        let mut metrics = metrics_of(&sums, &self.settings.objective, "");
        let done = self.state.step as f64 / self.epoch_steps;
        metrics.insert("grad_norm".into(), norm.into());
        metrics.insert("learning_rate".into(), rate.into());
        metrics.insert("epoch".into(), done.into());
        metrics.insert("num_tokens".into(), self.state.tokens.into());
        metrics.insert("step".into(), self.state.step.into());
        metrics.insert("step_s".into(), seconds.into());
        metrics.insert("tokens_per_s".into(), (sums.tokens as f64 / seconds).into());
        let trained = sums.trained_tokens as f64 / seconds;
        metrics.insert("trained_tokens_per_s".into(), trained.into());
        if let Some(bytes) = observer.memory_peak_bytes() {
            metrics.insert("peak_memory_bytes".into(), bytes.into());
        }
        if let Some(used) = self.network.device_use() {
            metrics.insert("device_peak_bytes".into(), used.peak.into());
        }
        self.write_metrics(&metrics)?;
        observer.on_step(&StepReport {
            step: self.state.step,
            total_steps: self.total_steps,
            metrics,
        });
        Ok(sums.loss)
    }

    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<()> {
        if self.data.held_out.is_empty() {
            return Ok(());
        }
        let items: Vec<&Item> = self.data.held_out.iter().collect();
        let (how, objective) = (self.step_options(self.state.step), &self.settings.objective);
        let references = &self.data.held_out_references;
        let sums = objective::evaluate(self.network, &items, references, (objective, &how))?;
        let mut metrics = metrics_of(&sums, objective, "eval_");
        metrics.insert("step".into(), self.state.step.into());
        self.write_metrics(&metrics)?;
        observer.on_evaluation(self.state.step, &metrics);
        Ok(())
    }

    fn step_options(&self, step: u64) -> StepOptions {
        StepOptions {
            pass: self.settings.pass,
            pack_tokens: self.settings.pack_tokens,
            workers: self.settings.workers,
            step,
            seed: self.settings.seed,
        }
    }

    fn write_metrics(&mut self, metrics: &Map<String, Value>) -> Result<()> {
        let mut line = serde_json::to_vec(metrics).expect("plain values");
        line.push(b'\n');
        let path = self.folder.join(METRICS);
        self.metrics
            .write_all(&line)
            .map_err(|error| TrainError::io(&path, "write", error))?;
        self.state.metrics_bytes += line.len() as u64;
        Ok(())
    }

    fn save(&self) -> Result<()> {
        let what = (&self.state, self.settings.keep);
        checkpoint::save(&self.folder, self.network, &self.optimizer, self.form, what)
    }
}

/// Opens the metrics, cut to what the checkpoint knows.
fn open_metrics(path: &Path, bytes: u64) -> Result<File> {
    let open = || -> std::io::Result<File> {
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        if file.metadata()?.len() > bytes {
            file.set_len(bytes)?;
        }
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    };
    open().map_err(|error| TrainError::io(path, "open", error))
}

fn same_run(
    checkpoint: &Path,
    then: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Result<()> {
    let names = then.keys().chain(now.keys());
    let mut changed: Vec<&str> = names
        .filter(|name| then.get(*name) != now.get(*name))
        .map(String::as_str)
        .collect();
    changed.sort_unstable();
    changed.dedup();
    if changed.is_empty() {
        return Ok(());
    }
    let shown = changed.iter().map(|name| {
        let value = |from: &BTreeMap<String, String>| from.get(*name).cloned().unwrap_or_default();
        format!("{name} (was {}, is {})", value(then), value(now))
    });
    let shown: Vec<String> = shown.collect();
    let problem = format!(
        "belongs to a run with other settings: {}; give another output folder, or the same settings",
        shown.join("; ")
    );
    Err(TrainError::Changed {
        path: checkpoint.into(),
        problem,
    })
}

/// What gradients are multiplied with, as torch's `clip_grad_norm_`.
fn clipping(clip: Option<f64>, norm: f64) -> f64 {
    clip.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0))
}

/// A step's measurements under TRL's names.
fn metrics_of(sums: &StepSums, objective: &Objective, prefix: &str) -> Map<String, Value> {
    let trained = sums.trained_tokens.max(1) as f64;
    let mut all = vec![
        ("loss", sums.loss),
        ("mean_token_accuracy", sums.top_tokens as f64 / trained),
        ("entropy", sums.entropy / trained),
    ];
    if matches!(objective, Objective::Preference(_)) {
        let pairs = &sums.pairs;
        let count = pairs.count.max(1) as f64;
        all.extend([
            ("rewards/chosen", pairs.rewards.0 / count),
            ("rewards/rejected", pairs.rewards.1 / count),
            (
                "rewards/margins",
                (pairs.rewards.0 - pairs.rewards.1) / count,
            ),
            ("rewards/accuracies", pairs.right as f64 / count),
            ("logps/chosen", pairs.log_probs.0 / count),
            ("logps/rejected", pairs.log_probs.1 / count),
            (
                "logits/chosen",
                pairs.mean_logits.0 / pairs.tokens.0.max(1) as f64,
            ),
            (
                "logits/rejected",
                pairs.mean_logits.1 / pairs.tokens.1.max(1) as f64,
            ),
        ]);
    }
    all.into_iter()
        .map(|(name, value)| (format!("{prefix}{name}"), json!(value)))
        .collect()
}
