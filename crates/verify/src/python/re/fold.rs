//! Cases as Python's `re.IGNORECASE` sees them, and membership in sets.

use super::tree::{Cases, Class, Item, Set, Words};
use crate::python;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Small letters that are one to a search, though neither is the other's lower case: the facts
/// of CPython 3.11's `_casefix`.
const ALIKE: [&[u32]; 24] = [
    &[0x69, 0x131],
    &[0x73, 0x17f],
    &[0xb5, 0x3bc],
    &[0x345, 0x3b9, 0x1fbe],
    &[0x390, 0x1fd3],
    &[0x3b0, 0x1fe3],
    &[0x3b2, 0x3d0],
    &[0x3b5, 0x3f5],
    &[0x3b8, 0x3d1],
    &[0x3ba, 0x3f0],
    &[0x3c0, 0x3d6],
    &[0x3c1, 0x3f1],
    &[0x3c2, 0x3c3],
    &[0x3c6, 0x3d5],
    &[0x432, 0x1c80],
    &[0x434, 0x1c81],
    &[0x43e, 0x1c82],
    &[0x441, 0x1c83],
    &[0x442, 0x1c84, 0x1c85],
    &[0x44a, 0x1c86],
    &[0x463, 0x1c87],
    &[0x1c88, 0xa64b],
    &[0x1e61, 0x1e9b],
    &[0xfb05, 0xfb06],
];

struct Folds {
    /// The character that stands for all of its cases, where that is not itself.
    canon: HashMap<char, char>,
    /// All cases, where there are several, by the one that stands for them.
    orbits: HashMap<char, Vec<char>>,
}

static FOLDS: LazyLock<Folds> = LazyLock::new(|| {
    let mut canon = HashMap::new();
    let mut orbits: HashMap<char, Vec<char>> = HashMap::new();
    for c in '\0'..=char::MAX {
        let lower = lower(c);
        let alike = ALIKE.iter().find(|list| list.contains(&u32::from(lower)));
        let first = alike
            .and_then(|list| char::from_u32(list[0]))
            .unwrap_or(lower);
        if first != c {
            canon.insert(c, first);
            let orbit = orbits.entry(first).or_insert_with(|| vec![first]);
            orbit.push(c);
        }
    }
    Folds { canon, orbits }
});

/// The lower case of one character as one character.
fn lower(c: char) -> char {
    // Only the capital I with a dot has a lower case of two; the first of them is the simple one.
    c.to_lowercase().next().unwrap_or(c)
}

/// The character that stands for all cases of `c`.
pub(super) fn canon(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    FOLDS.canon.get(&c).copied().unwrap_or(c)
}

/// What `c` is compared by.
pub(super) fn key(c: char, cases: Cases) -> char {
    match cases {
        Cases::Kept => c,
        Cases::Folded => canon(c),
        Cases::AsciiFolded => c.to_ascii_lowercase(),
    }
}

/// All cases of a character but itself.
pub(super) fn others(c: char, cases: Cases) -> impl Iterator<Item = char> {
    let orbit = match cases {
        Cases::Kept => &[][..],
        Cases::Folded | Cases::AsciiFolded => {
            FOLDS.orbits.get(&canon(c)).map_or(&[][..], Vec::as_slice)
        }
    };
    let alike = move |other: &char| *other != c && key(*other, cases) == key(c, cases);
    orbit.iter().copied().filter(alike)
}

impl Set {
    /// Whether the character is in the set.
    pub(super) fn holds(&self, c: char) -> bool {
        let mut found = self.lists(c);
        if !found {
            found = others(c, self.cases).any(|other| self.lists(other));
        }
        found != self.negated
    }

    fn lists(&self, c: char) -> bool {
        self.items.iter().any(|item| match item {
            Item::Range(first, last) => (*first..=*last).contains(&u32::from(c)),
            Item::Class {
                class,
                words,
                negated,
            } => class_holds(*class, *words, c) != *negated,
        })
    }
}

fn class_holds(class: Class, words: Words, c: char) -> bool {
    let unicode = words == Words::Unicode;
    if !unicode && !c.is_ascii() {
        return false;
    }
    match class {
        Class::Digit => python::is_decimal(c),
        // To a pattern for ASCII, the separators 001C to 001F are no space.
        Class::Space => python::is_space(c) && (unicode || !matches!(c, '\u{1c}'..='\u{1f}')),
        Class::Word => is_word(words, c),
    }
}

/// Whether the character is of a word.
pub(super) fn is_word(words: Words, c: char) -> bool {
    match words {
        Words::Unicode => python::is_word(c),
        Words::Ascii => c.is_ascii_alphanumeric() || c == '_',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_those_of_python() {
        for (a, b, alike) in [
            ('i', 'I', true),
            ('i', 'İ', true),
            ('i', 'ı', true),
            ('I', 'ı', true),
            ('İ', 'ı', true),
            ('s', 'ſ', true),
            ('S', 'ſ', true),
            ('k', '\u{212a}', true),
            ('å', '\u{212b}', true),
            ('σ', 'ς', true),
            ('Σ', 'ς', true),
            ('µ', 'Μ', true),
            ('ß', 'ẞ', true),
            ('ß', 's', false),
            ('ﬅ', 'ﬆ', true),
            ('т', '\u{1c85}', true),
            ('é', 'É', true),
            ('e', 'é', false),
        ] {
            assert_eq!(canon(a) == canon(b), alike, "{a} {b}");
        }
        let mut cases: Vec<char> = others('i', Cases::Folded).collect();
        cases.sort_unstable();
        assert_eq!(cases, ['I', 'İ', 'ı']);
        assert_eq!(others('1', Cases::Folded).count(), 0);
        assert_eq!(others('i', Cases::AsciiFolded).collect::<Vec<_>>(), ['I']);
    }
}
