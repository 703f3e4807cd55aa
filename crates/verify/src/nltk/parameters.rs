//! The English parameters of NLTK's Punkt model.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

/// Seen in upper case inside a sentence.
pub(super) const MIDDLE_UPPER: u8 = 4;
/// Seen in lower case at the start of a sentence.
pub(super) const START_LOWER: u8 = 16;
/// Seen in upper case anywhere.
pub(super) const ANY_UPPER: u8 = 2 | 4 | 8;
/// Seen in lower case anywhere.
pub(super) const ANY_LOWER: u8 = 16 | 32 | 64;

/// What was learned from English text.
pub(super) struct Parameters {
    abbreviations: HashSet<&'static str>,
    collocations: HashSet<(&'static str, &'static str)>,
    starters: HashSet<&'static str>,
    contexts: HashMap<Box<str>, u8>,
}

/// Packed by `scripts/pack-punkt`, which describes the lines.
const PACKED: &str = include_str!("../../data/punkt_english.txt");

pub(super) static ENGLISH: LazyLock<Parameters> = LazyLock::new(Parameters::unpack);

impl Parameters {
    fn unpack() -> Self {
        let mut lines = PACKED.lines().skip(1);
        let mut list = || lines.next().unwrap_or_default().split('\t');
        let abbreviations = list().collect();
        let pairs: Vec<&str> = list().collect();
        let starters = list().collect();
        let mut contexts = HashMap::with_capacity(20_400);
        let mut word = String::new();
        for line in lines {
            let [shared, bits, ..] = *line.as_bytes() else {
                continue;
            };
            word.truncate(usize::from(shared - b'0'));
            word.push_str(&line[2..]);
            contexts.insert(word.as_str().into(), (bits - b'0') * 2);
        }
        Self {
            abbreviations,
            collocations: pairs
                .chunks_exact(2)
                .map(|pair| (pair[0], pair[1]))
                .collect(),
            starters,
            contexts,
        }
    }

    /// Whether the word, in lower case and without its final dot, is an abbreviation.
    pub(super) fn is_abbreviation(&self, word: &str) -> bool {
        self.abbreviations.contains(word)
    }

    /// Whether the second type follows the first so often that a dot between is no end.
    pub(super) fn is_collocation(&self, first: &str, second: &str) -> bool {
        // The lifetimes of a key of references need not be those of the set's.
        let set: &HashSet<(&str, &str)> = &self.collocations;
        set.contains(&(first, second))
    }

    /// Whether the type often starts a sentence.
    pub(super) fn is_starter(&self, word: &str) -> bool {
        self.starters.contains(word)
    }

    /// The contexts in which the type was seen, as bits; 0 if never.
    pub(super) fn contexts(&self, word: &str) -> u8 {
        self.contexts.get(word).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parameters_are_unpacked() {
        let english = &*ENGLISH;
        let sizes = [english.abbreviations.len(), english.collocations.len()];
        assert_eq!(sizes, [156, 37]);
        assert_eq!(
            [english.starters.len(), english.contexts.len()],
            [39, 20_366]
        );
        for (word, bits) in [
            ("coverage", 36),
            ("him", 96),
            ("citing", 42),
            ("t-word", 4),
            ("qqq", 0),
        ] {
            assert_eq!(english.contexts(word), bits, "{word}");
        }
        assert!(english.is_collocation("i", "toussie") && english.is_abbreviation("u.s.a"));
    }
}
