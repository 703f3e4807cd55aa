//! `count:*`: how often something occurs.

use std::collections::HashSet;
use std::num::NonZeroUsize;

use super::text::{is_mark, strip_marks, without_punctuation, words};
use super::{lists, text};
use crate::args::Args;
use crate::{Error, nltk, python};

/// The group `count`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Count {
    /// Words (runs of letters and digits) between two numbers, both included.
    WordCountRange {
        /// `min_words`.
        min: i64,
        /// `max_words`.
        max: i64,
    },
    /// At least so many different words.
    UniqueWordCount(i64),
    /// At least so many different coordinating conjunctions.
    Conjunctions(i64),
    /// At least so many different names from a list of fifty.
    PersonNames(i64),
    /// Exactly so many numbers.
    Numbers(i64),
    /// Every common mark and an interrobang.
    Punctuation,
    /// At least so many pronouns.
    Pronouns(i64),
    /// Every n-th word in Japanese characters.
    WordsJapanese(NonZeroUsize),
    /// Five keywords 1, 2, 3, 5 and 7 times.
    KeywordsMultiple(Box<[String; 5]>),
}

impl Count {
    pub(super) fn parse(name: &str, args: &Args) -> Result<Option<Self>, Error> {
        Ok(Some(match name {
            "word_count_range" => Self::WordCountRange {
                min: args.natural("min_words")?,
                max: args.natural("max_words")?,
            },
            "unique_word_count" => Self::UniqueWordCount(args.natural("N")?),
            "conjunctions" => Self::Conjunctions(args.natural("small_n")?),
            "person_names" => Self::PersonNames(args.natural("N")?),
            "numbers" => Self::Numbers(args.natural("N")?),
            "punctuation" => Self::Punctuation,
            "pronouns" => Self::Pronouns(args.natural("N")?),
            "words_japanese" => Self::WordsJapanese(args.positive("N")?),
            "keywords_multiple" => Self::KeywordsMultiple(Box::new([
                args.stripped("keyword1")?,
                args.stripped("keyword2")?,
                args.stripped("keyword3")?,
                args.stripped("keyword4")?,
                args.stripped("keyword5")?,
            ])),
            _ => return Ok(None),
        }))
    }

    pub(super) fn id(&self) -> &'static str {
        match self {
            Self::WordCountRange { .. } => "count:word_count_range",
            Self::UniqueWordCount(_) => "count:unique_word_count",
            Self::Conjunctions(_) => "count:conjunctions",
            Self::PersonNames(_) => "count:person_names",
            Self::Numbers(_) => "count:numbers",
            Self::Punctuation => "count:punctuation",
            Self::Pronouns(_) => "count:pronouns",
            Self::WordsJapanese(_) => "count:words_japanese",
            Self::KeywordsMultiple(_) => "count:keywords_multiple",
        }
    }

    pub(super) fn check(&self, text: &str) -> bool {
        match self {
            Self::WordCountRange { min, max } => (*min..=*max).contains(&words_of(text)),
            Self::UniqueWordCount(least) => distinct_words(text) >= *least,
            Self::Conjunctions(least) => distinct_conjunctions(text) >= *least,
            Self::PersonNames(least) => person_names(text) >= *least,
            Self::Numbers(wanted) => numbers(text) == *wanted,
            Self::Punctuation => covers_punctuation(text),
            Self::Pronouns(least) => pronouns(text) >= *least,
            Self::WordsJapanese(cycle) => every_nth_word_is_japanese(text, cycle.get()),
            Self::KeywordsMultiple(keywords) => wrong_keyword(text, keywords).is_none(),
        }
    }

    /// Why a text that does not follow the rule does not.
    pub(super) fn reason(&self, text: &str) -> String {
        let at_least = |least: &i64, found: i64, what: &str| {
            format!("{found} different {what}, at least {least} wanted")
        };
        match self {
            Self::WordCountRange { min, max } => {
                format!("{} words, {min} to {max} wanted", words_of(text))
            }
            Self::UniqueWordCount(least) => at_least(least, distinct_words(text), "words"),
            Self::Conjunctions(least) => {
                let found = distinct_conjunctions(text);
                at_least(least, found, "coordinating conjunctions")
            }
            Self::PersonNames(least) => at_least(least, person_names(text), "listed names"),
            Self::Numbers(wanted) => format!("{} numbers, {wanted} wanted", numbers(text)),
            Self::Punctuation => "one of . , ! ? ; : or an interrobang is missing".to_owned(),
            Self::Pronouns(least) => {
                format!("{} pronouns, at least {least} wanted", pronouns(text))
            }
            Self::WordsJapanese(cycle) => {
                format!("not each word at a multiple of {cycle} has Japanese characters")
            }
            Self::KeywordsMultiple(keywords) => match wrong_keyword(text, keywords) {
                Some((keyword, found, wanted)) => {
                    format!("{found} times {keyword:?}, {wanted} times wanted")
                }
                None => String::new(),
            },
        }
    }
}

fn words_of(text: &str) -> i64 {
    count(python::words(text).count())
}

/// A word that consists of marks only counts as one distinct (empty) word.
fn distinct_words(text: &str) -> i64 {
    let text = text.to_lowercase();
    count(words(&text).map(strip_marks).collect::<HashSet<_>>().len())
}

/// Spellings are told apart by case and by the marks around them, as the original does.
fn distinct_conjunctions(text: &str) -> i64 {
    let is_one = |word: &&str| {
        let bare = strip_marks(word).to_lowercase();
        lists::CONJUNCTIONS.contains(&bare.as_str())
    };
    count(words(text).filter(is_one).collect::<HashSet<_>>().len())
}

fn person_names(text: &str) -> i64 {
    let named = lists::PERSON_NAMES
        .iter()
        .filter(|name| text::contains_between_boundaries(text, name));
    count(named.count())
}

fn numbers(text: &str) -> i64 {
    let text = without_punctuation(text);
    count(text::digit_runs(&text).count())
}

/// Each of `. , ! ? ; :` once beside one interrobang, which is not counted again.
fn covers_punctuation(text: &str) -> bool {
    let rest = if text.contains("?!") {
        text.replacen("?!", "", 1)
    } else if text.contains("!?") {
        text.replacen("!?", "", 1)
    } else if text.contains('‽') {
        text.to_owned()
    } else {
        return false;
    };
    ['.', ',', '!', '?', ';', ':']
        .iter()
        .all(|mark| rest.contains(*mark))
}

fn pronouns(text: &str) -> i64 {
    let text = text.replace('/', " ").to_lowercase();
    let tokens = nltk::word_tokenize(&text);
    let pronouns = tokens
        .iter()
        .filter(|t| lists::PRONOUNS.binary_search(&t.as_ref()).is_ok());
    count(pronouns.count())
}

/// Every `cycle`-th word holds a kana or a common ideograph, unless it is only marks or digits.
fn every_nth_word_is_japanese(text: &str, cycle: usize) -> bool {
    words(text).skip(cycle - 1).step_by(cycle).all(|word| {
        let word = word.trim_matches(is_mark);
        word.is_empty() || word.chars().all(is_digit) || word.chars().any(is_japanese)
    })
}

fn is_japanese(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{4e00}'..='\u{9fff}')
}

/// Python's `isdigit`: decimal digits, and digits with a typographic meaning (superscripts,
/// circled ...), which Unicode marks as `Numeric_Type=Digit`.
fn is_digit(c: char) -> bool {
    python::is_decimal(c)
        || matches!(c,
            '\u{b2}' | '\u{b3}' | '\u{b9}' | '\u{1369}'..='\u{1371}' | '\u{19da}' | '\u{2070}'
            | '\u{2074}'..='\u{2079}' | '\u{2080}'..='\u{2089}' | '\u{2460}'..='\u{2468}'
            | '\u{2474}'..='\u{247c}' | '\u{2488}'..='\u{2490}' | '\u{24ea}'
            | '\u{24f5}'..='\u{24fd}' | '\u{24ff}' | '\u{2776}'..='\u{277e}'
            | '\u{2780}'..='\u{2788}' | '\u{278a}'..='\u{2792}' | '\u{10a40}'..='\u{10a43}'
            | '\u{10e60}'..='\u{10e68}' | '\u{11052}'..='\u{1105a}' | '\u{1f100}'..='\u{1f10a}')
}

/// The first keyword that does not occur exactly as often as asked, with how often it does and
/// should. Substrings count, case does not.
fn wrong_keyword<'a>(text: &str, keywords: &'a [String; 5]) -> Option<(&'a str, usize, usize)> {
    let text = text.to_lowercase();
    keywords
        .iter()
        .zip([1, 2, 3, 5, 7])
        .find_map(|(keyword, wanted)| {
            let found = text.matches(&keyword.to_lowercase()).count();
            (found != wanted).then_some((keyword.as_str(), found, wanted))
        })
}

fn count(n: usize) -> i64 {
    i64::try_from(n).expect("a text is shorter than 2^63 bytes")
}
