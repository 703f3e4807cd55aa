//! Constraints and their questions in words, and back: what is said can be read again, so that
//! a composed request is scored by rule.
//!
//! The phrasings of rules are those that the product recognises (`synth::rules`), of soft kinds
//! those of `phrasebook.rs`.

use crate::ask::{Ask, AskKind};
use crate::phrasebook::PHRASEBOOK;
use crate::soft::{Dimension, Soft};
pub(crate) use synth::rules::number;
use synth::rules::{self, Phrases};

/// Which phrasings may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wording {
    Known,
    HeldOut,
}

impl Wording {
    /// A place in a list whose last entry is held out.
    pub(crate) fn index(self, len: usize, below: impl FnOnce(usize) -> usize) -> usize {
        match self {
            Self::Known => below(len - 1),
            Self::HeldOut => len - 1,
        }
    }
}

/// The phrasings of a kind.
pub(crate) fn phrases(kind: AskKind) -> &'static Phrases {
    let found = match kind {
        AskKind::Rule(kind) => rules::phrases(kind),
        AskKind::Soft(_) => PHRASEBOOK.iter().find(|one| one.kind == kind.name()),
    };
    found.expect("a test looks every kind up")
}

/// Fills the fields of a template.
pub(crate) fn fill(template: &str, ask: &Ask) -> String {
    match ask {
        Ask::Rule(rule) => rules::fill(template, rule),
        Ask::Soft(soft) => rules::fill_with(template, |_| soft.name().to_owned()),
    }
}

/// The constraint that a demand states, if it is one of our phrasings.
pub fn read_demand(text: &str) -> Option<Ask> {
    let rule = rules::read_demand(text).map(Ask::Rule);
    rule.or_else(|| read_soft(text, |phrases| &phrases.demands))
}

/// The constraint that a question asks about, if it is one of our phrasings.
pub fn read_question(text: &str) -> Option<Ask> {
    let rule = rules::read_question(text).map(Ask::Rule);
    rule.or_else(|| read_soft(text, |phrases| &phrases.questions))
}

fn read_soft(
    text: &str,
    templates: impl Fn(&'static Phrases) -> &'static [&'static str],
) -> Option<Ask> {
    let text = text.trim();
    Dimension::ALL.into_iter().find_map(|dimension| {
        let templates = templates(phrases(AskKind::Soft(dimension)));
        templates.iter().find_map(|template| {
            let fields = rules::capture(template, text)?;
            let (_, value) = fields.first()?;
            let ask = Ask::Soft(Soft::named(dimension, value)?);
            (fill(template, &ask) == text).then_some(ask)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    #[test]
    fn what_is_said_can_be_read_again() {
        let mut dice = Dice::new(5, 0);
        for kind in AskKind::all() {
            for _ in 0..40 {
                let ask = Ask::draw(kind, 0, &|_| true, &mut dice);
                let phrases = phrases(kind);
                for template in phrases.demands {
                    let text = fill(template, &ask);
                    assert!(!text.contains(['{', '}']), "{text}");
                    assert_eq!(read_demand(&text).as_ref(), Some(&ask), "{text}");
                    assert_eq!(read_question(&text), None, "{text}");
                }
                for template in phrases.questions {
                    let text = fill(template, &ask);
                    assert_eq!(read_question(&text).as_ref(), Some(&ask), "{text}");
                }
            }
        }
        for text in [
            "",
            "Include the word .",
            "Include the word a b.",
            "Write five.",
            "Be rude.",
            "Use at least sentences.",
        ] {
            assert_eq!(read_demand(text), None, "{text}");
        }
    }
}
