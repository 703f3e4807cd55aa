//! The short reason that a judge gives before its verdict: what it found.

use crate::ask::Ask;
use crate::phrases::number;
use crate::soft::Dimension;
use verify::{Constraint, Keyword, Relation};

/// Why the verdict on `text` is what it is.
pub(crate) fn reason(ask: &Ask, text: &str, followed: bool) -> String {
    match ask {
        Ask::Soft(soft) => {
            let not = if followed { "" } else { "not " };
            let how = match soft.dimension {
                Dimension::Audience => "for ",
                Dimension::Persona => "like ",
                Dimension::PointOfView | Dimension::Tense => "in ",
                Dimension::Tone | Dimension::Politeness | Dimension::Register => "",
            };
            format!("It is {not}{how}{}.", soft.name())
        }
        Ask::Rule(rule) => match counted(rule, text) {
            Some(found) => found,
            None => plain(rule, followed),
        },
    }
}

/// What was counted, measured by the checker itself.
fn counted(rule: &Constraint, text: &str) -> Option<String> {
    use Constraint as C;
    let what = match rule {
        C::Frequency { keyword, .. } => format!("times {}", keyword.as_str()),
        C::LetterFrequency { letter, .. } => format!("times {letter}"),
        C::NumberSentences { .. } => "sentences".into(),
        C::NumberWords { .. } => "words".into(),
        C::CapitalWordFrequency { .. } => "words in capitals".into(),
        C::NumberPlaceholders { .. } => "placeholders".into(),
        C::NumberHighlightedSections { .. } => "highlights".into(),
        C::MultipleSections { .. } => "sections".into(),
        C::NumberBulletLists { .. } => "bullets".into(),
        C::NumberParagraphs { .. } => "paragraphs".into(),
        _ => return None,
    };
    let found = match rule {
        C::NumberBulletLists { .. } | C::NumberParagraphs { .. } => {
            (0..=20).find(|count| with_count(rule, *count).check(text).followed)?
        }
        _ => largest(rule, text),
    };
    Some(format!("I count {} {what}.", number(found)))
}

/// The same rule with another count, as a lower bound where it has one.
fn with_count(rule: &Constraint, wanted: usize) -> Constraint {
    let mut rule = rule.clone();
    match &mut rule {
        Constraint::Frequency {
            relation, count, ..
        }
        | Constraint::LetterFrequency {
            relation, count, ..
        }
        | Constraint::NumberSentences { relation, count }
        | Constraint::NumberWords { relation, count }
        | Constraint::CapitalWordFrequency { relation, count } => {
            (*relation, *count) = (Relation::AtLeast, wanted);
        }
        Constraint::NumberPlaceholders { count }
        | Constraint::NumberHighlightedSections { count }
        | Constraint::MultipleSections { count, .. }
        | Constraint::NumberBulletLists { count }
        | Constraint::NumberParagraphs { count } => *count = wanted,
        _ => {}
    }
    rule
}

/// More than any text here holds.
const MOST: usize = 512;

/// The largest count that the check still passes.
fn largest(rule: &Constraint, text: &str) -> usize {
    let (mut low, mut high) = (0, MOST);
    while low + 1 < high {
        let middle = usize::midpoint(low, high);
        match with_count(rule, middle).check(text).followed {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

fn plain(rule: &Constraint, followed: bool) -> String {
    use Constraint as C;
    let word = |words: &[Keyword]| {
        words
            .first()
            .map_or_else(String::new, |word| word.as_str().to_owned())
    };
    match (rule, followed) {
        (C::Existence { keywords }, true) => format!("The word {} is there.", word(keywords)),
        (C::Existence { keywords }, false) => format!("The word {} is missing.", word(keywords)),
        (C::ForbiddenWords { words }, true) => format!("The word {} is not there.", word(words)),
        (C::ForbiddenWords { words }, false) => format!("The word {} is there.", word(words)),
        (C::EndChecker { .. }, true) => "The last words are right.".into(),
        (C::EndChecker { .. }, false) => "The last words are wrong.".into(),
        (C::NthParagraphFirstWord { .. }, true) => "The paragraph starts as asked.".into(),
        (C::NthParagraphFirstWord { .. }, false) => {
            "Number or start of the paragraphs is wrong.".into()
        }
        (C::Postscript { .. }, true) => "There is a P.S.".into(),
        (C::Postscript { .. }, false) => "There is no P.S.".into(),
        (C::JsonFormat, true) => "It is JSON.".into(),
        (C::JsonFormat, false) => "It is not JSON.".into(),
        (C::Title, true) => "There is a title.".into(),
        (C::Title, false) => "There is no title like that.".into(),
        (C::TwoResponses, true) => "There are two answers.".into(),
        (C::TwoResponses, false) => "There are not two answers.".into(),
        (C::EnglishCapital, true) => "All letters are capitals.".into(),
        (C::EnglishCapital, false) => "Some letters are small.".into(),
        (C::EnglishLowercase, true) => "All letters are small.".into(),
        (C::EnglishLowercase, false) => "Some letters are capitals.".into(),
        (C::NoComma, true) => "There is no comma.".into(),
        (C::NoComma, false) => "There is a comma.".into(),
        (C::Quotation, true) => "Quotes stand at both ends.".into(),
        (C::Quotation, false) => "Quotes do not stand at both ends.".into(),
        (_, true) => "It is so.".into(),
        (_, false) => "It is not so.".into(),
    }
}
