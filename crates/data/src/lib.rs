//! The nouns every other crate speaks, and the contract between recipes and engines.
//!
//! - [`Message`], [`Prompt`]: what is asked.
//! - [`Generate`] → [`Completion`], [`Score`] → [`Scores`]: the two requests a [`Generator`] serves.
//! - [`Sampling`], [`Stop`], [`Grammar`]: how a completion is drawn and where it ends.
//!
//! - [`Outcome`]: what became of a row: a [`Verdict`] and the [`Record`]s it wrote.
//! - [`read_prompts`], [`read_examples`], [`read_rows`]: rows of files, of every form and format.
//! - [`describe_dataset`]: what stands beside the rows of a finished dataset; [`check_dataset`]
//!   holds them together.
//!
//! This crate knows no model file, no tensor, no recipe and no network. It may be used
//! by every layer above it.

mod check;
mod dataset;
mod forms;
mod generator;
mod outcome;
mod request;
mod rows;
mod show;
mod source;

pub use check::{CheckReport, FileCheck, Finding, check_dataset};
pub use dataset::{
    DatasetError, FunnelCounts, Kind, NO_SEEDS, Names, Origin, PromptFacts, describe_dataset,
};
pub use generator::{Generator, Pending, Reply, pending};
pub use outcome::{Outcome, Record, Rejection, Verdict};
pub use request::{
    Author, Completion, FinishReason, Generate, Grammar, Message, Prompt, Sampling, SamplingError,
    Score, Scores, Stop, SuffixScores, TokenId, TokenLogprob, Usage,
};
pub use rows::{
    Example, PromptRow, RowProblem, RowsError, SourceRow, read_examples, read_prompts,
    read_prompts_from, read_rows,
};
pub use show::show_row;

/// Why one request failed. The other requests of the same step are not affected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// A field of the request is out of range.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// Prompt and requested tokens do not fit in the model's context.
    #[error(
        "the prompt has {prompt_tokens} tokens and at least {wanted_tokens} more were asked for, but the context holds {context_tokens}; shorten the prompt or lower --max-tokens"
    )]
    ContextOverflow {
        /// Tokens of the rendered prompt.
        prompt_tokens: usize,
        /// Tokens to be generated, or of the longest suffix to be scored.
        wanted_tokens: usize,
        /// Tokens the context holds.
        context_tokens: usize,
    },
    /// The sequence alone needs more KV blocks than the pool holds.
    #[error(
        "the sequence needs {needed_blocks} KV blocks of {block_size} tokens but the pool holds {num_blocks}; raise --kv-tokens or shorten the request"
    )]
    KvPoolTooSmall {
        /// Blocks the whole sequence needs.
        needed_blocks: usize,
        /// Blocks of the pool.
        num_blocks: usize,
        /// Tokens in a block.
        block_size: usize,
    },
    /// The model gave a logit that is not a number.
    #[error(
        "the model produced a NaN logit at position {position}; the weights or the adapter are damaged"
    )]
    NotANumber {
        /// Position of the token whose successor was to be chosen.
        position: usize,
    },
    /// The grammar could not be compiled or ran into a state with no allowed token.
    #[error("grammar: {0}")]
    Grammar(String),
    /// The forward pass failed.
    #[error("forward pass failed: {0}")]
    Forward(String),
    /// The engine was shut down before the request finished.
    #[error("the engine stopped before the request finished")]
    EngineStopped,
}
