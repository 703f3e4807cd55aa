//! `words:*`: rules for single words.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use super::syllables;
use super::text::{
    PUNCTUATION, has_equal_neighbours, is_mark, len, strip, strip_marks, without_punctuation, words,
};
use crate::args::Args;
use crate::{Error, nltk, python};

/// The group `words`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Words {
    /// Initials in the order of the alphabet.
    Alphabet,
    /// At most three different vowels.
    Vowel,
    /// A consonant cluster in each word.
    Consonants,
    /// Ten palindromes.
    Palindrome,
    /// Word lengths are primes.
    PrimeLengths,
    /// The first word is a verb. Not supported: it needs the weights of a part-of-speech tagger.
    StartVerb,
    /// No word more often than this.
    Repeats(usize),
    /// Odd and even numbers of syllables in turns.
    OddEvenSyllables,
    /// Each sentence starts with the last word of the one before.
    LastFirst,
    /// Each paragraph ends with its first word.
    ParagraphLastFirst,
    /// Neighbours have different initials.
    NoConsecutive,
    /// A keyword at a place.
    KeywordsSpecificPosition {
        /// The keyword.
        keyword: String,
        /// `n`, the sentence, from 1.
        sentence: NonZeroUsize,
        /// `m`, the word in it, from 1.
        word: NonZeroUsize,
    },
    /// A keyword as second word and as last but one.
    WordsPosition(String),
}

impl Words {
    pub(super) fn parse(name: &str, args: &Args) -> Result<Option<Self>, Error> {
        Ok(Some(match name {
            "alphabet" => Self::Alphabet,
            "vowel" => Self::Vowel,
            "consonants" => Self::Consonants,
            "palindrome" => Self::Palindrome,
            "prime_lengths" => Self::PrimeLengths,
            "start_verb" => Self::StartVerb,
            "repeats" => Self::Repeats(args.size("small_n")?),
            "odd_even_syllables" => Self::OddEvenSyllables,
            "last_first" => Self::LastFirst,
            "paragraph_last_first" => Self::ParagraphLastFirst,
            "no_consecutive" => Self::NoConsecutive,
            "keywords_specific_position" => Self::KeywordsSpecificPosition {
                keyword: strip(args.nonempty("keyword")?).to_owned(),
                sentence: args.positive("n")?,
                word: args.positive("m")?,
            },
            "words_position" => Self::WordsPosition(args.stripped("keyword")?),
            _ => return Ok(None),
        }))
    }

    pub(super) fn id(&self) -> &'static str {
        match self {
            Self::Alphabet => "words:alphabet",
            Self::Vowel => "words:vowel",
            Self::Consonants => "words:consonants",
            Self::Palindrome => "words:palindrome",
            Self::PrimeLengths => "words:prime_lengths",
            Self::StartVerb => "words:start_verb",
            Self::Repeats(_) => "words:repeats",
            Self::OddEvenSyllables => "words:odd_even_syllables",
            Self::LastFirst => "words:last_first",
            Self::ParagraphLastFirst => "words:paragraph_last_first",
            Self::NoConsecutive => "words:no_consecutive",
            Self::KeywordsSpecificPosition { .. } => "words:keywords_specific_position",
            Self::WordsPosition(_) => "words:words_position",
        }
    }

    /// None where the rule is not supported.
    pub(super) fn check(&self, text: &str) -> Option<bool> {
        Some(match self {
            Self::Alphabet => alphabet_in_order(text),
            Self::Vowel => three_vowels(text),
            Self::Consonants => consonant_clusters(text),
            Self::Palindrome => palindromes(text) >= 10,
            Self::PrimeLengths => prime_lengths(text),
            Self::StartVerb => return None,
            Self::Repeats(most) => repeats_at_most(text, *most),
            Self::OddEvenSyllables => syllables_alternate(text),
            Self::LastFirst => last_word_starts_next(text),
            Self::ParagraphLastFirst => lines_end_as_they_start(text),
            Self::NoConsecutive => initials_differ(text),
            Self::KeywordsSpecificPosition {
                keyword,
                sentence,
                word,
            } => keyword_at(text, keyword, sentence.get(), word.get()),
            Self::WordsPosition(keyword) => keyword_second_and_last_but_one(text, keyword),
        })
    }

    /// What a text that does not follow the rule lacks.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Alphabet => "initials are not in the order of the alphabet".to_owned(),
            Self::Vowel => "several lines, or more than three different vowels".to_owned(),
            Self::Consonants => "a word without two consonants side by side".to_owned(),
            Self::Palindrome => "fewer than 10 palindromes of five letters or more".to_owned(),
            Self::PrimeLengths => "a word whose length is not a prime".to_owned(),
            Self::StartVerb => "not supported".to_owned(),
            Self::Repeats(most) => format!("a word more often than {most} times"),
            Self::OddEvenSyllables => {
                "odd and even numbers of syllables do not take turns".to_owned()
            }
            Self::LastFirst => {
                "a sentence does not start with the last word of the one before".to_owned()
            }
            Self::ParagraphLastFirst => "a paragraph does not end with its first word".to_owned(),
            Self::NoConsecutive => "neighbouring words with the same initial".to_owned(),
            Self::KeywordsSpecificPosition {
                keyword,
                sentence,
                word,
            } => format!("word {word} of sentence {sentence} is not {keyword:?}"),
            Self::WordsPosition(keyword) => {
                format!("the second word and the last but one are not both {keyword:?}")
            }
        }
    }
}

/// Words start with the letters a to z in order, beginning anywhere, z followed by a.
fn alphabet_in_order(text: &str) -> bool {
    let text = without_punctuation(text);
    let mut initials = words(&text).map(|word| initial(&word.to_lowercase()));
    let Some(Some(first)) = words(&text).next().map(first_letter) else {
        return false;
    };
    initials.next();
    let mut expected = first;
    initials.all(|found| {
        expected = if expected == 'z' { 'a' } else { next(expected) };
        found == Some(expected)
    })
}

/// The first character as a letter a to z. A character whose lower case is more than one (such
/// as `İ`) is none here, although it is `i` in later words: the original differs so too.
fn first_letter(word: &str) -> Option<char> {
    let mut lower = word.chars().next()?.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(c @ 'a'..='z'), None) => Some(c),
        _ => None,
    }
}

fn next(letter: char) -> char {
    char::from(u8::try_from(letter).expect("a letter a to y") + 1)
}

fn initial(word: &str) -> Option<char> {
    word.chars().next()
}

/// One line with at most three of the vowels a e i o u.
fn three_vowels(text: &str) -> bool {
    let text = strip(text);
    let lower = text.to_lowercase();
    !text.contains('\n') && "aeiou".chars().filter(|v| lower.contains(*v)).count() <= 3
}

/// Every word has two consonants side by side.
fn consonant_clusters(text: &str) -> bool {
    let is_consonant = |c: u8| c.is_ascii_lowercase() && !b"aeiou".contains(&c);
    let has_cluster = |word: &str| {
        let mut pairs = word.as_bytes().windows(2);
        pairs.any(|pair| is_consonant(pair[0]) && is_consonant(pair[1]))
    };
    words(&text.to_lowercase()).all(has_cluster)
}

/// Words of five characters or more that read the same backwards.
fn palindromes(text: &str) -> usize {
    let text = without_punctuation(text).to_lowercase();
    let is_palindrome = |word: &&str| len(word) >= 5 && word.chars().eq(word.chars().rev());
    words(&text).filter(is_palindrome).count()
}

/// The length of every word is a prime below 100.
fn prime_lengths(text: &str) -> bool {
    let is_prime = |n: usize| (2..100).contains(&n) && (2..n).all(|d| !n.is_multiple_of(d));
    words(&without_punctuation(text)).all(|word| is_prime(len(word)))
}

/// No word, ignoring case and punctuation, occurs more than `most` times.
fn repeats_at_most(text: &str, most: usize) -> bool {
    let text = without_punctuation(&text.to_lowercase());
    let mut counts = HashMap::new();
    words(&text).all(|word| {
        let count = counts.entry(word).or_insert(0_usize);
        *count += 1;
        *count <= most
    })
}

/// Odd and even numbers of syllables take turns.
fn syllables_alternate(text: &str) -> bool {
    let text = without_punctuation(text).to_lowercase();
    !has_equal_neighbours(words(&text).map(|word| syllables::count(word).rem_euclid(2)))
}

/// The last word of each sentence is the first word of the next, ignoring case.
fn last_word_starts_next(text: &str) -> bool {
    nltk::sentences(text).windows(2).all(|pair| {
        let last = words(pair[0].trim_end_matches(is_mark)).next_back();
        let first = words(pair[1].trim_start_matches(is_mark)).next();
        match (last, first) {
            (Some(last), Some(first)) => last.to_lowercase() == first.to_lowercase(),
            _ => false,
        }
    })
}

/// Each line that has words ends with the word it starts with.
fn lines_end_as_they_start(text: &str) -> bool {
    text.split('\n').all(|line| {
        let line = strip(line).to_lowercase();
        let mut words = words(strip_marks(&line));
        match (words.next(), words.next_back()) {
            (Some(first), Some(last)) => first == last,
            _ => true,
        }
    })
}

/// No two neighbouring words share their first character.
fn initials_differ(text: &str) -> bool {
    let text = without_punctuation(&text.to_lowercase());
    !has_equal_neighbours(words(&text).map(initial))
}

/// The `word`-th token (punctuation not counted) of sentence `sentence`, both from 1, is the
/// keyword, ignoring case.
fn keyword_at(text: &str, keyword: &str, sentence: usize, word: usize) -> bool {
    let sentences = nltk::sentences(text);
    let Some(sentence) = sentences.get(sentence - 1) else {
        return false;
    };
    let is_alphanumeric = |c: char| c != '_' && python::is_word(c);
    let tokens = nltk::word_tokenize(sentence);
    let mut counted = tokens.iter().filter(|t| t.chars().any(is_alphanumeric));
    counted
        .nth(word - 1)
        .is_some_and(|t| t.to_lowercase() == keyword.to_lowercase())
}

/// The second token and the last but one are the keyword, ignoring case; a last token that is
/// punctuation is not counted.
fn keyword_second_and_last_but_one(text: &str, keyword: &str) -> bool {
    let tokens = nltk::word_tokenize(text);
    let mut tokens: Vec<&str> = tokens.iter().map(AsRef::as_ref).collect();
    if tokens.len() < 2 {
        return false;
    }
    if tokens.last().is_some_and(|last| PUNCTUATION.contains(last)) {
        tokens.pop();
    }
    let keyword = keyword.to_lowercase();
    match tokens[..] {
        [] | [_] => false,
        [.., before_last, _] => {
            tokens[1].to_lowercase() == keyword && before_last.to_lowercase() == keyword
        }
    }
}
