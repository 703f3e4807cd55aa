//! What a run will take, said before it begins: memory by arithmetic, time by one forward pass.

use crate::error::Failure;
use crate::footprint;
use crate::machine;
use crate::output;
use crate::weights::Room;
use anyhow::Result;
use model::ModelConfig;
use std::time::{Duration, Instant};
use train::{DeviceNeed, Item, Network, Pack, Recompute, RunSettings, plan_steps};

/// Bytes of f32.
const FLOAT: u64 = 4;
/// Numbers of each parameter: value, gradients of a pack and of the step, two moments.
const OPTIMISER: u64 = 5;
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
    /// Memory of the host that training adds to the weights.
    memory_bytes: u64,
    /// Number of the device that computes, and its memory that training adds to the weights.
    device: Option<(usize, u64)>,
    time: Duration,
}

/// Plans a run; computes one forward pass of the first rows for its time. `room` is that of the
/// device it computes on.
///
/// # Errors
/// No rows; settings that cannot be used; a device that has no room.
pub(super) fn plan(
    network: &Network,
    items: &[Item],
    settings: &RunSettings,
    room: Option<Room>,
) -> Result<Plan> {
    let parameters = network.parameters().count();
    let tokens = longest_pack(items, settings);
    let mut device = None;
    let mut memory_bytes = memory(network.config(), parameters, items, settings);
    if let Some(room) = room {
        let pass = &settings.pass;
        let need = DeviceNeed::new(network.config(), (parameters, tokens), pass);
        check_room(&need, room, (tokens, pass.recompute))?;
        device = Some((room.number, need.total()));
        memory_bytes = OPTIMISER * FLOAT * parameters as u64;
    }
    let steps = plan_steps(items, settings)?;
    let tokens = steps
        .iter()
        .flatten()
        .map(|row| items[*row].len() as u64)
        .sum();
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
        memory_bytes,
        device,
        time: Duration::from_secs_f64(forward * passes * tokens as f64),
    })
}

/// Value, gradient and two moments of each parameter; activations of one pack.
fn memory(config: &ModelConfig, parameters: usize, items: &[Item], settings: &RunSettings) -> u64 {
    let tokens = longest_pack(items, settings) as u64;
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
    OPTIMISER * FLOAT * parameters as u64 + FLOAT * tokens * per_token + SCRATCH_BYTES
}

/// Tokens of the longest pack: a row longer than a pack has one of its own.
fn longest_pack(items: &[Item], settings: &RunSettings) -> usize {
    let longest = items.iter().map(Item::len).max().unwrap_or(0);
    settings.pack_tokens.max(longest)
}

/// Fails where a device has no room beside the weights, with what to lower, the largest part
/// first.
pub(crate) fn check_room(
    need: &DeviceNeed,
    room: Room,
    (tokens, recompute): (usize, Recompute),
) -> Result<()> {
    // What the libraries take at their first use is not ours to count.
    let free = room.free.saturating_sub(footprint::GPU_SPARE_BYTES / 2);
    if need.total() <= free {
        return Ok(());
    }
    let packs = format!("--pack-tokens (now {tokens}) or --max-length");
    let kept = match recompute {
        Recompute::Layers => packs.clone(),
        Recompute::Nothing => format!("--recompute layers, or lower {packs}"),
    };
    // Without frozen weights everything is trained.
    let fewer = match room.weights {
        0 => "an adapter in place of --full",
        _ => "--lora-rank",
    };
    let mut parts = vec![
        (need.kept, "what layers keep", kept),
        (
            need.layer.max(need.logits),
            "a layer or the logits under way",
            packs,
        ),
        (
            need.trained,
            "what is trained with its gradients",
            fewer.to_owned(),
        ),
    ];
    if room.weights > 0 {
        let quant = "--quant q8_0 or q4_k".to_owned();
        parts.push((room.weights, "the weights", quant));
    }
    parts.sort_by_key(|part| std::cmp::Reverse(part.0));
    let list = parts
        .iter()
        .map(|(bytes, what, option)| format!("{what} {} ({option})", output::bytes(*bytes)));
    Err(Failure::memory(format!(
        "cuda:{}: training needs {} beside the weights, {} are free; it takes, with the option that lowers it: {}",
        room.number,
        output::bytes(need.total()),
        output::bytes(free),
        list.collect::<Vec<_>>().join(", "),
    )))
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
        let memory = match self.device {
            Some((number, bytes)) => format!("{} of cuda:{number}", output::bytes(bytes)),
            None => format!("{} of memory", output::bytes(self.memory_bytes)),
        };
        output::say(&format!(
            "{} rows, {} steps, {} tokens; {} trained numbers; about {memory} beside the weights and {} here",
            self.rows,
            self.steps,
            self.tokens,
            self.parameters,
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

#[cfg(test)]
mod tests {
    use super::*;
    use train::PassOptions;

    #[test]
    fn a_device_without_room_is_told_what_to_lower() {
        let config = model::shape("llama-3.1-8b").unwrap().unwrap();
        let options = PassOptions::default();
        let need = DeviceNeed::new(&config, (41_943_040, 2048), &options);
        let room = |free| Room {
            number: 1,
            free,
            weights: 16_060_522_496,
        };
        let how = (2048, Recompute::Layers);
        // 24 GB and a little for the driver.
        check_room(
            &need,
            room(24_000_000_000 - 16_060_522_496 - 500_000_000),
            how,
        )
        .unwrap();
        let error = check_room(&need, room(2_000_000_000), how)
            .unwrap_err()
            .to_string();
        let order = [
            "cuda:1",
            "--quant",
            "--pack-tokens (now 2048)",
            "--lora-rank",
        ];
        let places = order.map(|word| error.find(word).unwrap());
        assert!(places.is_sorted(), "{error}");
        let how = (2048, Recompute::Nothing);
        let error = check_room(&need, room(0), how).unwrap_err().to_string();
        assert!(error.contains("--recompute layers"), "{error}");
        // All weights are trained: none of them is frozen.
        let full = Room {
            weights: 0,
            ..room(0)
        };
        let error = check_room(&need, full, how).unwrap_err().to_string();
        assert!(error.contains("in place of --full"), "{error}");
        assert!(!error.contains("--quant"), "{error}");
    }
}
