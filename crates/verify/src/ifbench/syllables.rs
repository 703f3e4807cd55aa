//! Syllables of English words: a list of known words, and a rule of vowel groups for the rest.
//!
//! Source: SyllaPy 0.7.2, whose list `data/syllables.txt` is (MIT, licence beside it).

use std::collections::HashMap;
use std::sync::LazyLock;

use super::text::strip;
use crate::python;

/// `count word word ...`, one line for each count.
static KNOWN: LazyLock<HashMap<&'static str, i64>> = LazyLock::new(|| {
    let mut known = HashMap::new();
    for line in include_str!("data/syllables.txt").lines() {
        let mut fields = line.split(' ');
        let count = fields.next().and_then(|field| field.parse().ok());
        let count = count.expect("each line of the list starts with a number");
        known.extend(fields.map(|word| (word, count)));
    }
    known
});

/// Syllables of a word; 0 if it holds a digit or nothing but punctuation.
pub(super) fn count(word: &str) -> i64 {
    let word = strip(word).to_lowercase();
    let word = word.trim_matches(|c: char| c.is_ascii_punctuation());
    if word.is_empty() || word.chars().any(python::is_decimal) {
        return 0;
    }
    KNOWN.get(word).copied().unwrap_or_else(|| by_rule(word))
}

/// Groups of vowels, less a final `e` unless it follows a consonant and `l`; at least one.
fn by_rule(word: &str) -> i64 {
    let chars: Vec<char> = word.chars().collect();
    let is_vowel = |c: &char| "aeiouy".contains(*c);
    let starts_group = |pair: &&[char]| !is_vowel(&pair[0]) && is_vowel(&pair[1]);
    let mut count = i64::from(is_vowel(&chars[0]));
    count += i64::try_from(chars.windows(2).filter(starts_group).count()).expect("fits");
    match chars[..] {
        [.., before, 'l', 'e'] if !is_vowel(&before) => {}
        [.., 'e'] => count -= 1,
        _ => {}
    }
    if count == 0 { 1 } else { count }
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn counts_by_list_and_by_rule() {
        for (word, expected) in [
            ("", 0),
            ("...", 0),
            ("a1", 0),
            ("banana", 3),
            ("zzz", 1),
            ("blorptle", 2),
            ("blorpate", 2),
            ("\u{e9}", 1),
            ("e", 1),
        ] {
            assert_eq!(count(word), expected, "{word:?}");
        }
    }
}
