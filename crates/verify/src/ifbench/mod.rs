//! IFBench's 58 instructions.
//!
//! Source: allenai/IFBench db69a6f, whose checkers these rules equal verdict for verdict, run
//! with NLTK 3.9.1 and CPython 3.11. Where the original raises an exception (a table that its
//! CSV reader refuses), the rule is not followed. `words:start_verb` is not supported: it needs
//! the weights of NLTK's part-of-speech tagger.

mod count;
mod csv;
mod custom;
pub(crate) mod emoji;
mod format;
mod lists;
mod ratio;
mod repeat;
mod sentence;
mod syllables;
mod text;
mod words;

use serde_json::{Map, Value};

use crate::args::Args;
use crate::{Check, Error, Verdict};
pub use count::Count;
pub use custom::Custom;
pub use format::{Format, Options};
pub use ratio::Ratio;
pub use repeat::Repeat;
pub use sentence::Sentence;
pub use words::Words;

/// One instruction with its parameters, by group of ids.
#[derive(Debug, Clone, PartialEq)]
pub enum IfBench {
    /// `count:*`
    Count(Count),
    /// `custom:*`
    Custom(Custom),
    /// `format:*`
    Format(Format),
    /// `ratio:*`
    Ratio(Ratio),
    /// `repeat:*`
    Repeat(Repeat),
    /// `sentence:*`
    Sentence(Sentence),
    /// `words:*`
    Words(Words),
}

impl IfBench {
    /// Ids of all 58 instructions, sorted.
    pub const IDS: [&str; 58] = [
        "count:conjunctions",
        "count:keywords_multiple",
        "count:numbers",
        "count:person_names",
        "count:pronouns",
        "count:punctuation",
        "count:unique_word_count",
        "count:word_count_range",
        "count:words_japanese",
        "custom:character_reverse",
        "custom:csv_city",
        "custom:csv_quotes",
        "custom:csv_special_character",
        "custom:date_format_list",
        "custom:european_capitals_sort",
        "custom:mcq_count_length",
        "custom:multiples",
        "custom:reverse_newline",
        "custom:sentence_alphabet",
        "custom:word_reverse",
        "format:emoji",
        "format:line_indent",
        "format:list",
        "format:newline",
        "format:no_bullets_bullets",
        "format:no_whitespace",
        "format:options",
        "format:output_template",
        "format:parentheses",
        "format:quote_unquote",
        "format:quotes",
        "format:sub-bullets",
        "format:thesis",
        "format:title_case",
        "ratio:overlap",
        "ratio:sentence_balance",
        "ratio:sentence_type",
        "ratio:sentence_words",
        "ratio:stop_words",
        "repeat:repeat_change",
        "repeat:repeat_simple",
        "repeat:repeat_span",
        "sentence:alliteration_increment",
        "sentence:increment",
        "sentence:keyword",
        "words:alphabet",
        "words:consonants",
        "words:keywords_specific_position",
        "words:last_first",
        "words:no_consecutive",
        "words:odd_even_syllables",
        "words:palindrome",
        "words:paragraph_last_first",
        "words:prime_lengths",
        "words:repeats",
        "words:start_verb",
        "words:vowel",
        "words:words_position",
    ];

    /// The instruction with this id; none if the id is not IFBench's own.
    ///
    /// # Errors
    ///
    /// A parameter is absent, of the wrong kind, or not the instruction's.
    pub fn parse(id: &str, kwargs: &Map<String, Value>) -> Result<Option<Self>, Error> {
        let args = &Args::new(id, kwargs);
        let Some((group, name)) = id.split_once(':') else {
            return Ok(None);
        };
        let parsed = match group {
            "count" => Count::parse(name, args)?.map(Self::Count),
            "custom" => Custom::parse(name).map(Self::Custom),
            "format" => Format::parse(name, args)?.map(Self::Format),
            "ratio" => Ratio::parse(name, args)?.map(Self::Ratio),
            "repeat" => Repeat::parse(name, args)?.map(Self::Repeat),
            "sentence" => Sentence::parse(name, args)?.map(Self::Sentence),
            "words" => Words::parse(name, args)?.map(Self::Words),
            _ => None,
        };
        // The custom checkers of the original take any parameter.
        if !matches!(parsed, None | Some(Self::Custom(_))) {
            args.refuse_others()?;
        }
        Ok(parsed)
    }

    /// Why no verdict is given for this instruction; none where one is.
    #[must_use]
    pub fn unsupported(&self) -> Option<&'static str> {
        match self {
            Self::Words(Words::StartVerb) => {
                Some("words:start_verb needs the weights of a part-of-speech tagger")
            }
            _ => None,
        }
    }

    fn follows(&self, text: &str) -> bool {
        match self {
            Self::Count(rule) => rule.check(text),
            Self::Custom(rule) => rule.check(text).unwrap_or(false),
            Self::Format(rule) => rule.check(text),
            Self::Ratio(rule) => rule.check(text),
            Self::Repeat(rule) => rule.check(text),
            Self::Sentence(rule) => rule.check(text),
            Self::Words(rule) => rule.check(text).unwrap_or(false),
        }
    }

    fn reason(&self, text: &str) -> String {
        match self {
            Self::Count(rule) => rule.reason(text),
            Self::Custom(rule) => match rule.check(text) {
                Err(error) => error.to_string(),
                Ok(_) => rule.reason(),
            },
            Self::Format(rule) => rule.reason(),
            Self::Ratio(rule) => rule.reason(text),
            Self::Repeat(rule) => rule.reason(),
            Self::Sentence(rule) => rule.reason(),
            Self::Words(rule) => rule.reason(),
        }
    }
}

impl Check for IfBench {
    fn id(&self) -> &str {
        match self {
            Self::Count(rule) => rule.id(),
            Self::Custom(rule) => rule.id(),
            Self::Format(rule) => rule.id(),
            Self::Ratio(rule) => rule.id(),
            Self::Repeat(rule) => rule.id(),
            Self::Sentence(rule) => rule.id(),
            Self::Words(rule) => rule.id(),
        }
    }

    fn check(&self, text: &str) -> Verdict {
        match self.unsupported() {
            Some(why) => Verdict::failed(format!("not supported: {why}")),
            None => Verdict::when(self.follows(text), || self.reason(text)),
        }
    }
}
