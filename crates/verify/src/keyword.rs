//! A word or regular expression that a constraint looks for.

use crate::error::Error;
use crate::python;
use crate::python::re::{GaveUp, Mode, Regex};
use std::sync::Arc;

/// A keyword with the search that its constraint makes of it. Equal if both are equal.
#[derive(Debug, Clone)]
pub struct Keyword {
    text: String,
    regex: Arc<Regex>,
}

impl Keyword {
    /// Found anywhere, in any case, as `keywords:existence` does.
    ///
    /// # Errors
    ///
    /// The text is no regular expression of Python's.
    pub fn anywhere(text: &str) -> Result<Self, Error> {
        Self::compile(text, text, 0, Mode::IgnoreCase)
    }

    /// Like [`Self::anywhere`], without outer white space, as `keywords:frequency` does.
    ///
    /// # Errors
    ///
    /// As for [`Self::anywhere`].
    pub fn counted(text: &str) -> Result<Self, Error> {
        Self::compile(text, python::strip(text), 0, Mode::IgnoreCase)
    }

    /// Found between word boundaries, in any case, as `keywords:forbidden_words` does.
    ///
    /// # Errors
    ///
    /// As for [`Self::anywhere`].
    pub fn whole_word(text: &str) -> Result<Self, Error> {
        Self::compile(text, &format!(r"\b{text}\b"), 2, Mode::IgnoreCase)
    }

    /// The heading of a section: the text in its case, without outer white space, and a number
    /// after it.
    ///
    /// # Errors
    ///
    /// As for [`Self::anywhere`].
    pub fn section(text: &str) -> Result<Self, Error> {
        let pattern = format!(r"\s?{}\s?\d+\s?", python::strip(text));
        Self::compile(text, &pattern, 3, Mode::Plain)
    }

    /// A postscript marker, to be searched in a lower-cased text.
    ///
    /// # Errors
    ///
    /// As for [`Self::anywhere`].
    pub fn postscript(text: &str) -> Result<Self, Error> {
        let pattern = match python::strip(text) {
            "P.P.S" => r"p\.\s?p\.\s?s".to_owned(),
            "P.S." => r"p\.\s?s\.".to_owned(),
            other => format!("{}.*$", other.to_lowercase()),
        };
        Self::compile(text, &pattern, 0, Mode::Multiline)
    }

    /// `text` as given, searched for as `pattern`, where it starts after `offset` characters.
    fn compile(text: &str, pattern: &str, offset: usize, mode: Mode) -> Result<Self, Error> {
        let regex = Regex::new(pattern, mode).map_err(|error| Error::BadKeyword {
            keyword: text.to_owned(),
            reason: error.reason,
            at: error.at.saturating_sub(offset),
        })?;
        Ok(Self {
            text: text.to_owned(),
            regex: Arc::new(regex),
        })
    }

    /// The keyword as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the text contains it.
    ///
    /// # Errors
    ///
    /// The search took too many steps.
    pub fn is_in(&self, text: &str) -> Result<bool, GaveUp> {
        self.regex.is_match(text)
    }

    /// How often the text contains it, without overlaps.
    ///
    /// # Errors
    ///
    /// The search took too many steps.
    pub fn count_in(&self, text: &str) -> Result<usize, GaveUp> {
        self.regex.count(text)
    }

    /// Number of groups that capture in the whole search.
    pub(crate) fn groups(&self) -> usize {
        self.regex.groups()
    }
}

impl PartialEq for Keyword {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.regex.pattern() == other.regex.pattern()
    }
}

impl Eq for Keyword {}
