//! Rules that count sentences, paragraphs and words.

use super::Relation;
use crate::nltk;
use crate::python;
use crate::runner::Verdict;

pub(super) fn sentences(relation: Relation, asked: usize, text: &str) -> Verdict {
    let count = nltk::sentence_spans(text).len();
    Verdict::when(relation.holds(count, asked), || {
        format!("{count} sentences, asked: {relation} {asked}")
    })
}

pub(super) fn words(relation: Relation, asked: usize, text: &str) -> Verdict {
    let count = python::words(text).count();
    Verdict::when(relation.holds(count, asked), || {
        format!("{count} words, asked: {relation} {asked}")
    })
}

pub(super) fn paragraphs(asked: usize, text: &str) -> Verdict {
    let pieces = split_at_stars(text);
    let last = pieces.len() - 1;
    let mut count = pieces.len();
    for (index, piece) in pieces.iter().enumerate() {
        if !python::is_blank(piece) {
            continue;
        }
        if index != 0 && index != last {
            return Verdict::failed("a blank paragraph between two dividers ***");
        }
        count -= 1;
    }
    Verdict::when(count == asked, || {
        format!("{count} paragraphs divided by ***, asked: {asked}")
    })
}

/// `re.split(r"\s?\*\*\*\s?", text)`: at least one piece.
fn split_at_stars(text: &str) -> Vec<&str> {
    const DIVIDER: &str = "***";
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(DIVIDER) {
        let before = &rest[..at];
        pieces.push(before.strip_suffix(python::is_space).unwrap_or(before));
        let after = &rest[at + DIVIDER.len()..];
        rest = after.strip_prefix(python::is_space).unwrap_or(after);
    }
    pieces.push(rest);
    pieces
}

pub(super) fn nth_paragraph_first_word(
    asked: usize,
    nth: usize,
    first_word: &str,
    text: &str,
) -> Verdict {
    let pieces: Vec<&str> = text.split("\n\n").collect();
    let count = pieces
        .iter()
        .filter(|piece| !python::is_blank(piece))
        .count();
    if count != asked {
        return Verdict::failed(format!(
            "{count} paragraphs divided by an empty line, asked: {asked}"
        ));
    }
    // Blank pieces do not count above, but here they do, as in the original.
    let found = (nth <= count)
        .then(|| first_word_of(pieces[nth - 1]))
        .flatten();
    let asked = first_word.to_lowercase();
    Verdict::when(found.as_ref() == Some(&asked), || match &found {
        Some(word) => format!("paragraph {nth} starts with {word:?}, asked: {asked:?}"),
        None => format!("paragraph {nth} is blank, asked: {asked:?} first"),
    })
}

/// The first word of a paragraph, without quotes before it and up to the first punctuation,
/// in lower case; none if the paragraph is blank.
fn first_word_of(paragraph: &str) -> Option<String> {
    let token = python::split(paragraph).next()?;
    let word = token.trim_start_matches('\'').trim_start_matches('"');
    let end = word
        .find(['.', ',', '?', '!', '\'', '"'])
        .unwrap_or(word.len());
    // One character at a time, so that no sigma is final.
    Some(word[..end].chars().flat_map(char::to_lowercase).collect())
}
