//! Draws the parameters of each constraint type.

use super::draws::{below, between, pick};
use super::languages::LANGUAGES;
use super::{Kind, words};
use crate::{Constraint, Error, Keyword, Relation};

/// What a caller knows about the instruction that the constraints will join.
///
/// Both are optional: the default draws general words and sample requests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Material<'a> {
    /// The instruction itself, for `repeat_prompt`. Blank counts as none.
    pub prompt: Option<&'a str>,
    /// Words likely in an answer, for the four types with keywords. Entries that are not one
    /// plain word of letters and digits are skipped: the checkers read keywords as regular
    /// expressions. Where fewer than [`Material::FEWEST_KEYWORDS`] are left, general words
    /// join them.
    pub keywords: &'a [&'a str],
}

impl Material<'_> {
    /// Keywords enough for the types with keywords to differ from each other.
    pub const FEWEST_KEYWORDS: usize = 8;

    fn usable_keywords(&self) -> Vec<&str> {
        let usable = |word: &&str| {
            (2..=40).contains(&word.chars().count()) && word.chars().all(char::is_alphanumeric)
        };
        let mut list: Vec<&str> = Vec::new();
        for word in self.keywords.iter().copied().filter(usable) {
            if !list.iter().any(|known| known.eq_ignore_ascii_case(word)) {
                list.push(word);
            }
        }
        if list.len() < Self::FEWEST_KEYWORDS {
            list.extend(words::KEYWORDS);
        }
        list
    }
}

/// Draws the parameters of one type.
///
/// `bits` gives 64 random bits a call, for example those of a [`Draws`](super::Draws) or of any
/// other generator. Equal bits give equal constraints. Counts are at least 2 where one would be
/// trivial, `response_language` is never English, and every parameter is sensible by itself;
/// [`conflict`](super::conflict) judges combinations.
pub fn sample(kind: Kind, material: &Material<'_>, bits: &mut dyn FnMut() -> u64) -> Constraint {
    use Constraint as C;
    match kind {
        Kind::Existence => C::Existence {
            keywords: sample_keywords(material, bits, Keyword::anywhere),
        },
        Kind::ForbiddenWords => C::ForbiddenWords {
            words: sample_keywords(material, bits, Keyword::whole_word),
        },
        Kind::Frequency => C::Frequency {
            keyword: plain(Keyword::counted, pick(bits, &material.usable_keywords())),
            relation: sample_relation(bits),
            count: between(bits, 2, 5),
        },
        Kind::LetterFrequency => sample_letter(bits),
        Kind::ResponseLanguage => C::ResponseLanguage {
            language: pick(bits, &LANGUAGES[1..]).code.to_owned(),
        },
        Kind::NumberSentences => sample_sentences(bits),
        Kind::NumberWords => sample_words(bits),
        Kind::NumberParagraphs => C::NumberParagraphs {
            count: between(bits, 2, 6),
        },
        Kind::NthParagraphFirstWord => {
            let paragraphs = between(bits, 2, 5);
            C::NthParagraphFirstWord {
                paragraphs,
                nth: between(bits, 1, paragraphs),
                first_word: pick(bits, &words::FIRST_WORDS).to_owned(),
            }
        }
        Kind::NumberPlaceholders => C::NumberPlaceholders {
            count: between(bits, 1, 6),
        },
        Kind::Postscript => C::Postscript {
            marker: plain(Keyword::postscript, pick(bits, &["P.S.", "P.P.S"])),
        },
        Kind::NumberBulletLists => C::NumberBulletLists {
            count: between(bits, 2, 8),
        },
        Kind::NumberHighlightedSections => C::NumberHighlightedSections {
            count: between(bits, 1, 6),
        },
        Kind::MultipleSections => C::MultipleSections {
            splitter: plain(Keyword::section, pick(bits, &words::SPLITTERS)),
            count: between(bits, 2, 6),
        },
        Kind::RepeatPrompt => C::RepeatPrompt {
            prompt: sample_prompt(material, bits),
        },
        Kind::EndChecker => C::EndChecker {
            phrase: pick(bits, &words::END_PHRASES).to_owned(),
        },
        Kind::CapitalWordFrequency => C::CapitalWordFrequency {
            relation: sample_relation(bits),
            count: between(bits, 2, 8),
        },
        Kind::ConstrainedResponse => C::ConstrainedResponse,
        Kind::JsonFormat => C::JsonFormat,
        Kind::Title => C::Title,
        Kind::TwoResponses => C::TwoResponses,
        Kind::EnglishCapital => C::EnglishCapital,
        Kind::EnglishLowercase => C::EnglishLowercase,
        Kind::NoComma => C::NoComma,
        Kind::Quotation => C::Quotation,
    }
}

fn sample_relation(bits: &mut dyn FnMut() -> u64) -> Relation {
    pick(bits, &[Relation::AtLeast, Relation::LessThan])
}

/// One to three different words.
fn sample_keywords(
    material: &Material<'_>,
    bits: &mut dyn FnMut() -> u64,
    make: fn(&str) -> Result<Keyword, Error>,
) -> Vec<Keyword> {
    let mut list = material.usable_keywords();
    let count = between(bits, 1, 3);
    (0..count)
        .map(|_| plain(make, list.swap_remove(below(bits, list.len()))))
        .collect()
}

/// A keyword of a word that is safe as a pattern: letters, digits, and the dots of the markers.
fn plain(make: fn(&str) -> Result<Keyword, Error>, word: &str) -> Keyword {
    make(word).expect("letters and digits are a valid pattern")
}

fn sample_letter(bits: &mut dyn FnMut() -> u64) -> Constraint {
    let relation = sample_relation(bits);
    let letter = match relation {
        Relation::LessThan => pick(bits, &words::RARE_LETTERS),
        Relation::AtLeast => char::from(b'a' + below(bits, 26) as u8),
    };
    let high = if words::RARE_LETTERS.contains(&letter) {
        8
    } else {
        20
    };
    Constraint::LetterFrequency {
        letter,
        relation,
        count: between(bits, 3, high),
    }
}

fn sample_sentences(bits: &mut dyn FnMut() -> u64) -> Constraint {
    let relation = sample_relation(bits);
    let count = match relation {
        Relation::AtLeast => between(bits, 3, 15),
        Relation::LessThan => between(bits, 4, 12),
    };
    Constraint::NumberSentences { relation, count }
}

fn sample_words(bits: &mut dyn FnMut() -> u64) -> Constraint {
    let relation = sample_relation(bits);
    let count = match relation {
        Relation::AtLeast => 25 * between(bits, 2, 16),
        Relation::LessThan => 10 * between(bits, 3, 30),
    };
    Constraint::NumberWords { relation, count }
}

fn sample_prompt(material: &Material<'_>, bits: &mut dyn FnMut() -> u64) -> String {
    match material.prompt.map(str::trim) {
        Some(prompt) if !prompt.is_empty() => prompt.to_owned(),
        _ => pick(bits, &words::PROMPTS).to_owned(),
    }
}
