//! Errors meet exit codes here and nowhere else.

use data::{RequestError, RowsError};
use model::ModelError;
use pipeline::PipelineError;
use std::fmt;
use std::io;
use train::TrainError;

/// Finished, but some rows failed.
pub(crate) const SOME_ROWS_FAILED: u8 = 3;
/// Finished short of what was asked for.
pub(crate) const SHORT: u8 = 3;
/// Stopped early; `--resume` continues.
pub(crate) const STOPPED: u8 = 75;
/// Ended by Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// What kind of failure, by exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Usage,
    Input,
    Missing,
    Memory,
}

/// An error whose exit code is known where it happens.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
}

impl Failure {
    /// Wrong flags or configuration: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self::of(Kind::Usage, message)
    }

    /// Unusable input data: exit code 4.
    pub(crate) fn input(message: impl Into<String>) -> anyhow::Error {
        Self::of(Kind::Input, message)
    }

    /// A model or file that is not there: exit code 5.
    pub(crate) fn missing(message: impl Into<String>) -> anyhow::Error {
        Self::of(Kind::Missing, message)
    }

    /// More memory than there is: exit code 6.
    pub(crate) fn memory(message: impl Into<String>) -> anyhow::Error {
        Self::of(Kind::Memory, message)
    }

    fn of(kind: Kind, message: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self {
            kind,
            message: message.into(),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code of a failed command.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(1)
}

/// True if something did not fit in memory.
pub(crate) fn is_memory(error: &anyhow::Error) -> bool {
    exit_code(error) == 6
}

/// True if the error only says that nobody reads standard output any more.
pub(crate) fn is_closed_output(error: &anyhow::Error) -> bool {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The message for people: what failed, then each cause that says something new.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(cause.trim()) {
            text.push_str("\n  because ");
            text.push_str(cause.trim().replace('\n', "\n  ").as_str());
        }
    }
    text
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(match failure.kind {
            Kind::Usage => 2,
            Kind::Input => 4,
            Kind::Missing => 5,
            Kind::Memory => 6,
        });
    }
    if let Some(error) = cause.downcast_ref::<RequestError>() {
        return Some(match error {
            RequestError::Invalid(_) | RequestError::Grammar(_) => 2,
            RequestError::ContextOverflow { .. } => 4,
            RequestError::KvPoolTooSmall { .. } => 6,
            _ => 1,
        });
    }
    if let Some(error) = cause.downcast_ref::<RowsError>() {
        return Some(match error {
            RowsError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => 5,
            _ => 4,
        });
    }
    if let Some(error) = cause.downcast_ref::<PipelineError>() {
        return Some(match error {
            PipelineError::Changed { .. }
            | PipelineError::Locked { .. }
            | PipelineError::Merge(_)
            | PipelineError::Option { .. } => 2,
            PipelineError::NotARun { .. } => 5,
            _ => 1,
        });
    }
    if let Some(error) = cause.downcast_ref::<TrainError>() {
        return match error {
            TrainError::Model(error) => model_code(error),
            TrainError::Setting { .. } | TrainError::Changed { .. } => Some(2),
            TrainError::NoRows { .. } => Some(4),
            _ => Some(1),
        };
    }
    cause.downcast_ref::<ModelError>().and_then(model_code)
}

fn model_code(error: &ModelError) -> Option<u8> {
    Some(match error {
        ModelError::Io { source, .. } if source.kind() != io::ErrorKind::NotFound => 1,
        ModelError::Io { .. }
        | ModelError::Missing { .. }
        | ModelError::Truncated { .. }
        | ModelError::NotFound { .. }
        | ModelError::Incomplete { .. } => 5,
        ModelError::TemplateRefused { .. } => 4,
        ModelError::NoChatTemplate { .. } => 2,
        _ => 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn codes_are_found_below_context() {
        let overflow = RequestError::ContextOverflow {
            prompt_tokens: 9,
            wanted_tokens: 1,
            context_tokens: 4,
        };
        let cases: Vec<(anyhow::Error, u8)> = vec![
            (anyhow::anyhow!("x"), 1),
            (Failure::usage("x").context("y"), 2),
            (Failure::input("x"), 4),
            (Failure::missing("x"), 5),
            (Failure::memory("x"), 6),
            (anyhow::Error::new(RequestError::Invalid("n".into())), 2),
            (anyhow::Error::new(overflow), 4),
            (anyhow::Error::new(RequestError::EngineStopped), 1),
        ];
        for (error, code) in cases {
            assert_eq!(exit_code(&error), code, "{error:#}");
        }
    }

    #[test]
    fn causes_are_told_once() {
        let io = io::Error::other("disk on fire");
        let error = Err::<(), _>(io)
            .context("cannot write rows.jsonl")
            .unwrap_err();
        assert_eq!(
            describe(&error),
            "error: cannot write rows.jsonl\n  because disk on fire"
        );
        let repeated = Err::<(), _>(io::Error::other("b"))
            .context("a: b")
            .unwrap_err();
        assert_eq!(describe(&repeated), "error: a: b");
    }
}
