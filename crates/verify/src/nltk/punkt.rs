//! Punkt's sentence boundaries (Kiss and Strunk 2006) as NLTK 3.9.1 finds them.

use super::parameters::{ANY_LOWER, ANY_UPPER, ENGLISH, MIDDLE_UPPER, START_LOWER};
use crate::python;
use std::borrow::Cow;
use std::ops::Range;

/// Byte ranges of the sentences, in order, found with the English parameters.
#[must_use]
pub fn sentence_spans(text: &str) -> Vec<Range<usize>> {
    realign(text, &slices(text))
}

/// A mark that may end a sentence.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// Start of the word that the mark ends.
    start: usize,
    /// Place after the mark.
    end: usize,
    /// Place after what follows the mark: one punctuation, or white space and a token.
    after: usize,
    /// Where the next sentence would start.
    next: usize,
}

/// Pieces between sentence ends, before closing quotes are given to their sentence. The last
/// one may end before it starts, where only white space is left.
fn slices(text: &str) -> Vec<Range<usize>> {
    let mut slices = Vec::new();
    let mut start = 0;
    for candidate in candidates(text) {
        if has_break(&text[candidate.start..candidate.after]) {
            slices.push(start..candidate.end);
            start = candidate.next;
        }
    }
    slices.push(start..text.trim_end_matches(python::is_space).len());
    slices
}

/// The candidates whose contexts do not overlap: of a run of them in one word, the last.
fn candidates(text: &str) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    // Start of the word and place of the mark of the candidate before.
    let mut before = (0, 0);
    for (mark, _) in text.match_indices(['.', '?', '!']) {
        let Some((after, next)) = follower(text, mark + 1) else {
            continue;
        };
        let between = &text.as_bytes()[before.1..mark];
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
        let start = match between.iter().rposition(is_blank) {
            None | Some(0) => before.0,
            Some(offset) => before.1 + offset + 1,
        };
        let candidate = Candidate {
            start,
            end: mark + 1,
            after,
            next,
        };
        match found.last_mut() {
            Some(last) if start < before.1 => *last = candidate,
            _ => found.push(candidate),
        }
        before = (start, mark);
    }
    found
}

/// End of what follows a mark, and the place where the next sentence would start: after one
/// punctuation, or after white space and a token; none if anything else follows.
fn follower(text: &str, at: usize) -> Option<(usize, usize)> {
    let rest = &text[at..];
    if rest.starts_with(is_non_word) {
        return Some((at + 1, at));
    }
    let token = rest.trim_start_matches(python::is_space);
    if token.is_empty() || token.len() == rest.len() {
        return None;
    }
    let next = text.len() - token.len();
    let length = token.find(python::is_space).unwrap_or(token.len());
    Some((next + length, next))
}

fn is_non_word(c: char) -> bool {
    matches!(
        c,
        ')' | '"' | ';' | '}' | ']' | '*' | ':' | '@' | '\'' | '(' | '{' | '[' | '!' | '?'
    )
}

/// Gives closing quotes and brackets at the start of a slice to the sentence before.
fn realign(text: &str, slices: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut sentences = Vec::with_capacity(slices.len());
    let mut carry = 0;
    for (index, slice) in slices.iter().enumerate() {
        let start = slice.start + carry;
        carry = 0;
        if let Some(next) = slices.get(index + 1) {
            let following = text.get(next.clone()).unwrap_or_default();
            if let Some((closing, length)) = closing(following) {
                sentences.push(start..next.start + closing);
                carry = length;
                continue;
            }
        }
        if start < slice.end {
            sentences.push(start..slice.end);
        }
    }
    sentences
}

/// Lengths of the closing marks at the start of a text, without and with the white space after
/// them: the shortest run that white space, a double dash or a line end follows.
fn closing(text: &str) -> Option<(usize, usize)> {
    let is_closing = |byte: &&u8| matches!(byte, b'"' | b'\'' | b')' | b']' | b'}');
    let run = text.bytes().take_while(|byte| is_closing(&byte)).count();
    // A mark can only be followed by what ends the run where the run itself ends.
    let rest = &text[run..];
    let blank = rest.len() - rest.trim_start_matches(python::is_space).len();
    let ends = blank > 0 || rest.is_empty() || rest.starts_with("--");
    (run > 0 && ends).then_some((run, run + blank))
}

/// Whether a token of the context, other than the last, ends a sentence.
fn has_break(context: &str) -> bool {
    let mut tokens = Vec::new();
    for line in context.split('\n').filter(|line| !python::is_blank(line)) {
        tokenize(line, &mut tokens);
    }
    let firsts: Vec<Token<'_>> = tokens.into_iter().map(Token::new).collect();
    let pairs = firsts.iter().zip(firsts.iter().skip(1));
    for (token, next) in pairs {
        if breaks(token, next) {
            return true;
        }
    }
    false
}

/// A token with what it says by itself.
#[derive(Debug)]
struct Token<'a> {
    text: &'a str,
    /// Lower case, numbers all alike.
    kind: Cow<'a, str>,
    ends: bool,
    abbreviation: bool,
    ellipsis: bool,
}

const NUMBER: &str = "##number##";

impl<'a> Token<'a> {
    fn new(text: &'a str) -> Self {
        let lower = match text
            .bytes()
            .all(|b| b.is_ascii() && !b.is_ascii_uppercase())
        {
            true => Cow::Borrowed(text),
            false => Cow::Owned(text.to_lowercase()),
        };
        let kind = match is_number(&lower) {
            true => Cow::Borrowed(NUMBER),
            false => lower,
        };
        let mut token = Self {
            text,
            kind,
            ends: false,
            abbreviation: false,
            ellipsis: false,
        };
        let word = text.strip_suffix('.');
        if matches!(text, "." | "?" | "!") {
            token.ends = true;
        } else if text.starts_with("..") && text.bytes().all(|byte| byte == b'.') {
            token.ellipsis = true;
        } else if let Some(word) = word.filter(|word| !word.ends_with('.')) {
            token.abbreviation = is_abbreviation(&word.to_lowercase());
            token.ends = !token.abbreviation;
        }
        token
    }

    /// The kind without a final dot.
    fn kind_without_dot(&self) -> &str {
        match self.kind.strip_suffix('.') {
            Some("") | None => &self.kind,
            Some(kind) => kind,
        }
    }

    /// The kind without a dot that ends a sentence.
    fn kind_in_sentence(&self) -> &str {
        match self.ends {
            true => self.kind_without_dot(),
            false => &self.kind,
        }
    }

    fn starts(&self, in_case: fn(char) -> bool) -> bool {
        self.text.starts_with(in_case)
    }

    /// One letter and a dot.
    fn is_initial(&self) -> bool {
        let mut chars = self.text.chars();
        let letter = chars
            .next()
            .is_some_and(|c| python::is_word(c) && !python::is_decimal(c));
        letter && chars.as_str() == "."
    }
}

fn is_abbreviation(word: &str) -> bool {
    let last = word.rsplit('-').next().unwrap_or(word);
    ENGLISH.is_abbreviation(word) || ENGLISH.is_abbreviation(last)
}

/// `-?[.,]?\d[\d,.-]*\.?` from end to end.
fn is_number(kind: &str) -> bool {
    let digits = kind.strip_prefix('-').unwrap_or(kind);
    let digits = digits.strip_prefix(['.', ',']).unwrap_or(digits);
    let inside = |c| python::is_decimal(c) || matches!(c, ',' | '.' | '-');
    digits.starts_with(python::is_decimal) && digits.chars().all(inside)
}

/// Whether `token` ends a sentence, with `next` after it.
fn breaks(token: &Token<'_>, next: &Token<'_>) -> bool {
    if !token.text.ends_with('.') {
        return token.ends;
    }
    let kind = token.kind_without_dot();
    let next_kind = next.kind_in_sentence();
    if ENGLISH.is_collocation(kind, next_kind) {
        return false;
    }
    let initial = token.is_initial();
    let starts = starts_sentence(next, next_kind);
    if (token.abbreviation || token.ellipsis) && !initial {
        let starter = next.starts(char::is_uppercase) && ENGLISH.is_starter(next_kind);
        if starts == Some(true) || starter {
            return true;
        }
    }
    if initial || kind == NUMBER {
        let never_lower = ENGLISH.contexts(next_kind) & ANY_LOWER == 0;
        let name = initial && next.starts(char::is_uppercase) && never_lower;
        if starts == Some(false) || (starts.is_none() && name) {
            return false;
        }
    }
    token.ends
}

/// Whether the case of a token says that a sentence starts there; none if it says nothing.
fn starts_sentence(token: &Token<'_>, kind: &str) -> Option<bool> {
    if matches!(token.text, ";" | ":" | "," | "." | "!" | "?") {
        return Some(false);
    }
    let seen = ENGLISH.contexts(kind);
    let upper = token.starts(char::is_uppercase);
    if upper && seen & ANY_LOWER != 0 && seen & MIDDLE_UPPER == 0 {
        return Some(true);
    }
    let lower = token.starts(char::is_lowercase);
    if lower && (seen & ANY_UPPER != 0 || seen & START_LOWER == 0) {
        return Some(false);
    }
    None
}

/// Cuts a line into Punkt's tokens.
fn tokenize<'a>(line: &'a str, tokens: &mut Vec<&'a str>) {
    let mut rest = line.trim_start_matches(python::is_space);
    while let Some(first) = rest.chars().next() {
        let length = match multiple(rest) {
            Some(length) => length,
            None if can_start_word(first) => word_length(rest),
            None => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start_matches(python::is_space);
    }
}

fn can_start_word(c: char) -> bool {
    !matches!(
        c,
        '(' | '"'
            | '`'
            | '{'
            | '['
            | ':'
            | ';'
            | '&'
            | '#'
            | '*'
            | '@'
            | ')'
            | '}'
            | ']'
            | '-'
            | ','
    )
}

/// Length of the dashes or dots (perhaps spaced) that the text starts with.
fn multiple(text: &str) -> Option<usize> {
    let run = |byte: u8| text.bytes().take_while(|b| *b == byte).count();
    let same = run(b'-').max(run(b'.'));
    if same >= 2 {
        return Some(same);
    }
    let mut spaced = 0;
    let mut ends = Vec::new();
    // Pairs of a dot and one white space; a dot must come after at least two of them.
    while let Some(after) = text[spaced..].strip_prefix('.') {
        if ends.len() >= 2 {
            ends.push(spaced + 1);
        } else {
            ends.push(0);
        }
        match after.strip_prefix(python::is_space) {
            Some(after) => spaced = text.len() - after.len(),
            None => break,
        }
    }
    ends.last().copied().filter(|end| *end > 0)
}

/// Length of the word that the text starts with, at least one character.
fn word_length(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    let end = chars.find(|(at, c)| python::is_space(*c) || ends_word(&text[*at..]));
    end.map_or(text.len(), |(at, _)| at)
}

/// Whether a word ends before this text, white space aside.
fn ends_word(rest: &str) -> bool {
    if rest.starts_with(is_non_word) || multiple(rest).is_some() {
        return true;
    }
    rest.strip_prefix(',').is_some_and(|after| {
        after.is_empty()
            || after.starts_with(python::is_space)
            || after.starts_with(is_non_word)
            || multiple(after).is_some()
    })
}
