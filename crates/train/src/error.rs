//! The crate's one error type.

use kernels::KernelError;
use model::ModelError;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, TrainError>;

/// Why a training run cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The base model or one of its files.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A kernel failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// candle failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A device has no room for what a pass needs.
    #[error(
        "the device has no room for {needed} bytes more: training uses {live} bytes of it beside the weights, {free} are free; lower the tokens of a pack, the rows' length, the adapter's rank or the rows of logits, or let layers be computed again"
    )]
    DeviceMemory {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that training has in use.
        live: u64,
        /// Bytes free.
        free: u64,
    },
    /// The system refused to read or write a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A setting is out of range, or contradicts another.
    #[error("{field}: expected {expected}, got {got}")]
    Setting {
        /// Its name.
        field: &'static str,
        /// What is allowed.
        expected: String,
        /// What was given.
        got: String,
    },
    /// No tokenizer came out of the texts.
    #[error("no tokenizer: {reason}")]
    Tokenizer {
        /// What the trainer said.
        reason: String,
    },
    /// Nothing is left to train on.
    #[error("no row to train on: {rows} were read, {reasons}")]
    NoRows {
        /// Rows that were read.
        rows: usize,
        /// Why they were dropped, with counts.
        reasons: String,
    },
    /// A number that is none came out of a row.
    #[error(
        "step {step}: {what} of row {row} is {value}; the last checkpoint is kept (the row or the learning rate is to blame)"
    )]
    NotFinite {
        /// Optimiser step, from 1.
        step: u64,
        /// What was computed.
        what: &'static str,
        /// Id of the row.
        row: String,
        /// The value.
        value: f64,
    },
    /// The gradients of a step have no finite norm.
    #[error(
        "step {step}: the gradients' norm is {norm}; the last checkpoint is kept (rows: {rows})"
    )]
    Diverged {
        /// Optimiser step, from 1.
        step: u64,
        /// The norm.
        norm: f64,
        /// Ids of the step's rows, some of them.
        rows: String,
    },
    /// A trained tensor got no gradient: training would silently leave it as it is.
    #[error("{parameter} got no gradient; this is a defect of the program")]
    NoGradient {
        /// Its name.
        parameter: String,
    },
    /// Tensors of a checkpoint or an adapter do not fit.
    #[error("{problem}")]
    Tensors {
        /// Which, and why.
        problem: String,
    },
    /// A folder holds a run with other settings.
    #[error("{}: {problem}", path.display())]
    Changed {
        /// The checkpoint.
        path: PathBuf,
        /// What differs, and what to do.
        problem: String,
    },
    /// A file of a run does not hold what it should.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
}

impl TrainError {
    pub(crate) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            action,
            source,
        }
    }

    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File {
            path: path.into(),
            problem: problem.into(),
        }
    }

    pub(crate) fn setting(
        field: &'static str,
        expected: impl Into<String>,
        got: impl std::fmt::Display,
    ) -> Self {
        Self::Setting {
            field,
            expected: expected.into(),
            got: got.to_string(),
        }
    }
}
