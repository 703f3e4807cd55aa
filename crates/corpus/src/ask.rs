//! A constraint of a request: one that `verify` checks, or a soft one.

use crate::dice::Dice;
use crate::soft::{Dimension, Soft};
use crate::world::{ATTRIBUTES, NOUNS, capitalised, invented, truth};
use verify::compose::{Kind, Material, conflict, sample};
use verify::{Constraint, Keyword, Relation};

/// The kinds of rules on offer: all of IFEval's that an answer about the toy world can show.
/// Left out: other languages, the three fixed answers, and repeating the request.
pub const RULES: [Kind; 22] = [
    Kind::Existence,
    Kind::Frequency,
    Kind::ForbiddenWords,
    Kind::LetterFrequency,
    Kind::NumberSentences,
    Kind::NumberParagraphs,
    Kind::NumberWords,
    Kind::NthParagraphFirstWord,
    Kind::NumberPlaceholders,
    Kind::Postscript,
    Kind::NumberBulletLists,
    Kind::NumberHighlightedSections,
    Kind::MultipleSections,
    Kind::JsonFormat,
    Kind::Title,
    Kind::TwoResponses,
    Kind::EndChecker,
    Kind::CapitalWordFrequency,
    Kind::EnglishCapital,
    Kind::EnglishLowercase,
    Kind::NoComma,
    Kind::Quotation,
];

/// A kind of constraint, without parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AskKind {
    /// Checked by `verify`.
    Rule(Kind),
    /// Known from how the answer was made.
    Soft(Dimension),
}

impl AskKind {
    /// All 22 rules and 7 soft kinds.
    pub fn all() -> Vec<Self> {
        let rules = RULES.into_iter().map(Self::Rule);
        rules
            .chain(Dimension::ALL.into_iter().map(Self::Soft))
            .collect()
    }

    /// The id in IFEval's files, or `soft:` and the dimension.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rule(kind) => kind.id(),
            Self::Soft(dimension) => dimension.name(),
        }
    }

    /// The paper's type of constraint.
    pub fn paper_type(self) -> &'static str {
        let Self::Rule(kind) = self else {
            return "stylistic";
        };
        match kind {
            Kind::Existence
            | Kind::ForbiddenWords
            | Kind::Postscript
            | Kind::NumberPlaceholders => "content",
            Kind::Frequency
            | Kind::LetterFrequency
            | Kind::NumberSentences
            | Kind::NumberParagraphs
            | Kind::NumberWords
            | Kind::CapitalWordFrequency => "numerical",
            Kind::EnglishCapital | Kind::EnglishLowercase | Kind::NoComma => "linguistic",
            _ => "format",
        }
    }
}

/// One constraint of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// Checked by `verify`.
    Rule(Constraint),
    /// Known from how the answer was made.
    Soft(Soft),
}

impl Ask {
    /// Its kind.
    pub fn kind(&self) -> AskKind {
        match self {
            Self::Rule(constraint) => AskKind::Rule(Kind::of(constraint)),
            Self::Soft(soft) => AskKind::Soft(soft.dimension),
        }
    }

    /// The rule, if it is one.
    pub fn rule(&self) -> Option<&Constraint> {
        match self {
            Self::Rule(constraint) => Some(constraint),
            Self::Soft(_) => None,
        }
    }

    /// Whether an answer written in this voice follows it: the checker's verdict, or, for a
    /// soft one, how the answer was made.
    pub(crate) fn holds(&self, text: &str, voice: &[Soft]) -> bool {
        match self {
            Self::Rule(constraint) => !text.trim().is_empty() && constraint.check(text).followed,
            Self::Soft(soft) => voice.contains(soft),
        }
    }

    /// Draws one of this kind for a request about `topic`. `words` says whether an invented
    /// word may be used.
    pub(crate) fn draw(
        kind: AskKind,
        topic: usize,
        words: &dyn Fn(&str) -> bool,
        dice: &mut Dice,
    ) -> Self {
        match kind {
            AskKind::Soft(dimension) => Self::Soft(Soft::draw(dimension, dice)),
            AskKind::Rule(kind) => Self::Rule(draw_rule(kind, topic, words, dice)),
        }
    }
}

/// Whether one answer can be asked for all of them: no conflict of `verify`'s, none of ours.
pub(crate) fn compatible(asks: &[Ask]) -> bool {
    let pairs = || {
        asks.iter()
            .enumerate()
            .flat_map(|(i, a)| asks[i + 1..].iter().map(move |b| (a, b)))
    };
    if pairs().any(|(a, b)| {
        a.kind() == b.kind() || clash(a.kind(), b.kind()) || clash(b.kind(), a.kind())
    }) {
        return false;
    }
    let rules: Vec<Constraint> = asks.iter().filter_map(Ask::rule).cloned().collect();
    conflict(&rules).is_none()
}

/// Kinds that a rule can tell apart but a reader cannot count together: what is a sentence
/// where lines, marks and headings are?
fn clash(a: AskKind, b: AskKind) -> bool {
    use AskKind::{Rule, Soft};
    let (Rule(a), b) = (a, b) else { return false };
    match (a, b) {
        (
            Kind::NumberSentences,
            Rule(
                Kind::NumberBulletLists
                | Kind::MultipleSections
                | Kind::Postscript
                | Kind::TwoResponses
                | Kind::EndChecker
                | Kind::Title
                | Kind::NthParagraphFirstWord,
            ),
        ) => true,
        (
            Kind::NumberBulletLists,
            Rule(Kind::NumberParagraphs | Kind::NthParagraphFirstWord | Kind::MultipleSections),
        ) => true,
        (Kind::NthParagraphFirstWord, Rule(Kind::MultipleSections | Kind::Title)) => true,
        // The divider of one is part of the divider of the other.
        (Kind::NumberHighlightedSections, Rule(Kind::NumberParagraphs | Kind::TwoResponses)) => {
            true
        }
        (Kind::JsonFormat | Kind::TwoResponses, Soft(_)) => true,
        _ => false,
    }
}

/// Longest run of draws before a sampled constraint is taken as it is.
const REDRAWS: usize = 400;

fn draw_rule(
    kind: Kind,
    topic: usize,
    words: &dyn Fn(&str) -> bool,
    dice: &mut Dice,
) -> Constraint {
    use Constraint as C;
    let relation = if dice.chance(0.5) {
        Relation::AtLeast
    } else {
        Relation::LessThan
    };
    match kind {
        Kind::NumberSentences => C::NumberSentences {
            relation,
            count: dice.between(3, 5),
        },
        Kind::NumberWords => C::NumberWords {
            relation,
            count: 10 * dice.between(2, 4),
        },
        Kind::EndChecker => C::EndChecker {
            phrase: end_phrase(words, dice),
        },
        Kind::ForbiddenWords => C::ForbiddenWords {
            words: vec![likely_word(topic, dice)],
        },
        _ => {
            let keywords = keywords(words, dice);
            let keywords: Vec<&str> = keywords.iter().map(String::as_str).collect();
            let material = Material {
                prompt: None,
                keywords: &keywords,
            };
            let mut bits = || dice.bits();
            let mut drawn = sample(kind, &material, &mut bits);
            for _ in 0..REDRAWS {
                if fits(&drawn) {
                    break;
                }
                drawn = sample(kind, &material, &mut bits);
            }
            // Written as it will stand in the answer: the checker ignores case.
            if let C::NthParagraphFirstWord { first_word, .. } = &mut drawn {
                *first_word = capitalised(first_word);
            }
            drawn
        }
    }
}

/// Whether the parameters suit an answer of a few sentences.
fn fits(constraint: &Constraint) -> bool {
    use Constraint as C;
    match constraint {
        C::Existence { keywords } => keywords.len() == 1,
        C::Frequency { count, .. } => *count <= 3,
        C::LetterFrequency {
            relation, count, ..
        } => *count <= if *relation == Relation::AtLeast { 8 } else { 5 },
        C::NumberParagraphs { count }
        | C::NumberPlaceholders { count }
        | C::NumberHighlightedSections { count }
        | C::MultipleSections { count, .. } => (2..=3).contains(count),
        C::NthParagraphFirstWord {
            paragraphs,
            first_word,
            ..
        } => {
            // Words that may stand before a whole sentence.
            let loose = [
                "finally",
                "however",
                "often",
                "perhaps",
                "sometimes",
                "today",
            ];
            *paragraphs <= 3 && loose.contains(&first_word.as_str())
        }
        C::NumberBulletLists { count } | C::CapitalWordFrequency { count, .. } => *count <= 5,
        C::Postscript { marker } => marker.as_str() == "P.S.",
        _ => true,
    }
}

/// Enough keywords that the sampler adds none of its own: six in ten are invented.
fn keywords(words: &dyn Fn(&str) -> bool, dice: &mut Dice) -> Vec<String> {
    // Twice as many as needed: some may be equal.
    (0..2 * Material::FEWEST_KEYWORDS)
        .map(|_| {
            if dice.chance(0.6) {
                new_word(words, dice)
            } else {
                noun(words, dice)
            }
        })
        .collect()
}

/// A noun that may be used.
pub(crate) fn noun(words: &dyn Fn(&str) -> bool, dice: &mut Dice) -> String {
    loop {
        let noun = dice.pick(&NOUNS);
        if words(noun) {
            return noun.to_owned();
        }
    }
}

/// An invented word that may be used.
pub(crate) fn new_word(words: &dyn Fn(&str) -> bool, dice: &mut Dice) -> String {
    loop {
        let word = invented(dice);
        if words(&word) {
            return word;
        }
    }
}

/// A word that an answer about the topic is likely to use, so that leaving it out is an effort.
fn likely_word(topic: usize, dice: &mut Dice) -> Keyword {
    const SMALL: [&str; 12] = [
        "a", "an", "the", "of", "it", "in", "at", "to", "on", "by", "up", "no",
    ];
    loop {
        let value = truth(topic, dice.below(ATTRIBUTES.len()));
        let words: Vec<&str> = value
            .split(' ')
            .filter(|word| !SMALL.contains(word))
            .collect();
        if let Some(word) = (!words.is_empty()).then(|| dice.pick(&words)) {
            return Keyword::whole_word(word).expect("letters are a valid pattern");
        }
    }
}

/// A closing phrase: two to four words, the last one often invented.
fn end_phrase(words: &dyn Fn(&str) -> bool, dice: &mut Dice) -> String {
    const FRONTS: [&str; 10] = [
        "so says the",
        "long live the",
        "remember the",
        "all for one",
        "off to the",
        "no more",
        "farewell to",
        "thanks to the",
        "and then came",
        "this was the",
    ];
    let word = if dice.chance(0.6) {
        new_word(words, dice)
    } else {
        noun(words, dice)
    };
    let phrase = format!("{} {word}", dice.pick(&FRONTS));
    if dice.chance(0.25) {
        phrase.to_uppercase()
    } else {
        phrase
    }
}
