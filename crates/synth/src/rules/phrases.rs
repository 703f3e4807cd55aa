//! Rules in the plain words of `phrasebook.rs`, and back: a text is read if one of its phrasings
//! says exactly the same.

use super::phrasebook::{PHRASEBOOK, Phrases};
use serde_json::json;
use verify::compose::Kind;
use verify::{Constraint, Relation};

/// The phrasings of a kind of rule; nothing for kinds without.
pub fn phrases(kind: Kind) -> Option<&'static Phrases> {
    PHRASEBOOK.iter().find(|one| one.kind == kind.id())
}

/// Fills the fields of a template.
pub fn fill(template: &str, rule: &Constraint) -> String {
    fill_with(template, |name| field(rule, name))
}

/// Fills each field by its name.
pub fn fill_with(template: &str, field: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, tail) = after.split_once('}').unwrap_or((after, ""));
        text.push_str(before);
        text.push_str(&field(name));
        rest = tail;
    }
    text + rest
}

fn field(rule: &Constraint, name: &str) -> String {
    use Constraint as C;
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
pub fn number(n: usize) -> String {
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

/// The rule that a demand states, if it is one of these phrasings.
pub fn read_demand(text: &str) -> Option<Constraint> {
    read(text, |phrases| &phrases.demands)
}

/// The rule that a question asks about, if it is one of these phrasings.
pub fn read_question(text: &str) -> Option<Constraint> {
    read(text, |phrases| &phrases.questions)
}

fn read(
    text: &str,
    templates: impl Fn(&'static Phrases) -> &'static [&'static str],
) -> Option<Constraint> {
    let text = text.trim();
    Kind::ALL.into_iter().find_map(|kind| {
        templates(phrases(kind)?).iter().find_map(|template| {
            let rule = build(kind, &capture(template, text)?)?;
            // A field may have swallowed too much: what is read must say the same again.
            (fill(template, &rule) == text).then_some(rule)
        })
    })
}

/// The fields of a text that the template fits.
pub fn capture<'a>(template: &'a str, text: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
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

fn build(kind: Kind, fields: &[(&str, &str)]) -> Option<Constraint> {
    let field = |name: &str| {
        let found = fields.iter().find(|(known, _)| *known == name);
        found.map(|(_, text)| *text).filter(|text| !text.is_empty())
    };
    let word = || field("w").filter(|word| word.chars().all(char::is_alphanumeric));
    let count = |name: &str| read_number(field(name)?);
    let bound = || read_bound(field("b")?).map(|(relation, count)| (relation.as_str(), count));
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
    Constraint::from_ifeval(kind.id(), kwargs.as_object()?).ok()
}
