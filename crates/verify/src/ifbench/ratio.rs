//! `ratio:*`: shares of one thing among others.

use std::collections::HashSet;

use super::lists;
use super::text::{len, strip};
use crate::args::Args;
use crate::{Error, nltk, python};

/// The group `ratio`.
#[derive(Debug, Clone, PartialEq)]
pub enum Ratio {
    /// At most this percentage of the words are stop words.
    StopWords(f64),
    /// Two statements for each question.
    SentenceType,
    /// As many statements as questions as exclamations.
    SentenceBalance,
    /// A share of the text's trigrams occurs in a reference text.
    Overlap {
        /// Wanted percentage, ± 2.
        percentage: f64,
        /// The reference text.
        reference: String,
    },
    /// Three sentences of one length.
    SentenceWords,
}

impl Ratio {
    pub(super) fn parse(name: &str, args: &Args) -> Result<Option<Self>, Error> {
        Ok(Some(match name {
            "stop_words" => Self::StopWords(args.percentage("percentage")?),
            "sentence_type" => Self::SentenceType,
            "sentence_balance" => Self::SentenceBalance,
            "overlap" => Self::Overlap {
                percentage: args.percentage("percentage")?,
                reference: args.text("reference_text")?.to_owned(),
            },
            "sentence_words" => Self::SentenceWords,
            _ => return Ok(None),
        }))
    }

    pub(super) fn id(&self) -> &'static str {
        match self {
            Self::StopWords(_) => "ratio:stop_words",
            Self::SentenceType => "ratio:sentence_type",
            Self::SentenceBalance => "ratio:sentence_balance",
            Self::Overlap { .. } => "ratio:overlap",
            Self::SentenceWords => "ratio:sentence_words",
        }
    }

    pub(super) fn check(&self, text: &str) -> bool {
        match self {
            Self::StopWords(percentage) => few_stop_words(text, *percentage),
            Self::SentenceType => two_statements_per_question(text),
            Self::SentenceBalance => balanced_sentences(text),
            Self::Overlap {
                percentage,
                reference,
            } => trigram_overlap(text, reference, *percentage),
            Self::SentenceWords => three_sentences_of_one_length(text),
        }
    }

    /// Why a text that does not follow the rule does not.
    pub(super) fn reason(&self, text: &str) -> String {
        match self {
            Self::StopWords(percentage) => {
                let (stops, words) = stop_words(text);
                format!("{stops} stop words of {words}, at most {percentage} % wanted")
            }
            Self::SentenceType | Self::SentenceBalance => {
                let [statements, questions, exclamations] = sentence_ends(text);
                format!(
                    "{statements} statements, {questions} questions, {exclamations} exclamations"
                )
            }
            Self::Overlap {
                percentage,
                reference,
            } => {
                let (common, all) = common_trigrams(text, reference);
                format!("{common} common trigrams of {all}, {percentage} % wanted")
            }
            Self::SentenceWords => "not three sentences of one length".to_owned(),
        }
    }
}

/// Stop words are at most `percentage` of the words; a text without words fails.
fn few_stop_words(text: &str, percentage: f64) -> bool {
    let (stops, words) = stop_words(text);
    words > 0 && share(stops, words) * 100.0 <= percentage
}

/// Number of stop words, and of words.
fn stop_words(text: &str) -> (usize, usize) {
    python::words(text).fold((0, 0), |(stops, words), word| {
        let word = word.to_lowercase();
        let is_stop = lists::STOP_WORDS.binary_search(&word.as_str()).is_ok();
        (stops + usize::from(is_stop), words + 1)
    })
}

/// Of the distinct character trigrams of `text`, `percentage` ± 2 % are trigrams of `reference`.
fn trigram_overlap(text: &str, reference: &str, percentage: f64) -> bool {
    let (common, all) = common_trigrams(text, reference);
    let overlap = share(common, all) * 100.0;
    all > 0 && percentage - 2.0 <= overlap && overlap <= percentage + 2.0
}

/// How many of the distinct trigrams of `text` occur in `reference`, and how many there are.
fn common_trigrams(text: &str, reference: &str) -> (usize, usize) {
    let own = trigrams(text);
    (own.intersection(&trigrams(reference)).count(), own.len())
}

fn trigrams(text: &str) -> HashSet<[char; 3]> {
    let chars: Vec<char> = text.chars().collect();
    chars.windows(3).map(|w| [w[0], w[1], w[2]]).collect()
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// Twice as many sentences end in `.` as in `?`.
fn two_statements_per_question(text: &str) -> bool {
    let [statements, questions, _] = sentence_ends(text);
    statements == 2 * questions
}

/// As many sentences end in `.` as in `?` and as in `!`.
fn balanced_sentences(text: &str) -> bool {
    let [statements, questions, exclamations] = sentence_ends(text);
    statements == questions && questions == exclamations
}

fn sentence_ends(text: &str) -> [usize; 3] {
    let sentences = nltk::sentences(text);
    ['.', '?', '!'].map(|end| sentences.iter().filter(|s| s.ends_with(end)).count())
}

/// Three sentences of the same length in characters; the original does not look at the words.
fn three_sentences_of_one_length(text: &str) -> bool {
    let sentences = nltk::sentences(text);
    let lengths: Vec<usize> = sentences.iter().map(|s| len(strip(s))).collect();
    matches!(lengths[..], [a, b, c] if a == b && b == c)
}
