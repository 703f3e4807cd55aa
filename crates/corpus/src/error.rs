//! What can go wrong.

use synth::prompts::PromptError;

/// Why there is no corpus.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// A prompt cannot be read or filled in.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The mix cannot be used.
    #[error("mix: {field}: {reason}")]
    Mix {
        /// Which part.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The mix allows hardly any document of this sort.
    #[error(
        "no {what} document could be drawn: the mix leaves too few constraints that go together"
    )]
    Stuck {
        /// Which sort.
        what: String,
    },
    /// A row to score is not one of ours.
    #[error("row {row}: {field}: {reason}")]
    Row {
        /// Its id.
        row: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}
