//! Python's text primitives, as CPython 3.11 has them (Unicode 14), where Rust's differ.

pub mod json;
pub mod re;

use regex::Regex;
use std::sync::LazyLock;

/// `str.isspace` of one character: Unicode white space, and U+001C to U+001F besides.
#[must_use]
pub fn is_space(c: char) -> bool {
    matches!(c, '\t'..='\r' | '\u{1c}'..='\u{1f}' | ' ') || (!c.is_ascii() && c.is_whitespace())
}

/// `\w` of one character: letters, numbers of any kind, and the underscore.
#[must_use]
pub fn is_word(c: char) -> bool {
    match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || c == '_',
        false => WORD.holds(c),
    }
}

/// `\d` of one character: decimal digits of any script.
#[must_use]
pub fn is_decimal(c: char) -> bool {
    match c.is_ascii() {
        true => c.is_ascii_digit(),
        false => DECIMAL.holds(c),
    }
}

/// `str.isalpha` of one character: letters.
#[must_use]
pub fn is_alpha(c: char) -> bool {
    match c.is_ascii() {
        true => c.is_ascii_alphabetic(),
        false => LETTER.holds(c),
    }
}

static WORD: LazyLock<Class> = LazyLock::new(|| Class::of(r"[\p{L}\p{N}_]"));
static DECIMAL: LazyLock<Class> = LazyLock::new(|| Class::of(r"\p{Nd}"));
static LETTER: LazyLock<Class> = LazyLock::new(|| Class::of(r"\p{L}"));

/// One bit for every code point.
struct Class(Box<[u64]>);

impl Class {
    fn of(class: &str) -> Self {
        let regex = Regex::new(class).expect("the classes above are valid");
        let mut bits = vec![0; 0x11_0000 / 64];
        let all: String = ('\0'..=char::MAX).collect();
        for found in regex.find_iter(&all) {
            for c in found.as_str().chars() {
                bits[c as usize / 64] |= 1 << (c as usize % 64);
            }
        }
        Self(bits.into())
    }

    fn holds(&self, c: char) -> bool {
        self.0[c as usize / 64] >> (c as usize % 64) & 1 == 1
    }
}

/// `str.isupper`: some upper-case character, and none in lower or title case.
#[must_use]
pub fn is_upper(text: &str) -> bool {
    let mut some = false;
    for c in text.chars() {
        if c.is_lowercase() || is_title(c) {
            return false;
        }
        some |= c.is_uppercase();
    }
    some
}

/// `str.islower`: some lower-case character, and none in upper or title case.
#[must_use]
pub fn is_lower(text: &str) -> bool {
    let mut some = false;
    for c in text.chars() {
        if c.is_uppercase() || is_title(c) {
            return false;
        }
        some |= c.is_lowercase();
    }
    some
}

/// Characters of category Lt.
fn is_title(c: char) -> bool {
    matches!(
        c,
        '\u{1c5}'
            | '\u{1c8}'
            | '\u{1cb}'
            | '\u{1f2}'
            | '\u{1f88}'..='\u{1f8f}'
            | '\u{1f98}'..='\u{1f9f}'
            | '\u{1fa8}'..='\u{1faf}'
            | '\u{1fbc}'
            | '\u{1fcc}'
            | '\u{1ffc}'
    )
}

/// `str.strip()`.
#[must_use]
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Whether nothing is left after [`strip`]; true of the empty text.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    text.chars().all(is_space)
}

/// `str.split()`: maximal runs without white space.
pub fn split(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.split(is_space).filter(|piece| !piece.is_empty())
}

/// `re.findall(r"\w+", text)`.
pub fn words(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    let pieces = text.split(|c| !is_word(c));
    pieces.filter(|piece| !piece.is_empty())
}

/// `str.splitlines()`: cut at each line end that Python knows, none of them kept, and no empty
/// line after a last one.
pub fn split_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(end) = rest.find(is_line_end) else {
            return Some(std::mem::take(&mut rest));
        };
        let line = &rest[..end];
        let after = &rest[end..];
        let mut chars = after.chars();
        if chars.next() == Some('\r') && chars.as_str().starts_with('\n') {
            chars.next();
        }
        rest = chars.as_str();
        Some(line)
    })
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_that_of_python() {
        let found: Vec<u32> = ('\0'..=char::MAX)
            .filter(|c| is_space(*c))
            .map(u32::from)
            .collect();
        let mut expected: Vec<u32> = (9..=13)
            .chain(0x1c..=0x20)
            .chain([0x85, 0xa0, 0x1680])
            .collect();
        expected.extend((0x2000..=0x200a).chain([0x2028, 0x2029, 0x202f, 0x205f, 0x3000]));
        assert_eq!(found, expected);
    }

    #[test]
    fn word_characters_leave_out_marks_and_joiners() {
        for (c, expected) in [
            ('a', true),
            ('_', true),
            ('é', true),
            ('٣', true),
            ('½', true),
            ('Ⅷ', true),
            ('語', true),
            ('\u{301}', false),
            ('\u{200d}', false),
            ('‿', false),
            ('-', false),
            ('’', false),
        ] {
            assert_eq!(is_word(c), expected, "{c:?}");
        }
        assert!(is_decimal('٣') && !is_decimal('½') && !is_decimal('²'));
        assert!(is_alpha('é') && !is_alpha('Ⅷ'));
    }

    #[test]
    fn cases_ignore_what_has_none() {
        for (text, upper, lower) in [
            ("", false, false),
            ("1", false, false),
            ("A1", true, false),
            ("a1", false, true),
            ("Ab", false, false),
            ("ǅ", false, false),
            ("Aǅ", false, false),
            ("aǅ", false, false),
            ("Ⓐ", true, false),
            ("ª", false, true),
            ("語A", true, false),
            ("ß", false, true),
        ] {
            assert_eq!((is_upper(text), is_lower(text)), (upper, lower), "{text:?}");
        }
    }

    #[test]
    fn lines_end_as_in_python() {
        for (text, expected) in [
            ("", &[][..]),
            ("a", &["a"]),
            ("a\n", &["a"]),
            ("a\r\nb\n\nc", &["a", "b", "", "c"]),
            ("\n", &[""]),
            (
                "a\u{1e}b\u{85}c\u{2028}d\u{b}e\u{1f}f",
                &["a", "b", "c", "d", "e\u{1f}f"],
            ),
        ] {
            assert_eq!(split_lines(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }
}
