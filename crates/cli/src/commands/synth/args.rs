//! Arguments of `synth`.

use crate::args::{ModelArgs, key_value};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum SynthCommand {
    /// UltraIF: from real prompts to verified pairs (arXiv 2502.04153)
    Ultraif(Box<UltraifArgs>),
    /// DecIF: from nothing but a model to verified pairs (arXiv 2505.13990)
    ///
    /// Without --accept one epoch is made, with it as many as it takes: an epoch adds so many
    /// domains and all that follows from them.
    Decif(Box<DecifArgs>),
    /// From Complex to Simple: answers corrected until rules hold (arXiv 2404.15846)
    ComplexToSimple(Box<ComplexToSimpleArgs>),
    /// How far the written and the read verdicts agree, on a sample of the seeds
    Agree(Box<UltraifArgs>),
}

/// What every recipe is told.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Ends once so many rows are accepted
    #[arg(long, value_name = "N")]
    pub(crate) accept: Option<u64>,
    /// Rows of the source to try at most
    #[arg(long, value_name = "N")]
    pub(crate) max_rows: Option<u64>,
    /// The run's folder; the same command continues it [default: runs/ and the recipe's name]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Seed of the run; the same seed gives the same data
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Settings to begin with: paper, or as-published for the released code's choices; decif
    /// also has small, for tiny models
    #[arg(long, value_name = "NAME", default_value = "paper")]
    pub(crate) preset: String,
    /// Folder of prompts that replace the program's own
    #[arg(long, value_name = "DIR")]
    pub(crate) prompts: Option<PathBuf>,
    /// Part I of N of the rows [default: from SLURM_ARRAY_TASK_ID and _COUNT]
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<pipeline::Shard>,
    /// Rows under way at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) concurrency: usize,
    /// Goes on although model, seed or source are not those the folder was made with
    #[arg(long)]
    pub(crate) allow_changes: bool,
    /// Prints the closing summary as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// Real prompts to begin with.
#[derive(Debug, Default, Args)]
pub(crate) struct SeedArgs {
    /// Prompts to begin with: JSONL, JSON, CSV, Parquet or text, also .gz or .zst (repeatable)
    /// [default: built-in ones]
    #[arg(long, value_name = "FILE")]
    pub(crate) seeds: Vec<PathBuf>,
    /// Benchmark prompts that instructions must not repeat, in any of those formats
    #[arg(long, value_name = "FILE")]
    pub(crate) decontaminate: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct UltraifArgs {
    #[command(flatten)]
    pub(crate) source: SeedArgs,
    /// Stages to do: decompose, question, composer, compose, respond, evaluate
    #[arg(long, value_name = "STAGE,…", value_delimiter = ',')]
    pub(crate) stages: Vec<String>,
    /// How responses are judged: explain, logits or both
    #[arg(long, value_name = "NAME")]
    pub(crate) evaluator: Option<String>,
    /// Another model or adapter for one role: decompose, question, compose, respond or judge
    #[arg(long, value_name = "ROLE=MODEL", value_parser = key_value)]
    pub(crate) role: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DecifArgs {
    /// New domains of an epoch
    #[arg(long, value_name = "N")]
    pub(crate) domains: Option<usize>,
    /// New requests of each domain
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_domain: Option<usize>,
    /// Scenarios of each request: who, when, where and why
    #[arg(long, value_name = "N")]
    pub(crate) scenarios_per_request: Option<usize>,
    /// Other people put into each scenario, instead of its own
    #[arg(long, value_name = "N")]
    pub(crate) personas_per_scenario: Option<usize>,
    /// Instructions for each person in a scenario, each with constraints of its own
    #[arg(long, value_name = "N")]
    pub(crate) instructions_per_scenario: Option<usize>,
    /// Benchmark prompts that instructions must not repeat
    #[arg(long, value_name = "FILE")]
    pub(crate) decontaminate: Vec<PathBuf>,
    /// How responses are judged: explain, logits or both
    #[arg(long, value_name = "NAME")]
    pub(crate) evaluator: Option<String>,
    /// Another model or adapter for one role: meta, instruct, respond or judge
    #[arg(long, value_name = "ROLE=MODEL", value_parser = key_value)]
    pub(crate) role: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ComplexToSimpleArgs {
    #[command(flatten)]
    pub(crate) source: SeedArgs,
    /// Constraints of an instruction, N or MIN-MAX [default: 3-5]
    #[arg(long, value_name = "N", value_parser = count_or_range, conflicts_with = "atom")]
    pub(crate) constraints: Option<(usize, usize)>,
    /// One constraint per instruction
    #[arg(long)]
    pub(crate) atom: bool,
    /// What is made: contrastive (answers and pairs), discrimination (corrected answers) or
    /// generation (the teacher's own answers)
    #[arg(long, value_name = "NAME")]
    pub(crate) variant: Option<String>,
    /// Who words the instruction: template or model
    #[arg(long, value_name = "NAME")]
    pub(crate) rewrite: Option<String>,
    /// Another model or adapter for one role: respond (the student), correct (the teacher),
    /// keywords or rewrite
    #[arg(long, value_name = "ROLE=MODEL", value_parser = key_value)]
    pub(crate) role: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// `N`, or `MIN-MAX`.
fn count_or_range(text: &str) -> Result<(usize, usize), String> {
    let number = |text: &str| {
        let number = text.trim().parse::<usize>();
        number.map_err(|_| format!("`{text}`: expected N or MIN-MAX, such as 3-5"))
    };
    match text.split_once('-') {
        Some((fewest, most)) => Ok((number(fewest)?, number(most)?)),
        None => number(text).map(|count| (count, count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_may_be_ranges() {
        assert_eq!(count_or_range("4"), Ok((4, 4)));
        assert_eq!(count_or_range("3-5"), Ok((3, 5)));
        for bad in ["", "a", "3-", "-3", "3-b"] {
            assert!(count_or_range(bad).is_err(), "{bad}");
        }
    }
}
