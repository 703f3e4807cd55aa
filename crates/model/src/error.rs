//! The crate's one error type.

use std::path::{Path, PathBuf};

/// Why a model, one of its files or one of its parts cannot be used.
///
/// Every variant names the file (or what stands for it: `<embedded>`), the place in it,
/// what was expected and what was found.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The system refused to open, read or map a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: `open`, `read`, `map`.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file ends, or its own lengths say it must end, inside something.
    #[error(
        "{}: truncated while reading {reading}: {needed} bytes needed, {available} left",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What was being read.
        reading: String,
        /// Bytes that the thing needs (saturated at `u64::MAX`).
        needed: u64,
        /// Bytes that were left.
        available: u64,
    },
    /// A field holds what it must not hold.
    #[error("{}: {field}: expected {expected}, got {got}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, as the file spells it.
        field: String,
        /// What is allowed there.
        expected: String,
        /// What was there.
        got: String,
    },
    /// A field, tensor or file that is needed is not there.
    #[error("{}: {field} is missing; expected {expected}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The field, tensor or file, as the file spells it.
        field: String,
        /// What should have been there.
        expected: String,
    },
    /// A tensor's storage type is none that the kernels compute with.
    #[error("{}: tensor {tensor} has the unsupported ggml type {id}", path.display())]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its ggml type id.
        id: u32,
    },
    /// A JSON file is not JSON.
    #[error("{}: not valid JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The tokenizer library refused the vocabulary or the text.
    #[error("{}: tokenizer: {reason}", path.display())]
    Tokenizer {
        /// The file the vocabulary is from.
        path: PathBuf,
        /// What the library said.
        reason: String,
    },
    /// The model brings no chat template.
    #[error(
        "{}: no chat template ({looked}); a base model can complete text but not chat: give a raw prompt, or a template file",
        path.display()
    )]
    NoChatTemplate {
        /// The model.
        path: PathBuf,
        /// Where was looked.
        looked: String,
    },
    /// The chat template could not be compiled or rendered.
    #[error("{}: chat template: {message}", path.display())]
    Template {
        /// The file the template is from.
        path: PathBuf,
        /// What the template engine said, with the line.
        message: String,
    },
    /// The chat template itself refused the conversation (`raise_exception`).
    #[error("{}: the chat template refuses these messages: {message}", path.display())]
    TemplateRefused {
        /// The file the template is from.
        path: PathBuf,
        /// The template's own words.
        message: String,
    },
    /// No model of this name.
    #[error("no model {argument}: looked at {}; {remedy}", looked.join(", "))]
    NotFound {
        /// What was asked for.
        argument: String,
        /// Where was looked.
        looked: Vec<String>,
        /// What to do.
        remedy: String,
    },
    /// A model in the Hugging Face cache that lacks files.
    #[error("{id}: incomplete: {} lacks {missing}; {remedy}", snapshot.display())]
    Incomplete {
        /// `org/name`
        id: String,
        /// The snapshot's folder.
        snapshot: PathBuf,
        /// The files that are not there.
        missing: String,
        /// What to do.
        remedy: String,
    },
    /// A batch that contradicts itself, the model or the KV pool.
    #[error("forward batch: {problem}")]
    Batch {
        /// What is wrong, with the numbers.
        problem: String,
    },
    /// A kernel failed.
    #[error("{what}: {source}")]
    Compute {
        /// What was being computed or packed.
        what: String,
        /// Why it failed, as the kernel says it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ModelError {
    pub(crate) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            action,
            source,
        }
    }

    pub(crate) fn field(
        path: &Path,
        field: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self::Field {
            path: path.into(),
            field: field.into(),
            expected: expected.into(),
            got: got.into(),
        }
    }

    pub(crate) fn compute(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Compute {
            what: what.into(),
            source: source.into(),
        }
    }

    pub(crate) fn missing(
        path: &Path,
        field: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Missing {
            path: path.into(),
            field: field.into(),
            expected: expected.into(),
        }
    }
}
