//! Writes the corpus, its held-out prompts, or the seeds, as JSONL.

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use corpus::{Answered, Corpus, Document, Item, Mix, Report, Sizes, balanced, join};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::thread;

/// The procedural corpus of the embedded model.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Seed of every choice
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Documents, requests or seeds
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
    /// With `--what judge`, `judge-items` and `score`: the prompts that a model answered
    #[arg(long, required_if_eq_any([("what", "judge"), ("what", "judge-items"), ("what", "score")]))]
    items: Option<PathBuf>,
    /// And its answers, as `autodidact generate -i ITEMS -o ANSWERS` writes them
    #[arg(long, required_if_eq_any([("what", "judge"), ("what", "judge-items"), ("what", "score")]))]
    answers: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Conversations to train on
    Documents,
    /// Prompts that training never sees, with what their scoring needs
    HeldOut,
    /// Requests of the training part to be answered by a model
    Requests,
    /// Judge documents on a model's answers to such requests, labelled by rule: as many YES as
    /// NO of each kind of constraint
    Judge,
    /// Every verdict on such answers, as prompts with the right one, to measure a judge
    JudgeItems,
    /// Tables of how good a model's answers are
    Score,
    /// Prompts to begin with, one for each topic before any gets another
    Seeds,
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
        What::Seeds => lines(
            corpus.seeds(usize::try_from(arguments.documents)?)?,
            &mut out,
        )?,
        What::Judge => lines(balanced(judge(&corpus, &arguments)?), &mut out)?,
        What::JudgeItems => lines(judge_items(&corpus, &arguments)?, &mut out)?,
        What::Score => {
            let report = Report::of(&answered(&arguments)?)?;
            out.write_all(report.tables().as_bytes())?;
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

/// The prompts with a model's answers.
fn answered(arguments: &Arguments) -> Result<Vec<Answered>> {
    let read = |path: &Option<PathBuf>, flag: &str| {
        let path = path
            .as_deref()
            .with_context(|| format!("{flag} is missing"))?;
        fs::read_to_string(path).with_context(|| path.display().to_string())
    };
    let items = read(&arguments.items, "--items")?;
    Ok(join(&items, &read(&arguments.answers, "--answers")?)?)
}

/// Every whole answer with its item and its number.
fn samples(answered: &[Answered]) -> impl Iterator<Item = (&Item, &str, u64)> {
    let whole = answered.iter().flat_map(|one| {
        let answers = one.answers.iter().filter(|answer| !answer.is_empty());
        answers.map(|answer| (&one.item, answer.as_str()))
    });
    (0..)
        .zip(whole)
        .map(|(index, (item, answer))| (item, answer, index))
}

fn judge(corpus: &Corpus, arguments: &Arguments) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for (item, answer, index) in samples(&answered(arguments)?) {
        documents.extend(corpus.judge_sampled(&item.asks()?, answer, index)?);
    }
    Ok(documents)
}

fn judge_items(corpus: &Corpus, arguments: &Arguments) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for (item, answer, index) in samples(&answered(arguments)?) {
        items.extend(corpus.judge_items(item, answer, index)?);
    }
    Ok(items)
}
