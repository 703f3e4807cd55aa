//! The command line as types; values that the configuration also knows are options here,
//! and the configuration decides.

use crate::commands::align::args::AlignArgs;
use crate::commands::bench::mix::Mix;
use crate::commands::bench_synth::Step;
use crate::commands::bench_train::BenchTrainArgs;
use crate::commands::data::DataCommand;
use crate::commands::eval::EvalCommand;
use crate::commands::synth::args::SynthCommand;
use crate::commands::train::args::TrainCommand;
use crate::commands::verify::VerifyArgs;
use crate::config::Setting;
use crate::session::SHAPE_PREFIX;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Printed at the end of `--help` and in the manual page.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0        done
  1        failed
  2        usage or configuration
  3        finished, but short of what was asked, or some rows failed
  4        input data invalid
  5        a model or file is missing or incomplete
  6        does not fit in memory
  75       stopped early; the same command continues (generate: with --resume)
  130,143  ended by a signal";

const CLOSING: &str = "\
MODEL is a path (folder or .gguf), else an id in the Hugging Face cache (org/name), else an
alias from the configuration; without one the embedded toy model answers. No command opens
a network connection.

";

/// Makes, checks and measures instruction data offline: one binary, one model, no network.
#[derive(Debug, Parser)]
#[command(name = "autodidact", version, max_term_width = 100, after_help = format!("{CLOSING}{EXIT_CODES}"))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Sets a configuration key, e.g. sampling.top_p=0.9 (repeatable)
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Reads this configuration file instead of ./autodidact.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Writes text: for one prompt, or for every row of a JSONL file
    Generate(Box<GenerateArgs>),
    /// Talks with a model, turn by turn
    Chat(Box<ChatArgs>),
    /// Gives the probability of each choice after a prompt; writes no text
    Score(Box<ScoreArgs>),
    /// Makes a dataset: verified responses, preference pairs, composer data
    #[command(subcommand)]
    Synth(SynthCommand),
    /// Looks at runs and puts their parts together
    #[command(subcommand)]
    Run(RunCommand),
    /// Checks datasets and shows their rows
    #[command(subcommand)]
    Data(DataCommand),
    /// Lists and copies the prompts that recipes use
    #[command(subcommand)]
    Prompts(PromptsCommand),
    /// Judges existing responses by rule, strict and loose
    Verify(VerifyArgs),
    /// Scores a model on a benchmark that is judged by rule
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Trains adapters and models on conversations and on pairs of answers
    #[command(subcommand)]
    Train(TrainCommand),
    /// Lets a model teach itself: synthesis, training and evaluation, round after round
    Align(Box<AlignArgs>),
    /// Measures speed against the limits of this machine
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Lists, describes and converts models
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Says what this machine can run
    Doctor(DoctorArgs),
    /// Shows the effective configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Prints shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page, or writes one per command into a folder
    Man {
        /// Folder for the pages
        dir: Option<PathBuf>,
    },
}

/// Which model, and how it is held in memory.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// Path, Hugging Face id or alias
    #[arg(short, long)]
    pub(crate) model: Option<String>,
    /// Quantises the weights while loading
    #[arg(long, value_enum)]
    pub(crate) quant: Option<QuantArg>,
    /// Adapter folder (PEFT), with an optional name for it
    #[arg(long, value_name = "[NAME=]DIR")]
    pub(crate) adapter: Option<String>,
    /// Chat template used instead of the model's
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// tokenizer.json used instead of the model's
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Variable for the chat template; JSON, or else text (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) template_var: Vec<(String, String)>,
    /// Today's date for templates that ask for it (YYYY-MM-DD)
    #[arg(long, value_name = "DATE")]
    pub(crate) date: Option<String>,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<u32>,
    /// Tokens that the KV cache holds [default: as memory allows]
    #[arg(long, value_name = "N")]
    pub(crate) kv_tokens: Option<u32>,
    /// Type of the KV cache
    #[arg(long, value_enum, visible_alias = "kv-type")]
    pub(crate) kv_dtype: Option<KvDtypeArg>,
    /// Where the model computes: cpu, cuda, cuda:N or metal [default: cpu]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Several of a kind, each with a replica of the model, behind one queue
    #[arg(long, value_name = "DEVICE,DEVICE,…", conflicts_with = "device")]
    pub(crate) devices: Option<String>,
    /// On a GPU: rows have the same bits in any batch, as they do on the processor
    #[arg(long)]
    pub(crate) deterministic: bool,
    /// Context in tokens [default: the model's]
    #[arg(long, value_name = "N")]
    pub(crate) context: Option<u32>,
    /// Tokens computed in one step [default: 512, on a GPU 2048]
    #[arg(long, value_name = "N")]
    pub(crate) max_batch_tokens: Option<u32>,
    /// Tokens in a KV block
    #[arg(long, value_name = "N")]
    pub(crate) block_size: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum QuantArg {
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_k")]
    Q4K,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvDtypeArg {
    F32,
    F16,
    /// On a GPU
    Bf16,
    /// E4M3, half of f16; on a GPU
    #[value(alias = "fp8")]
    F8,
}

/// How tokens are drawn.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// 0 takes the likeliest token
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,
    /// Keeps the K likeliest tokens; 0 keeps all
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u32>,
    /// Keeps the likeliest tokens of this total probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,
    /// Keeps tokens at least this fraction as likely as the likeliest
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) min_p: Option<f32>,
    /// Makes tokens that occurred less likely; 1 is off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) repetition_penalty: Option<f32>,
    /// Subtracted from the logits of tokens already written
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f32>,
    /// Subtracted per occurrence in the text written
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f32>,
    /// Added to one token's logit; -inf forbids it (repeatable)
    #[arg(long, value_name = "ID=BIAS", value_parser = logit_bias)]
    pub(crate) logit_bias: Vec<(u32, f32)>,
    /// Seed of the draw; the same seed gives the same text
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Tokens to write at most [default: up to the context's end]
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
    /// Ends the text before this string (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Ends the text at this token (repeatable)
    #[arg(long, value_name = "ID")]
    pub(crate) stop_token_id: Vec<u32>,
    /// Goes on past the model's end-of-sequence tokens
    #[arg(long)]
    pub(crate) ignore_eos: bool,
}

/// A language the text must belong to.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Grammar")]
#[group(multiple = true)]
pub(crate) struct GrammarArgs {
    /// The text is one of these strings (repeat for each)
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["regex", "json_schema", "grammar"])]
    pub(crate) choice: Vec<String>,
    /// The text matches this regular expression
    #[arg(long, value_name = "REGEX", conflicts_with_all = ["json_schema", "grammar"])]
    pub(crate) regex: Option<String>,
    /// The text is JSON that this schema accepts
    #[arg(long, value_name = "FILE", conflicts_with = "grammar")]
    pub(crate) json_schema: Option<PathBuf>,
    /// The text belongs to this grammar (Lark)
    #[arg(long, value_name = "FILE")]
    pub(crate) grammar: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// The user's message, or with --raw the text to go on from [default: standard input]
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["messages", "input"])]
    pub(crate) prompt: Option<String>,
    /// Completions per prompt
    #[arg(short, value_name = "N", default_value_t = 1)]
    pub(crate) n: usize,
    /// The prompt is plain text to be continued; no chat template
    #[arg(long, conflicts_with_all = ["system", "messages", "input"])]
    pub(crate) raw: bool,
    /// Control tokens spelled out in a raw prompt are control tokens
    #[arg(long, requires = "raw")]
    pub(crate) special: bool,
    /// System message
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Conversation as JSON: [{"role": …, "content": …}, …]; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    pub(crate) messages: Option<PathBuf>,
    /// Prompts as JSONL, JSON, CSV, Parquet or text, also .gz or .zst; rows have messages,
    /// conversations, prompt or instruction
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Where the rows go, in source order [default: standard output]
    #[arg(short, long, value_name = "FILE.jsonl", requires = "input")]
    pub(crate) output: Option<PathBuf>,
    /// Continues the FILE.partial of a run that was stopped
    #[arg(long, requires = "output")]
    pub(crate) resume: bool,
    /// Log-probability of each token and of the K likeliest at its place
    #[arg(long, value_name = "K")]
    pub(crate) logprobs: Option<usize>,
    /// Log-probability of every prompt token
    #[arg(long)]
    pub(crate) prompt_logprobs: bool,
    /// Prints the rendered prompt and its tokens; loads no weights
    #[arg(long, conflicts_with = "input")]
    pub(crate) dry_run: bool,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) grammar: GrammarArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// System message
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// The user's message, or with --raw the text that the choices follow
    #[arg(short, long, value_name = "TEXT", conflicts_with = "messages")]
    pub(crate) prompt: Option<String>,
    /// The prompt is plain text; no chat template
    #[arg(long, conflicts_with_all = ["system", "messages"])]
    pub(crate) raw: bool,
    /// System message
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Conversation as JSON: [{"role": …, "content": …}, …]; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) messages: Option<PathBuf>,
    /// Read after the prompt, before the choices; each is scored apart (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub(crate) suffix: Vec<String>,
    /// A continuation to score (repeatable)
    #[arg(long, value_name = "TEXT", required = true)]
    pub(crate) choice: Vec<String>,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// Where a run stands, also while it is going on
    Status(RunFolderArgs),
    /// Why calls were or were not reused
    Explain(RunFolderArgs),
    /// Puts the parts of a sharded run together
    Merge(RunMergeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunFolderArgs {
    /// The run's folder
    pub(crate) folder: PathBuf,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunMergeArgs {
    /// Folders of all parts
    #[arg(required = true)]
    pub(crate) parts: Vec<PathBuf>,
    /// The new folder
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PromptsCommand {
    /// Lists the prompts
    Ls {
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Prints one prompt
    Cat {
        /// Name, such as ultraif/respond
        name: String,
    },
    /// Copies all prompts into a folder, to be edited and used with --prompts
    Cp {
        /// The new folder
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Tokens per second of prefill and decode, beside the machine's memory bandwidth
    Engine(Box<BenchEngineArgs>),
    /// What knowing the job saves: UltraIF's calls with fixed lengths, one saving after the other
    Synth(Box<BenchSynthArgs>),
    /// Training: steps on given token ids
    Train(Box<BenchTrainArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct BenchSynthArgs {
    /// Random weights of a known shape instead of a model, such as llama-3.1-8b
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub(crate) shape: Option<String>,
    /// Seed prompts, all under way at once
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) seeds: usize,
    /// Factor on the lengths of prompts and answers
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// Probability that a question on a response is answered YES
    #[arg(long, value_name = "P", default_value_t = 0.8)]
    pub(crate) pass_rate: f64,
    /// What is measured; each step includes the savings before it
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "none,sharing,logits,early-stop"
    )]
    pub(crate) steps: Vec<Step>,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchEngineArgs {
    /// Sequences decoded together, one measurement each
    #[arg(
        long,
        value_name = "N,N,…",
        value_delimiter = ',',
        default_value = "1,8,32"
    )]
    pub(crate) rows: Vec<usize>,
    /// Tokens of each prompt, one set of measurements each; at most what the context has room for
    #[arg(
        long,
        value_name = "N,N,…",
        value_delimiter = ',',
        default_value = "512"
    )]
    pub(crate) prompt_tokens: Vec<usize>,
    /// Tokens written per sequence
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) new_tokens: usize,
    /// Measurements of each kind; the median is reported
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) repeat: usize,
    /// Random weights of a known shape instead of a model, such as llama-3.1-8b
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub(crate) shape: Option<String>,
    /// Measures a whole job, all asked at once, instead of prompts and decoding apart
    #[arg(long, value_enum)]
    pub(crate) mix: Option<Mix>,
    /// Instructions of --mix
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) instructions: usize,
    /// Whether a GPU is given a step while it computes the one before [default: on]
    #[arg(long, value_name = "on|off", value_parser = ["on", "off"])]
    pub(crate) overlap: Option<String>,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Lists the models of the Hugging Face cache, the aliases and the embedded one
    Ls(ModelsLsArgs),
    /// Describes one model without loading its weights
    Show(ModelsShowArgs),
    /// Writes a folder of safetensors, with an adapter or without, as one GGUF file
    Convert(ModelsConvertArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ModelsConvertArgs {
    /// Folder, Hugging Face id or alias
    #[arg(short, long)]
    pub(crate) model: Option<String>,
    /// Adapter folder (PEFT) that is added to the weights
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// The new file
    #[arg(short, long, value_name = "FILE.gguf")]
    pub(crate) output: PathBuf,
    /// Type of the matrices [default: as they are stored]
    #[arg(long, value_enum)]
    pub(crate) quant: Option<GgufQuantArg>,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Types that `models convert` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GgufQuantArg {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q6_k")]
    Q6K,
    #[value(name = "q4_k")]
    Q4K,
    #[value(name = "q4_0")]
    Q4_0,
}

#[derive(Debug, Args)]
pub(crate) struct ModelsLsArgs {
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ModelsShowArgs {
    /// Path, Hugging Face id or alias
    pub(crate) model: Option<String>,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Says also what a model of this shape would take, such as llama-3.1-8b (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(crate) shape: Vec<String>,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Prints every key with its value
    Show(ConfigShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    /// Also says where each value comes from
    #[arg(long)]
    pub(crate) origin: bool,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl BenchEngineArgs {
    /// The flags of this command that are also configuration keys; `--shape` means a model.
    pub(crate) fn settings(&self) -> impl Iterator<Item = Setting> {
        let overlap = self.overlap.clone().map(toml::Value::String);
        let overlap = Setting::flag("engine.overlap", "--overlap", overlap);
        shape_setting(self.shape.as_deref())
            .into_iter()
            .chain(overlap)
    }
}

impl BenchSynthArgs {
    /// The model that `--shape` means.
    pub(crate) fn shape_setting(&self) -> Option<Setting> {
        shape_setting(self.shape.as_deref())
    }
}

/// The model that `--shape` means.
pub(crate) fn shape_setting(shape: Option<&str>) -> Option<Setting> {
    let model = shape.map(|shape| toml::Value::String(format!("{SHAPE_PREFIX}{shape}")));
    Setting::flag("model", "--shape", model)
}

impl ModelArgs {
    /// The flags given that are also configuration keys.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let number = |value: Option<u32>| value.map(i64::from).map(toml::Value::Integer);
        let name = |value: Option<String>| value.map(toml::Value::String);
        [
            Setting::flag("model", "--model", name(self.model.clone())),
            Setting::flag("engine.quant", "--quant", name(self.quant.map(value_name))),
            Setting::flag("engine.threads", "--threads", number(self.threads)),
            Setting::flag("engine.kv_tokens", "--kv-tokens", number(self.kv_tokens)),
            Setting::flag(
                "engine.kv_dtype",
                "--kv-dtype",
                name(self.kv_dtype.map(value_name)),
            ),
            Setting::flag("engine.devices", "--device", name(self.device.clone())),
            Setting::flag("engine.devices", "--devices", name(self.devices.clone())),
            Setting::flag(
                "engine.deterministic",
                "--deterministic",
                name(self.deterministic.then(|| "on".to_owned())),
            ),
            Setting::flag("engine.context", "--context", number(self.context)),
            Setting::flag(
                "engine.max_batch_tokens",
                "--max-batch-tokens",
                number(self.max_batch_tokens),
            ),
            Setting::flag("engine.block_size", "--block-size", number(self.block_size)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl SamplingArgs {
    /// The flags given that are also configuration keys.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let number = |value: Option<u32>| value.map(i64::from).map(toml::Value::Integer);
        // Through text, so that 0.1 stays 0.1 and does not become the nearest f32 in decimal.
        let real = |value: Option<f32>| {
            value
                .and_then(|x| x.to_string().parse().ok())
                .map(toml::Value::Float)
        };
        [
            Setting::flag(
                "sampling.temperature",
                "--temperature",
                real(self.temperature),
            ),
            Setting::flag("sampling.top_k", "--top-k", number(self.top_k)),
            Setting::flag("sampling.top_p", "--top-p", real(self.top_p)),
            Setting::flag("sampling.min_p", "--min-p", real(self.min_p)),
            Setting::flag(
                "sampling.repetition_penalty",
                "--repetition-penalty",
                real(self.repetition_penalty),
            ),
            Setting::flag(
                "sampling.presence_penalty",
                "--presence-penalty",
                real(self.presence_penalty),
            ),
            Setting::flag(
                "sampling.frequency_penalty",
                "--frequency-penalty",
                real(self.frequency_penalty),
            ),
            Setting::flag(
                "sampling.max_tokens",
                "--max-tokens",
                number(self.max_tokens),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn value_name(value: impl ValueEnum + Copy) -> String {
    let possible = value.to_possible_value().expect("no variant is skipped");
    possible.get_name().to_owned()
}

pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = key_value(text).map_err(|_| "expected ID=BIAS".to_owned())?;
    let id = id
        .parse()
        .map_err(|error| format!("token id `{id}`: {error}"))?;
    let bias = bias
        .trim()
        .parse()
        .map_err(|error| format!("bias `{bias}`: {error}"))?;
    Ok((id, bias))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let cli = Cli::parse_from([
            "autodidact",
            "generate",
            "-p",
            "x",
            "--temperature",
            "0.1",
            "--quant",
            "q4_k",
        ]);
        let Command::Generate(args) = cli.command else {
            panic!("generate was given");
        };
        let mut settings = args.model.settings();
        settings.extend(args.sampling.settings());
        let shown: Vec<_> = settings
            .iter()
            .map(|setting| format!("{}={}", setting.key, setting.value))
            .collect();
        assert_eq!(shown, ["engine.quant=\"q4_k\"", "sampling.temperature=0.1"]);
    }

    #[test]
    fn pairs_are_checked() {
        assert_eq!(logit_bias("7=-inf"), Ok((7, f32::NEG_INFINITY)));
        for wrong in ["7", "=1", "x=1", "7=", "-1=2"] {
            assert!(logit_bias(wrong).is_err(), "{wrong}");
        }
        assert_eq!(key_value("a.b=c=d"), Ok(("a.b".into(), "c=d".into())));
    }
}
