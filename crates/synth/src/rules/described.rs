//! The way back from the describer's phrasings: parameters are guessed from the text, put into
//! words again, and the guess stands if the same text comes out.

use std::collections::BTreeSet;
use verify::compose::{LANGUAGES, phrasings};
use verify::{Constraint, Keyword, Relation};

/// Stands for a parameter whose text ends a phrasing or is quoted in it.
const HOLE: &str = "\u{fffc}";
/// Numbers and words of a text that are tried.
const TRIED: usize = 48;

/// The constraint that is described by exactly `text`.
pub(super) fn recognise(text: &str) -> Option<Constraint> {
    let says = |guess: &Constraint| phrasings(guess).iter().any(|one| one == text);
    plain()
        .into_iter()
        .chain(with_text(text))
        .chain(with_numbers(text))
        .chain(with_words(text))
        .find(says)
}

/// Constraints without parameters.
fn plain() -> Vec<Constraint> {
    use Constraint as C;
    vec![
        C::ConstrainedResponse,
        C::JsonFormat,
        C::Title,
        C::TwoResponses,
        C::EnglishCapital,
        C::EnglishLowercase,
        C::NoComma,
        C::Quotation,
    ]
}

/// Constraints whose parameter is one stretch of the text.
fn with_text(text: &str) -> Vec<Constraint> {
    use Constraint as C;
    let between = |hollow: &Constraint| -> Option<String> {
        phrasings(hollow).iter().find_map(|phrasing| {
            let (before, after) = phrasing.split_once(HOLE)?;
            let inside = text.strip_prefix(before)?.strip_suffix(after)?;
            (!inside.trim().is_empty()).then(|| inside.to_owned())
        })
    };
    let end = between(&C::EndChecker {
        phrase: HOLE.into(),
    });
    let repeat = between(&C::RepeatPrompt {
        prompt: HOLE.into(),
    });
    let marker = Keyword::postscript(HOLE).ok();
    let postscript = marker
        .and_then(|marker| between(&C::Postscript { marker }))
        .filter(|marker| ["P.S.", "P.P.S"].contains(&marker.as_str()))
        .and_then(|marker| Keyword::postscript(&marker).ok());
    let languages = LANGUAGES.iter().filter(|known| text.contains(known.name));
    let mut found: Vec<Constraint> = languages
        .map(|known| C::ResponseLanguage {
            language: known.code.to_owned(),
        })
        .collect();
    found.extend(postscript.map(|marker| C::Postscript { marker }));
    found.extend(end.map(|phrase| C::EndChecker { phrase }));
    found.extend(repeat.map(|prompt| C::RepeatPrompt { prompt }));
    found
}

/// Constraints whose parameters are counts.
fn with_numbers(text: &str) -> Vec<Constraint> {
    use Constraint as C;
    let mut found = Vec::new();
    for count in numbers(text) {
        for relation in [Relation::AtLeast, Relation::LessThan] {
            found.extend([
                C::NumberSentences { relation, count },
                C::NumberWords { relation, count },
                C::CapitalWordFrequency { relation, count },
            ]);
        }
        found.extend([
            C::NumberParagraphs { count },
            C::NumberPlaceholders { count },
            C::NumberBulletLists { count },
            C::NumberHighlightedSections { count },
        ]);
    }
    found
}

/// Constraints with words in them, and perhaps counts.
fn with_words(text: &str) -> Vec<Constraint> {
    use Constraint as C;
    let mut found = Vec::new();
    let quoted: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
    let all = |make: fn(&str) -> Result<Keyword, verify::Error>| -> Option<Vec<Keyword>> {
        let made: Option<Vec<Keyword>> = quoted.iter().map(|word| keyword(make, word)).collect();
        made.filter(|words| !words.is_empty())
    };
    found.extend(all(Keyword::anywhere).map(|keywords| C::Existence { keywords }));
    found.extend(all(Keyword::whole_word).map(|words| C::ForbiddenWords { words }));
    let counts = numbers(text);
    for &count in &counts {
        for relation in [Relation::AtLeast, Relation::LessThan] {
            for word in &quoted {
                found.extend(keyword(Keyword::counted, word).map(|keyword| C::Frequency {
                    keyword,
                    relation,
                    count,
                }));
                let mut letters = word.chars();
                if let (Some(letter), None) = (letters.next(), letters.next()) {
                    found.push(C::LetterFrequency {
                        letter,
                        relation,
                        count,
                    });
                }
            }
        }
        if text.contains("paragraph") && count <= TRIED {
            for nth in 1..=count {
                let first = quoted.first().map(|word| C::NthParagraphFirstWord {
                    paragraphs: count,
                    nth,
                    first_word: (*word).to_owned(),
                });
                found.extend(first);
            }
        }
        if text.contains("section") || text.contains("Divide the text") {
            let words: BTreeSet<&str> = text
                .split(|c: char| !c.is_alphanumeric())
                .filter(|word| word.chars().any(char::is_uppercase))
                .take(TRIED)
                .collect();
            let splitters = words
                .into_iter()
                .filter_map(|word| keyword(Keyword::section, word));
            found.extend(splitters.map(|splitter| C::MultipleSections { splitter, count }));
        }
    }
    found
}

/// A keyword, if its text means itself as a regular expression: letters, digits, spaces,
/// hyphens and apostrophes, with a letter or digit at both ends.
pub(super) fn keyword(
    make: fn(&str) -> Result<Keyword, verify::Error>,
    text: &str,
) -> Option<Keyword> {
    let solid = |end: Option<char>| end.is_some_and(char::is_alphanumeric);
    let plain = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '\'');
    let chars = text.chars();
    let usable = solid(text.chars().next()) && solid(text.chars().last());
    (usable && chars.clone().all(plain)).then(|| make(text).ok())?
}

/// The numbers of a text, each once.
fn numbers(text: &str) -> BTreeSet<usize> {
    let runs = text.split(|c: char| !c.is_ascii_digit());
    let short = runs.filter(|run| (1..=6).contains(&run.len()));
    let all = short.filter_map(|run| run.parse().ok());
    all.filter(|number| *number > 0).take(TRIED).collect()
}
