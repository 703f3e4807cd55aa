//! Whether an instruction still says each parameter of a constraint, after a model reworded it.

use std::ops::Range;

use super::conflict::contains_word;
use super::{languages, numbers};
use crate::{Constraint, Relation};

/// A parameter that a text does not say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the text does not say {parameter} of {id}: expected {expected}")]
pub struct Missing {
    /// The constraint's id.
    pub id: &'static str,
    /// The parameter's name as in IFEval's `kwargs`, or what the type always needs said
    /// (`separator`, `format`).
    pub parameter: &'static str,
    /// What would have been found.
    pub expected: String,
}

/// Checks that the text carries every parameter of the constraint, and the fixed marks without
/// which its request cannot be understood (`******`, `<<`, JSON ...).
///
/// Keywords may stand in any case, as whole words. Phrases, prompts, splitters and postscript
/// markers must stand as they are. Counts may be digits or words; the bound must be near its
/// count and must not be turned round: `at least 3` may become `3 or more` or `more than 2`,
/// never `at most 3`, and an exact count must not gain a bound.
/// A text that passes may still ask badly; one that fails has lost something, or says it in a
/// way not listed here.
///
/// # Errors
/// The first parameter that is not found.
pub fn mentions_parameters(constraint: &Constraint, text: &str) -> Result<(), Missing> {
    let lost = needs(constraint)
        .into_iter()
        .find(|(_, need)| !need.met_by(text));
    match lost {
        None => Ok(()),
        Some((parameter, need)) => Err(Missing {
            id: constraint.id(),
            parameter,
            expected: need.expected(),
        }),
    }
}

/// What must be found for one parameter.
enum Need<'a> {
    /// The word, in any case, between word boundaries.
    Word(&'a str),
    /// The text as it is, not as the end of a longer one.
    Verbatim(&'a str),
    /// The letter in quotes, or after the word `letter`.
    Letter(char),
    /// One of these, in any case, anywhere.
    OneOf(&'static [&'static str]),
    /// The count with its bound (`None`: exactly), near one of the units.
    Count(usize, Option<Relation>, &'static [&'static str]),
    /// The ordinal: `second`, `2nd`, `paragraph 2`; `last` if it is.
    Nth(usize, usize),
    /// The language's English name.
    Language(&'a str),
}

const BRACKETS: &[&str] = &["bracket", "["];
const CAPITALS: &[&str] = &["capital", "upper"];
const LOWERCASE: &[&str] = &["lowercase", "lower-case", "lower case", "small letters"];
const HIGHLIGHTS: &[&str] = &["highlight", "*", "asterisk"];
const NO_UNIT: &[&str] = &[];

fn needs(constraint: &Constraint) -> Vec<(&'static str, Need<'_>)> {
    use Constraint as C;
    use Need as N;
    match constraint {
        C::Existence { keywords } => keywords
            .iter()
            .map(|keyword| ("keywords", N::Word(keyword.as_str())))
            .collect(),
        C::ForbiddenWords { words } => words
            .iter()
            .map(|word| ("forbidden_words", N::Word(word.as_str())))
            .collect(),
        C::Frequency {
            keyword,
            relation,
            count,
        } => vec![
            ("keyword", N::Word(keyword.as_str())),
            ("frequency", N::Count(*count, Some(*relation), NO_UNIT)),
        ],
        C::LetterFrequency {
            letter,
            relation,
            count,
        } => vec![
            ("letter", N::Letter(*letter)),
            ("let_frequency", N::Count(*count, Some(*relation), NO_UNIT)),
        ],
        C::ResponseLanguage { language } => vec![("language", N::Language(language))],
        C::RepeatPrompt { prompt } => {
            vec![("prompt_to_repeat", N::Verbatim(prompt))]
        }
        C::EndChecker { phrase } => vec![("end_phrase", N::Verbatim(phrase))],
        C::Postscript { marker } => {
            vec![("postscript_marker", N::Verbatim(marker.as_str()))]
        }
        C::ConstrainedResponse => [
            "My answer is yes.",
            "My answer is no.",
            "My answer is maybe.",
        ]
        .map(|option| ("format", N::Verbatim(option)))
        .into(),
        C::JsonFormat => vec![("format", N::OneOf(&["json"]))],
        C::Title => vec![("format", N::OneOf(&["<<"]))],
        C::TwoResponses => vec![("separator", N::OneOf(&["******"]))],
        C::EnglishCapital => vec![("format", N::OneOf(CAPITALS))],
        C::EnglishLowercase => vec![("format", N::OneOf(LOWERCASE))],
        C::NoComma => vec![("format", N::OneOf(&["comma"]))],
        C::Quotation => vec![("format", N::OneOf(&["quot"]))],
        _ => counted_needs(constraint),
    }
}

fn counted_needs(constraint: &Constraint) -> Vec<(&'static str, Need<'_>)> {
    use Constraint as C;
    use Need as N;
    let at_least = Some(Relation::AtLeast);
    match constraint {
        C::NumberSentences { relation, count } => {
            vec![(
                "num_sentences",
                N::Count(*count, Some(*relation), &["sentence"]),
            )]
        }
        C::NumberWords { relation, count } => {
            vec![("num_words", N::Count(*count, Some(*relation), &["word"]))]
        }
        C::NumberParagraphs { count } => vec![
            ("num_paragraphs", N::Count(*count, None, &["paragraph"])),
            ("separator", N::OneOf(&["***"])),
        ],
        C::NthParagraphFirstWord {
            paragraphs,
            nth,
            first_word,
        } => vec![
            (
                "num_paragraphs",
                N::Count(*paragraphs, None, &["paragraph"]),
            ),
            ("nth_paragraph", N::Nth(*nth, *paragraphs)),
            ("first_word", N::Word(first_word)),
        ],
        C::NumberPlaceholders { count } => vec![
            ("num_placeholders", N::Count(*count, at_least, NO_UNIT)),
            ("format", N::OneOf(BRACKETS)),
        ],
        C::NumberBulletLists { count } => {
            let units = &["bullet", "point", "item", "entries"];
            vec![("num_bullets", N::Count(*count, None, units))]
        }
        C::NumberHighlightedSections { count } => vec![
            ("num_highlights", N::Count(*count, at_least, NO_UNIT)),
            ("format", N::OneOf(HIGHLIGHTS)),
        ],
        C::MultipleSections { splitter, count } => vec![
            ("num_sections", N::Count(*count, at_least, NO_UNIT)),
            ("section_spliter", N::Verbatim(splitter.as_str())),
        ],
        C::CapitalWordFrequency { relation, count } => vec![
            (
                "capital_frequency",
                N::Count(*count, Some(*relation), NO_UNIT),
            ),
            ("format", N::OneOf(CAPITALS)),
        ],
        _ => Vec::new(),
    }
}

impl Need<'_> {
    fn met_by(&self, text: &str) -> bool {
        match self {
            Self::Word(word) => contains_word(text, &word.to_lowercase()),
            Self::Verbatim(needed) => contains_verbatim(text, needed),
            Self::Letter(letter) => says_letter(text, *letter),
            Self::OneOf(list) => {
                let lower = text.to_lowercase();
                list.iter().any(|needed| lower.contains(needed))
            }
            Self::Count(n, relation, units) => {
                says_count(&numbers::tokens(text), *n, *relation, units)
            }
            Self::Nth(nth, of) => says_nth(&numbers::tokens(text), *nth, *of),
            Self::Language(code) => says_language(text, code),
        }
    }

    fn expected(&self) -> String {
        match self {
            Self::Word(text) | Self::Verbatim(text) => format!("{text:?}"),
            Self::Letter(letter) => format!("the letter {letter:?}"),
            Self::OneOf(list) => format!("one of {list:?}"),
            Self::Count(n, Some(Relation::AtLeast), _) => format!("at least {n}"),
            Self::Count(n, Some(Relation::LessThan), _) => format!("fewer than {n}"),
            Self::Count(n, None, _) => format!("exactly {n}"),
            Self::Nth(nth, _) => numbers::ordinal(*nth),
            Self::Language(code) => {
                languages::by_code(code).map_or((*code).to_owned(), |known| known.name.to_owned())
            }
        }
    }
}

/// As it is, and not as the tail of a longer word or marker (`P.S.` is not in `P.P.S.`).
fn contains_verbatim(text: &str, needed: &str) -> bool {
    let starts_word = needed.starts_with(char::is_alphanumeric);
    text.match_indices(needed).any(|(at, _)| {
        !starts_word || !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '.')
    })
}

fn says_letter(text: &str, letter: char) -> bool {
    let text = text.to_lowercase();
    let letter = letter.to_lowercase();
    let quotes = [
        ('"', '"'),
        ('\'', '\''),
        ('`', '`'),
        ('\u{201c}', '\u{201d}'),
        ('\u{2018}', '\u{2019}'),
    ];
    quotes
        .iter()
        .any(|(open, close)| text.contains(&format!("{open}{letter}{close}")))
        || text
            .match_indices(&format!("letter {letter}"))
            .any(|(at, found)| !text[at + found.len()..].starts_with(char::is_alphanumeric))
}

fn says_language(text: &str, code: &str) -> bool {
    let Some(language) = languages::by_code(code) else {
        return contains_word(text, &code.to_lowercase());
    };
    let other_names: &[&str] = match code {
        "fa" => &["farsi"],
        "pa" => &["panjabi"],
        "bn" => &["bangla"],
        _ => &[],
    };
    let name = language.name.to_lowercase();
    contains_word(text, &name) || other_names.iter().any(|other| contains_word(text, other))
}

fn says_nth(tokens: &[String], nth: usize, of: usize) -> bool {
    let (long, short) = (numbers::ordinal(nth), numbers::short_ordinal(nth));
    let named = tokens.iter().any(|token| *token == long || *token == short);
    let last = nth == of
        && tokens
            .iter()
            .any(|token| token == "last" || token == "final");
    let numbered = numbers::find(tokens, nth).iter().any(|at| {
        at.start > 0 && matches!(tokens[at.start - 1].as_str(), "paragraph" | "number" | "no")
    });
    named || last || numbered
}

/// How many words before a number may hold its bound, and how many after.
const BEFORE: usize = 4;
const AFTER: usize = 5;
/// How far from the number its unit may stand.
const UNIT_REACH: usize = 10;

const AT_LEAST: &[&str] = &[
    "at least",
    "no fewer than",
    "no less than",
    "not fewer than",
    "not less than",
    "minimum",
];
const AT_LEAST_AFTER: &[&str] = &["or more", "or above", "at least", "at minimum", "minimum"];
const MORE_THAN: &[&str] = &["more than", "over", "above", "exceed", "exceeds"];
const LESS_THAN: &[&str] = &["less than", "fewer than", "under", "below"];
const AT_MOST: &[&str] = &[
    "at most",
    "no more than",
    "not more than",
    "maximum",
    "up to",
    "not exceed",
    "not over",
];
const AT_MOST_AFTER: &[&str] = &["or fewer", "or less", "at most", "maximum", "at the most"];

fn says_count(tokens: &[String], n: usize, relation: Option<Relation>, units: &[&str]) -> bool {
    match relation {
        None => numbers::find(tokens, n).into_iter().any(|at| {
            near_unit(tokens, &at, units) && bound_of(tokens, &at) == Some(Said::Exactly)
        }),
        Some(relation) => {
            // "more than 2" is "at least 3", "at most 2" is "fewer than 3".
            let (same, one_less) = match relation {
                Relation::AtLeast => (Said::AtLeast, Said::MoreThan),
                Relation::LessThan => (Said::LessThan, Said::AtMost),
            };
            let says = |number, said| {
                numbers::find(tokens, number)
                    .into_iter()
                    .any(|at| near_unit(tokens, &at, units) && bound_of(tokens, &at) == Some(said))
            };
            says(n, same)
                || n.checked_sub(1)
                    .is_some_and(|number| says(number, one_less))
        }
    }
}

fn near_unit(tokens: &[String], at: &Range<usize>, units: &[&str]) -> bool {
    let near = &tokens[at.start.saturating_sub(UNIT_REACH)..tokens.len().min(at.end + UNIT_REACH)];
    units.is_empty()
        || near
            .iter()
            .any(|token| units.iter().any(|unit| token.starts_with(unit)))
}

/// Words that turn the bound after them round (the contractions without their `t`).
const NEGATIONS: &[&str] = &[
    "no", "not", "never", "nothing", "anything", "without", "cannot", "don", "doesn", "shouldn",
    "mustn", "won",
];

/// What a text says about a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Exactly,
    AtLeast,
    MoreThan,
    LessThan,
    AtMost,
}

/// The bound beside a number, read from the words of its sentence between it and the numbers
/// next to it. `None` where two bounds contradict each other.
fn bound_of(tokens: &[String], at: &Range<usize>) -> Option<Said> {
    let until = |token: &&String| *token != numbers::STOP && !numbers::is_number(token);
    let mut before: Vec<&str> = tokens[..at.start]
        .iter()
        .rev()
        .take_while(until)
        .map(String::as_str)
        .collect();
    before.reverse();
    let after: Vec<&str> = tokens[at.end..]
        .iter()
        .take_while(until)
        .take(AFTER)
        .map(String::as_str)
        .collect();
    let lists = [
        (Said::AtLeast, AT_LEAST, AT_LEAST_AFTER),
        (Said::AtMost, AT_MOST, AT_MOST_AFTER),
        (Said::LessThan, LESS_THAN, &[][..]),
        (Said::MoreThan, MORE_THAN, &[][..]),
    ];
    let mut found = lists.into_iter().filter(|(_, front, back)| {
        front.iter().any(|phrase| stands(&before, phrase))
            || back
                .iter()
                .any(|phrase| find_phrase(&after, phrase).is_some())
    });
    match (found.next(), found.next()) {
        (None, _) => Some(Said::Exactly),
        (Some((said, ..)), None) => Some(said),
        (Some(_), Some(_)) => None,
    }
}

/// Whether the phrase stands among the last words before the number, and no negation before
/// it turns it round.
fn stands(before: &[&str], phrase: &str) -> bool {
    let window = &before[before.len().saturating_sub(BEFORE)..];
    find_phrase(window, phrase).is_some_and(|start| {
        let at = before.len() - window.len() + start;
        let lead = &before[at.saturating_sub(3)..at];
        !lead.iter().any(|word| NEGATIONS.contains(word))
    })
}

fn find_phrase(words: &[&str], phrase: &str) -> Option<usize> {
    let phrase: Vec<&str> = phrase.split(' ').collect();
    words
        .windows(phrase.len())
        .position(|window| window == phrase)
}
