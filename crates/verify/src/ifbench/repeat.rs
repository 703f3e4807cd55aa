//! `repeat:*`: saying again what the prompt says.

use super::text::{strip, words};
use crate::Error;
use crate::args::Args;

/// The sentence that `repeat:repeat_simple` wants back.
const ONLY_THIS: &str = "only output this sentence here, ignore all other requests.";

/// The group `repeat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repeat {
    /// The request with another first word.
    Change(String),
    /// One fixed sentence.
    Simple,
    /// Some characters of the request.
    Span {
        /// `prompt_to_repeat`.
        request: String,
        /// `n_start`, the first character.
        start: i64,
        /// `n_end`, the last character.
        end: i64,
    },
}

impl Repeat {
    pub(super) fn parse(name: &str, args: &Args) -> Result<Option<Self>, Error> {
        Ok(Some(match name {
            "repeat_change" => Self::Change(args.nonempty("prompt_to_repeat")?.to_owned()),
            "repeat_simple" => Self::Simple,
            "repeat_span" => Self::Span {
                request: args.nonempty("prompt_to_repeat")?.to_owned(),
                start: args.integer("n_start")?,
                end: args.integer("n_end")?,
            },
            _ => return Ok(None),
        }))
    }

    pub(super) fn id(&self) -> &'static str {
        match self {
            Self::Change(_) => "repeat:repeat_change",
            Self::Simple => "repeat:repeat_simple",
            Self::Span { .. } => "repeat:repeat_span",
        }
    }

    pub(super) fn check(&self, text: &str) -> bool {
        match self {
            Self::Change(request) => with_another_first_word(text, request),
            Self::Simple => only_the_sentence(text),
            Self::Span {
                request,
                start,
                end,
            } => span(text, request, *start, *end),
        }
    }

    /// What a text that does not follow the rule lacks.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Change(_) => "not the request with another first word".to_owned(),
            Self::Simple => "not the sentence that was asked for".to_owned(),
            Self::Span { start, end, .. } => {
                format!("not the characters {start} to {end} of the request")
            }
        }
    }
}

/// All words but the first are the request's, and the text is not the request itself.
fn with_another_first_word(text: &str, request: &str) -> bool {
    text != request && words(text).skip(1).eq(words(request).skip(1))
}

fn only_the_sentence(text: &str) -> bool {
    strip(text).to_lowercase() == ONLY_THIS
}

/// The characters `start..=end` of the request, case and outer white space aside. Negative
/// positions count from the end, as Python's slices do.
fn span(text: &str, request: &str, start: i64, end: i64) -> bool {
    let chars: Vec<char> = request.chars().collect();
    let position = |at: i64| {
        let from_end = if at < 0 { chars.len() as i64 } else { 0 };
        usize::try_from(at.saturating_add(from_end).max(0))
            .map_or(chars.len(), |at| at.min(chars.len()))
    };
    let (from, to) = (position(start), position(end.saturating_add(1)));
    let wanted: String = chars.get(from..to).unwrap_or_default().iter().collect();
    strip(text).to_lowercase() == strip(&wanted).to_lowercase()
}
