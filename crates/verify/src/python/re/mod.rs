//! Regular expressions with the syntax and the meaning of Python's `re` (CPython 3.11, text
//! patterns), in bounded time.
//!
//! A pattern is read into a tree ([`parse`]); what the `regex` crate can express with equal
//! meaning is handed to it, the rest runs on a backtracking machine that gives up after a fixed
//! number of steps, where Python would go on for as long as it takes.
//!
//! Not supported: characters by name (`\N{...}`).

mod fold;
mod machine;
mod parse;
mod program;
mod translate;
mod tree;

use machine::Machine;
use program::Program;
use std::sync::OnceLock;

/// Flags of a whole search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No flag.
    Plain,
    /// `re.IGNORECASE`
    IgnoreCase,
    /// `re.MULTILINE`
    Multiline,
}

/// A pattern that `re.compile` refuses, or that is too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at character {at}")]
pub struct SyntaxError {
    /// What is wrong.
    pub reason: String,
    /// Where, in characters from the start of the pattern.
    pub at: usize,
}

/// A search that was given up after a fixed number of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the search takes too many steps")]
pub struct GaveUp;

/// States times characters (times the characters looked at again) up to which the linear engine
/// is asked: its worst case, which it cannot give up.
const MAX_WORK: usize = 1 << 28;

/// A compiled pattern.
#[derive(Debug)]
pub struct Regex {
    pattern: String,
    program: Program,
    linear: Option<translate::Source>,
    compiled: OnceLock<Option<regex::Regex>>,
}

impl Regex {
    /// Compiles a pattern.
    ///
    /// # Errors
    ///
    /// Python refuses the pattern, or it is too large for the machine.
    pub fn new(pattern: &str, mode: Mode) -> Result<Self, SyntaxError> {
        let tree = parse::parse(pattern, mode)?;
        let program = Program::new(&tree)?;
        Ok(Self {
            pattern: pattern.to_owned(),
            linear: translate::translate(&tree.root),
            program,
            compiled: OnceLock::new(),
        })
    }

    /// The pattern.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Number of groups that capture.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.program.groups
    }

    /// Whether the text contains a match.
    ///
    /// # Errors
    ///
    /// The search took too many steps.
    pub fn is_match(&self, text: &str) -> Result<bool, GaveUp> {
        match self.linear_engine(text, Some(1)) {
            Some(regex) => Ok(regex.is_match(text)),
            None => Machine::new(&self.program, text).finds(),
        }
    }

    /// Number of matches without overlaps, as `re.findall` finds them.
    ///
    /// # Errors
    ///
    /// The search took too many steps.
    pub fn count(&self, text: &str) -> Result<usize, GaveUp> {
        let width = self.linear.as_ref().and_then(|source| source.width);
        match self.linear_engine(text, width) {
            Some(regex) => Ok(regex.find_iter(text).count()),
            None => Machine::new(&self.program, text).count(),
        }
    }

    /// The linear engine where it means the same on this text and is quick, though it may look
    /// at each character so many times, or at the whole text (none) again for each.
    fn linear_engine(&self, text: &str, times: Option<usize>) -> Option<&regex::Regex> {
        let source = self.linear.as_ref()?;
        let times = times.map_or(text.len(), |times| times.min(text.len()));
        let work = source.size.saturating_mul(text.len()).saturating_mul(times);
        if work > MAX_WORK {
            return None;
        }
        if source.ascii_only && !text.is_ascii() {
            return None;
        }
        self.compiled.get_or_init(|| source.compile()).as_ref()
    }
}
