//! What stands beside the rows of a finished dataset: its card, and what trainers ask for.
//!
//! Everything is made from the files and from what made them, and nothing from clock or
//! machine: equal data get equal cards, however often a run was interrupted or divided.

mod card;
mod trainers;

pub use card::NO_SEEDS;
pub(crate) use card::{CARD_FILE, Counts, read_counts};
pub(crate) use trainers::{INFO_FILE, LLAMAFACTORY_FOLDER, TrainerEntry};

use crate::source::{self, RawProblem};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What made a dataset, as its card tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// The program and its version.
    pub program: String,
    /// Which recipe, with its version.
    pub recipe: String,
    /// Seed of the run.
    pub seed: u64,
    /// Part of the seeds that this is, `I/N`; `None` for all of them.
    pub part: Option<String>,
    /// Digest of the seeds.
    pub source_digest: String,
    /// Digest of each role's model.
    pub model_digests: BTreeMap<String, String>,
    /// Digest of each prompt.
    pub prompt_digests: BTreeMap<String, String>,
    /// Settings of the recipe.
    pub settings: Value,
    /// Names beside the digests.
    pub names: Names,
    /// Where the rows ended.
    pub funnel: FunnelCounts,
    /// What else is to be told, in Markdown.
    pub notes: String,
}

/// What people call the things that made a dataset; kept in the run's folder, since digests
/// do not tell it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// Files of the seeds, without their folders.
    pub seeds: Vec<String>,
    /// Each role's model.
    pub models: BTreeMap<String, String>,
    /// What is known of each prompt.
    pub prompts: BTreeMap<String, PromptFacts>,
}

/// A prompt as the card tells it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptFacts {
    /// The paper and section it follows.
    pub source: String,
    /// Its sampling parameters, by name.
    pub sampling: BTreeMap<String, String>,
}

/// Rows of the seeds by how they ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FunnelCounts {
    /// Rows read.
    pub read: u64,
    /// Rows accepted.
    pub accepted: u64,
    /// Rows rejected, by stage, then by reason.
    pub rejected: BTreeMap<String, BTreeMap<String, u64>>,
    /// Rows without an outcome yet.
    pub unfinished: u64,
    /// The recipe's own counters.
    pub counts: BTreeMap<String, u64>,
}

/// What the rows of a file are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `messages`, or a prompt with its answer: supervised training.
    Conversations,
    /// `prompt`, `chosen`, `rejected`: preference training.
    Preferences,
    /// Something else.
    Other,
}

impl Kind {
    /// What a row is for, by its keys.
    pub(crate) fn of(row: &Value) -> Self {
        let is_list = |name: &str| row.get(name).is_some_and(Value::is_array);
        let has = |name: &str| row.get(name).is_some();
        let is_answered = (has("prompt") && (has("completion") || has("response")))
            || (has("instruction") && has("output"));
        if has("chosen") && has("rejected") {
            Self::Preferences
        } else if is_list("messages") || is_list("conversations") || is_answered {
            Self::Conversations
        } else {
            Self::Other
        }
    }
}

/// A file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileFacts {
    pub(crate) name: String,
    pub(crate) rows: u64,
    pub(crate) kind: Kind,
    /// Keys of its first row.
    pub(crate) keys: Vec<String>,
}

impl FileFacts {
    /// The name without its ending: what the file is called in configurations.
    pub(crate) fn stem(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }
}

/// A dataset that cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds a line that is no JSON.
    #[error("{}: line {line}: {reason}", path.display())]
    Row {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl DatasetError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Describes the dataset of `files` (names of JSONL files) in `folder`: writes the card
/// `README.md`, `dataset_info.json` and `llamafactory/` for LLaMA-Factory, and `axolotl.yml`.
/// Each is written beside and renamed.
///
/// # Errors
/// A file of the dataset that is missing or damaged; a file that cannot be written.
pub fn describe_dataset(
    folder: &Path,
    files: &[&str],
    origin: &Origin,
) -> Result<(), DatasetError> {
    let mut facts = Vec::new();
    for name in files {
        facts.push(facts_of(folder, name)?);
    }
    let entries = trainers::write_llamafactory(folder, &facts)?;
    let info = trainers::dataset_info(&entries);
    write_text(folder, INFO_FILE, &info)?;
    write_text(folder, "axolotl.yml", &trainers::axolotl(&facts))?;
    write_text(folder, CARD_FILE, &card::render(&facts, origin))
}

/// Rows, kind and keys of a file.
fn facts_of(folder: &Path, name: &str) -> Result<FileFacts, DatasetError> {
    let mut facts = FileFacts {
        name: name.to_owned(),
        rows: 0,
        kind: Kind::Other,
        keys: Vec::new(),
    };
    each_row(&folder.join(name), |row| {
        if facts.rows == 0 {
            facts.kind = Kind::of(&row);
            let keys = row.as_object().into_iter().flat_map(|row| row.keys());
            facts.keys = keys.cloned().collect();
        }
        facts.rows += 1;
        Ok(())
    })?;
    Ok(facts)
}

/// Hands every row of a file of ours to `with`.
fn each_row(
    path: &Path,
    mut with: impl FnMut(Value) -> Result<(), DatasetError>,
) -> Result<(), DatasetError> {
    let rows = source::open(path).map_err(|error| DatasetError::Io {
        action: "read",
        path: path.to_owned(),
        source: match error {
            crate::RowsError::Io { source, .. } => source,
            crate::RowsError::Format { reason, .. } => io::Error::other(reason),
        },
    })?;
    for raw in rows {
        match raw.row {
            Ok(row) => with(row)?,
            Err(RawProblem::Io(source)) => return Err(DatasetError::io("read", path)(source)),
            Err(RawProblem::Row(reason)) => {
                return Err(DatasetError::Row {
                    path: path.to_owned(),
                    line: raw.line,
                    reason,
                });
            }
        }
    }
    Ok(())
}

fn write_text(folder: &Path, name: &str, text: &str) -> Result<(), DatasetError> {
    let mut file = Replaced::create(folder, name)?;
    file.write(text.as_bytes())?;
    file.finish()
}

/// A file that takes its name when it is whole.
#[derive(Debug)]
pub(crate) struct Replaced {
    partial: PathBuf,
    path: PathBuf,
    file: BufWriter<File>,
}

impl Replaced {
    fn create(folder: &Path, name: &str) -> Result<Self, DatasetError> {
        let (partial, path) = (folder.join(format!("{name}.partial")), folder.join(name));
        let file = File::create(&partial).map_err(DatasetError::io("write", &partial))?;
        Ok(Self {
            partial,
            path,
            file: BufWriter::new(file),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DatasetError> {
        let written = self.file.write_all(bytes);
        written.map_err(DatasetError::io("write", &self.partial))
    }

    fn finish(self) -> Result<(), DatasetError> {
        let partial = self.partial;
        self.file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(DatasetError::io("write", &partial))?;
        fs::rename(&partial, &self.path).map_err(DatasetError::io("write", &self.path))
    }

    /// Leaves nothing behind.
    fn discard(self) -> Result<(), DatasetError> {
        drop(self.file);
        fs::remove_file(&self.partial).map_err(DatasetError::io("remove", &self.partial))
    }
}
