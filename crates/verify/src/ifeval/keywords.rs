//! Rules that look for words or characters.

use super::Relation;
use crate::keyword::Keyword;
use crate::python::re::GaveUp;
use crate::runner::Verdict;

pub(super) fn existence(keywords: &[Keyword], text: &str) -> Verdict {
    for keyword in keywords {
        match keyword.is_in(text) {
            Ok(true) => {}
            Ok(false) => return Verdict::failed(format!("{:?} is missing", keyword.as_str())),
            Err(GaveUp) => return gave_up(keyword),
        }
    }
    Verdict::followed()
}

pub(super) fn frequency(
    keyword: &Keyword,
    relation: Relation,
    asked: usize,
    text: &str,
) -> Verdict {
    match keyword.count_in(text) {
        Ok(count) => Verdict::when(relation.holds(count, asked), || {
            format!(
                "{:?} occurs {count} times, asked: {relation} {asked}",
                keyword.as_str()
            )
        }),
        Err(GaveUp) => gave_up(keyword),
    }
}

pub(super) fn forbidden(words: &[Keyword], text: &str) -> Verdict {
    for word in words {
        match word.is_in(text) {
            Ok(false) => {}
            Ok(true) => return Verdict::failed(format!("{:?} occurs", word.as_str())),
            Err(GaveUp) => return gave_up(word),
        }
    }
    Verdict::followed()
}

pub(super) fn letter_frequency(
    letter: char,
    relation: Relation,
    asked: usize,
    text: &str,
) -> Verdict {
    let mut lower = letter.to_lowercase();
    let count = match (lower.next(), lower.next()) {
        // A letter whose lower case is two characters equals no single one.
        (Some(lower), None) => lower_case(text).chars().filter(|c| *c == lower).count(),
        _ => 0,
    };
    Verdict::when(relation.holds(count, asked), || {
        format!("{letter:?} occurs {count} times, asked: {relation} {asked}")
    })
}

pub(super) fn postscript(marker: &Keyword, text: &str) -> Verdict {
    match marker.is_in(&lower_case(text)) {
        Ok(found) => Verdict::when(found, || format!("no postscript {:?}", marker.as_str())),
        Err(GaveUp) => gave_up(marker),
    }
}

pub(super) fn sections(splitter: &Keyword, asked: usize, text: &str) -> Verdict {
    match splitter.count_in(text) {
        Ok(matches) => {
            // The original counts pieces of a split, which hold what groups capture, too.
            let count = matches * (1 + splitter.groups());
            Verdict::when(count >= asked, || {
                format!("{count} sections, asked: at least {asked}")
            })
        }
        Err(GaveUp) => gave_up(splitter),
    }
}

/// Python's `str.lower()`.
pub(super) fn lower_case(text: &str) -> String {
    text.to_lowercase()
}

fn gave_up(keyword: &Keyword) -> Verdict {
    Verdict::failed(format!(
        "undecided: the search for {:?} takes too many steps on this text",
        keyword.as_str()
    ))
}
