//! Rows of input files: prompts to answer, and examples to learn from. A row that cannot be
//! used is a [`RowProblem`] with its file and line, and the rows behind it are read.

use crate::Message;
use crate::forms;
use crate::source::{self, RawProblem, RawRows};
use serde_json::Value;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// One usable row of an input file.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptRow {
    /// Line in the file, from 1; of JSON arrays and Parquet files, which row.
    pub line: usize,
    /// The row's own `id` or `key`, if it has one.
    pub id: Option<String>,
    /// The conversation up to and including the turn to be answered.
    pub messages: Vec<Message>,
}

/// One row of training data as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Example {
    /// A conversation with at least one turn of the assistant.
    Conversation {
        /// All turns.
        messages: Vec<Message>,
    },
    /// Two different answers to one prompt.
    Preference {
        /// The conversation before the answers.
        prompt: Vec<Message>,
        /// The better answer; more than one turn where the answers are conversations.
        chosen: Vec<Message>,
        /// The worse one.
        rejected: Vec<Message>,
    },
}

/// A row with where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRow<T> {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Line in the file, from 1; of JSON arrays and Parquet files, which row.
    pub line: u64,
    /// The row's own `id` or `key` if it has one, else `<file stem>:<line>`.
    pub id: String,
    /// What it holds.
    pub value: T,
}

/// A file of which no row can be read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The system refuses.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is of no format that is known here.
    #[error("cannot read {}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it is, and what was expected.
        reason: String,
    },
}

impl RowsError {
    pub(crate) fn format(path: &Path, reason: impl Into<String>) -> Self {
        Self::Format {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

/// A row that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RowProblem {
    /// Reading failed; no row follows.
    #[error("{}: line {line}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What the system or the decoder said.
        source: io::Error,
    },
    /// This row is not one we understand; those behind it are read.
    #[error("{}: line {line}: {reason}", file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl RowProblem {
    /// The file, as it was named.
    pub fn file(&self) -> &Path {
        let (Self::Io { file, .. } | Self::Row { file, .. }) = self;
        file
    }

    /// Line, from 1.
    pub fn line(&self) -> u64 {
        let (Self::Io { line, .. } | Self::Row { line, .. }) = self;
        *line
    }

    /// What is wrong, without the place.
    pub fn reason(&self) -> String {
        match self {
            Self::Io { source, .. } => source.to_string(),
            Self::Row { reason, .. } => reason.clone(),
        }
    }
}

/// Reads the prompts of a file: JSONL, a JSON array, CSV, Parquet or plain text (one prompt
/// per line), plain or compressed with gzip or zstd. Rows may have `messages`, ShareGPT
/// `conversations`, `prompt` (a text or turns) or Alpaca fields; answers are passed over.
///
/// # Errors
/// A file that cannot be opened, or whose format is not known.
pub fn read_prompts(
    path: &Path,
) -> Result<impl Iterator<Item = Result<PromptRow, RowProblem>> + use<>, RowsError> {
    Ok(prompts(source::open(path)?, path.to_owned()))
}

/// Like [`read_prompts`], from a stream; `name` stands for it in messages, and its ending may
/// say which format it has. Parquet cannot be read from a stream.
///
/// # Errors
/// A stream that cannot be read, or whose format is not known.
pub fn read_prompts_from(
    stream: Box<dyn Read>,
    name: &Path,
) -> Result<impl Iterator<Item = Result<PromptRow, RowProblem>> + use<>, RowsError> {
    let rows = source::open_stream(stream, name)?;
    Ok(prompts(rows, name.to_owned()))
}

fn prompts(rows: RawRows, name: PathBuf) -> impl Iterator<Item = Result<PromptRow, RowProblem>> {
    let read = |value: Value| Ok((forms::id(&value), forms::prompt(&value)?));
    located(rows, name, read).map(|row| {
        let row = row?;
        let (id, messages) = row.value;
        Ok(PromptRow {
            line: usize::try_from(row.line).unwrap_or(usize::MAX),
            id,
            messages,
        })
    })
}

/// Reads the training examples of a file, of the formats that [`read_prompts`] reads. Rows are
/// conversations (`messages`, ShareGPT `conversations`, `prompt` with `completion`, Alpaca
/// fields with `output`) or preferences (`chosen` and `rejected`, texts or turns, with a
/// `prompt` or with turns in common).
///
/// # Errors
/// A file that cannot be opened, or whose format is not known.
pub fn read_examples(
    path: &Path,
) -> Result<impl Iterator<Item = Result<SourceRow<Example>, RowProblem>> + use<>, RowsError> {
    let rows = source::open(path)?;
    Ok(located(rows, path.to_owned(), |value| {
        forms::example(&value)
    }))
}

/// Reads the rows of a file as they stand in it, of the formats that [`read_prompts`] reads.
///
/// # Errors
/// A file that cannot be opened, or whose format is not known.
pub fn read_rows(
    path: &Path,
) -> Result<impl Iterator<Item = Result<SourceRow<Value>, RowProblem>> + use<>, RowsError> {
    Ok(located(source::open(path)?, path.to_owned(), Ok))
}

/// Reads each row with `read`, and gives it its place and id.
fn located<T>(
    rows: RawRows,
    name: PathBuf,
    read: impl Fn(Value) -> Result<T, String>,
) -> impl Iterator<Item = Result<SourceRow<T>, RowProblem>> {
    let stem = name.file_stem().unwrap_or_default().to_string_lossy();
    let stem = stem.into_owned();
    rows.map(move |raw| {
        let (file, line) = (name.clone(), raw.line);
        let value = match raw.row {
            Err(RawProblem::Io(source)) => return Err(RowProblem::Io { file, line, source }),
            Err(RawProblem::Row(reason)) => return Err(RowProblem::Row { file, line, reason }),
            Ok(value) => value,
        };
        let id = forms::id(&value).unwrap_or_else(|| format!("{stem}:{line}"));
        match read(value) {
            Err(reason) => Err(RowProblem::Row { file, line, reason }),
            Ok(value) => Ok(SourceRow {
                file,
                line,
                id,
                value,
            }),
        }
    })
}
