//! What a run will take, said before it begins: memory by arithmetic, time by one forward pass.

use crate::error::Failure;
use crate::machine;
use crate::output;
use anyhow::Result;
use model::ModelConfig;
use std::time::{Duration, Instant};
use train::{Item, Network, Pack, Recompute, RunSettings, plan_steps};

/// Bytes of f32.
const FLOAT: u64 = 4;
/// Logits that exist at a time, and the plain copy of a quantised matrix beside them.
const SCRATCH_BYTES: u64 = 192 << 20;

/// A run in numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    rows: usize,
    steps: usize,
    /// Tokens of the whole run.
    tokens: u64,
    parameters: usize,
    /// Memory that training adds to the weights.
    memory_bytes: u64,
    time: Duration,
}

/// Plans a run; computes one forward pass of the first rows for its time.
///
/// # Errors
/// No rows; settings that cannot be used.
pub(super) fn plan(network: &Network, items: &[Item], settings: &RunSettings) -> Result<Plan> {
    let steps = plan_steps(items, settings)?;
    let tokens = steps
        .iter()
        .flatten()
        .map(|row| items[*row].len() as u64)
        .sum();
    let parameters = network.parameters().count();
    let forward = seconds_per_token(network, items, settings)?;
    // Once up and once down, again up where layers are computed twice, and once more for the
    // gradients of weights where all of them are trained.
    let mut passes = 2.0;
    if settings.pass.recompute == Recompute::Layers {
        passes += 1.0;
    }
    if network.adapter()?.is_none() {
        passes += 1.0;
    }
    Ok(Plan {
        rows: items.len(),
        steps: steps.len(),
        tokens,
        parameters,
        memory_bytes: memory(network.config(), parameters, items, settings),
        time: Duration::from_secs_f64(forward * passes * tokens as f64),
    })
}

/// Value, gradient and two moments of each parameter; activations of one pack.
fn memory(config: &ModelConfig, parameters: usize, items: &[Item], settings: &RunSettings) -> u64 {
    let longest = items.iter().map(Item::len).max().unwrap_or(0);
    let tokens = settings.pack_tokens.max(longest) as u64;
    let [hidden, inner, q, kv, layers] = [
        config.hidden_size,
        config.intermediate_size,
        config.q_size(),
        config.kv_size(),
        config.num_layers,
    ]
    .map(|size| size as u64);
    // What a layer keeps for its way down, and as much again for the gradients under way.
    let layer = 2 * (4 * hidden + 2 * q + 2 * kv + 3 * inner);
    let per_token = match settings.pass.recompute {
        Recompute::Layers => hidden * (layers + 1) + layer,
        Recompute::Nothing => layer / 2 * (layers + 1),
    };
    5 * FLOAT * parameters as u64 + FLOAT * tokens * per_token + SCRATCH_BYTES
}

fn seconds_per_token(network: &Network, items: &[Item], settings: &RunSettings) -> Result<f64> {
    let mut sequences = vec![];
    let mut tokens = 0;
    for sequence in items.iter().flat_map(Item::sequences) {
        if tokens > 0 && tokens + sequence.tokens.len() > settings.pack_tokens.min(512) {
            break;
        }
        tokens += sequence.tokens.len();
        sequences.push(sequence);
    }
    let pack = Pack::new(sequences);
    let began = Instant::now();
    network.score(&pack, &settings.pass)?;
    Ok(began.elapsed().as_secs_f64() / tokens.max(1) as f64)
}

impl Plan {
    /// One line for people.
    pub(super) fn tell(&self) {
        output::say(&format!(
            "{} rows, {} steps, {} tokens; {} trained numbers; about {} of memory beside the weights and {} here",
            self.rows,
            self.steps,
            self.tokens,
            self.parameters,
            output::bytes(self.memory_bytes),
            span(self.time),
        ));
    }

    /// Fails where memory will not do.
    ///
    /// # Errors
    /// More is needed than is free.
    pub(super) fn check(&self) -> Result<()> {
        match machine::memory().available {
            Some(free) if free < self.memory_bytes => Err(Failure::memory(format!(
                "training needs about {} beside the weights, but {} are free; lower --pack-tokens, --max-length or --lora-rank, or use --quant",
                output::bytes(self.memory_bytes),
                output::bytes(free),
            ))),
            _ => Ok(()),
        }
    }
}

/// A duration as people say it.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
