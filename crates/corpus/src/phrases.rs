//! Constraints and their questions in words, and back: what is said can be read again, so that
//! a composed request is scored by rule.
//!
//! The phrasings themselves are data: `phrasebook.rs`.

use crate::ask::{Ask, AskKind};
use crate::phrasebook::{PHRASEBOOK, Phrases};
use crate::soft::Soft;
use serde_json::json;
use verify::compose::Kind;
use verify::{Constraint, Relation};

/// Which phrasings may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wording {
    Known,
    HeldOut,
}

impl Wording {
    /// A place in a list whose last entry is held out.
    pub(crate) fn index(self, len: usize, below: impl FnOnce(usize) -> usize) -> usize {
        match self {
            Self::Known => below(len - 1),
            Self::HeldOut => len - 1,
        }
    }
}

/// The phrasings of a kind.
pub(crate) fn phrases(kind: AskKind) -> &'static Phrases {
    let found = PHRASEBOOK
        .iter()
        .find(|phrases| phrases.kind == kind.name());
    found.expect("a test looks every kind up")
}

/// Fills the fields of a template.
pub(crate) fn fill(template: &str, ask: &Ask) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, tail) = after.split_once('}').unwrap_or((after, ""));
        text.push_str(before);
        text.push_str(&field(ask, name));
        rest = tail;
    }
    text + rest
}

fn field(ask: &Ask, name: &str) -> String {
    use Constraint as C;
    let rule = match ask {
        Ask::Soft(soft) => return soft.name().to_owned(),
        Ask::Rule(rule) => rule,
    };
    match (name, rule) {
        ("w", C::Existence { keywords: words } | C::ForbiddenWords { words }) => words
            .first()
            .map_or_else(String::new, |word| word.as_str().to_owned()),
        ("w", C::Frequency { keyword, .. }) => keyword.as_str().to_owned(),
        ("w", C::LetterFrequency { letter, .. }) => letter.to_string(),
        ("w", C::MultipleSections { splitter, .. }) => splitter.as_str().to_owned(),
        ("t", C::EndChecker { phrase }) => phrase.clone(),
        ("t", C::NthParagraphFirstWord { first_word, .. }) => first_word.clone(),
        ("m", C::NthParagraphFirstWord { nth, .. }) => number(*nth),
        (
            "n",
            C::NthParagraphFirstWord {
                paragraphs: count, ..
            },
        )
        | (
            "n",
            C::NumberParagraphs { count }
            | C::NumberPlaceholders { count }
            | C::NumberBulletLists { count }
            | C::NumberHighlightedSections { count }
            | C::MultipleSections { count, .. },
        ) => number(*count),
        (
            "b",
            C::Frequency {
                relation, count, ..
            }
            | C::LetterFrequency {
                relation, count, ..
            }
            | C::NumberSentences { relation, count }
            | C::NumberWords { relation, count }
            | C::CapitalWordFrequency { relation, count },
        ) => bound(*relation, *count),
        _ => String::new(),
    }
}

const NUMBERS: [&str; 13] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
];

/// A number in words up to twelve, in digits above.
pub(crate) fn number(n: usize) -> String {
    NUMBERS
        .get(n)
        .map_or_else(|| n.to_string(), |word| (*word).to_owned())
}

fn read_number(text: &str) -> Option<usize> {
    NUMBERS
        .iter()
        .position(|word| *word == text)
        .or_else(|| text.parse().ok())
}

fn bound(relation: Relation, count: usize) -> String {
    let words = match relation {
        Relation::AtLeast => "at least",
        Relation::LessThan => "fewer than",
    };
    format!("{words} {}", number(count))
}

fn read_bound(text: &str) -> Option<(Relation, usize)> {
    let at_least = text
        .strip_prefix("at least ")
        .map(|n| (Relation::AtLeast, n));
    let fewer = || {
        text.strip_prefix("fewer than ")
            .map(|n| (Relation::LessThan, n))
    };
    let (relation, n) = at_least.or_else(fewer)?;
    Some((relation, read_number(n)?))
}

/// The constraint that a demand states, if it is one of our phrasings.
pub fn read_demand(text: &str) -> Option<Ask> {
    read(text, |phrases| phrases.demands.to_vec())
}

/// The constraint that a question asks about, if it is one of our phrasings.
pub fn read_question(text: &str) -> Option<Ask> {
    read(text, |phrases| phrases.questions.to_vec())
}

fn read(text: &str, templates: impl Fn(&Phrases) -> Vec<&'static str>) -> Option<Ask> {
    let text = text.trim();
    AskKind::all().into_iter().find_map(|kind| {
        let templates = templates(phrases(kind));
        templates.iter().find_map(|template| {
            let ask = build(kind, &capture(template, text)?)?;
            // A field may have swallowed too much: what is read must say the same again.
            (fill(template, &ask) == text).then_some(ask)
        })
    })
}

/// The fields of a text that the template fits.
fn capture<'a>(template: &'a str, text: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
    let (mut template, mut text) = (template, text);
    let mut fields = Vec::new();
    while let Some((before, after)) = template.split_once('{') {
        text = text.strip_prefix(before)?;
        let (name, tail) = after.split_once('}')?;
        let literal = tail.split('{').next().unwrap_or_default();
        let end = match literal.len() == tail.len() {
            true => text.len().checked_sub(literal.len())?,
            false => text.find(literal)?,
        };
        fields.push((name, text.get(..end)?));
        text = &text[end..];
        template = tail;
    }
    (text == template).then_some(fields)
}

fn build(kind: AskKind, fields: &[(&str, &str)]) -> Option<Ask> {
    let field = |name: &str| {
        let found = fields.iter().find(|(known, _)| *known == name);
        found.map(|(_, text)| *text).filter(|text| !text.is_empty())
    };
    let word = || field("w").filter(|word| word.chars().all(char::is_alphanumeric));
    let count = |name: &str| read_number(field(name)?);
    let bound = || read_bound(field("b")?).map(|(relation, count)| (relation.as_str(), count));
    let kind = match kind {
        AskKind::Soft(dimension) => return Soft::named(dimension, field("t")?).map(Ask::Soft),
        AskKind::Rule(kind) => kind,
    };
    let kwargs = match kind {
        Kind::Existence => json!({"keywords": [word()?]}),
        Kind::ForbiddenWords => json!({"forbidden_words": [word()?]}),
        Kind::Frequency => {
            json!({"keyword": word()?, "relation": bound()?.0, "frequency": bound()?.1})
        }
        Kind::LetterFrequency => {
            json!({"letter": word()?, "let_relation": bound()?.0, "let_frequency": bound()?.1})
        }
        Kind::NumberSentences => json!({"relation": bound()?.0, "num_sentences": bound()?.1}),
        Kind::NumberWords => json!({"relation": bound()?.0, "num_words": bound()?.1}),
        Kind::CapitalWordFrequency => {
            json!({"capital_relation": bound()?.0, "capital_frequency": bound()?.1})
        }
        Kind::EndChecker => json!({"end_phrase": field("t")?}),
        Kind::NumberPlaceholders => json!({"num_placeholders": count("n")?}),
        Kind::NumberParagraphs => json!({"num_paragraphs": count("n")?}),
        Kind::NumberBulletLists => json!({"num_bullets": count("n")?}),
        Kind::NumberHighlightedSections => json!({"num_highlights": count("n")?}),
        Kind::MultipleSections => json!({"section_spliter": word()?, "num_sections": count("n")?}),
        Kind::NthParagraphFirstWord => json!({
            "num_paragraphs": count("n")?, "nth_paragraph": count("m")?, "first_word": field("t")?,
        }),
        Kind::Postscript => json!({"postscript_marker": "P.S."}),
        _ => json!({}),
    };
    // What is no constraint, such as a bound of zero, was not said by us.
    let rule = Constraint::from_ifeval(kind.id(), kwargs.as_object()?);
    rule.ok().map(Ask::Rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    #[test]
    fn what_is_said_can_be_read_again() {
        let mut dice = Dice::new(5, 0);
        for kind in AskKind::all() {
            for _ in 0..40 {
                let ask = Ask::draw(kind, 0, &|_| true, &mut dice);
                let phrases = phrases(kind);
                for template in phrases.demands {
                    let text = fill(template, &ask);
                    assert!(!text.contains(['{', '}']), "{text}");
                    assert_eq!(read_demand(&text).as_ref(), Some(&ask), "{text}");
                    assert_eq!(read_question(&text), None, "{text}");
                }
                for template in phrases.questions {
                    let text = fill(template, &ask);
                    assert_eq!(read_question(&text).as_ref(), Some(&ask), "{text}");
                }
            }
        }
        for text in [
            "",
            "Include the word .",
            "Include the word a b.",
            "Write five.",
            "Be rude.",
            "Use at least sentences.",
        ] {
            assert_eq!(read_demand(text), None, "{text}");
        }
    }
}
