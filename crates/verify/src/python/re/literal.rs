//! Plain words, perhaps between word boundaries: what nearly all keywords are.

use super::fold::key;
use super::tree::{Cases, Item, Node, Place, Words};
use crate::python;

/// Longest word searched for in this way, which looks at it again at every place.
const MAX_CHARS: usize = 64;

/// A word to search for.
#[derive(Debug)]
pub(super) struct Literal {
    /// By their keys.
    chars: Vec<char>,
    cases: Cases,
    /// No word character may stand before or after.
    whole: bool,
}

impl Literal {
    /// The word that a pattern is; none for any other pattern.
    pub(super) fn of(root: &Node) -> Option<Self> {
        const EDGE: Place = Place::WordBoundary(Words::Unicode);
        let Node::Concat(nodes) = root else {
            return None;
        };
        let (nodes, edges) = match nodes.as_slice() {
            [Node::Place(first), inner @ .., Node::Place(last)]
                if *first == EDGE && *last == EDGE =>
            {
                (inner, true)
            }
            nodes => (nodes, false),
        };
        let mut cases = None;
        let mut chars = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Node::One(set) = node else {
                return None;
            };
            let [Item::Range(low, high)] = set.items[..] else {
                return None;
            };
            if set.negated || low != high || *cases.get_or_insert(set.cases) != set.cases {
                return None;
            }
            chars.push(key(char::from_u32(low)?, set.cases));
        }
        // With other characters at its ends, a boundary asks for word characters outside.
        let is_word = |c: Option<&char>| c.is_some_and(|c| python::is_word(*c));
        let plain = !edges || (is_word(chars.first()) && is_word(chars.last()));
        (plain && (1..=MAX_CHARS).contains(&chars.len())).then_some(Self {
            chars,
            cases: cases?,
            whole: edges,
        })
    }

    /// Number of occurrences without overlaps, up to a limit.
    pub(super) fn count(&self, text: &str, limit: usize) -> usize {
        let (mut count, mut from) = (0, 0);
        while count < limit {
            let Some(end) = self.find(text, from) else {
                break;
            };
            count += 1;
            from = end;
        }
        count
    }

    /// The end of the first occurrence from a place on.
    fn find(&self, text: &str, from: usize) -> Option<usize> {
        let mut before = text[..from].chars().next_back();
        let mut rest = text[from..].chars();
        loop {
            let inside = self.whole && before.is_some_and(python::is_word);
            if let Some(after) = self.matched(rest.as_str()).filter(|_| !inside) {
                return Some(text.len() - after.len());
            }
            before = Some(rest.next()?);
        }
    }

    /// What follows the word, if the text starts with it.
    fn matched<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut rest = text.chars();
        for wanted in &self.chars {
            if key(rest.next()?, self.cases) != *wanted {
                return None;
            }
        }
        let rest = rest.as_str();
        (!self.whole || !rest.starts_with(python::is_word)).then_some(rest)
    }
}
