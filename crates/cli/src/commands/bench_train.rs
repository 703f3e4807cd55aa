//! `bench train`: tokens per second of training steps on given token ids.

use super::train::args::RecomputeArg;
use crate::args::ModelArgs;
use crate::commands::Env;
use crate::devices::Devices;
use crate::error::Failure;
use crate::machine;
use crate::output;
use crate::request::unreadable;
use crate::session;
use crate::threads;
use anyhow::{Context, Result};
use clap::Args;
use model::{AdapterCard, AdapterShape, Projection};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use train::{
    Batch, Item, ItemTokens, LoraSettings, Network, Objective, Observer, OptimizerSettings,
    PassOptions, Recompute, RunData, RunSettings, Sequence, Shape, StepReport, Warmup, WeightsForm,
};

/// The flags.
#[derive(Debug, Args)]
pub(crate) struct BenchTrainArgs {
    /// Rows of token ids with a 0 or 1 for each, `tokens` and `trained`; all of them make one step
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: PathBuf,
    /// Steps to measure, after one that warms up
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) steps: u64,
    /// Rank of the adapter
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) lora_rank: usize,
    /// Trains all weights instead
    #[arg(long)]
    pub(crate) full: bool,
    /// What is computed again on the way back
    #[arg(long, value_enum, default_value = "layers")]
    pub(crate) recompute: RecomputeArg,
    /// Tokens computed at a time
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub(crate) pack_tokens: usize,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Deserialize)]
struct Row {
    tokens: Vec<u32>,
    trained: Vec<u8>,
}

/// Runs the command.
pub(crate) fn run(env: &mut Env, args: &BenchTrainArgs) -> Result<()> {
    for setting in args.model.settings() {
        env.config.insert(setting)?;
    }
    Devices::only_cpu(&env.config, "training")?;
    threads::apply(&env.config)?;
    let items = read(&args.tokens)?;
    let opened = session::open(&args.model, &mut env.config)?;
    let decoder = opened.load(&env.config)?.decoder().clone();
    let lora = LoraSettings {
        rank: args.lora_rank,
        alpha: 2.0 * args.lora_rank as f64,
        dropout: 0.0,
        targets: Projection::ALL.to_vec(),
    };
    let (mut network, form) = match args.full {
        true => (
            Network::full(&decoder)?,
            WeightsForm::Model { companions: vec![] },
        ),
        false => {
            let shape = match opened.adapter_folder() {
                Some(folder) => model::adapter_shape(folder)?,
                None => AdapterShape {
                    rank: lora.rank,
                    alpha: lora.alpha,
                },
            };
            let card = AdapterCard {
                base_model: opened.name().to_owned(),
                rank: shape.rank,
                alpha: shape.alpha,
                dropout: 0.0,
            };
            let form = WeightsForm::Adapter {
                fit: Box::new(decoder.adapter_fit()),
                card,
            };
            // With a trained adapter, the loss at the start is that adapter's.
            let network = match opened.adapter_folder() {
                Some(folder) => {
                    Network::with_adapter(&decoder, &decoder.load_adapter(folder)?, 0.0)?
                }
                None => Network::with_new_adapter(&decoder, &lora, 0)?,
            };
            (network, form)
        }
    };
    let loaded = machine::peak_resident();
    let settings = settings(args, items.len());
    let data = RunData {
        train: items,
        ..Default::default()
    };
    let place = std::env::temp_dir().join(format!("autodidact-bench-train-{}", std::process::id()));
    let mut watch = Times::default();
    let done = train::run(
        &mut network,
        &data,
        &settings,
        (&place, &form, BTreeMap::new()),
        &mut watch,
    );
    fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    done?;
    tell(args, &watch, loaded)
}

fn settings(args: &BenchTrainArgs, rows: usize) -> RunSettings {
    RunSettings {
        objective: Objective::Sft,
        epochs: 1,
        max_steps: Some(args.steps + 1),
        batch: Batch::Rows(rows),
        pack_tokens: args.pack_tokens,
        workers: 1,
        rate: 1e-4,
        shape: Shape::Constant,
        warmup: Warmup::Steps(0),
        clip: Some(1.0),
        optimizer: OptimizerSettings::default(),
        seed: 0,
        pass: PassOptions {
            recompute: match args.recompute {
                RecomputeArg::Layers => Recompute::Layers,
                RecomputeArg::Nothing => Recompute::Nothing,
            },
            ..Default::default()
        },
        checkpoint_every: u64::MAX,
        keep: 1,
        evaluate_every: u64::MAX,
    }
}

fn read(path: &Path) -> Result<Vec<Item>> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut items = vec![];
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|error| unreadable(path, &error))?;
        let wrong = |problem: String| {
            Failure::input(format!("{}: line {}: {problem}", path.display(), index + 1))
        };
        let row: Row = serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
        if row.tokens.len() != row.trained.len() {
            let (tokens, trained) = (row.tokens.len(), row.trained.len());
            return Err(wrong(format!("{tokens} tokens but {trained} in trained")));
        }
        let weights = row.trained.iter().map(|flag| f32::from(*flag)).collect();
        items.push(Item {
            id: format!("row-{}", index + 1),
            tokens: ItemTokens::Single(Sequence {
                tokens: row.tokens,
                weights,
            }),
        });
    }
    Ok(items)
}

/// Seconds and tokens of each step.
#[derive(Default)]
struct Times {
    steps: Vec<(f64, f64)>,
    first_loss: f64,
}

impl Observer for Times {
    fn on_step(&mut self, step: &StepReport) {
        let number = |key: &str| step.metrics.get(key).and_then(Value::as_f64).unwrap_or(0.0);
        if step.step == 1 {
            self.first_loss = number("loss");
            return; // memory is touched for the first time
        }
        let seconds = number("step_s");
        self.steps.push((seconds, seconds * number("tokens_per_s")));
    }

    fn on_evaluation(&mut self, _: u64, _: &Map<String, Value>) {}

    fn should_stop(&self) -> bool {
        false
    }

    fn memory_peak_bytes(&self) -> Option<u64> {
        None
    }
}

fn tell(args: &BenchTrainArgs, watch: &Times, loaded: Option<u64>) -> Result<()> {
    let mut rates: Vec<f64> = watch
        .steps
        .iter()
        .map(|(seconds, tokens)| tokens / seconds)
        .collect();
    rates.sort_by(f64::total_cmp);
    let median = rates.get(rates.len() / 2).copied().unwrap_or(0.0);
    let seconds: Vec<f64> = watch.steps.iter().map(|(seconds, _)| *seconds).collect();
    let peak = machine::peak_resident();
    if args.json {
        return output::print_json(&json!({
            "tokens_per_s": median, "step_s": seconds, "first_loss": watch.first_loss,
            "peak_bytes": peak, "loaded_bytes": loaded, "steps": watch.steps.len(),
        }));
    }
    Ok(output::print_line(&format!(
        "{median:.0} tokens/s (median of {} steps), loss at the start {:.6}, peak {} ({} after loading)",
        watch.steps.len(),
        watch.first_loss,
        output::bytes(peak.unwrap_or(0)),
        output::bytes(loaded.unwrap_or(0)),
    ))?)
}
