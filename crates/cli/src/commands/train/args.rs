//! The flags of `train`.

use crate::args::ModelArgs;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// What is trained, and how.
#[derive(Debug, Subcommand)]
pub(crate) enum TrainCommand {
    /// Supervised fine-tuning on conversations
    Sft(Box<TrainArgs>),
    /// Direct preference optimisation on pairs of answers
    Dpo(Box<TrainArgs>),
    /// Noise-contrastive alignment on pairs: holds the chosen answers' own likelihood up
    Nca(Box<TrainArgs>),
    /// Identity preference optimisation on pairs
    Ipo(Box<TrainArgs>),
    /// Trains a small model from scratch, or all of a model's weights on plain text
    Lm(Box<LmArgs>),
    /// Learns the vocabulary of a new small model: byte-level BPE
    Tokenizer(TokenizerArgs),
    /// Adds an adapter to the weights it was trained beside
    Merge(Box<MergeArgs>),
    /// Lists the presets with their settings and where those come from
    Presets {
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// Rows to train on: messages, ShareGPT, Alpaca, prompt and completion, or pairs (repeatable)
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// Folder of the run and of its result; the same command continues it
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Settings to begin with; see `train presets`
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// Trains all weights instead of an adapter (a folder of safetensors only)
    #[arg(long, conflicts_with_all = ["adapter", "lora_rank", "lora_alpha", "lora_dropout", "lora_targets"])]
    pub(crate) full: bool,
    /// Which of the assistant's turns are trained
    #[arg(long, value_enum, default_value = "last")]
    pub(crate) train_on: TrainOnArg,
    #[command(flatten)]
    pub(crate) lora: LoraArgs,
    #[command(flatten)]
    pub(crate) preference: PreferenceArgs,
    #[command(flatten)]
    pub(crate) course: CourseArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Adapter")]
pub(crate) struct LoraArgs {
    /// Rank of a new adapter
    #[arg(long, value_name = "N")]
    pub(crate) lora_rank: Option<usize>,
    /// Its alpha: the product's factor is alpha / rank
    #[arg(long, value_name = "X")]
    pub(crate) lora_alpha: Option<f64>,
    /// Share of its inputs zeroed while training
    #[arg(long, value_name = "P")]
    pub(crate) lora_dropout: Option<f64>,
    /// Matrices that get one: q, k, v, o, gate, up, down (or q_proj, …)
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) lora_targets: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Preferences")]
pub(crate) struct PreferenceArgs {
    /// Scale of the implicit reward
    #[arg(long, value_name = "X")]
    pub(crate) beta: Option<f64>,
    /// Share of pairs taken to be the wrong way round (dpo)
    #[arg(long, value_name = "P")]
    pub(crate) label_smoothing: Option<f64>,
    /// Weight of the chosen answers' cross-entropy beside the loss
    #[arg(long, value_name = "X")]
    pub(crate) sft_weight: Option<f64>,
    /// How that term is averaged
    #[arg(long, value_enum, default_value = "batch-tokens")]
    pub(crate) sft_reduction: SftReductionArg,
    /// What answers are compared with: start (the model as this run begins), base (without
    /// any adapter), or an adapter's folder
    #[arg(long, value_name = "start|base|DIR", default_value = "start")]
    pub(crate) reference: String,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Course")]
pub(crate) struct CourseArgs {
    /// Times every row is seen
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<u32>,
    /// Optimiser steps, whatever the epochs
    #[arg(long, value_name = "N")]
    pub(crate) max_steps: Option<u64>,
    /// Rows of an optimiser step
    #[arg(long, value_name = "N", conflicts_with = "batch_tokens")]
    pub(crate) batch_size: Option<usize>,
    /// Tokens of an optimiser step
    #[arg(long, value_name = "N")]
    pub(crate) batch_tokens: Option<usize>,
    /// Tokens computed at a time; memory grows with it, results do not depend on it
    #[arg(long, value_name = "N")]
    pub(crate) pack_tokens: Option<usize>,
    /// Longest row in tokens; longer ones are dropped and counted
    #[arg(long, value_name = "N")]
    pub(crate) max_length: Option<usize>,
    /// Highest learning rate
    #[arg(long, value_name = "X")]
    pub(crate) lr: Option<f64>,
    /// What the rate does after warming up
    #[arg(long, value_enum)]
    pub(crate) schedule: Option<ScheduleArg>,
    /// Share of the highest rate that is left at the end
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) min_lr_ratio: f64,
    /// Share of the steps in which the rate rises
    #[arg(long, value_name = "P", conflicts_with = "warmup_steps")]
    pub(crate) warmup_ratio: Option<f64>,
    /// Steps in which the rate rises
    #[arg(long, value_name = "N")]
    pub(crate) warmup_steps: Option<u64>,
    /// Longest gradient; longer ones are scaled down (0 = any)
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) max_grad_norm: f64,
    /// Decay of the weights, times the learning rate
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub(crate) weight_decay: f64,
    /// Seed of the new adapter, of the rows' order and of dropout
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// What is computed again on the way back: layers saves memory, nothing saves time
    #[arg(long, value_enum, default_value = "layers")]
    pub(crate) recompute: RecomputeArg,
    /// Steps between checkpoints
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) checkpoint_steps: u64,
    /// Checkpoints that are kept
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) keep: usize,
    /// Rows to evaluate on
    #[arg(long, value_name = "FILE", conflicts_with = "held_out")]
    pub(crate) eval_data: Vec<PathBuf>,
    /// Holds out so many of the rows for evaluation
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) held_out: usize,
    /// Steps between evaluations
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) eval_steps: u64,
    /// Rows to use at most, drawn by the seed
    #[arg(long, value_name = "N")]
    pub(crate) max_rows: Option<usize>,
    /// Prompts answered before and after, taken from the data [default: 2]
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) samples: usize,
    /// Reads the data, says what would be done, and stops
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Prints the closing summary as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LmArgs {
    /// Text to train on: rows with `text`, or conversations (repeatable)
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// Folder of the run and of its result; the same command continues it
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Folder with config.json, tokenizer.json and, for conversations, a chat template
    #[arg(long, value_name = "DIR")]
    pub(crate) init: PathBuf,
    /// Begins with random weights; else those in the folder are trained on
    #[arg(long)]
    pub(crate) from_scratch: bool,
    /// How much tokens count that are not the assistant's
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub(crate) prompt_weight: f64,
    /// Matrices move by Muon at this rate; embeddings and norms by AdamW at --lr
    #[arg(long, value_name = "X")]
    pub(crate) muon_lr: Option<f64>,
    #[command(flatten)]
    pub(crate) course: CourseArgs,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<u32>,
    /// Packs computed side by side, each by one thread: faster for a model of a few million
    /// numbers, whose products are too small to share; results do not depend on it
    #[arg(long, value_name = "N", conflicts_with = "threads", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) workers: Option<u8>,
}

#[derive(Debug, Args)]
pub(crate) struct TokenizerArgs {
    /// Text to learn from: rows with `text`, or conversations (repeatable)
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// Tokens at most
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub(crate) vocab_size: usize,
    /// Tokens that mark turns and ends; they get the first ids (repeatable)
    #[arg(long, value_name = "TOKEN")]
    pub(crate) special: Vec<String>,
    /// File to write: tokenizer.json
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Folder of the new model
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrainOnArg {
    Last,
    AllAssistant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SftReductionArg {
    BatchTokens,
    PerSequence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScheduleArg {
    Cosine,
    Linear,
    Constant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecomputeArg {
    Layers,
    Nothing,
}
