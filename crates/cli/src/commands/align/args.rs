//! The flags of `align`.

use crate::args::ModelArgs;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct AlignArgs {
    /// Prompts to begin with, in any format that `synth` reads (repeatable) [default: built-in
    /// ones]
    #[arg(long, value_name = "FILE")]
    pub(crate) seeds: Vec<PathBuf>,
    /// The folder of everything; the same command continues it
    #[arg(short, long, value_name = "DIR", default_value = "runs/align")]
    pub(crate) output: PathBuf,
    /// Whose way of making rows
    #[arg(long, value_enum, value_name = "NAME", default_value = "ultraif")]
    pub(crate) recipe: RecipeArg,
    /// Seed of every draw; the same seed gives the same adapter
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Rounds of preference pairs; with ultraif after SFT, the last of them NCA [default:
    /// align.rounds]
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<usize>,
    /// Instructions to measure by: JSONL with prompt, instruction_id_list and kwargs as
    /// `verify` reads them, and if you like topic and text [default: some of the seeds, set
    /// aside, with rules added]
    #[arg(long, value_name = "FILE")]
    pub(crate) held_out: Option<PathBuf>,
    /// Trains beside it, as often and on as many rows, on what this judge accepts (repeatable)
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',')]
    pub(crate) control: Vec<Control>,
    /// Composes with the model itself, by a prompt, instead of training a composer
    #[arg(long)]
    pub(crate) skip_composer: bool,
    /// Settings to begin with [default: small below 100 million parameters, else paper]
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) preset: Option<PresetArg>,
    /// Folder of prompts that replace the program's own
    #[arg(long, value_name = "DIR")]
    pub(crate) prompts: Option<PathBuf>,
    /// Rows under way at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) concurrency: usize,
    /// Says which stages there are, and stops
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Prints the closing table as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// How rows are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecipeArg {
    /// The model composes instructions and judges its answers: SFT, then rounds of pairs
    Ultraif,
    /// Rules are added to the seeds and check the answers, the model corrects what failed:
    /// rounds of DPO with the chosen answers' cross-entropy
    ComplexToSimple,
}

impl RecipeArg {
    /// The prompt of its answers.
    pub(crate) fn respond(self) -> &'static str {
        match self {
            Self::Ultraif => "ultraif/respond",
            Self::ComplexToSimple => "complex-to-simple/respond",
        }
    }
}

/// What the loop is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Control {
    /// Nobody judges: first responses, and pairs as they come
    Unfiltered,
    /// Rules judge, and nothing else
    Rules,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PresetArg {
    /// UltraIF's course, with learning rates for adapters
    Paper,
    /// For models of a few million parameters
    Small,
}
