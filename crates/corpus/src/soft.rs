//! Constraints that no rule can check. An answer is written with them or without them, so its
//! label is known from how it was made.

use crate::dice::Dice;
use serde::Serialize;

/// What a soft constraint is about. An answer has one value of each at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Mood of the text.
    Tone,
    /// Whom it is written for.
    Audience,
    /// Whose voice it imitates.
    Persona,
    /// First or second person.
    PointOfView,
    /// Past or future.
    Tense,
    /// Polite or blunt.
    Politeness,
    /// Formal or casual.
    Register,
}

/// One value of a dimension and the marks that carry it.
pub(crate) struct Value {
    /// As it stands in the phrasings.
    pub(crate) name: &'static str,
    /// Sentences before the text.
    pub(crate) openers: &'static [&'static str],
    /// Sentences after it.
    pub(crate) closers: &'static [&'static str],
}

const fn value(
    name: &'static str,
    openers: &'static [&'static str],
    closers: &'static [&'static str],
) -> Value {
    Value {
        name,
        openers,
        closers,
    }
}

const TONES: [Value; 4] = [
    value(
        "cheerful",
        &["What a joy!", "Hooray, what fun!", "Happy news today!"],
        &[
            "How delightful!",
            "Such a bright thing!",
            "It makes the heart sing!",
        ],
    ),
    value(
        "sad",
        &[
            "Alas, sad days.",
            "With a heavy heart.",
            "Tears come easily here.",
        ],
        &["What a sorrow.", "So much is lost.", "No comfort in that."],
    ),
    value(
        "angry",
        &["What an outrage!", "Enough of this!", "How dare they!"],
        &["Shame on them all!", "Never again!", "This must stop now!"],
    ),
    value(
        "calm",
        &[
            "All is still.",
            "Slowly, gently now.",
            "Breathe in, breathe out.",
        ],
        &[
            "No hurry at all.",
            "Peace over everything.",
            "Quiet and rest.",
        ],
    ),
];
const AUDIENCES: [Value; 3] = [
    value(
        "a child",
        &[
            "Little one, listen.",
            "Hello, dear children!",
            "Story time, little ones!",
        ],
        &[
            "Good night, little one!",
            "Now you know it too, dear child!",
        ],
    ),
    value(
        "an expert",
        &[
            "Note for specialists.",
            "In technical terms.",
            "For the professional reader.",
        ],
        &[
            "Further data in the appendix.",
            "Details in the literature.",
        ],
    ),
    value(
        "a visitor",
        &[
            "Welcome to our town!",
            "Dear guest, welcome.",
            "Tip for travellers.",
        ],
        &["Enjoy your stay!", "Safe travels, dear guest!"],
    ),
];
const PERSONAS: [Value; 4] = [
    value(
        "a pirate",
        &["Arr, matey!", "Ahoy, ye landlubbers!", "Shiver my timbers!"],
        &["Yo ho ho!", "Arr!"],
    ),
    value(
        "a robot",
        &[
            "Beep. Boop.",
            "Unit online. Beep.",
            "Processing request. Beep.",
        ],
        &["End of output. Beep.", "Beep boop."],
    ),
    value(
        "a king",
        &[
            "Hear ye, loyal subjects!",
            "By royal decree.",
            "Kneel before the crown!",
        ],
        &["So speaks the crown.", "Long live the realm!"],
    ),
    value(
        "a grandmother",
        &[
            "Oh my sweet dear.",
            "Sit down, my dear.",
            "In my young days, my dear.",
        ],
        &["Have a biscuit, my dear.", "Wear your scarf, my dear."],
    ),
];
const VIEWS: [Value; 2] = [
    value(
        "the first person",
        &[
            "This is my own view.",
            "I speak for myself.",
            "My eyes do not lie to me.",
        ],
        &["That is my opinion.", "So much from me."],
    ),
    value(
        "the second person",
        &[
            "This is for your eyes.",
            "You asked, so here is your answer.",
            "Picture yourself there.",
        ],
        &["The rest is up to you.", "Make it yours."],
    ),
];
/// Carried by the verbs alone.
const TENSES: [Value; 2] = [
    value("the past tense", &[], &[]),
    value("the future tense", &[], &[]),
];
const POLITENESS: [Value; 2] = [
    value(
        "polite",
        &[
            "Thank you kindly for asking.",
            "With pleasure, if I may.",
            "Please allow a short reply.",
        ],
        &["Thank you for your kind attention.", "With many thanks."],
    ),
    value(
        "blunt",
        &[
            "Fine, here it is.",
            "Stop asking, just read.",
            "No small talk.",
        ],
        &["Take it or leave it.", "Now go away."],
    ),
];
const REGISTERS: [Value; 2] = [
    value(
        "formal",
        &[
            "Ladies and gentlemen.",
            "To whom it may concern.",
            "Esteemed reader.",
        ],
        &["Yours faithfully.", "With the highest regard."],
    ),
    value(
        "casual",
        &["Hey there!", "Yo, so get this.", "Okay, cool, listen up."],
        &["See ya!", "Pretty neat, huh?"],
    ),
];

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Tone,
        Self::Audience,
        Self::Persona,
        Self::PointOfView,
        Self::Tense,
        Self::Politeness,
        Self::Register,
    ];

    /// The values there are.
    pub(crate) fn values(self) -> &'static [Value] {
        match self {
            Self::Tone => &TONES,
            Self::Audience => &AUDIENCES,
            Self::Persona => &PERSONAS,
            Self::PointOfView => &VIEWS,
            Self::Tense => &TENSES,
            Self::Politeness => &POLITENESS,
            Self::Register => &REGISTERS,
        }
    }

    /// Name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tone => "soft:tone",
            Self::Audience => "soft:audience",
            Self::Persona => "soft:persona",
            Self::PointOfView => "soft:point_of_view",
            Self::Tense => "soft:tense",
            Self::Politeness => "soft:politeness",
            Self::Register => "soft:register",
        }
    }
}

/// A soft constraint: one value of one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Soft {
    /// What it is about.
    pub dimension: Dimension,
    /// Place in the dimension's values.
    pub(crate) index: usize,
}

impl Soft {
    /// Any value of the dimension.
    pub(crate) fn draw(dimension: Dimension, dice: &mut Dice) -> Self {
        let index = dice.below(dimension.values().len());
        Self { dimension, index }
    }

    /// The value with this name.
    pub(crate) fn named(dimension: Dimension, name: &str) -> Option<Self> {
        let index = dimension
            .values()
            .iter()
            .position(|value| value.name == name)?;
        Some(Self { dimension, index })
    }

    /// Another value of the same dimension.
    pub(crate) fn other(self, dice: &mut Dice) -> Self {
        let len = self.dimension.values().len();
        let index = (self.index + 1 + dice.below(len - 1)) % len;
        Self { index, ..self }
    }

    pub(crate) fn value(self) -> &'static Value {
        &self.dimension.values()[self.index]
    }

    /// The value's name: "cheerful", "a pirate".
    pub fn name(self) -> &'static str {
        self.value().name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_values_share_a_mark() {
        let mut marks = BTreeSet::new();
        for dimension in Dimension::ALL {
            for value in dimension.values() {
                let silent = dimension == Dimension::Tense;
                assert_eq!(value.openers.is_empty(), silent, "{}", value.name);
                for mark in value.openers.iter().chain(value.closers) {
                    assert!(marks.insert(*mark), "{mark}");
                }
            }
        }
    }
}
