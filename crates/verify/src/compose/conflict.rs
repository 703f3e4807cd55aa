//! Why a list of constraints cannot be met by one answer: the type table, then rules on the
//! parameters.
//!
//! The rules cover every class of impossible instruction found in the published data of
//! From Complex to Simple (13.5 % of its instructions, which pass that paper's type table), and
//! the softer classes listed beside them. They are stricter than the checkers where the
//! wording would contradict itself though a checker, which ignores case, would pass.

use super::Kind;
use super::demands::{Bound, Demands};
use super::exclusions::types_exclude;
use super::languages::{self, Script};
use crate::Constraint;

/// Why constraints exclude each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// The type table forbids the pair.
    #[error("{0} and {1} exclude each other")]
    Types(Kind, Kind),
    /// A text that must occur has a comma, and commas are forbidden.
    #[error("punctuation:no_comma, but {kind} requires {text:?}, which has a comma")]
    Comma {
        /// Who requires the text.
        kind: Kind,
        /// The required text.
        text: String,
    },
    /// A text that must occur as written breaks the case rule.
    #[error("{case_rule} does not allow {text:?}, which {kind} requires")]
    Case {
        /// `english_capital` or `english_lowercase`.
        case_rule: Kind,
        /// Who requires the text.
        kind: Kind,
        /// The required text.
        text: String,
    },
    /// A forbidden word is, or is part of, a text that must occur.
    #[error("{word:?} is forbidden, but {kind} requires {text:?}")]
    ForbiddenWord {
        /// The forbidden word.
        word: String,
        /// Who requires the text.
        kind: Kind,
        /// The required text.
        text: String,
    },
    /// What must occur already holds as many as, or more than, the upper bound allows.
    #[error("{kind} allows {most}, but the required texts already hold {found}")]
    Exceeded {
        /// The type with the upper bound.
        kind: Kind,
        /// The largest count allowed.
        most: usize,
        /// The smallest count that the other constraints bring.
        found: usize,
    },
    /// So many words do not fit into so few sentences.
    #[error("{words} words in at most {sentences} sentences")]
    LongSentences {
        /// Words at least.
        words: usize,
        /// Sentences at most.
        sentences: usize,
    },
    /// A letter that English needs must stay rare over a long text.
    #[error("at most {most} of the letter {letter:?} in a text this long")]
    RareLetterInLongText {
        /// The letter.
        letter: char,
        /// The largest count allowed.
        most: usize,
    },
    /// The rule counts what the script of the language does not show.
    #[error("{kind} cannot count in the script of {language}")]
    Uncountable {
        /// The counting type.
        kind: Kind,
        /// The language's code.
        language: String,
    },
    /// A language that the checker does not know.
    #[error("no language has the code {0:?}")]
    UnknownLanguage(String),
    /// The paragraph asked for lies outside the text.
    #[error("paragraph {nth} of {num_paragraphs}")]
    NoSuchParagraph {
        /// The paragraph, from 1.
        nth: usize,
        /// How many there are.
        num_paragraphs: usize,
    },
}

/// The first reason why no single answer can meet all the constraints, or `None`.
///
/// `None` promises that [`satisfying_text`](super::satisfying_text) finds a text for
/// constraints that the sampler drew; for others it only says that no rule here objects.
#[must_use]
pub fn conflict(constraints: &[Constraint]) -> Option<Conflict> {
    type_conflict(constraints).or_else(|| {
        let demands = Demands::of(constraints);
        let rules = [
            comma,
            letter_case,
            forbidden_word,
            keyword_cap,
            letter_cap,
            capital_word_cap,
            sentence_cap,
            word_cap,
            long_sentences,
            rare_letter,
            language,
            nth_paragraph,
        ];
        rules.iter().find_map(|rule| rule(&demands))
    })
}

fn type_conflict(constraints: &[Constraint]) -> Option<Conflict> {
    let kinds: Vec<Kind> = constraints.iter().map(Kind::of).collect();
    kinds.iter().enumerate().find_map(|(i, a)| {
        let other = kinds[i + 1..].iter().find(|b| types_exclude(*a, **b))?;
        Some(Conflict::Types(*a, *other))
    })
}

fn comma(demands: &Demands<'_>) -> Option<Conflict> {
    if !demands.has(Kind::NoComma) {
        return None;
    }
    let mut required = demands
        .verbatim()
        .into_iter()
        .chain(demands.required_words());
    let (kind, text) = required.find(|(_, text)| text.contains(','))?;
    Some(Conflict::Comma {
        kind,
        text: text.to_owned(),
    })
}

fn letter_case(demands: &Demands<'_>) -> Option<Conflict> {
    let (case_rule, breaks): (Kind, fn(char) -> bool) = if demands.has(Kind::EnglishLowercase) {
        (Kind::EnglishLowercase, char::is_uppercase)
    } else if demands.has(Kind::EnglishCapital) {
        (Kind::EnglishCapital, char::is_lowercase)
    } else {
        return None;
    };
    let (kind, text) = demands
        .verbatim()
        .into_iter()
        .find(|(_, text)| text.contains(breaks))?;
    Some(Conflict::Case {
        case_rule,
        kind,
        text: text.to_owned(),
    })
}

fn forbidden_word(demands: &Demands<'_>) -> Option<Conflict> {
    let words = demands.required_words();
    let verbatim = demands.verbatim();
    demands.forbidden.iter().find_map(|word| {
        let lower = word.to_lowercase();
        // Inside a longer word the checker would let it pass; a reader would not.
        let inside = words
            .iter()
            .find(|(_, text)| text.to_lowercase().contains(&lower));
        let whole = || {
            verbatim
                .iter()
                .find(|(_, text)| contains_word(text, &lower))
        };
        let (kind, text) = inside.or_else(whole)?;
        Some(Conflict::ForbiddenWord {
            word: (*word).to_owned(),
            kind: *kind,
            text: (*text).to_owned(),
        })
    })
}

/// Whether the lower-cased word stands in the text between two word boundaries.
pub(super) fn contains_word(text: &str, lower: &str) -> bool {
    let text = text.to_lowercase();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(lower).any(|(at, found)| {
        !lower.is_empty()
            && !text[..at].ends_with(is_word)
            && !text[at + found.len()..].starts_with(is_word)
    })
}

fn keyword_cap(demands: &Demands<'_>) -> Option<Conflict> {
    let (keyword, bound) = demands.frequency?;
    let lower = keyword.to_lowercase();
    let found = required_sum(demands, |text| text.to_lowercase().matches(&lower).count());
    exceeded(Kind::Frequency, bound, found)
}

fn letter_cap(demands: &Demands<'_>) -> Option<Conflict> {
    let (letter, bound) = demands.letter?;
    let letter = letter.to_lowercase().next()?;
    let found = required_sum(demands, |text| {
        text.chars()
            .flat_map(char::to_lowercase)
            .filter(|c| *c == letter)
            .count()
    });
    exceeded(Kind::LetterFrequency, bound, found)
}

fn capital_word_cap(demands: &Demands<'_>) -> Option<Conflict> {
    let bound = demands.capital_words?;
    let found = required_sum(demands, |text| {
        text.split(' ').filter(|word| is_capital_word(word)).count()
    });
    exceeded(Kind::CapitalWordFrequency, bound, found)
}

fn is_capital_word(word: &str) -> bool {
    word.contains(char::is_uppercase) && !word.contains(char::is_lowercase)
}

fn required_sum(demands: &Demands<'_>, count: impl Fn(&str) -> usize) -> usize {
    demands
        .required_texts()
        .iter()
        .map(|(text, times)| count(text) * times)
        .sum()
}

fn exceeded(kind: Kind, bound: Bound, found: usize) -> Option<Conflict> {
    let most = bound.most()?;
    (found > most).then_some(Conflict::Exceeded { kind, most, found })
}

/// Each section and each paragraph wants a sentence of its own, so do a postscript and a
/// closing phrase; bullets are taken as fragments.
fn sentence_cap(demands: &Demands<'_>) -> Option<Conflict> {
    let bound = demands.sentences?;
    let sections = demands.sections.map_or(0, |(_, n)| n);
    let paragraphs = demands.nth.map_or(0, |nth| nth.num_paragraphs);
    let found = sections.max(paragraphs).max(1)
        + usize::from(demands.postscript.is_some())
        + usize::from(demands.end_phrase.is_some());
    exceeded(Kind::NumberSentences, bound, found)
}

fn word_cap(demands: &Demands<'_>) -> Option<Conflict> {
    let bound = demands.words?;
    exceeded(Kind::NumberWords, bound, fewest_words(demands))
}

/// Words in the shortest answer that still reads as one: what is required, and a few words
/// for each part that wants content.
pub(super) fn fewest_words(demands: &Demands<'_>) -> usize {
    let count = |text: &str| text.split_whitespace().count();
    let required = required_sum(demands, count);
    let paragraphs = demands
        .paragraphs
        .or(demands.nth.map(|nth| nth.num_paragraphs));
    let parts = 5 * paragraphs.unwrap_or(1)
        + 5 * demands.sections.map_or(0, |(_, n)| n)
        + 5 * demands.sentences.map_or(0, Bound::least)
        + 4 * demands.bullets.unwrap_or(0)
        + 3 * demands.highlights
        + 2 * demands.placeholders
        + 4 * usize::from(demands.has(Kind::Title))
        + 6 * usize::from(demands.postscript.is_some());
    let detected = [
        Kind::EnglishCapital,
        Kind::EnglishLowercase,
        Kind::ResponseLanguage,
    ];
    let for_detection = 15 * usize::from(detected.iter().any(|kind| demands.has(*kind)));
    let letters = demands.letter.map_or(0, |(_, bound)| bound.least());
    let capitals = demands.capital_words.map_or(0, Bound::least);
    required + parts + for_detection + letters + capitals
}

/// No sentence should need more words than this.
const WORDS_PER_SENTENCE: usize = 30;

fn long_sentences(demands: &Demands<'_>) -> Option<Conflict> {
    let words = demands.words?.least();
    let sentences = demands.sentences?.most()?;
    (words > WORDS_PER_SENTENCE * sentences).then_some(Conflict::LongSentences { words, sentences })
}

/// Texts of up to this many words can do nearly without one of the rarer letters.
const LONG_TEXT_WORDS: usize = 100;

fn rare_letter(demands: &Demands<'_>) -> Option<Conflict> {
    let (letter, bound) = demands.letter?;
    let most = bound.most()?;
    let least_words = demands.words.map_or(0, Bound::least);
    let least_sentences = demands.sentences.map_or(0, Bound::least);
    let long = least_words > LONG_TEXT_WORDS || 10 * least_sentences > LONG_TEXT_WORDS;
    let avoidable = matches!(letter.to_ascii_lowercase(), 'j' | 'q' | 'x' | 'z');
    let english = letter.is_ascii_alphabetic();
    (long && english && !avoidable).then_some(Conflict::RareLetterInLongText { letter, most })
}

fn language(demands: &Demands<'_>) -> Option<Conflict> {
    let code = demands.language_code?;
    let Some(language) = languages::by_code(code) else {
        return Some(Conflict::UnknownLanguage(code.to_owned()));
    };
    let counting = [Kind::NumberWords, Kind::NumberSentences];
    let kind = counting.into_iter().find(|kind| demands.has(*kind))?;
    (language.script == Script::Uncounted).then(|| Conflict::Uncountable {
        kind,
        language: code.to_owned(),
    })
}

fn nth_paragraph(demands: &Demands<'_>) -> Option<Conflict> {
    let nth = demands.nth?;
    let inside = (1..=nth.num_paragraphs).contains(&nth.nth);
    (!inside).then_some(Conflict::NoSuchParagraph {
        nth: nth.nth,
        num_paragraphs: nth.num_paragraphs,
    })
}
