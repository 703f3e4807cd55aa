//! `bench synth`: what knowing the job saves. The calls of UltraIF for a number of seeds,
//! with fixed lengths so that weights of any kind, random ones too, do the same work, under
//! settings that are switched on one after the other:
//!
//! | step | prompts shared | evaluator | samples |
//! |---|---|---|---|
//! | `none` | no | writes an explanation per response | all |
//! | `sharing` | yes | writes an explanation per response | all |
//! | `logits` | yes | reads the probability of YES per question | all |
//! | `early-stop` | yes | reads the probability of YES per question | until one passes |
//!
//! Verdicts do not come from the model but from a draw that is the same under all settings:
//! each question of each response is answered YES with a fixed probability.

use crate::args::BenchSynthArgs;
use crate::commands::Env;
use crate::commands::bench::random_tokens;
use crate::config::{Origin, Setting};
use crate::error::Failure;
use crate::output;
use crate::session::{self, Session};
use crate::threads;
use anyhow::Result;
use clap::ValueEnum;
use data::{Completion, Generate, Generator, Prompt, RequestError, Sampling, Score, Stop, TokenId};
use engine::EngineStats;
use futures::future::try_join_all;
use serde::Serialize;
use serde_json::json;
use std::time::Instant;

/// One more thing that is known about the job; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    None,
    Sharing,
    Logits,
    EarlyStop,
}

/// Rounds of composing.
const ROUNDS: usize = 3;
/// Samples of an instruction.
const SAMPLES: usize = 5;
/// Samples of the first wave where samples stop early.
const FIRST_WAVE: usize = 2;
/// Questions on a response.
const QUESTIONS: usize = 3;

/// Tokens of the parts of prompts and answers, as estimated for an 8B model and real prompts;
/// the heads are templates that all calls of a stage share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Lengths {
    compose_head: usize,
    respond_head: usize,
    judge_head: usize,
    query: usize,
    composed: usize,
    response: usize,
    question: usize,
    explanation: usize,
}

impl Lengths {
    fn scaled(scale: f64) -> Self {
        let of = |tokens: usize| ((tokens as f64 * scale).round() as usize).max(1);
        Self {
            compose_head: of(75),
            respond_head: of(85),
            judge_head: of(175),
            query: of(225),
            composed: of(300),
            response: of(400),
            question: of(25),
            explanation: of(60),
        }
    }

    /// Tokens of the longest sequence.
    fn longest(self) -> usize {
        let judged = self.judge_head + self.query + self.response;
        judged + QUESTIONS * (self.question + self.explanation)
    }
}

/// What one step cost.
#[derive(Debug, Clone, Serialize)]
struct Measurement {
    step: Step,
    seeds: usize,
    accepted: usize,
    wall_seconds: f64,
    seconds_per_accepted: f64,
    /// Tokens whose K and V were computed, prompts and answers.
    tokens_computed: u64,
    /// Of these, tokens computed one at a time.
    tokens_decoded: u64,
    calls: usize,
}

/// Runs the command.
pub(crate) fn run(env: &mut Env, args: &BenchSynthArgs) -> Result<()> {
    if args.seeds == 0 {
        return Err(Failure::usage("--seeds 0: at least 1 is needed"));
    }
    let scale_is_usable = args.scale.is_finite() && args.scale > 0.0;
    if !scale_is_usable || !(0.0..=1.0).contains(&args.pass_rate) {
        return Err(Failure::usage(
            "--scale: a number above 0; --pass-rate: between 0 and 1",
        ));
    }
    for setting in args
        .model
        .settings()
        .into_iter()
        .chain(args.shape_setting())
    {
        env.config.insert(setting)?;
    }
    threads::apply(&env.config)?;
    let lengths = Lengths::scaled(args.scale);
    let mut measurements = Vec::new();
    for &step in &args.steps {
        output::say(&format!("{step:?} …"));
        measurements.push(measure(env, args, step, lengths)?);
    }
    report(args, lengths, &measurements)
}

fn measure(
    env: &mut Env,
    args: &BenchSynthArgs,
    step: Step,
    lengths: Lengths,
) -> Result<Measurement> {
    let cache = if step >= Step::Sharing { "on" } else { "off" };
    env.config.insert(Setting {
        key: "engine.prefix_cache",
        value: toml::Value::String(cache.into()),
        origin: Origin::Flag("--steps"),
    })?;
    let opened = session::open(&args.model, &mut env.config)?;
    let kv_tokens = args.seeds * SAMPLES * (lengths.longest() + 64);
    let session = opened.start_for(&env.config, kv_tokens)?;
    let before = session.engine.stats().wait()?;
    let started = Instant::now();
    let job = |seed| Job {
        session: &session,
        lengths,
        step,
        seed,
        pass_rate: args.pass_rate,
    };
    let rows = (0..args.seeds).map(|seed| async move { job(seed).run().await });
    let results = futures::executor::block_on(try_join_all(rows))?;
    let wall_seconds = started.elapsed().as_secs_f64();
    let after = session.engine.stats().wait()?;
    let computed = |stats: &EngineStats| stats.num_tokens_prefilled + stats.num_tokens_decoded;
    let accepted = results.iter().filter(|result| result.accepted).count();
    Ok(Measurement {
        step,
        seeds: args.seeds,
        accepted,
        wall_seconds,
        seconds_per_accepted: wall_seconds / accepted.max(1) as f64,
        tokens_computed: computed(&after) - computed(&before),
        tokens_decoded: after.num_tokens_decoded - before.num_tokens_decoded,
        calls: results.iter().map(|result| result.calls).sum(),
    })
}

/// One seed on its way.
struct Job<'a> {
    session: &'a Session,
    lengths: Lengths,
    step: Step,
    seed: usize,
    pass_rate: f64,
}

struct JobResult {
    accepted: bool,
    calls: usize,
}

/// Streams of random tokens: templates first, then one per seed and use.
const COMPOSE_HEAD: u64 = 1;
const RESPOND_HEAD: u64 = 2;
const JUDGE_HEAD: u64 = 3;
const PER_SEED: u64 = 1000;

impl Job<'_> {
    async fn run(&self) -> Result<JobResult, RequestError> {
        let instruction = self.compose().await?;
        let first = match self.step {
            Step::EarlyStop => FIRST_WAVE,
            _ => SAMPLES,
        };
        let (mut accepted, mut calls) = (false, ROUNDS);
        for wave in [0..first, first..SAMPLES] {
            let samples = wave.map(|sample| self.sample(&instruction, sample));
            let judged = try_join_all(samples).await?;
            calls += judged.iter().map(|(_, calls)| calls).sum::<usize>();
            accepted |= judged.iter().any(|(passed, _)| *passed);
            if accepted {
                break;
            }
        }
        Ok(JobResult { accepted, calls })
    }

    /// The query after all rounds.
    async fn compose(&self) -> Result<Vec<TokenId>, RequestError> {
        let head = self.tokens(COMPOSE_HEAD, self.lengths.compose_head);
        let stream = PER_SEED * (self.seed as u64 + 1);
        let mut query = self.tokens(stream, self.lengths.query);
        for round in 0..ROUNDS {
            let prompt = [head.as_slice(), &query].concat();
            let seed = stream + round as u64;
            query = self.write(prompt, self.lengths.composed, seed).await?;
            query.truncate(self.lengths.query);
        }
        Ok(query)
    }

    /// Whether sample `index` passes, and the calls it took.
    async fn sample(
        &self,
        instruction: &[TokenId],
        index: usize,
    ) -> Result<(bool, usize), RequestError> {
        let head = self.tokens(RESPOND_HEAD, self.lengths.respond_head);
        let seed = PER_SEED * (self.seed as u64 + 1) + 10 + index as u64;
        let prompt = [head.as_slice(), instruction].concat();
        let response = self.write(prompt, self.lengths.response, seed).await?;
        let head = self.tokens(JUDGE_HEAD, self.lengths.judge_head);
        let judged = [head.as_slice(), instruction, &response].concat();
        let questions: Vec<Vec<TokenId>> = (0..QUESTIONS as u64)
            .map(|question| self.tokens(seed * 10 + question, self.lengths.question))
            .collect();
        let calls = if self.step >= Step::Logits {
            let asked = questions.iter().map(|question| {
                self.session.engine.score(Score {
                    prefix: Prompt::Tokens([judged.as_slice(), question].concat()),
                    suffixes: Vec::new(),
                    labels: vec!["YES".into(), "NO".into()],
                    adapter: None,
                })
            });
            try_join_all(asked).await?;
            QUESTIONS
        } else {
            let prompt = [judged, questions.concat()].concat();
            let written = QUESTIONS * self.lengths.explanation;
            self.write(prompt, written, seed).await?;
            1
        };
        let passed = (0..QUESTIONS).all(|question| self.verdict(index, question));
        Ok((passed, 1 + calls))
    }

    async fn write(
        &self,
        prompt: Vec<TokenId>,
        max_tokens: usize,
        seed: u64,
    ) -> Result<Vec<TokenId>, RequestError> {
        let answer = self.session.engine.generate(Generate {
            sampling: Sampling::default(),
            max_tokens: Some(max_tokens),
            stop: Stop {
                ignore_eos: true,
                ..Stop::default()
            },
            seed,
            ..Generate::new(Prompt::Tokens(prompt))
        });
        let mut completions: Vec<Completion> = answer.await?;
        Ok(completions
            .pop()
            .map(|completion| completion.tokens)
            .unwrap_or_default())
    }

    fn tokens(&self, stream: u64, len: usize) -> Vec<TokenId> {
        random_tokens(stream, len, self.session.vocab_size)
    }

    fn verdict(&self, sample: usize, question: usize) -> bool {
        verdict(self.seed, sample, question, self.pass_rate)
    }
}

/// Whether a question is answered YES: a draw that depends on nothing but the arguments.
/// `scripts/bench-synth-vs-llama-cpp` draws the same.
fn verdict(seed: usize, sample: usize, question: usize, pass_rate: f64) -> bool {
    let index = 1 + (seed * SAMPLES + sample) * QUESTIONS + question;
    let draw = Generate::sample_seed(0, index) >> 11;
    (draw as f64) < pass_rate * (1_u64 << 53) as f64
}

fn report(args: &BenchSynthArgs, lengths: Lengths, measurements: &[Measurement]) -> Result<()> {
    if args.json {
        return output::print_json(&json!({
            "rounds": ROUNDS, "samples": SAMPLES, "questions": QUESTIONS,
            "pass_rate": args.pass_rate, "lengths": lengths, "measurements": measurements,
        }));
    }
    let titles = [
        "step",
        "accepted",
        "calls",
        "computed",
        "decoded",
        "wall s",
        "s/accepted",
    ];
    let mut rows = vec![titles.map(String::from).to_vec()];
    for one in measurements {
        rows.push(vec![
            format!("{:?}", one.step),
            format!("{} of {}", one.accepted, one.seeds),
            one.calls.to_string(),
            one.tokens_computed.to_string(),
            one.tokens_decoded.to_string(),
            format!("{:.1}", one.wall_seconds),
            format!("{:.2}", one.seconds_per_accepted),
        ]);
    }
    Ok(output::print_line(&output::table(&rows))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_have_their_rate_and_never_change() {
        let all = (0..1000).flat_map(|seed| {
            (0..SAMPLES).flat_map(move |sample| {
                (0..QUESTIONS).map(move |question| verdict(seed, sample, question, 0.8))
            })
        });
        let yes = all.filter(|yes| *yes).count() as f64 / (1000 * SAMPLES * QUESTIONS) as f64;
        assert!((yes - 0.8).abs() < 0.015, "{yes}");
        assert!(verdict(3, 1, 2, 1.0) && !verdict(3, 1, 2, 0.0));
    }

    #[test]
    fn lengths_scale_and_stay_positive() {
        assert_eq!(Lengths::scaled(1.0).response, 400);
        assert_eq!(Lengths::scaled(0.25).response, 100);
        assert_eq!(Lengths::scaled(1e-9).question, 1);
    }
}
