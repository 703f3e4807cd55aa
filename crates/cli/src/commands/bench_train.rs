//! `bench train`: tokens per second of training steps, on given token ids or random ones, beside
//! what products alone would allow.

use super::bench::limits::Limits;
use super::bench::random_tokens;
use super::train::args::RecomputeArg;
use super::train::check_room;
use crate::args::{ModelArgs, shape_setting};
use crate::commands::Env;
use crate::cuda;
use crate::devices::Devices;
use crate::error::Failure;
use crate::footprint;
use crate::machine;
use crate::output;
use crate::request::unreadable;
use crate::session::{self, Opened};
use crate::threads;
use crate::weights::Weights;
use anyhow::{Context, Result};
use clap::Args;
use model::{AdapterCard, AdapterShape, ModelConfig, Projection};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use train::{
    Batch, DeviceNeed, Item, ItemTokens, LoraSettings, Network, Objective, Observer,
    OptimizerSettings, PassOptions, Recompute, RunData, RunSettings, Sequence, Shape, StepReport,
    Warmup, WeightsForm,
};

/// The flags.
#[derive(Debug, Args)]
pub(crate) struct BenchTrainArgs {
    /// A file of rows of token ids with a 0 or 1 for each, `tokens` and `trained`, or a number of
    /// random tokens in one row; all of it makes one step
    #[arg(long, value_name = "FILE|N")]
    pub(crate) tokens: Tokens,
    /// Steps to measure, after one that warms up
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) steps: u64,
    /// Rank of the adapter
    #[arg(long, visible_alias = "rank", value_name = "N", default_value_t = 16)]
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
    /// Random weights of a known shape instead of a model, such as llama-3.1-8b
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub(crate) shape: Option<String>,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// What is trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tokens {
    File(PathBuf),
    Random(usize),
}

impl std::str::FromStr for Tokens {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.parse() {
            Ok(count) => Self::Random(count),
            Err(_) => Self::File(text.into()),
        })
    }
}

#[derive(Deserialize)]
struct Row {
    tokens: Vec<u32>,
    trained: Vec<u8>,
}

/// Runs the command.
pub(crate) fn run(env: &mut Env, args: &BenchTrainArgs) -> Result<()> {
    let shape = shape_setting(args.shape.as_deref());
    for setting in args.model.settings().into_iter().chain(shape) {
        env.config.insert(setting)?;
    }
    Devices::only_one(&env.config, "training")?;
    threads::apply(&env.config)?;
    let opened = session::open(&args.model, &mut env.config)?;
    let items = match &args.tokens {
        Tokens::File(path) => read(path)?,
        Tokens::Random(count) => random(*count, opened.model().vocab_size)?,
    };
    let weights = match args.full {
        true => Weights::Host(opened.load(&env.config)?.decoder().clone()),
        false => Weights::load(&opened, &env.config)?,
    };
    let (mut network, form) = network_of(env, args, &opened, &weights)?;
    let loaded = machine::peak_resident();
    let settings = settings(args, items.len());
    let longest = items.iter().map(Item::len).max().unwrap_or(0);
    let tokens = longest.max(args.pack_tokens.min(items.iter().map(Item::len).sum()));
    let parameters = network.parameters().count();
    let need = DeviceNeed::new(network.config(), (parameters, tokens), &settings.pass);
    if let Some(room) = cuda::room(&env.config, &weights)? {
        check_room(&need, room, (tokens, settings.pass.recompute))?;
    }
    let data = RunData {
        train: items,
        ..Default::default()
    };
    let watch = steps(&mut network, &data, (&settings, &form))?;
    let flops = step_flops(network.config(), (args, parameters), &data.train);
    let memory = Memory {
        loaded,
        peak: machine::peak_resident(),
        weights: opened.weights(&env.config)?.total_bytes,
        on_device: network.device_use().map(|used| used.peak),
        by_arithmetic: need.total(),
    };
    // The rate is measured on a device that has nothing else to hold.
    drop((network, weights));
    let threads = env.config.integer("engine.threads");
    let limits = Limits::measure(&env.config, threads.unwrap_or_else(machine::threads))?;
    let device = env
        .config
        .text("engine.devices")
        .unwrap_or("cpu")
        .to_owned();
    tell(args, &watch, (&memory, flops), (&device, limits))
}

/// Takes the steps in a folder that is gone afterwards.
fn steps(
    network: &mut Network,
    data: &RunData,
    (settings, form): (&RunSettings, &WeightsForm),
) -> Result<Times> {
    let place = std::env::temp_dir().join(format!("autodidact-bench-train-{}", std::process::id()));
    let mut watch = Times::default();
    let how = (place.as_path(), form, BTreeMap::new());
    let done = train::run(network, data, settings, how, &mut watch);
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    }
    done?;
    Ok(watch)
}

fn network_of(
    env: &Env,
    args: &BenchTrainArgs,
    opened: &Opened,
    weights: &Weights,
) -> Result<(Network, WeightsForm)> {
    if let (true, Weights::Host(decoder)) = (args.full, weights) {
        let network = cuda::network_onto(&env.config, Network::full(decoder)?)?;
        return Ok((network, WeightsForm::Model { companions: vec![] }));
    }
    let lora = LoraSettings {
        rank: args.lora_rank,
        alpha: 2.0 * args.lora_rank as f64,
        dropout: 0.0,
        targets: Projection::ALL.to_vec(),
    };
    let shape = match opened.adapter_folder() {
        Some(folder) => model::adapter_shape(folder)?,
        None => AdapterShape {
            rank: lora.rank,
            alpha: lora.alpha,
        },
    };
    let form = WeightsForm::Adapter {
        fit: Box::new(weights.adapter_fit()),
        card: AdapterCard {
            base_model: opened.name().to_owned(),
            rank: shape.rank,
            alpha: shape.alpha,
            dropout: 0.0,
        },
    };
    // With a trained adapter, the loss at the start is that adapter's.
    let network = match opened.adapter_folder() {
        Some(folder) => {
            let adapter = weights.adapter_fit().load(folder)?;
            Network::with_adapter(weights.base(), &adapter, 0.0)?
        }
        None => Network::with_new_adapter(weights.base(), &lora, 0)?,
    };
    Ok((network, form))
}

/// One row of random tokens, all trained.
fn random(count: usize, vocab_size: usize) -> Result<Vec<Item>> {
    if count < 2 {
        return Err(Failure::usage(format!(
            "--tokens {count}: at least 2, the first is only read"
        )));
    }
    let tokens = random_tokens(1, count, vocab_size);
    Ok(vec![Item {
        id: "random".into(),
        tokens: ItemTokens::Single(Sequence::completion(tokens, 1)),
    }])
}

/// Operations of a step: every product with weights up and down, layers computed again, and the
/// products of attention on the positions that see each other. (q k^T and p v up; the scores again,
/// and the gradients of p, v, q and k down.)
fn step_flops(
    config: &ModelConfig,
    (args, parameters): (&BenchTrainArgs, usize),
    items: &[Item],
) -> f64 {
    let (all, vocabulary) = footprint::num_weights(config);
    let body = (all - vocabulary) as f64;
    let head = (config.vocab_size * config.hidden_size) as f64;
    // A layer's last product is not needed again.
    let last = (config.num_layers * config.hidden_size * config.intermediate_size) as f64;
    let again = match args.recompute {
        RecomputeArg::Layers => 1.0,
        RecomputeArg::Nothing => 0.0,
    };
    let (mut tokens, mut trained, mut pairs) = (0.0, 0.0, 0.0);
    for sequence in items.iter().flat_map(Item::sequences) {
        let len = sequence.tokens.len() as f64;
        tokens += len;
        trained += sequence.trained() as f64;
        pairs += len * (len + 1.0) / 2.0;
    }
    let adapters = match args.full {
        // The gradients of the weights themselves.
        true => 2.0 * (body * tokens + head * trained),
        // Up, again, and five products down of which each has half the numbers, twice.
        false => (2.0 + 2.0 * again + 5.0) * parameters as f64 * tokens,
    };
    let attention = (config.q_size() * config.num_layers) as f64 * pairs;
    2.0 * tokens * (2.0 * body + again * (body - last))
        + 4.0 * trained * head
        + adapters
        + attention * (4.0 + 4.0 * again + 10.0)
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

/// Bytes.
struct Memory {
    /// Of the process after loading, and at most.
    loaded: Option<u64>,
    peak: Option<u64>,
    weights: u64,
    /// Beside the weights on a device, as whoever hands it out counts it, and as it was expected.
    on_device: Option<u64>,
    by_arithmetic: u64,
}

fn tell(
    args: &BenchTrainArgs,
    watch: &Times,
    (memory, flops): (&Memory, f64),
    (device, limits): (&str, Limits),
) -> Result<()> {
    let mut steps = watch.steps.clone();
    steps.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    let (seconds, tokens) = steps.get(steps.len() / 2).copied().unwrap_or((1.0, 0.0));
    let (rate, share) = (tokens / seconds, flops / seconds / limits.flops);
    let seconds: Vec<f64> = watch.steps.iter().map(|(seconds, _)| *seconds).collect();
    if args.json {
        return output::print_json(&json!({
            "tokens_per_s": rate, "step_s": seconds, "first_loss": watch.first_loss,
            "peak_bytes": memory.peak, "loaded_bytes": memory.loaded, "steps": steps.len(),
            "device": device, "weight_bytes": memory.weights,
            "device_peak_bytes": memory.on_device, "expected_bytes": memory.by_arithmetic,
            "step_tokens": tokens, "rank": args.lora_rank, "full": args.full,
            "step_flops": flops, "product_flops": limits.flops, "share_of_limit": share,
        }));
    }
    let beside = match memory.on_device {
        Some(bytes) => format!(
            "{} on {device} beside weights of {} ({} by arithmetic)",
            output::bytes(bytes),
            output::bytes(memory.weights),
            output::bytes(memory.by_arithmetic),
        ),
        None => format!(
            "peak {} ({} after loading)",
            output::bytes(memory.peak.unwrap_or(0)),
            output::bytes(memory.loaded.unwrap_or(0)),
        ),
    };
    Ok(output::print_line(&format!(
        "{rate:.0} tokens/s (median of {} steps), {:.0} % of the rate of products alone, loss at the start {:.6}, {beside}",
        watch.steps.len(),
        100.0 * share,
        watch.first_loss,
    ))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchTrainArgs,
    }

    fn parsed(words: &[&str]) -> BenchTrainArgs {
        let words = std::iter::once("bench").chain(words.iter().copied());
        Line::try_parse_from(words).unwrap().args
    }

    #[test]
    fn tokens_are_a_file_or_a_number() {
        let args = parsed(&["--tokens", "2048", "--rank", "8", "--shape", "tiny"]);
        assert_eq!((args.tokens, args.lora_rank), (Tokens::Random(2048), 8));
        let args = parsed(&["--tokens", "rows.jsonl"]);
        assert_eq!(args.tokens, Tokens::File("rows.jsonl".into()));
        assert!(random(1, 10).is_err());
    }

    /// An 8B with an adapter of rank 16 on one row of 2,048 tokens, worked out by hand: 7.5e9
    /// weights up and down, 5.1e9 again, 0.042e9 of adapters nine times, 1,024.5 positions seen.
    #[test]
    fn operations_of_a_step() {
        let config = model::shape("llama-3.1-8b").unwrap().unwrap();
        let args = parsed(&["--tokens", "2048"]);
        let items = random(2048, config.vocab_size).unwrap();
        let per_token = step_flops(&config, (&args, 41_943_040), &items) / 2048.0;
        let weights = 4.0 * 7.5047e9 + 2.0 * 5.1003e9;
        let expected = weights + 9.0 * 0.041943e9 + 1024.5 * 18.0 * 4096.0 * 32.0;
        assert!(
            (per_token / expected - 1.0).abs() < 1e-3,
            "{per_token:e} {expected:e}"
        );
    }
}
