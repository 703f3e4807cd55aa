//! Benchmarks that are judged by rule: IFEval, LiveBench's instruction following, IFBench,
//! Multi-IF.
//!
//! - [`load`](load()): files become a [`Benchmark`] of [`Item`]s.
//! - [`recipe`]: an item is asked; the answers are recorded as they are.
//! - [`Answers`]: recorded answers, from a run, from any tool's file.
//! - [`judge`](judge()) gives [`Judged`] rows; [`Report`] makes the numbers, with intervals.
//! - [`Comparison`]: two sets of answers to the same items.
//! - [`held_out`]: instructions that tell whether a model trained on its own data got better.
//! - [`lm_eval`]: files in lm-evaluation-harness's layout; [`table`]: the same for people.
//!
//! Knows no tensor, no engine, no file and no clock: readers and times are passed in.

mod answers;
mod bootstrap;
mod compare;
pub mod held_out;
mod item;
mod judge;
pub mod lm_eval;
mod load;
pub mod recipe;
mod report;
mod suite;
pub mod table;
mod tally;

pub use answers::{Answer, Answers, split_reasoning};
pub use bootstrap::{Interval, RESAMPLES, SEED};
pub use compare::{Change, Comparison, Difference};
pub use item::{Benchmark, Item, Turn};
pub use judge::{Judged, Rule, Ruling, judge};
pub use load::{LIVEBENCH_RELEASE, Source, load};
pub use report::{Number, Report, TaskReport, TypeReport};
pub use suite::Suite;
pub use tally::{Metric, Tally};

/// Why a benchmark cannot be scored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A record of an input file is unusable.
    #[error("{file}:{line}: {reason}")]
    Data {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong, what was expected.
        reason: String,
    },
    /// There is nothing to score.
    #[error("{files}: no {what} items: {reason}")]
    Empty {
        /// The benchmark, or "responses".
        what: &'static str,
        /// The files read.
        files: String,
        /// Why nothing is left.
        reason: String,
    },
    /// Answers and benchmark have nothing in common.
    #[error("{file}: none of its {num_answers} responses belongs to one of the {num_items} items")]
    Unrelated {
        /// The file of the answers.
        file: String,
        /// Answers in it.
        num_answers: usize,
        /// Items of the benchmark.
        num_items: usize,
    },
}
