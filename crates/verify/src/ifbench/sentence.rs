//! `sentence:*`: rules from one sentence to the next.

use super::text::{contains_ignoring_case_between_boundaries, is_mark, without_punctuation, words};
use crate::args::Args;
use crate::{Error, nltk};

/// The group `sentence`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sentence {
    /// More alliteration in each sentence than in the one before.
    AlliterationIncrement,
    /// A keyword in one sentence.
    Keyword {
        /// `word`.
        keyword: String,
        /// Number of the sentence from 1; 0 is the last.
        number: usize,
    },
    /// Each sentence so many words longer than the one before.
    Increment(usize),
}

impl Sentence {
    pub(super) fn parse(name: &str, args: &Args) -> Result<Option<Self>, Error> {
        Ok(Some(match name {
            "alliteration_increment" => Self::AlliterationIncrement,
            "keyword" => Self::Keyword {
                keyword: args.nonempty("word")?.to_owned(),
                number: args.size("N")?,
            },
            "increment" => Self::Increment(args.size("small_n")?),
            _ => return Ok(None),
        }))
    }

    pub(super) fn id(&self) -> &'static str {
        match self {
            Self::AlliterationIncrement => "sentence:alliteration_increment",
            Self::Keyword { .. } => "sentence:keyword",
            Self::Increment(_) => "sentence:increment",
        }
    }

    pub(super) fn check(&self, text: &str) -> bool {
        match self {
            Self::AlliterationIncrement => growing_alliteration(text),
            Self::Keyword { keyword, number } => keyword_in_sentence(text, keyword, *number),
            Self::Increment(more) => growing_sentences(text, *more),
        }
    }

    /// What a text that does not follow the rule lacks.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::AlliterationIncrement => {
                "a sentence has no longer alliteration than the one before".to_owned()
            }
            Self::Keyword { keyword, number } => format!("{keyword:?} is not in sentence {number}"),
            Self::Increment(more) => {
                format!("not each sentence has {more} words more than the one before")
            }
        }
    }
}

/// Each sentence has more words in alliteration (neighbours with the same first character)
/// than the sentence before it.
fn growing_alliteration(text: &str) -> bool {
    let mut before = None;
    for sentence in nltk::sentences(text) {
        let now = Some(alliterating_words(&sentence.to_lowercase()));
        if now <= before {
            return false;
        }
        before = now;
    }
    true
}

/// A run of n words with one first character counts n.
fn alliterating_words(sentence: &str) -> usize {
    let initials: Vec<char> = words(sentence)
        .filter_map(|word| word.trim_start_matches(is_mark).chars().next())
        .collect();
    let runs = initials.chunk_by(|a, b| a == b).map(<[char]>::len);
    runs.filter(|&run| run > 1).sum()
}

/// Sentence number `number` (from 1) holds the keyword between word boundaries, ignoring case.
/// Number 0 is the last sentence, as in the original.
fn keyword_in_sentence(text: &str, keyword: &str, number: usize) -> bool {
    let sentences = nltk::sentences(text);
    let sentence = match number {
        0 => sentences.last(),
        n => sentences.get(n - 1),
    };
    sentence.is_some_and(|s| contains_ignoring_case_between_boundaries(s, keyword))
}

/// Each sentence has exactly `more` words more than the one before.
fn growing_sentences(text: &str, more: usize) -> bool {
    let lengths: Vec<usize> = nltk::sentences(text)
        .iter()
        .map(|sentence| words(&without_punctuation(sentence)).count())
        .collect();
    !lengths.is_empty() && lengths.windows(2).all(|pair| pair[1] == pair[0] + more)
}
