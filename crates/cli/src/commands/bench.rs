//! `bench engine`: tokens per second, beside what the memory of this machine allows.

use crate::args::BenchEngineArgs;
use crate::commands::Env;
use crate::error::Failure;
use crate::machine;
use crate::output;
use crate::session::{self, Session};
use crate::threads;
use anyhow::Result;
use data::{Completion, Generate, Generator, Pending, Prompt, Sampling, Stop, TokenId};
use engine::EngineStats;
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
    /// Bytes that the phase had to read per second, over the bandwidth measured in the same
    /// run. Prefill is limited by arithmetic, not by memory, and has none.
    share_of_limit: Option<f64>,
    /// Part of the steps' time that was not the forward pass.
    host_share: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Prefill,
    Decode,
}

/// What a step streams from memory.
#[derive(Debug, Clone, Copy)]
struct Traffic {
    weight_bytes: f64,
    kv_bytes_per_token: f64,
    /// Bytes per second.
    bandwidth: f64,
}

impl Traffic {
    fn share_of_limit(self, decode: &Measurement) -> f64 {
        let kv_tokens = (decode.rows * decode.context) as f64;
        let step_bytes = self.weight_bytes + kv_tokens * self.kv_bytes_per_token;
        let steps_per_s = decode.tok_per_s / decode.rows as f64;
        steps_per_s * step_bytes / self.bandwidth
    }
}

/// What the measurements were taken on.
#[derive(Debug)]
struct Machine {
    threads: usize,
    read_bytes_per_s: f64,
    peak_resident: Option<u64>,
}

/// Runs the command.
pub(crate) fn engine(env: &mut Env, args: &BenchEngineArgs) -> Result<()> {
    check(args)?;
    for setting in args.model.settings() {
        env.config.insert(setting)?;
    }
    threads::apply(&env.config)?;
    let opened = session::open(&args.model, &mut env.config)?;
    let most_rows = args.rows.iter().copied().max().unwrap_or(1);
    let row_tokens = args
        .prompt_tokens
        .saturating_add(args.new_tokens)
        .saturating_add(64);
    let tokens_needed = most_rows.saturating_mul(row_tokens);
    let session = opened.start_for(&env.config, tokens_needed)?;
    let threads = env
        .config
        .integer("engine.threads")
        .unwrap_or_else(machine::threads);
    let mut measurements = Vec::new();
    for &rows in &args.rows {
        let mut runs = Vec::new();
        for repeat in 0..args.repeat {
            output::say(&format!("{rows} rows, {} of {}", repeat + 1, args.repeat));
            runs.push(measure(&session, args, (rows, repeat))?);
        }
        for phase in 0..2 {
            measurements.push(median(runs.iter().map(|run| run[phase].clone()).collect()));
        }
    }
    // Before the buffer that the bandwidth is measured with counts as ours.
    let peak_resident = machine::peak_resident();
    let traffic = Traffic {
        weight_bytes: session.weights.streamed_bytes as f64,
        kv_bytes_per_token: session.kv_bytes_per_token as f64,
        bandwidth: machine::read_bandwidth(threads),
    };
    for one in measurements
        .iter_mut()
        .filter(|one| one.phase == Phase::Decode)
    {
        one.share_of_limit = Some(traffic.share_of_limit(one));
    }
    let machine = Machine {
        threads,
        read_bytes_per_s: traffic.bandwidth,
        peak_resident,
    };
    report(args, &session, &machine, &measurements)
}

fn check(args: &BenchEngineArgs) -> Result<()> {
    let sizes = [
        ("--prompt-tokens", args.prompt_tokens),
        ("--repeat", args.repeat),
    ];
    for (flag, value) in sizes
        .into_iter()
        .chain(args.rows.iter().map(|rows| ("--rows", *rows)))
    {
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

/// Prefill of fresh prompts, then decoding after the same prompts, whose K and V are cached.
fn measure(
    session: &Session,
    args: &BenchEngineArgs,
    (rows, repeat): (usize, usize),
) -> Result<[Measurement; 2]> {
    let prompts: Vec<Vec<TokenId>> = (0..rows)
        .map(|row| {
            random_tokens(
                (repeat * 1_000_000 + rows * 1000 + row) as u64,
                args.prompt_tokens,
                session.vocab_size,
            )
        })
        .collect();
    let before = session.engine.stats().wait()?;
    ask(session, &prompts, 1)?;
    let between = session.engine.stats().wait()?;
    ask(session, &prompts, args.new_tokens)?;
    let after = session.engine.stats().wait()?;
    let prefill_seconds = between.forward_seconds - before.forward_seconds;
    let prefill = Measurement {
        phase: Phase::Prefill,
        rows,
        context: args.prompt_tokens,
        tok_per_s: ratio((rows * args.prompt_tokens) as f64, prefill_seconds),
        share_of_limit: None,
        host_share: host_share(&before, &between),
    };
    // The first token of each row comes from the step that ends its prompt.
    let decoded = (rows * (args.new_tokens - 1)) as f64;
    let decode_seconds = after.decode_seconds - between.decode_seconds;
    let context = args.prompt_tokens + args.new_tokens / 2;
    let tok_per_s = ratio(decoded, decode_seconds);
    let decode = Measurement {
        phase: Phase::Decode,
        rows,
        context,
        tok_per_s,
        share_of_limit: None,
        host_share: host_share(&between, &after),
    };
    Ok([prefill, decode])
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
        read_bytes_per_s,
        peak_resident,
    } = machine;
    let kv_bytes = session.kv_tokens * session.kv_bytes_per_token;
    if args.json {
        return output::print_json(&json!({
            "model": session.name, "threads": threads, "cpu": machine::cpu_name(),
            "weight_bytes": session.weights.total_bytes, "kv_bytes": kv_bytes,
            "read_bytes_per_s": read_bytes_per_s, "peak_resident_bytes": peak_resident, "measurements": measurements,
        }));
    }
    let titles = ["phase", "rows", "context", "tok/s", "of limit", "host"];
    let mut rows = vec![titles.map(String::from).to_vec()];
    for one in measurements {
        let phase = if one.phase == Phase::Prefill {
            "prefill"
        } else {
            "decode"
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
        "[{}, {threads} threads, weights {}, KV pool {}, memory reads {}/s, peak resident {}]",
        session.name,
        output::bytes(session.weights.total_bytes),
        output::bytes(kv_bytes as u64),
        output::bytes(*read_bytes_per_s as u64),
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
    fn the_share_counts_weights_and_cache() {
        let traffic = Traffic {
            weight_bytes: 1000.0,
            kv_bytes_per_token: 10.0,
            bandwidth: 14_000.0,
        };
        let decode = Measurement {
            phase: Phase::Decode,
            rows: 2,
            context: 20,
            tok_per_s: 10.0,
            share_of_limit: None,
            host_share: 0.0,
        };
        assert!((traffic.share_of_limit(&decode) - 5.0 * 1400.0 / 14_000.0).abs() < 1e-12);
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
