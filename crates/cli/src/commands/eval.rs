//! `eval`: benchmarks that are judged by rule, over a model's answers or given ones.

mod asking;
mod inputs;
mod outputs;

use crate::args::ModelArgs;
use crate::commands::Env;
use crate::error::{Failure, SOME_ROWS_FAILED, STOPPED};
use crate::output;
use ::eval::{Answers, Benchmark, Comparison, EvalError, Report, Suite};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Which benchmark.
#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// IFEval: 541 prompts, 25 types of instructions
    Ifeval(Box<EvalArgs>),
    /// LiveBench's instruction following: four tasks, strict verdicts
    Livebench(Box<LivebenchArgs>),
    /// IFBench: 300 prompts, 58 further types of instructions
    Ifbench(Box<EvalArgs>),
    /// Multi-IF: three turns, eight languages
    MultiIf(Box<EvalArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct LivebenchArgs {
    /// Questions that were in use at this release
    #[arg(long, value_name = "DATE", default_value = ::eval::LIVEBENCH_RELEASE)]
    release: String,
    #[command(flatten)]
    eval: EvalArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// The benchmark's file, or a folder with its files (repeatable) [default for ifeval:
    /// google/IFEval in the Hugging Face cache]
    #[arg(long, value_name = "PATH")]
    data: Vec<PathBuf>,
    /// Judges these responses instead of asking a model: JSONL with key or prompt, and response
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "adapter", "max_tokens"])]
    responses: Option<PathBuf>,
    /// Also asks or reads another, and shows the paired difference: a model, an adapter folder,
    /// "base" (the model without its adapter), a run's folder or a file of responses
    #[arg(long, value_name = "OTHER")]
    compare: Option<String>,
    /// Only the first N items: a smoke test, not a result
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Tokens that an answer may have [default: the benchmark's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_tokens: Option<u64>,
    /// Items asked at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    concurrency: u64,
    /// Folder for the call log and the results; the same command continues there
    /// [default: runs/eval-BENCHMARK-MODEL; with --responses nothing is written]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

impl EvalCommand {
    fn parts(&self) -> (Suite, &EvalArgs, &str) {
        let latest = ::eval::LIVEBENCH_RELEASE;
        match self {
            Self::Ifeval(args) => (Suite::IfEval, args, latest),
            Self::Livebench(args) => (Suite::LiveBench, &args.eval, &args.release),
            Self::Ifbench(args) => (Suite::IfBench, args, latest),
            Self::MultiIf(args) => (Suite::MultiIf, args, latest),
        }
    }
}

/// One set of answers, and who gave them.
struct Party {
    name: String,
    answers: Answers,
}

/// What is to be judged.
struct Parties {
    ours: Party,
    other: Option<Party>,
    origin: outputs::Origin,
    /// The user stopped it; some items have not been asked.
    stopped: bool,
}

/// Runs the command.
pub(crate) fn run(env: &mut Env, command: &EvalCommand) -> Result<ExitCode> {
    let (suite, args, release) = command.parts();
    let began = Instant::now();
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let files = inputs::data_files(suite, &args.data)?;
    let mut benchmark = inputs::load(suite, &files, release)?;
    if let Some(limit) = args.limit {
        benchmark.limit(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    let parties = match &args.responses {
        Some(file) => given(args, file)?,
        None => asking::ask(env, args, &benchmark, &files)?,
    };
    if parties.stopped {
        return stopped(benchmark, &parties);
    }
    let judged = Judgement::of(&benchmark, &parties)?;
    let times = outputs::Times {
        started,
        elapsed: began.elapsed(),
    };
    let written = outputs::write(args, &benchmark, &parties, &judged, times)?;
    outputs::print(args, &parties, &judged, &written)?;
    let unanswered = judged.report.missing > 0 && args.responses.is_none();
    Ok(if unanswered {
        ExitCode::from(SOME_ROWS_FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

/// Verdicts and numbers.
struct Judgement {
    rows: Vec<::eval::Judged>,
    report: Report,
    comparison: Option<Comparison>,
}

impl Judgement {
    fn of(benchmark: &Benchmark, parties: &Parties) -> Result<Self> {
        let rows =
            ::eval::judge(benchmark, &parties.ours.answers).map_err(|error| unusable(&error))?;
        let report = Report::of(benchmark, &rows);
        let comparison = match &parties.other {
            None => None,
            Some(other) => {
                let theirs =
                    ::eval::judge(benchmark, &other.answers).map_err(|error| unusable(&error))?;
                Some(Comparison::of(benchmark, &other.name, &rows, &theirs))
            }
        };
        Ok(Self {
            rows,
            report,
            comparison,
        })
    }
}

/// Both sides from files; no model is looked for.
fn given(args: &EvalArgs, file: &std::path::Path) -> Result<Parties> {
    let other = match args.compare.as_deref() {
        None => None,
        Some(other) => match inputs::responses_file(other) {
            Some(file) => Some(inputs::party(&file)?),
            None => {
                return Err(Failure::usage(format!(
                    "--compare {other}: beside --responses only a file of responses or a run's folder can be compared"
                )));
            }
        },
    };
    Ok(Parties {
        ours: inputs::party(file)?,
        other,
        origin: outputs::Origin::responses(file),
        stopped: false,
    })
}

/// What there is so far, as far as it goes; nothing is written.
fn stopped(mut benchmark: Benchmark, parties: &Parties) -> Result<ExitCode> {
    let answers = &parties.ours.answers;
    let answered = |item: &::eval::Item| {
        let mut turns = item.turns.iter();
        turns.all(|turn| answers.get(item, turn).is_some())
    };
    benchmark.items.retain(answered);
    if !benchmark.items.is_empty() {
        let rows = ::eval::judge(&benchmark, answers).map_err(|error| unusable(&error))?;
        let report = Report::of(&benchmark, &rows);
        output::print(&::eval::table::report(&parties.ours.name, &report))?;
    }
    output::say("stopped; the same command continues");
    Ok(ExitCode::from(STOPPED))
}

/// Input that cannot be scored: exit code 4.
fn unusable(error: &EvalError) -> anyhow::Error {
    Failure::input(error.to_string())
}
