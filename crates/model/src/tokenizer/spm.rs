//! SentencePiece-style BPE: neighbours are joined in order of the score of what they form.
//!
//! Source: Kudo and Richardson 2018 (SentencePiece); the order of equal scores (leftmost
//! first) and what happens to pieces outside the vocabulary follow llama.cpp, whose vocabulary
//! this is.

use super::Vocabulary;
use super::added::Fragment;
use data::TokenId;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// What stands for a space in the vocabulary.
pub(super) const SPACE: &str = "\u{2581}";

/// Whether a space is put before text that follows nothing or a control token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpacePrefix {
    Add,
    None,
}

/// A vocabulary with scores.
#[derive(Debug)]
pub(super) struct Spm {
    pub(super) ids: Vocabulary,
    pub(super) scores: Vec<f32>,
    /// Token of each byte, for what is not in the vocabulary.
    pub(super) byte_tokens: [Option<TokenId>; 256],
    pub(super) unknown: Option<TokenId>,
    pub(super) prefix: SpacePrefix,
}

/// A run of characters; empty once it has been joined to its left neighbour.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: usize,
    end: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Two neighbours that form a token. The greatest is joined first.
#[derive(Debug, PartialEq)]
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    length: usize,
}

impl Eq for Pair {}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Spm {
    pub(super) fn id_of(&self, token: &str) -> Option<TokenId> {
        self.ids.get(token).copied()
    }

    /// Encodes what lies between the control tokens.
    pub(super) fn encode_fragments(&self, text: &str, fragments: &[Fragment]) -> Vec<TokenId> {
        let mut tokens = Vec::new();
        let mut after_token = true;
        for fragment in fragments {
            match fragment {
                Fragment::Token(id, _) => tokens.push(*id),
                Fragment::Text(range) => {
                    let space = after_token && self.prefix == SpacePrefix::Add;
                    let mut escaped = String::from(if space { SPACE } else { "" });
                    escaped.push_str(&text[range.clone()].replace(' ', SPACE));
                    self.encode(&escaped, &mut tokens);
                }
            }
            after_token = matches!(fragment, Fragment::Token(..));
        }
        tokens
    }

    fn encode(&self, text: &str, tokens: &mut Vec<TokenId>) {
        let mut symbols = single_characters(text);
        let mut queue = BinaryHeap::new();
        let consider =
            |symbols: &[Symbol], queue: &mut BinaryHeap<Pair>, left: usize, right: usize| {
                let joined = &text[symbols[left].start..symbols[right].end];
                let Some(id) = self.id_of(joined) else { return };
                let score = self.scores[id as usize];
                queue.push(Pair {
                    score,
                    left,
                    right,
                    length: joined.len(),
                });
            };
        for right in 1..symbols.len() {
            consider(&symbols, &mut queue, right - 1, right);
        }
        while let Some(pair) = queue.pop() {
            let (left, right) = (symbols[pair.left], symbols[pair.right]);
            let stale = left.start == left.end
                || right.start == right.end
                || (left.end - left.start) + (right.end - right.start) != pair.length;
            if stale {
                continue;
            }
            symbols[pair.left].end = right.end;
            symbols[pair.left].next = right.next;
            symbols[pair.right].end = right.start;
            if let Some(next) = right.next {
                symbols[next].previous = Some(pair.left);
                consider(&symbols, &mut queue, pair.left, next);
            }
            if let Some(previous) = left.previous {
                consider(&symbols, &mut queue, previous, pair.left);
            }
        }
        let mut at = (!symbols.is_empty()).then_some(0);
        while let Some(index) = at {
            let symbol = symbols[index];
            self.emit(&text[symbol.start..symbol.end], tokens);
            at = symbol.next;
        }
    }

    /// The token of a final run, or a token for each of its bytes.
    fn emit(&self, run: &str, tokens: &mut Vec<TokenId>) {
        match self.id_of(run) {
            Some(id) => tokens.push(id),
            None => tokens.extend(
                run.bytes()
                    .filter_map(|byte| self.byte_tokens[usize::from(byte)].or(self.unknown)),
            ),
        }
    }
}

fn single_characters(text: &str) -> Vec<Symbol> {
    let count = text.chars().count();
    text.char_indices()
        .enumerate()
        .map(|(index, (start, character))| Symbol {
            start,
            end: start + character.len_utf8(),
            previous: index.checked_sub(1),
            next: (index + 1 < count).then_some(index + 1),
        })
        .collect()
}
