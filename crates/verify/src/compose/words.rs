//! The word lists that the sampler and the text builder draw from. All our own.

/// Nouns and verbs that fit most topics: the sampler's keywords where the caller gives none.
pub(super) const KEYWORDS: [&str; 60] = [
    "balance",
    "bridge",
    "budget",
    "calendar",
    "candle",
    "challenge",
    "climate",
    "comfort",
    "compass",
    "contrast",
    "courage",
    "culture",
    "curious",
    "custom",
    "detail",
    "dialogue",
    "distance",
    "effort",
    "energy",
    "example",
    "experience",
    "flavor",
    "focus",
    "forest",
    "future",
    "gather",
    "growth",
    "habit",
    "harmony",
    "history",
    "horizon",
    "imagine",
    "journey",
    "kitchen",
    "lesson",
    "library",
    "measure",
    "memory",
    "moment",
    "museum",
    "network",
    "notice",
    "opinion",
    "patience",
    "pattern",
    "practice",
    "purpose",
    "quality",
    "question",
    "rhythm",
    "season",
    "signal",
    "simple",
    "skill",
    "summer",
    "teacher",
    "travel",
    "value",
    "weather",
    "wonder",
];

/// Words that can open a paragraph.
pub(super) const FIRST_WORDS: [&str; 16] = [
    "although",
    "because",
    "beyond",
    "consider",
    "early",
    "finally",
    "however",
    "imagine",
    "looking",
    "many",
    "nobody",
    "often",
    "perhaps",
    "sometimes",
    "today",
    "without",
];

/// Closing phrases: with and without commas, in lower case, in capitals and in usual case, so
/// that each case rule leaves some.
pub(super) const END_PHRASES: [&str; 18] = [
    "Let me know what you think.",
    "Thank you for reading to the end.",
    "That is all for now.",
    "What would you do next?",
    "The rest is up to you.",
    "Good luck, and take care.",
    "Yes, it can be done.",
    "I hope that this helps!",
    "Ask again at any time.",
    "and so it goes.",
    "that is the whole story.",
    "now it is your turn.",
    "more on this another day.",
    "THE END",
    "THAT IS ALL FOLKS",
    "NOW IT IS YOUR TURN!",
    "END OF MESSAGE",
    "Nothing more to add.",
];

/// Words that can stand before the number of a section.
pub(super) const SPLITTERS: [&str; 8] = [
    "SECTION",
    "Section",
    "PARAGRAPH",
    "Day",
    "PART",
    "Step",
    "Chapter",
    "TOPIC",
];

/// Requests to repeat where the caller gives none.
pub(super) const PROMPTS: [&str; 6] = [
    "Write a short note to a neighbour about a lost key.",
    "Explain how bread rises.",
    "List reasons to learn a second language, and rank them.",
    "Describe a quiet morning in a small harbour town.",
    "Give advice to someone who starts a new job on Monday.",
    "Compare trains, buses and bicycles for a daily commute.",
];

/// Letters that a text can be asked to use seldom.
pub(super) const RARE_LETTERS: [char; 12] =
    ['b', 'f', 'g', 'j', 'k', 'p', 'q', 'v', 'w', 'x', 'y', 'z'];

/// Clauses for filling: no commas, no capitals, no word of one letter, and none of
/// [`RARE_LETTERS`]. Detected as English in small letters, and in capitals once a few stand
/// together.
pub(super) const CLAUSES: [&str; 10] = [
    "the soil is rich and the trees do not die in the dust",
    "our aunt has not sold her modest home near the red hill",
    "the doctor said that the medicine is on the third tier",
    "that road turns to the center and then it ends",
    "the artist coloured the tall door and the small room",
    "no one in the street had heard such music at that hour",
    "the other nations send their sailors to the north coast",
    "the children read the short note at the old mill",
    "the silent train rolls on the main line at noon",
    "the cold mountains hide the last clear lantern",
];

/// A word with the letter at least twice, for each letter of the alphabet.
pub(super) const DENSE: [&str; 26] = [
    "banana",
    "bubble",
    "cyclic",
    "added",
    "eleven",
    "fluff",
    "giggle",
    "hush",
    "initiation",
    "jujube",
    "kick",
    "lull",
    "mammal",
    "cannon",
    "voodoo",
    "puppet",
    "quinquennial",
    "error",
    "assess",
    "tattoo",
    "unusual",
    "vivid",
    "willow",
    "xerox",
    "syzygy",
    "pizzazz",
];

/// Words that are written in capitals anyway.
pub(super) const ACRONYMS: [&str; 10] = [
    "NASA", "DNA", "UNESCO", "GPS", "USA", "EU", "BBC", "PDF", "LED", "TNT",
];

/// Placeholder names, in the letters of [`CLAUSES`].
pub(super) const PLACEHOLDERS: [&str; 6] = ["name", "date", "route", "street", "hour", "item"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_use_no_rare_letter_no_comma_and_no_lone_letter() {
        for clause in CLAUSES.iter().chain(&PLACEHOLDERS) {
            assert!(!clause.contains(RARE_LETTERS), "{clause}");
            assert!(
                clause.chars().all(|c| c.is_ascii_lowercase() || c == ' '),
                "{clause}"
            );
            assert!(clause.split(' ').all(|word| word.len() > 1), "{clause}");
        }
    }

    #[test]
    fn dense_words_hold_their_letter_twice() {
        for (letter, word) in ('a'..='z').zip(DENSE) {
            assert!(word.matches(letter).count() >= 2, "{word}");
        }
    }

    #[test]
    fn no_keyword_is_part_of_another_or_of_a_clause() {
        for (i, a) in KEYWORDS.iter().enumerate() {
            for b in &KEYWORDS[i + 1..] {
                assert!(!a.contains(b) && !b.contains(a), "{a} {b}");
            }
            assert!(CLAUSES.iter().all(|clause| !clause.contains(a)), "{a}");
        }
    }
}
