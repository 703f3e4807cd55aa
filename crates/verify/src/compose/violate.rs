//! Texts that fail one constraint.

use super::words;
use crate::{Constraint, Keyword, Relation};

/// A text that fails the constraint, strictly and loosely, though it is not blank; if it can
/// be failed by one of the texts built here.
///
/// `None` where no text fails (`at least 0`), or where the parameter is a pattern that matches
/// the texts tried.
#[must_use]
pub fn violating_text(constraint: &Constraint) -> Option<String> {
    let mut texts = vec![targeted(constraint)];
    texts.extend(PLAIN.iter().map(|text| (*text).to_owned()));
    texts.into_iter().find(|text| fails(constraint, text))
}

/// Whether a text that is not blank fails, its loose variants included.
fn fails(constraint: &Constraint, text: &str) -> bool {
    let verdicts = crate::loose(std::slice::from_ref(constraint), text);
    !text.trim().is_empty() && verdicts.iter().all(|verdict| !verdict.followed)
}

/// Mixed case, an inner comma, no marks: fails most types.
const PLAIN: [&str; 3] = [
    "The boat left at dawn, and Nobody in the harbour saw it go.",
    "Das Boot fuhr im Morgengrauen, und niemand im Hafen hat es gesehen.",
    "Zwei kurze Worte.",
];

/// More than the lines that a loose variant leaves out.
const SPARE_LINES: usize = 4;

fn targeted(constraint: &Constraint) -> String {
    use Constraint as C;
    match constraint {
        C::ForbiddenWords { words } => {
            let word = words.first().map_or("", Keyword::as_str);
            format!("This text says {word} though it should not.")
        }
        C::Frequency {
            keyword,
            relation: Relation::LessThan,
            count,
        } => vec![keyword.as_str(); *count].join(" and "),
        C::LetterFrequency {
            letter,
            relation: Relation::LessThan,
            count,
        } => vec![letter.to_string(); *count].join(" "),
        C::NumberSentences {
            relation: Relation::LessThan,
            count,
        } => vec!["The day was long."; *count].join(" "),
        C::NumberWords {
            relation: Relation::LessThan,
            count,
        } => vec!["again"; *count].join(" "),
        C::CapitalWordFrequency {
            relation: Relation::LessThan,
            count,
        } => vec!["NASA"; *count].join(" and "),
        C::NumberBulletLists { count } => vec!["- another point"; *count + SPARE_LINES].join("\n"),
        C::NumberParagraphs { count } => vec!["A paragraph."; *count + SPARE_LINES].join("\n***\n"),
        C::EndChecker { phrase } => format!("{phrase} But there is more to say"),
        _ => format!("{}, Or So They Said", words::CLAUSES[0]),
    }
}
