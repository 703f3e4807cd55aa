//! Regular expressions with the syntax and the meaning of Python's `re`, for texts.

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

/// A pattern that `re.compile` refuses.
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

/// A compiled pattern.
#[derive(Debug)]
pub struct Regex {
    pattern: String,
    inner: fancy_regex::Regex,
}

impl Regex {
    /// Compiles a pattern.
    ///
    /// # Errors
    ///
    /// It is no regular expression.
    pub fn new(pattern: &str, mode: Mode) -> Result<Self, SyntaxError> {
        let flags = match mode {
            Mode::Plain => "",
            Mode::IgnoreCase => "(?i)",
            Mode::Multiline => "(?m)",
        };
        let inner =
            fancy_regex::Regex::new(&format!("{flags}{pattern}")).map_err(|e| SyntaxError {
                reason: e.to_string(),
                at: 0,
            })?;
        Ok(Self {
            pattern: pattern.to_owned(),
            inner,
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
        self.inner.captures_len() - 1
    }
    /// Whether the text contains a match.
    ///
    /// # Errors
    ///
    /// The search took too many steps.
    pub fn is_match(&self, text: &str) -> Result<bool, GaveUp> {
        self.inner.is_match(text).map_err(|_| GaveUp)
    }
    /// Number of matches without overlaps, as `re.findall` finds them.
    ///
    /// # Errors
    ///
    /// The search took too many steps.
    pub fn count(&self, text: &str) -> Result<usize, GaveUp> {
        self.inner
            .find_iter(text)
            .try_fold(0, |n, m| m.map(|_| n + 1))
            .map_err(|_| GaveUp)
    }
}
