//! `bench engine`: tokens per second, beside what this machine allows at best: memory for
//! decoding, products for prompts.

pub(crate) mod limits;
pub(crate) mod mix;

use crate::args::BenchEngineArgs;
use crate::commands::Env;
use crate::cuda;
use crate::devices::Devices;
use crate::error::Failure;
use crate::machine;
use crate::output;
use crate::session::{self, Session};
use crate::threads;
use anyhow::Result;
use data::{Completion, Generate, Generator, Pending, Prompt, Sampling, Stop, TokenId};
use engine::EngineStats;
use limits::{Limits, Work};
use serde::Serialize;
use serde_json::json;

/// One line of the result.
#[derive(Debug, Clone, Serialize)]
struct Measurement {
    phase: Phase,
    /// Sequences at once.
    rows: usize,
    /// Tokens of each sequence: of its prompt, or on average while it was written.
    context: usize,
    tok_per_s: f64,
    /// Over the speed at best, by the memory's bandwidth and the rate of products that were
    /// measured in the same run.
    share_of_limit: Option<f64>,
    /// Part of the steps' time that was not the forward pass.
    host_share: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Prefill,
    Decode,
    /// Both at once; tokens written per second of the clock.
    Mix,
}

/// What the measurements were taken on.
#[derive(Debug)]
struct Machine {
    threads: usize,
    limits: Limits,
    devices: String,
    peak_resident: Option<u64>,
}

/// Runs the command.
pub(crate) fn engine(env: &mut Env, args: &BenchEngineArgs) -> Result<()> {
    check(args)?;
    for setting in args.model.settings().into_iter().chain(args.settings()) {
        env.config.insert(setting)?;
    }
    threads::apply(&env.config)?;
    let opened = session::open(&args.model, &mut env.config)?;
    let model = opened.model().clone();
    let contexts = contexts(args, opened.context_tokens());
    let mix = args.mix.map(|mix| mix.shape(opened.context_tokens()));
    let session = opened.start_for(&env.config, tokens_needed(args, &contexts, mix))?;
    let work = Work::of(&model, &session);
    let replicas = match Devices::of(&env.config)? {
        Devices::Cpu { replicas } => replicas,
        Devices::Cuda(numbers) => numbers.len(),
        Devices::Metal => 1,
    };
    let mut measurements = Vec::new();
    if mix.is_none() {
        measurements = measure_all(&session, args, (&contexts, replicas))?;
    }
    let mixed = match mix {
        Some(shape) => Some((shape, mix::measure(&session, args, shape)?)),
        None => None,
    };
    // Before the buffer that the bandwidth is measured with counts as ours.
    let peak_resident = machine::peak_resident();
    let threads = env
        .config
        .integer("engine.threads")
        .unwrap_or_else(machine::threads);
    let limits = Limits::measure(&env.config, threads)?;
    for one in &mut measurements {
        one.share_of_limit = Some(share_of_limit(one, &work, limits));
    }
    if let Some((shape, (mut one, seconds))) = mixed {
        one.share_of_limit = Some(mix::best_seconds(args, shape, (&work, limits)) / seconds);
        measurements.push(one);
    }
    let machine = Machine {
        threads,
        limits,
        devices: env
            .config
            .text("engine.devices")
            .unwrap_or("cpu")
            .to_owned(),
        peak_resident,
    };
    report(args, &session, &machine, &measurements)
}

/// Lengths of prompts that leave room in the context.
fn contexts(args: &BenchEngineArgs, context: usize) -> Vec<usize> {
    let most = context.saturating_sub(args.new_tokens).max(1);
    let fitting = |asked: &usize| {
        if *asked > most {
            output::say(&format!(
                "--prompt-tokens {asked}: {most} are used, so that {} more fit in the context of {context}",
                args.new_tokens
            ));
        }
        most.min(*asked)
    };
    args.prompt_tokens.iter().map(fitting).collect()
}

/// Tokens of the largest KV pool that any of the measurements needs.
fn tokens_needed(args: &BenchEngineArgs, contexts: &[usize], mix: Option<mix::Shape>) -> usize {
    if let Some(shape) = mix {
        let rows = (args.instructions * shape.samples).min(cuda::STEP_ROWS);
        return rows.saturating_mul(shape.prompt + shape.written + 64);
    }
    let most_rows = args.rows.iter().copied().max().unwrap_or(1);
    let longest = contexts.iter().copied().max().unwrap_or(1);
    most_rows.saturating_mul(longest.saturating_add(args.new_tokens).saturating_add(64))
}

fn measure_all(
    session: &Session,
    args: &BenchEngineArgs,
    (contexts, replicas): (&[usize], usize),
) -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for &context in contexts {
        for &rows in &args.rows {
            let mut runs = Vec::new();
            for repeat in 0..args.repeat {
                output::say(&format!(
                    "{rows} rows of {context}, {} of {}",
                    repeat + 1,
                    args.repeat
                ));
                let run = Run {
                    rows,
                    repeat,
                    context,
                    new_tokens: args.new_tokens,
                    replicas,
                };
                runs.push(run.measure(session)?);
            }
            for phase in 0..2 {
                measurements.push(median(runs.iter().map(|run| run[phase].clone()).collect()));
            }
        }
    }
    Ok(measurements)
}

fn share_of_limit(one: &Measurement, work: &Work, limits: Limits) -> f64 {
    let best = match one.phase {
        Phase::Prefill => one.context as f64 / work.prefill_seconds(1, one.context, limits),
        _ => one.rows as f64 / work.decode_seconds(one.rows, one.context, limits),
    };
    one.tok_per_s / best
}

fn check(args: &BenchEngineArgs) -> Result<()> {
    let sizes = [
        ("--repeat", args.repeat),
        ("--instructions", args.instructions),
    ];
    let rows = args.rows.iter().map(|rows| ("--rows", *rows));
    let prompts = args
        .prompt_tokens
        .iter()
        .map(|tokens| ("--prompt-tokens", *tokens));
    for (flag, value) in sizes.into_iter().chain(rows).chain(prompts) {
        if value == 0 {
            return Err(Failure::usage(format!("{flag} 0: at least 1 is needed")));
        }
    }
    if args.new_tokens < 2 {
        return Err(Failure::usage(
            "--new-tokens: at least 2 are needed, the first comes from prefill",
        ));
    }
    Ok(())
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Run {
    rows: usize,
    repeat: usize,
    /// Tokens of each prompt.
    context: usize,
    new_tokens: usize,
    /// Which compute at the same time; the engine adds their seconds up.
    replicas: usize,
}

impl Run {
    /// Prefill of fresh prompts, then decoding after the same prompts, whose K and V are cached.
    fn measure(self, session: &Session) -> Result<[Measurement; 2]> {
        let Self { rows, context, .. } = self;
        let prompts: Vec<Vec<TokenId>> = (0..rows)
            .map(|row| {
                let stream = (self.repeat * 1_000_000 + rows * 1000 + row) as u64;
                random_tokens(stream ^ (context as u64) << 32, context, session.vocab_size)
            })
            .collect();
        let before = session.engine.stats().wait()?;
        ask(session, &prompts, 1)?;
        let between = session.engine.stats().wait()?;
        ask(session, &prompts, self.new_tokens)?;
        let after = session.engine.stats().wait()?;
        let seconds = |sum: f64| sum / self.replicas as f64;
        let prefill_seconds = seconds(between.forward_seconds - before.forward_seconds);
        // The first token of each row comes from the step that ends its prompt.
        let decoded = (rows * (self.new_tokens - 1)) as f64;
        let decode_seconds = seconds(after.decode_seconds - between.decode_seconds);
        let measurement = |phase, context, tok_per_s, host_share| Measurement {
            phase,
            rows,
            context,
            tok_per_s,
            share_of_limit: None,
            host_share,
        };
        Ok([
            measurement(
                Phase::Prefill,
                context,
                ratio((rows * context) as f64, prefill_seconds),
                host_share(&before, &between),
            ),
            measurement(
                Phase::Decode,
                context + self.new_tokens / 2,
                ratio(decoded, decode_seconds),
                host_share(&between, &after),
            ),
        ])
    }
}

fn ask(session: &Session, prompts: &[Vec<TokenId>], max_tokens: usize) -> Result<()> {
    let pending: Vec<Pending<Vec<Completion>>> = prompts
        .iter()
        .map(|prompt| {
            session.engine.generate(Generate {
                sampling: Sampling::greedy(),
                max_tokens: Some(max_tokens),
                stop: Stop {
                    ignore_eos: true,
                    ..Stop::default()
                },
                ..Generate::new(Prompt::Tokens(prompt.clone()))
            })
        })
        .collect();
    for one in pending {
        one.wait()?;
    }
    Ok(())
}

/// Tokens that repeat neither within a run nor between runs, the same on every machine.
pub(crate) fn random_tokens(stream: u64, len: usize, vocab_size: usize) -> Vec<TokenId> {
    let size = vocab_size.max(1) as u64;
    let token = |index| Generate::sample_seed(stream, index) % size;
    (1..=len)
        .map(|index| TokenId::try_from(token(index)).unwrap_or(0))
        .collect()
}

fn host_share(before: &EngineStats, after: &EngineStats) -> f64 {
    let step = after.step_seconds - before.step_seconds;
    let forward = after.forward_seconds - before.forward_seconds;
    ratio(step - forward, step).max(0.0)
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

/// The measurement of median speed.
fn median(mut runs: Vec<Measurement>) -> Measurement {
    runs.sort_by(|a, b| a.tok_per_s.total_cmp(&b.tok_per_s));
    let middle = runs.len() / 2;
    runs.swap_remove(middle)
}

fn report(
    args: &BenchEngineArgs,
    session: &Session,
    machine: &Machine,
    measurements: &[Measurement],
) -> Result<()> {
    let Machine {
        threads,
        limits,
        devices,
        peak_resident,
    } = machine;
    let kv_bytes = session.kv_tokens * session.kv_bytes_per_token;
    if args.json {
        return output::print_json(&json!({
            "model": session.name, "threads": threads, "cpu": machine::cpu_name(),
            "weight_bytes": session.weights.total_bytes, "kv_bytes": kv_bytes,
            "devices": devices, "read_bytes_per_s": limits.bytes_per_s,
            "product_flops": limits.flops, "peak_resident_bytes": peak_resident,
            "measurements": measurements,
        }));
    }
    let titles = ["phase", "rows", "context", "tok/s", "of limit", "host"];
    let mut rows = vec![titles.map(String::from).to_vec()];
    for one in measurements {
        let phase = match one.phase {
            Phase::Prefill => "prefill",
            Phase::Decode => "decode",
            Phase::Mix => "mix",
        };
        rows.push(vec![
            phase.into(),
            one.rows.to_string(),
            one.context.to_string(),
            format!("{:.1}", one.tok_per_s),
            one.share_of_limit
                .map_or("-".into(), |share| format!("{:.0} %", share * 100.0)),
            format!("{:.1} %", one.host_share * 100.0),
        ]);
    }
    output::print_line(&output::table(&rows))?;
    output::say(&format!(
        "[{} on {devices}, {threads} threads, weights {}, KV pool {}, memory {}/s, products {:.1} Gflop/s, peak resident {}]",
        session.name,
        output::bytes(session.weights.total_bytes),
        output::bytes(kv_bytes as u64),
        output::bytes(limits.bytes_per_s as u64),
        limits.flops / 1e9,
        peak_resident.map_or("unknown".into(), output::bytes),
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_differ_from_their_first_token_on() {
        let all: Vec<_> = (0..50)
            .map(|stream| random_tokens(stream, 8, 1 << 20))
            .collect();
        let mut firsts: Vec<_> = all.iter().map(|prompt| prompt[0]).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), 50);
        assert!(random_tokens(1, 1000, 7).iter().all(|token| *token < 7));
    }

    #[test]
    fn the_median_run_is_kept_whole() {
        let run = |tok_per_s, context| Measurement {
            phase: Phase::Decode,
            rows: 1,
            context,
            tok_per_s,
            share_of_limit: None,
            host_share: 0.0,
        };
        let middle = median(vec![run(3.0, 30), run(1.0, 10), run(2.0, 20)]);
        assert_eq!((middle.tok_per_s, middle.context), (2.0, 20));
    }
}
