//! The form that patterns are written in: lower case, numbers as digits, quoted texts apart.

use regex::Regex;
use std::sync::LazyLock;

/// Stands where a quoted text stood.
pub(super) const QUOTED: char = '§';

/// A text in normal form.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Normal {
    /// One line of lower case without outer punctuation and politeness; [`QUOTED`] for each
    /// quoted text, `<<>>` for anything between double angular brackets.
    pub(super) text: String,
    /// The quoted texts, in order and as they were.
    pub(super) quoted: Vec<String>,
}

static ANGULAR: LazyLock<Regex> = LazyLock::new(|| regex(r"<<[^<>]*>>"));
static THOUSANDS: LazyLock<Regex> = LazyLock::new(|| regex(r"\b(\d{1,3}),(\d{3})\b"));
static WORD: LazyLock<Regex> = LazyLock::new(|| regex(r"[a-z]+(?:-[a-z]+)?"));
static OPENING: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"^(?:please |also,? |and |ensure (?:that )?|make sure (?:that |to )?|you must |you should )+",
    )
});

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns above are valid")
}

/// Numbers in words, and how often something happens.
const NUMBERS: [(&str, &str); 31] = [
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
    ("eleven", "11"),
    ("twelve", "12"),
    ("thirteen", "13"),
    ("fourteen", "14"),
    ("fifteen", "15"),
    ("sixteen", "16"),
    ("seventeen", "17"),
    ("eighteen", "18"),
    ("nineteen", "19"),
    ("twenty", "20"),
    ("thirty", "30"),
    ("forty", "40"),
    ("fifty", "50"),
    ("sixty", "60"),
    ("seventy", "70"),
    ("eighty", "80"),
    ("ninety", "90"),
    ("twenty-five", "25"),
    ("once", "1 time"),
    ("twice", "2 times"),
    ("thrice", "3 times"),
];

impl Normal {
    /// `None` if a quotation is not closed, or the text has our own mark in it.
    pub(super) fn of(text: &str) -> Option<Self> {
        if text.contains(QUOTED) {
            return None;
        }
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = line.replace('’', "'").replace(['–', '—'], "-");
        let line = ANGULAR.replace_all(&line, "<<>>");
        let (text, quoted) = take_quoted(&line)?;
        let lower = text.to_lowercase();
        let joined = THOUSANDS.replace_all(&lower, "$1$2");
        let digits = WORD.replace_all(&joined, |found: &regex::Captures<'_>| {
            let word = &found[0];
            let known = NUMBERS.iter().find(|(name, _)| *name == word);
            known.map_or(word, |(_, digits)| digits).to_owned()
        });
        let bare = digits
            .trim()
            .trim_end_matches(['.', '?', '!', ':', ';', ' ']);
        let bare = OPENING.replace(bare, "");
        Some(Self {
            text: bare.into_owned(),
            quoted,
        })
    }
}

/// Takes quoted texts out. A comma inside the end of a quotation belongs to the sentence.
fn take_quoted(line: &str) -> Option<(String, Vec<String>)> {
    let (mut text, mut quoted) = (String::new(), Vec::new());
    let mut rest = line;
    while let Some(character) = rest.chars().next() {
        let after = &rest[character.len_utf8()..];
        let begins = text.chars().last().is_none_or(|c| !c.is_alphanumeric());
        let closing = match character {
            '"' => '"',
            '“' => '”',
            '`' => '`',
            // Elsewhere it is an apostrophe.
            '\'' | '‘' if begins => '\'',
            '”' => return None,
            _ => {
                text.push(character);
                rest = after;
                continue;
            }
        };
        let end = closing_at(after, closing)?;
        let inside = &after[..end];
        rest = &after[end + closing.len_utf8()..];
        text.push(QUOTED);
        match inside.strip_suffix(',') {
            Some(word) => {
                text.push(',');
                quoted.push(word.to_owned());
            }
            None => quoted.push(inside.to_owned()),
        }
        if inside.trim().is_empty() {
            return None;
        }
    }
    Some((text, quoted))
}

/// Where the quotation ends; a single quote ends it only where no word goes on.
fn closing_at(text: &str, closing: char) -> Option<usize> {
    let mut marks = text.match_indices(closing);
    let ends = |at: &usize| {
        let next = text[at + closing.len_utf8()..].chars().next();
        closing != '\'' || next.is_none_or(|c| !c.is_alphanumeric())
    };
    marks.by_ref().map(|(at, _)| at).find(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_brought_into_one_form() {
        let check = |text: &str, expected: Option<(&str, &[&str])>| {
            let found = Normal::of(text);
            let found = found.as_ref().map(|one| {
                let quoted: Vec<&str> = one.quoted.iter().map(String::as_str).collect();
                (one.text.clone(), quoted)
            });
            let expected = expected.map(|(text, quoted)| (text.to_owned(), quoted.to_vec()));
            assert_eq!(found, expected, "{text}");
        };
        check("Please use  THREE\nwords.", Some(("use 3 words", &[])));
        check("Up to 1,500 words", Some(("up to 1500 words", &[])));
        check(
            "say it at least twice!",
            Some(("say it at least 2 times", &[])),
        );
        check(
            "Use \"Tea,\" ‘milk’ and “Rum”?",
            Some(("use §, § and §", &["Tea", "milk", "Rum"])),
        );
        check("Don't say 'it's'", Some(("don't say §", &["it's"])));
        check("a title in <<Two Words>>", Some(("a title in <<>>", &[])));
        check("an inch is 1\"", None);
        check("\"\" is empty", None);
        check("§ 5", None);
    }
}
