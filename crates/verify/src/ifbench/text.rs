//! Small pieces of Python's `str` that several IFBench rules share.

use crate::python;
pub(super) use crate::python::{split as words, strip};

/// The 32 ASCII punctuation characters, in the order of Python's `string.punctuation`.
pub(super) const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// True for the characters most rules strip from a word: ASCII punctuation and the space.
pub(super) fn is_mark(c: char) -> bool {
    c == ' ' || c.is_ascii_punctuation()
}

/// `text` without marks at either end.
pub(super) fn strip_marks(text: &str) -> &str {
    text.trim_matches(is_mark)
}

/// `text` with every ASCII punctuation character deleted.
pub(super) fn without_punctuation(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_punctuation()).collect()
}

/// Length in code points.
pub(super) fn len(text: &str) -> usize {
    text.chars().count()
}

/// True if two neighbours are equal.
pub(super) fn has_equal_neighbours<T: PartialEq>(items: impl IntoIterator<Item = T>) -> bool {
    let mut before = None;
    for item in items {
        if before.as_ref() == Some(&item) {
            return true;
        }
        before = Some(item);
    }
    false
}

/// Value of a decimal digit of any script, as Python's `int` reads it.
///
/// Unicode keeps the ten digits of a script together and in order, and runs of such tens start
/// at a zero, so the distance to the start of the run gives the value.
pub(super) fn decimal_value(c: char) -> Option<u32> {
    if let Some(value) = c.to_digit(10) {
        return Some(value);
    }
    if !python::is_decimal(c) {
        return None;
    }
    let mut start = c;
    while let Some(below) = char::from_u32(u32::from(start) - 1) {
        if !python::is_decimal(below) {
            break;
        }
        start = below;
    }
    Some((u32::from(c) - u32::from(start)) % 10)
}

/// Maximal runs of decimal digits.
pub(super) fn digit_runs(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !python::is_decimal(c))
        .filter(|run| !run.is_empty())
}

/// True if `literal` occurs with a word boundary (Python's `\b`) at both ends.
pub(super) fn contains_between_boundaries(text: &str, literal: &str) -> bool {
    let is_boundary = |at: usize| {
        let before = text[..at].chars().next_back();
        let after = text[at..].chars().next();
        before.is_some_and(python::is_word) != after.is_some_and(python::is_word)
    };
    text.match_indices(literal)
        .any(|(at, found)| is_boundary(at) && is_boundary(at + found.len()))
}

/// The same, comparing as Python's `re.IGNORECASE` does. The literal is not empty.
pub(super) fn contains_ignoring_case_between_boundaries(text: &str, literal: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let folded: Vec<char> = chars.iter().map(|c| fold(*c)).collect();
    let literal: Vec<char> = literal.chars().map(fold).collect();
    // Boundaries are asked of the text itself: a mark may fold to a letter.
    let is_word = |c: Option<&char>| c.is_some_and(|c| python::is_word(*c));
    let is_boundary = |at: usize| is_word(chars[..at].last()) != is_word(chars.get(at));
    let mut windows = folded.windows(literal.len()).enumerate();
    windows.any(|(at, window)| {
        window[0] == literal[0]
            && is_boundary(at)
            && is_boundary(at + literal.len())
            && *window == *literal
    })
}

/// One character for all that `re.IGNORECASE` takes for the same: characters whose simple
/// lower case, or the upper case of that, is the same (`ı` and `İ` are `i`, `ſ` is `s`).
fn fold(c: char) -> char {
    let lower = lower(c);
    match lower {
        // These share upper cases of several characters.
        '\u{1fd3}' => '\u{390}',
        '\u{1fe3}' => '\u{3b0}',
        '\u{fb06}' => '\u{fb05}',
        _ => {
            let mut upper = lower.to_uppercase();
            match (upper.next(), upper.next()) {
                (Some(upper), None) => self::lower(upper),
                _ => lower,
            }
        }
    }
}

fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}
