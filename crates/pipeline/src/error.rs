//! What can go wrong with a run as a whole; what goes wrong with one row is a rejection.

use std::io;
use std::path::{Path, PathBuf};

/// Why a run cannot begin or go on. Nothing that was logged is lost.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A file or folder of the run cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The call log cannot be read or written.
    #[error("call log {}: {source}; everything logged before is safe, and the same command continues once this is mended", path.display())]
    Log {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A line of the call log is not what this program writes.
    #[error("call log {}: {what} is damaged: {detail}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// Which entry.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Another process works in this folder.
    #[error("{} is in use by {holder}; wait for it, or choose another folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who holds it, as it described itself.
        holder: String,
    },
    /// The folder was made with something else.
    #[error("{} was made with {}; continue with what it was made with, choose another folder, or allow the change", path.display(), changes.join("; "))]
    Changed {
        /// The folder.
        path: PathBuf,
        /// What differs, each with both values.
        changes: Vec<String>,
    },
    /// There is no run in this folder.
    #[error("{} holds no run: there is no calls.sqlite", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// The engine ended while rows waited for it.
    #[error("the engine stopped while {rows} rows waited for it; the same command continues")]
    EngineStopped {
        /// Rows without an outcome.
        rows: u64,
    },
    /// Runs that cannot be merged.
    #[error("cannot merge: {0}")]
    Merge(String),
    /// A number of the options is out of range.
    #[error("{field} = {value}: {expected}")]
    Option {
        /// Name of the option.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
}

impl PipelineError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
