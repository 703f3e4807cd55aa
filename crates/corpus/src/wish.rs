//! What an answer is to look like: every constraint of the request met or, on purpose, broken
//! in one of the ways in which answers go wrong.

use crate::ask::{Ask, new_word, noun};
use crate::dice::Dice;
use crate::soft::Soft;
use crate::split::held_out_word;
use crate::world::DENSE;
use verify::{Constraint, Keyword, Relation};

/// Letters of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    AsIs,
    Upper,
    Lower,
    /// Capitals but for a word.
    UpperButOne,
    /// Small letters but for a word.
    LowerButOne,
    /// Capitals in the first sentence only.
    UpperFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commas {
    AsIs,
    None,
    One,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quotes {
    None,
    Both,
    Opening,
    Closing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Title {
    None,
    Double,
    Single,
    Bare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Json {
    None,
    Whole,
    Unclosed,
    KeyOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Two {
    None,
    Different,
    Same,
    OtherDivider,
}

/// What stands between the parts of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parts {
    /// No parts.
    One,
    /// So many, with this text between them.
    Divided(usize, &'static str),
    /// The same with blank lines, and words at the start of some parts, from 0.
    Opened(usize, Vec<(usize, String)>),
    /// So many headings of this word, numbered or not.
    Headed(usize, String, Numbered),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbered {
    Yes,
    No,
}

/// The look of one answer.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) voice: Vec<Soft>,
    /// Words to use, each in a sentence of its own.
    pub(crate) words: Vec<String>,
    pub(crate) avoid: Vec<String>,
    /// Words whose sentences are told first.
    pub(crate) seek: Vec<String>,
    /// Sentences with many (true) or few of a letter first.
    pub(crate) letter: Option<(char, Prefer)>,
    /// Sentences in all.
    pub(crate) sentences: Option<usize>,
    /// Words in all, roughly.
    pub(crate) length: Option<usize>,
    pub(crate) parts: Parts,
    pub(crate) placeholders: usize,
    /// Placeholders in round brackets.
    pub(crate) round_placeholders: usize,
    pub(crate) postscript: Option<&'static str>,
    pub(crate) bullets: Option<usize>,
    pub(crate) highlights: usize,
    pub(crate) capitals: usize,
    pub(crate) json: Json,
    pub(crate) title: Title,
    pub(crate) two: Two,
    /// Last line.
    pub(crate) end: Option<String>,
    pub(crate) case: Case,
    pub(crate) commas: Commas,
    pub(crate) quotes: Quotes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefer {
    Many,
    Few,
}

impl Wish {
    /// A wish for each constraint, those of `broken` broken.
    pub(crate) fn draw(asks: &[Ask], broken: &[bool], dice: &mut Dice) -> Self {
        let mut wish = Self {
            voice: Vec::new(),
            words: Vec::new(),
            avoid: Vec::new(),
            seek: Vec::new(),
            letter: None,
            sentences: None,
            length: None,
            parts: Parts::One,
            placeholders: 0,
            round_placeholders: 0,
            postscript: None,
            bullets: None,
            highlights: 0,
            capitals: 0,
            json: Json::None,
            title: Title::None,
            two: Two::None,
            end: None,
            case: Case::AsIs,
            commas: Commas::AsIs,
            quotes: Quotes::None,
        };
        for (ask, broken) in asks.iter().zip(broken) {
            match (ask, broken) {
                (Ask::Soft(soft), false) => wish.voice.push(*soft),
                // Another voice, or none.
                (Ask::Soft(soft), true) if dice.chance(0.6) => wish.voice.push(soft.other(dice)),
                (Ask::Soft(_), true) => {}
                (Ask::Rule(rule), false) => wish.meet(rule, dice),
                (Ask::Rule(rule), true) => wish.spoil(rule, dice),
            }
        }
        wish
    }

    fn meet(&mut self, rule: &Constraint, dice: &mut Dice) {
        use Constraint as C;
        match rule {
            C::Existence { keywords } => self.words.extend(first(keywords)),
            C::ForbiddenWords { words } => self.avoid.extend(first(words)),
            C::Frequency {
                keyword,
                relation,
                count,
            } => {
                let times = count_for(*relation, *count, 0, dice);
                self.words
                    .extend(std::iter::repeat_n(keyword.as_str().to_owned(), times));
            }
            C::LetterFrequency {
                letter, relation, ..
            } => {
                self.want_letter(*letter, *relation == Relation::AtLeast);
            }
            C::NumberSentences { relation, count } => {
                self.sentences = Some(count_for(*relation, *count, 1, dice));
            }
            C::NumberWords { relation, count } => {
                self.length = Some(length_for(*relation == Relation::AtLeast, *count, dice));
            }
            C::CapitalWordFrequency { relation, count } => {
                self.capitals = count_for(*relation, *count, 0, dice);
            }
            C::NumberParagraphs { count } => self.parts = Parts::Divided(*count, "\n***\n"),
            C::NthParagraphFirstWord {
                paragraphs,
                nth,
                first_word,
            } => {
                self.parts = Parts::Opened(
                    *paragraphs,
                    vec![(nth.saturating_sub(1), first_word.clone())],
                );
            }
            C::NumberPlaceholders { count } => self.placeholders = *count,
            C::Postscript { .. } => self.postscript = Some("P.S. "),
            C::NumberBulletLists { count } => self.bullets = Some(*count),
            C::NumberHighlightedSections { count } => self.highlights = *count,
            C::MultipleSections { splitter, count } => {
                self.parts = Parts::Headed(*count, splitter.as_str().to_owned(), Numbered::Yes);
            }
            C::JsonFormat => self.json = Json::Whole,
            C::Title => self.title = Title::Double,
            C::TwoResponses => self.two = Two::Different,
            C::EndChecker { phrase } => self.end = Some(phrase.clone()),
            C::EnglishCapital => self.case = Case::Upper,
            C::EnglishLowercase => self.case = Case::Lower,
            C::NoComma => self.commas = Commas::None,
            C::Quotation => self.quotes = Quotes::Both,
            C::ResponseLanguage { .. } | C::ConstrainedResponse | C::RepeatPrompt { .. } => {}
        }
    }

    fn spoil(&mut self, rule: &Constraint, dice: &mut Dice) {
        use Constraint as C;
        match rule {
            C::Existence { keywords } => {
                let word = first(keywords).unwrap_or_default();
                self.words.extend(instead_of(&word, dice));
            }
            // As a fact that slips in, or as a word of its own.
            C::ForbiddenWords { words } if dice.chance(0.7) => self.seek.extend(first(words)),
            C::ForbiddenWords { words } => self.words.extend(first(words)),
            C::Frequency {
                keyword,
                relation,
                count,
            } => {
                let times = miss(*relation, *count, dice);
                self.words
                    .extend(std::iter::repeat_n(keyword.as_str().to_owned(), times));
            }
            C::LetterFrequency {
                letter, relation, ..
            } => {
                self.want_letter(*letter, *relation == Relation::LessThan);
            }
            C::NumberSentences { relation, count } => {
                self.sentences = Some(miss(*relation, *count, dice).max(1));
            }
            C::NumberWords { relation, count } => {
                self.length = Some(length_for(*relation == Relation::LessThan, *count, dice));
            }
            C::CapitalWordFrequency { relation, count } => {
                self.capitals = miss(*relation, *count, dice)
            }
            C::NumberPlaceholders { count } => {
                let missing = dice.between(1, *count);
                self.placeholders = count - missing;
                self.round_placeholders = if dice.chance(0.5) { missing } else { 0 };
            }
            C::Postscript { .. } => {
                self.postscript = dice.pick(&[None, Some("Also: "), Some("By the way: ")])
            }
            C::NumberBulletLists { count } => {
                self.bullets = if dice.chance(0.15) {
                    None
                } else {
                    Some(off_by_some(*count, 1, dice))
                };
            }
            C::NumberHighlightedSections { count } => {
                self.highlights = count - dice.between(1, *count)
            }
            C::JsonFormat => self.json = dice.pick(&[Json::None, Json::Unclosed, Json::KeyOnly]),
            C::Title => self.title = dice.pick(&[Title::None, Title::Single, Title::Bare]),
            C::TwoResponses => self.two = dice.pick(&[Two::None, Two::Same, Two::OtherDivider]),
            C::EndChecker { phrase } => self.end = wrong_end(phrase, dice),
            C::EnglishCapital => {
                self.case = dice.pick(&[Case::AsIs, Case::UpperButOne, Case::UpperFirst])
            }
            C::EnglishLowercase => {
                self.case = dice.pick(&[Case::AsIs, Case::LowerButOne, Case::Upper])
            }
            C::NoComma => self.commas = Commas::One,
            C::Quotation => {
                self.quotes = dice.pick(&[Quotes::None, Quotes::Opening, Quotes::Closing])
            }
            C::NumberParagraphs { .. }
            | C::NthParagraphFirstWord { .. }
            | C::MultipleSections { .. } => {
                self.parts = wrong_parts(rule, dice);
            }
            C::ResponseLanguage { .. } | C::ConstrainedResponse | C::RepeatPrompt { .. } => {}
        }
    }

    fn want_letter(&mut self, letter: char, many: bool) {
        self.letter = Some((letter, if many { Prefer::Many } else { Prefer::Few }));
        let index = (letter.to_ascii_lowercase() as usize).wrapping_sub('a' as usize);
        // Common letters need no help.
        let rare = !"aeinorstl".contains(letter.to_ascii_lowercase());
        if let Some(word) = DENSE.get(index).filter(|_| many && rare) {
            self.words.extend([(*word).to_owned(), (*word).to_owned()]);
        }
    }
}

fn first(words: &[Keyword]) -> Option<String> {
    words.first().map(|word| word.as_str().to_owned())
}

/// A count that stands so to the bound.
fn count_for(relation: Relation, bound: usize, least: usize, dice: &mut Dice) -> usize {
    match relation {
        Relation::AtLeast => dice.between(bound, bound + 1),
        Relation::LessThan => dice.between(least, bound.saturating_sub(1).max(least)),
    }
}

/// A count that does not, by one or two.
fn miss(relation: Relation, bound: usize, dice: &mut Dice) -> usize {
    match relation {
        Relation::AtLeast => bound.saturating_sub(dice.between(1, 2)),
        Relation::LessThan => dice.between(bound, bound + 1),
    }
}

fn length_for(long: bool, bound: usize, dice: &mut Dice) -> usize {
    if long {
        dice.between(bound, bound + 8)
    } else {
        dice.between(bound / 3, bound - 2)
    }
}

/// Another count, off by one or two, at least `least`.
fn off_by_some(count: usize, least: usize, dice: &mut Dice) -> usize {
    let off = if dice.chance(0.7) { 1 } else { 2 };
    if dice.chance(0.5) && count >= least + off {
        count - off
    } else {
        count + off
    }
}

/// Nothing, another word, or the word with a letter changed.
fn instead_of(word: &str, dice: &mut Dice) -> Option<String> {
    match dice.below(6) {
        0 => None,
        1 | 2 => Some(noun(&|word| !held_out_word(word), dice)),
        3 => Some(new_word(&|word| !held_out_word(word), dice)),
        _ => {
            let mut letters: Vec<char> = word.chars().collect();
            let place = dice.below(letters.len().max(1));
            if let Some(letter) = letters.get_mut(place) {
                *letter = dice.pick(&['a', 'e', 'k', 'm', 'o', 's', 't', 'u']);
            }
            Some(letters.into_iter().collect())
        }
    }
}

/// No closing phrase, a part of it, another one, or more after it.
fn wrong_end(phrase: &str, dice: &mut Dice) -> Option<String> {
    let words: Vec<&str> = phrase.split(' ').collect();
    match dice.below(4) {
        0 => None,
        1 => Some(words[..words.len() - 1].join(" ")),
        2 => {
            let other = noun(&|word| !held_out_word(word), dice);
            Some(
                [&words[..words.len() - 1], &[other.as_str()]]
                    .concat()
                    .join(" "),
            )
        }
        _ => Some(format!(
            "{phrase} {}",
            dice.pick(&["and more", "at last", "I think", "for now"])
        )),
    }
}

fn wrong_parts(rule: &Constraint, dice: &mut Dice) -> Parts {
    match rule {
        Constraint::NumberParagraphs { count } => match dice.below(3) {
            0 => Parts::Divided(*count, "\n\n"),
            _ => Parts::Divided(off_by_some(*count, 1, dice), "\n***\n"),
        },
        Constraint::NthParagraphFirstWord {
            paragraphs,
            nth,
            first_word,
        } => {
            let place = nth.saturating_sub(1);
            match dice.below(4) {
                0 => Parts::Opened(*paragraphs, Vec::new()),
                1 => Parts::Opened(
                    *paragraphs,
                    vec![((place + 1) % paragraphs, first_word.clone())],
                ),
                2 => Parts::Opened(
                    off_by_some(*paragraphs, 1, dice),
                    vec![(place, first_word.clone())],
                ),
                _ => Parts::Opened(*paragraphs, vec![(place, "Nevertheless".to_owned())]),
            }
        }
        Constraint::MultipleSections { splitter, count } => {
            let word = splitter.as_str().to_owned();
            match dice.below(3) {
                0 => Parts::Headed(*count, word, Numbered::No),
                1 => Parts::Headed(*count, "Piece".to_owned(), Numbered::Yes),
                _ => Parts::Headed(count - dice.between(1, count - 1), word, Numbered::Yes),
            }
        }
        _ => Parts::One,
    }
}
