//! The phrasings of every soft kind, as data; those of rules are in `synth`. `{t}` is the value.
//! The last of each list is never in training.

use synth::rules::Phrases;

/// One entry for each soft kind.
pub(crate) static PHRASEBOOK: [Phrases; 7] = [
    Phrases {
        kind: "soft:tone",
        demands: [
            "Use a tone that is {t}.",
            "The tone should be {t}.",
            "Sound {t}.",
            "Let the mood be {t}.",
        ],
        questions: [
            "Is the tone {t}?",
            "Does the answer sound {t}?",
            "Is the mood {t}?",
        ],
    },
    Phrases {
        kind: "soft:audience",
        demands: [
            "Write it for {t}.",
            "The reader is {t}.",
            "Address it to {t}.",
            "Have {t} in mind as the reader.",
        ],
        questions: [
            "Is the answer written for {t}?",
            "Does it address {t}?",
            "Is {t} meant as the reader?",
        ],
    },
    Phrases {
        kind: "soft:persona",
        demands: [
            "Speak like {t}.",
            "Answer as {t} would.",
            "Take the role of {t}.",
            "Pretend that you are {t}.",
        ],
        questions: [
            "Does it sound like {t}?",
            "Does {t} seem to speak?",
            "Is it the voice of {t}?",
        ],
    },
    Phrases {
        kind: "soft:point_of_view",
        demands: [
            "Write in {t}.",
            "Use {t}.",
            "Speak in {t}.",
            "Choose {t} as your point of view.",
        ],
        questions: [
            "Is it written in {t}?",
            "Does the answer use {t}?",
            "Is the point of view {t}?",
        ],
    },
    Phrases {
        kind: "soft:tense",
        demands: [
            "Keep to {t}.",
            "Put all verbs in {t}.",
            "Tell it in {t}.",
            "Let everything be in {t}.",
        ],
        questions: [
            "Is it told in {t}?",
            "Are the verbs in {t}?",
            "Is everything in {t}?",
        ],
    },
    Phrases {
        kind: "soft:politeness",
        demands: [
            "Be {t}.",
            "Make it {t}.",
            "Your manners should be {t}.",
            "I prefer it {t}.",
        ],
        questions: [
            "Is the answer {t}?",
            "Are the manners {t}?",
            "Is it {t} enough?",
        ],
    },
    Phrases {
        kind: "soft:register",
        demands: [
            "Use {t} language.",
            "Keep the style {t}.",
            "Write in a {t} style.",
            "Choose {t} words.",
        ],
        questions: [
            "Is the language {t}?",
            "Is the style {t}?",
            "Are the words {t}?",
        ],
    },
];
