//! What training never sees, so that skill can be told from memory: one topic and constraint
//! in eight, one pair of constraints in eight, one phrasing of each list, one word in ten.

use crate::ask::AskKind;
use crate::dice::fixed;
use crate::phrases::Wording;
use crate::world::TOPICS;
use serde::{Deserialize, Serialize};

/// Where a request may come from. In the held-out parts all but the named novelty is as in
/// training, words to copy apart: they are always new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Nothing held out.
    Train,
    /// A topic with a constraint that training never puts together.
    Pair,
    /// Two constraints that training never puts together.
    Combination,
    /// Known topics and constraints in words that training never uses.
    Phrasing,
}

impl Split {
    /// The held-out parts.
    pub const HELD_OUT: [Self; 3] = [Self::Pair, Self::Combination, Self::Phrasing];

    pub(crate) fn admits(self, topics: &[usize], kinds: &[AskKind]) -> bool {
        let pair = topics
            .iter()
            .any(|topic| kinds.iter().any(|kind| held_out_pair(*topic, *kind)));
        let combination = kinds
            .iter()
            .enumerate()
            .any(|(i, a)| kinds[i + 1..].iter().any(|b| held_out_combination(*a, *b)));
        match self {
            Self::Train | Self::Phrasing => !pair && !combination,
            Self::Pair => pair && !combination,
            Self::Combination => combination && !pair,
        }
    }

    pub(crate) fn wording(self) -> Wording {
        if self == Self::Phrasing {
            Wording::HeldOut
        } else {
            Wording::Known
        }
    }

    pub(crate) fn admits_word(self, word: &str) -> bool {
        held_out_word(word) == (self != Self::Train)
    }
}

/// One in eight.
const PAIRS: u64 = 8;
/// One in ten.
const WORDS: u64 = 10;

/// Whether training never asks for this kind on this topic.
pub(crate) fn held_out_pair(topic: usize, kind: AskKind) -> bool {
    fixed(&format!("pair {} {}", TOPICS[topic], kind.name())).is_multiple_of(PAIRS)
}

/// Whether training never asks for both kinds at once. Symmetric.
pub(crate) fn held_out_combination(a: AskKind, b: AskKind) -> bool {
    let (first, second) = (a.name().min(b.name()), a.name().max(b.name()));
    first != second && fixed(&format!("combination {first} {second}")).is_multiple_of(PAIRS)
}

/// Whether training never asks for this word.
pub(crate) fn held_out_word(word: &str) -> bool {
    fixed(&format!("word {}", word.to_lowercase())).is_multiple_of(WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_an_eighth_is_held_out_and_every_kind_and_topic_is_trained() {
        let kinds = AskKind::all();
        let mut held = 0;
        for (topic, name) in TOPICS.iter().enumerate() {
            let here = kinds
                .iter()
                .filter(|kind| held_out_pair(topic, **kind))
                .count();
            assert!(here < kinds.len() / 2, "{name}");
            held += here;
        }
        let share = held as f64 / (TOPICS.len() * kinds.len()) as f64;
        assert!((0.10..0.15).contains(&share), "{share}");
        for a in &kinds {
            assert!(!held_out_combination(*a, *a));
            let with = kinds
                .iter()
                .filter(|b| held_out_combination(*a, **b))
                .count();
            assert!(with < kinds.len() / 2, "{}", a.name());
            assert!(
                kinds
                    .iter()
                    .all(|b| held_out_combination(*a, *b) == held_out_combination(*b, *a))
            );
        }
    }
}
