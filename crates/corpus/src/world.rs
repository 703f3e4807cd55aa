//! The toy world: topics, what is true of them, and the words for saying so.
//!
//! Templates hold `{S}` (the topic as a subject: "The fox", later "It"), `{P}` ("The fox's",
//! "Its"), `{o}` (as an object: "the fox", "it"), `{v}` (the value), and verbs as
//! `[present|past|future]`.

use crate::dice::{Dice, fixed};
use std::fmt::Write as _;

/// Things to write about; each is said with "the".
pub const TOPICS: [&str; 60] = [
    "fox", "owl", "goat", "heron", "badger", "otter", "beetle", "pony", "raven", "turtle",
    "harbour", "mill", "garden", "tower", "market", "bridge", "cellar", "orchard", "chapel",
    "well", "lantern", "hammer", "kettle", "ladder", "mirror", "compass", "basket", "needle",
    "clock", "broom", "honey", "bread", "soup", "apple", "cheese", "onion", "pie", "tea", "plum",
    "porridge", "rose", "oak", "fern", "willow", "thistle", "ivy", "clover", "moss", "tulip",
    "reed", "boat", "cart", "sledge", "ferry", "wagon", "canoe", "raft", "train", "bicycle",
    "balloon",
];

/// Grammatical time of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    Present,
    Past,
    Future,
}

/// One thing that can be known of every topic.
pub(crate) struct Attribute {
    /// A question that the value answers.
    pub(crate) question: &'static str,
    pub(crate) values: &'static [&'static str],
    /// Sentences of one topic.
    pub(crate) templates: &'static [&'static str],
    /// A sentence of two topics: `{a}`, `{b}` and their values `{va}`, `{vb}`.
    pub(crate) comparison: &'static str,
}

/// Place of the attribute that explains something.
pub(crate) const REASON: usize = 11;

/// The attributes; a topic has one value of each.
pub(crate) const ATTRIBUTES: [Attribute; 12] = [
    Attribute {
        question: "What colour is {o}?",
        values: &[
            "red", "brown", "white", "black", "green", "yellow", "grey", "blue", "silver",
            "golden", "orange", "purple",
        ],
        templates: &[
            "{S} [is|was|will be] {v}.",
            "{P} colour [is|was|will be] {v}.",
        ],
        comparison: "{A} [is|was|will be] {va} but {b} [is|was|will be] {vb}.",
    },
    Attribute {
        question: "How big is {o}?",
        values: &[
            "a thumb", "a cup", "a loaf", "a hat", "a chair", "a door", "a barrel", "a horse",
            "a barn", "a book", "a pillow", "a drum",
        ],
        templates: &[
            "{S} [is|was|will be] as big as {v}.",
            "In size, {o} [is|was|will be] like {v}.",
        ],
        comparison: "{A} [is|was|will be] as big as {va} but {b} [is|was|will be] as big as {vb}.",
    },
    Attribute {
        question: "Where is {o}?",
        values: &[
            "near the old gate",
            "under the hill",
            "by the river",
            "behind the school",
            "at the edge of town",
            "in the valley",
            "on the north road",
            "close to the sea",
            "beside the church",
            "across the field",
            "along the wall",
            "in the back yard",
        ],
        templates: &[
            "People [find|found|will find] {o} {v}.",
            "{S} [waits|waited|will wait] {v}.",
        ],
        comparison: "People [find|found|will find] {a} {va} and {b} {vb}.",
    },
    Attribute {
        question: "Which season suits {o} best?",
        values: &[
            "spring",
            "summer",
            "autumn",
            "winter",
            "early spring",
            "late summer",
            "late autumn",
            "deep winter",
        ],
        templates: &[
            "{S} [looks|looked|will look] best in {v}.",
            "The best season for {o} [is|was|will be] {v}.",
        ],
        comparison: "{A} [looks|looked|will look] best in {va} while {b} [looks|looked|will look] best in {vb}.",
    },
    Attribute {
        question: "When do people see {o}?",
        values: &[
            "at dawn",
            "at noon",
            "at dusk",
            "after dark",
            "in the rain",
            "on Sundays",
            "every morning",
            "once a week",
            "on market days",
            "before supper",
        ],
        templates: &[
            "Most people [see|saw|will see] {o} {v}.",
            "If you look {v}, you [can|could|will] see {o}.",
        ],
        comparison: "People [see|saw|will see] {a} {va} and {b} {vb}.",
    },
    Attribute {
        question: "How does {o} feel to the touch?",
        values: &[
            "smooth", "rough", "soft", "warm", "cold", "dry", "damp", "hard", "sticky", "light",
        ],
        templates: &[
            "{S} [feels|felt|will feel] {v}.",
            "To the touch, {o} [is|was|will be] {v}.",
        ],
        comparison: "{A} [feels|felt|will feel] {va} but {b} [feels|felt|will feel] {vb}.",
    },
    Attribute {
        question: "What does {o} smell of?",
        values: &[
            "rain",
            "smoke",
            "mint",
            "salt",
            "hay",
            "wax",
            "pepper",
            "roses",
            "wet wool",
            "fresh paint",
            "pine",
            "vinegar",
        ],
        templates: &[
            "{S} [smells|smelled|will smell] of {v}.",
            "The smell of {v} [hangs|hung|will hang] about {o}.",
        ],
        comparison: "{A} [smells|smelled|will smell] of {va} but {b} [smells|smelled|will smell] of {vb}.",
    },
    Attribute {
        question: "What does {o} sound like?",
        values: &[
            "a bell",
            "a whisper",
            "a fiddle",
            "a sneeze",
            "dry leaves",
            "a far storm",
            "slow water",
            "a purring cat",
            "a creaking stair",
            "a flute",
        ],
        templates: &[
            "{S} [sounds|sounded|will sound] like {v}.",
            "{P} sound [is|was|will be] like {v}.",
        ],
        comparison: "{A} [sounds|sounded|will sound] like {va} but {b} [sounds|sounded|will sound] like {vb}.",
    },
    Attribute {
        question: "Who loves {o}?",
        values: &[
            "the baker",
            "the miller",
            "the doctor",
            "the mayor",
            "the piper",
            "the weaver",
            "the sailor",
            "the smith",
            "the cook",
            "the postman",
            "the tailor",
            "the widow",
        ],
        templates: &[
            "{v} [loves|loved|will love] {o}.",
            "{S} [makes|made|will make] {v} smile.",
        ],
        comparison: "{va} [loves|loved|will love] {a} and {vb} [loves|loved|will love] {b}.",
    },
    Attribute {
        question: "What do people use {o} for?",
        values: &[
            "work",
            "play",
            "trade",
            "comfort",
            "good luck",
            "study",
            "teaching",
            "show",
            "company",
            "warmth",
        ],
        templates: &[
            "People [use|used|will use] {o} for {v}.",
            "{S} [serves|served|will serve] for {v}.",
        ],
        comparison: "People [use|used|will use] {a} for {va} and {b} for {vb}.",
    },
    Attribute {
        question: "What is {o} known as?",
        values: &[
            "famous",
            "quiet",
            "humble",
            "strange",
            "precious",
            "lively",
            "gentle",
            "stubborn",
            "useful",
            "mysterious",
        ],
        templates: &[
            "{S} [is|was|will be] {v}.",
            "Everyone [calls|called|will call] {o} {v}.",
        ],
        comparison: "{A} [is|was|will be] {va} but {b} [is|was|will be] {vb}.",
    },
    Attribute {
        question: "Why do people talk about {o}?",
        values: &[
            "an old song names it",
            "the king asked for it",
            "it survived the flood",
            "no map shows it",
            "it came from far away",
            "the children painted it",
            "it never gets old",
            "a poet lost it",
            "it brings people together",
            "nobody owns it",
        ],
        templates: &[
            "People [talk|talked|will talk] about {o} because {v}.",
            "They [say|said|will say] of {o} that {v}.",
        ],
        comparison: "Of {a} they [say|said|will say] that {va} and of {b} that {vb}.",
    },
];

/// Things to do with any topic: the request's verb, and lines to choose from, in order.
pub(crate) const CHORES: [(&str, [&str; 6]); 4] = [
    (
        "draw",
        [
            "Take a sheet of paper.",
            "Look closely at {o}.",
            "Sketch the outline in pencil.",
            "Add the small details.",
            "Colour it in.",
            "Sign your drawing of {o}.",
        ],
    ),
    (
        "find",
        [
            "Pack a map and a coat.",
            "Ask a neighbour about {o}.",
            "Follow the narrow path.",
            "Stop and listen.",
            "Search for {o}.",
            "Write down what you see.",
        ],
    ),
    (
        "guard",
        [
            "Stand close to {o}.",
            "Keep a lamp burning.",
            "Watch every visitor.",
            "Lock the gate at night.",
            "Ask a friend to help.",
            "Check {o} in the morning.",
        ],
    ),
    (
        "sell",
        [
            "Clean {o} well.",
            "Choose a fair price.",
            "Carry it to the square.",
            "Praise {o} loudly.",
            "Take the coins.",
            "Thank the buyer.",
        ],
    ),
];

/// Words to ask for: ordinary nouns.
pub(crate) const NOUNS: [&str; 96] = [
    "anchor", "apron", "arrow", "attic", "badge", "banner", "barley", "beacon", "blanket",
    "bottle", "branch", "brick", "bucket", "button", "cabin", "candle", "canvas", "carpet",
    "castle", "chimney", "cloud", "coin", "copper", "corner", "cotton", "cradle", "crystal",
    "curtain", "desert", "drawer", "echo", "engine", "fabric", "feather", "fence", "finger",
    "forest", "fountain", "frost", "gallery", "ginger", "glove", "granite", "harvest", "helmet",
    "hollow", "island", "jacket", "jewel", "journey", "kitchen", "kite", "lemon", "letter",
    "library", "magnet", "marble", "meadow", "melody", "mountain", "nephew", "notebook", "ocean",
    "olive", "organ", "palace", "parcel", "pebble", "pencil", "pillar", "planet", "pocket",
    "puzzle", "ribbon", "rocket", "saddle", "scarf", "shadow", "shelter", "signal", "spoon",
    "stable", "statue", "sugar", "temple", "thunder", "ticket", "tunnel", "umbrella", "valley",
    "velvet", "violin", "whistle", "window", "winter", "wizard",
];

/// Sentences for a word `{w}` that has to occur, whatever the word.
pub(crate) const WORD_SENTENCES: [&str; 8] = [
    "The sign there [says|said|will say] {w}.",
    "Children [call|called|will call] it {w}.",
    "Somebody [writes|wrote|will write] {w} on the door.",
    "The old name [is|was|will be] {w}.",
    "Beside it [lies|lay|will lie] one {w} of stone.",
    "The song about it [has|had|will have] the word {w}.",
    "One word [fits|fitted|will fit] it: {w}.",
    "They [think|thought|will think] of {w} when they see it.",
];

/// People to write to.
pub(crate) const NAMES: [&str; 12] = [
    "Mia", "Tom", "Ada", "Ben", "Lena", "Omar", "Ruth", "Paul", "Nora", "Hugo", "Ida", "Sam",
];

/// Words with a letter at least twice, `a` to `z`, for texts that need many of one letter.
pub(crate) const DENSE: [&str; 26] = [
    "papaya",
    "hobby",
    "cocoa",
    "paddle",
    "eleven",
    "coffee",
    "luggage",
    "hearth",
    "idiom",
    "jujube",
    "knapsack",
    "lullaby",
    "mammoth",
    "noon",
    "cocoon",
    "pepper",
    "quinquereme",
    "mirror",
    "glasses",
    "tattoo",
    "usual",
    "vivid",
    "willow",
    "xerox",
    "yearly",
    "puzzle",
];

/// Syllable parts of invented words: varied, so that no spelling is learnt by heart.
const ONSETS: [&str; 30] = [
    "b", "bl", "br", "c", "cl", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p",
    "pl", "qu", "r", "s", "sk", "sn", "t", "tr", "v", "w", "z", "th",
];
const VOWELS: [&str; 12] = [
    "a", "e", "i", "o", "u", "ee", "oo", "ai", "ou", "ea", "oi", "y",
];
const CODAS: [&str; 18] = [
    "", "b", "ck", "d", "f", "g", "l", "m", "n", "p", "rn", "rt", "sk", "st", "t", "v", "x", "nd",
];

/// A word that does not exist: two syllables, sometimes three or one.
pub(crate) fn invented(dice: &mut Dice) -> String {
    let syllables = [1, 2, 2, 2, 3][dice.below(5)];
    let mut word = String::new();
    for index in 0..syllables {
        word += dice.pick(&ONSETS);
        word += dice.pick(&VOWELS);
        // Codas inside a word stay rare, so that it can be spoken.
        if index + 1 == syllables || dice.chance(0.3) {
            word += dice.pick(&CODAS);
        }
    }
    if word.len() < 3 {
        word += "mo";
    }
    word
}

/// What is true of a topic, by attribute: fixed once and for all, whatever the seed.
pub(crate) fn truth(topic: usize, attribute: usize) -> &'static str {
    let values = ATTRIBUTES[attribute].values;
    let number = fixed(&format!("fact {} {attribute}", TOPICS[topic]));
    values[(number % values.len() as u64) as usize]
}

/// How a sentence names its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    Name,
    Pronoun,
}

/// Fills a sentence about one topic.
pub(crate) fn say(template: &str, topic: usize, naming: Naming, value: &str, time: Time) -> String {
    let name = format!("the {}", TOPICS[topic]);
    let object = match naming {
        Naming::Name => name.as_str(),
        Naming::Pronoun => "it",
    };
    let owner = match naming {
        Naming::Name => format!("The {}'s", TOPICS[topic]),
        Naming::Pronoun => "Its".to_owned(),
    };
    let text = conjugate(template, time)
        .replace("{S}", &capitalised(object))
        .replace("{P}", &owner)
        .replace("{o}", object)
        .replace("{v}", value);
    capitalised(&text)
}

/// Chooses a form of each `[present|past|future]`.
pub(crate) fn conjugate(template: &str, time: Time) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('[') {
        let (forms, tail) = after.split_once(']').unwrap_or((after, ""));
        let mut forms = forms.split('|');
        let form = match time {
            Time::Present => forms.next(),
            Time::Past => forms.nth(1),
            Time::Future => forms.nth(2),
        };
        let _ = write!(text, "{before}{}", form.unwrap_or_default());
        rest = tail;
    }
    text + rest
}

/// The text with its first letter in upper case.
pub(crate) fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .collect();
    first + chars.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_template_can_be_said_in_every_time() {
        for attribute in &ATTRIBUTES {
            assert!(attribute.question.contains("{o}"));
            for template in attribute.templates {
                let said = say(template, 0, Naming::Name, attribute.values[0], Time::Past);
                assert!(
                    said.contains("fox")
                        && said.contains(attribute.values[0].trim_start_matches("the ")),
                    "{said}"
                );
                assert!(!said.contains(['[', ']', '{', '}', '|']), "{said}");
                let times = [Time::Present, Time::Past, Time::Future];
                let forms: BTreeSet<_> = times.map(|time| conjugate(template, time)).into();
                assert_eq!(forms.len(), 3, "{template}");
            }
        }
    }

    #[test]
    fn the_world_is_as_large_as_promised_and_has_no_word_twice() {
        let topics: BTreeSet<_> = TOPICS.iter().collect();
        assert_eq!(topics.len(), 60);
        let nouns: BTreeSet<_> = NOUNS.iter().collect();
        assert_eq!(nouns.len(), NOUNS.len());
        assert!(topics.is_disjoint(&nouns));
        for (letter, word) in ('a'..='z').zip(DENSE) {
            assert!(word.matches(letter).count() >= 2, "{word}");
        }
    }

    #[test]
    fn invented_words_are_many() {
        let mut dice = Dice::new(3, 0);
        let words: BTreeSet<_> = (0..1000).map(|_| invented(&mut dice)).collect();
        assert!(words.len() > 900);
        assert!(words.iter().all(|word| word.len() >= 3));
    }
}
