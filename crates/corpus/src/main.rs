//! Writes the corpus, its held-out prompts, or the seeds, as JSONL.

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use corpus::{Corpus, Item, Mix, Sizes, balanced};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread;

/// The procedural corpus of the embedded model.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Seed of every choice
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Documents, or requests with `--requests`
    #[arg(long, default_value_t = 1000)]
    documents: u64,
    /// File to write
    #[arg(long)]
    out: PathBuf,
    /// TOML file with weights and shares
    #[arg(long)]
    mix: Option<PathBuf>,
    /// Folder of prompts
    #[arg(long, default_value = "models/embedded/prompts")]
    prompts: PathBuf,
    /// What is written
    #[arg(long, value_enum, default_value_t = What::Documents, conflicts_with = "held_out")]
    what: What,
    /// The same as `--what held-out`
    #[arg(long)]
    held_out: bool,
    /// With `--what judge`: requests with a model's `response` each
    #[arg(long, required_if_eq("what", "judge"))]
    answers: Option<PathBuf>,
    /// With `--what judge`: which verdicts
    #[arg(long, value_enum, default_value_t = Keep::Balanced)]
    keep: Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Keep {
    /// As many YES as NO of each kind of constraint, to train on
    Balanced,
    /// Every verdict, to measure a judge
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Conversations to train on
    Documents,
    /// Prompts that training never sees, with what their scoring needs
    HeldOut,
    /// Requests of the training part to be answered by a model
    Requests,
    /// Judge documents on a model's answers to such requests, labelled by rule
    Judge,
    /// One prompt for each topic
    Seeds,
}

/// A request with an answer that a model gave.
#[derive(serde::Deserialize)]
struct Answered {
    #[serde(flatten)]
    item: Item,
    response: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mix = match &arguments.mix {
        None => Mix::default(),
        Some(path) => {
            let shown = path.display().to_string();
            let text = fs::read_to_string(path).with_context(|| shown.clone())?;
            Mix::parse(&text).context(shown)?
        }
    };
    let corpus = Corpus::new(&arguments.prompts, mix, arguments.seed)?;
    let what = if arguments.held_out {
        What::HeldOut
    } else {
        arguments.what
    };
    let shown = || arguments.out.display().to_string();
    // Beside the file, and renamed when it is whole.
    let part = PathBuf::from(format!("{}.part", arguments.out.display()));
    let mut out = BufWriter::new(File::create(&part).with_context(shown)?);
    match what {
        What::Documents => documents(&corpus, arguments.documents, &mut out)?,
        What::HeldOut => lines(corpus.held_out(Sizes::default())?, &mut out)?,
        What::Requests => lines(
            corpus.requests(usize::try_from(arguments.documents)?)?,
            &mut out,
        )?,
        What::Seeds => lines(corpus.seeds()?, &mut out)?,
        What::Judge => {
            let answers = arguments
                .answers
                .as_deref()
                .context("--answers is missing")?;
            judge(&corpus, answers, arguments.keep, &mut out)?;
        }
    }
    out.flush().with_context(shown)?;
    fs::rename(&part, &arguments.out).with_context(shown)
}

/// Documents made by one thread before they are written.
const CHUNK: u64 = 512;

/// Documents in order, drawn on every core.
fn documents(corpus: &Corpus, count: u64, out: &mut impl Write) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let mut next = 0;
    while next < count {
        let chunks: Vec<(u64, u64)> = (0..threads)
            .map(|i| (next + i * CHUNK, (next + (i + 1) * CHUNK).min(count)))
            .filter(|(start, end)| start < end)
            .collect();
        let texts: Vec<Result<String>> = thread::scope(|scope| {
            let chunks = chunks.iter().copied();
            let running: Vec<_> = chunks
                .map(|range| scope.spawn(move || chunk(corpus, range)))
                .collect();
            let joined = running
                .into_iter()
                .map(|thread| thread.join().expect("drawing does not panic"));
            joined.collect()
        });
        for text in texts {
            out.write_all(text?.as_bytes())?;
        }
        next += threads * CHUNK;
    }
    Ok(())
}

fn chunk(corpus: &Corpus, (start, end): (u64, u64)) -> Result<String> {
    let mut text = String::new();
    for index in start..end {
        text += &serde_json::to_string(&corpus.document(index)?)?;
        text.push('\n');
    }
    Ok(text)
}

fn lines(rows: Vec<impl Serialize>, out: &mut impl Write) -> Result<()> {
    for row in rows {
        writeln!(out, "{}", serde_json::to_string(&row)?)?;
    }
    Ok(())
}

/// Verdicts on a model's answers: all of them, or as many YES as NO of each kind.
fn judge(corpus: &Corpus, answers: &Path, keep: Keep, out: &mut impl Write) -> Result<()> {
    let file = File::open(answers).with_context(|| answers.display().to_string())?;
    let mut documents = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let place = || format!("{}, line {}", answers.display(), index + 1);
        let answered: Answered = serde_json::from_str(&line?).with_context(place)?;
        let asks = answered.item.asks().with_context(place)?;
        documents.extend(corpus.judge_sampled(&asks, &answered.response, index as u64)?);
    }
    lines(
        if keep == Keep::All {
            documents
        } else {
            balanced(documents)
        },
        out,
    )
}
