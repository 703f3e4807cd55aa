//! Tokens that are looked for in the text before anything else: control tokens and tokens
//! added to a finished vocabulary.
//!
//! Behaves like the library's own added vocabulary (leftmost, then longest; `single_word`,
//! `lstrip`, `rstrip`, `normalized`), except that a control token can be forbidden, and then
//! what it spells is searched on.

use super::Special;
use data::TokenId;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use tokenizers::AddedToken;
use tokenizers::tokenizer::NormalizedString;

/// A piece of text: a token already, or still to be encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fragment {
    Text(Range<usize>),
    Token(TokenId, Range<usize>),
}

impl Fragment {
    pub(super) fn range(&self) -> Range<usize> {
        match self {
            Self::Text(range) | Self::Token(_, range) => range.clone(),
        }
    }
}

/// The added tokens of one vocabulary.
#[derive(Debug, Default)]
pub(super) struct AddedTokens {
    raw: Matcher,
    normalized: Matcher,
    control: HashSet<TokenId>,
    by_text: HashMap<String, TokenId>,
}

impl AddedTokens {
    /// `normalize` is what the tokenizer does to text before it looks for tokens that are
    /// marked `normalized`.
    pub(super) fn new(
        tokens: impl IntoIterator<Item = (TokenId, AddedToken)>,
        normalize: impl Fn(&str) -> String,
    ) -> Self {
        let mut all = Self::default();
        for (id, token) in tokens
            .into_iter()
            .filter(|(_, token)| !token.content.is_empty())
        {
            if token.special {
                all.control.insert(id);
            }
            all.by_text.insert(token.content.clone(), id);
            if token.normalized {
                all.normalized.add(&normalize(&token.content), id, token);
            } else {
                all.raw.add(&token.content.clone(), id, token);
            }
        }
        all
    }

    pub(super) fn is_control(&self, id: TokenId) -> bool {
        self.control.contains(&id)
    }

    pub(super) fn id_of(&self, text: &str) -> Option<TokenId> {
        self.by_text.get(text).copied()
    }

    /// Cuts raw text at the tokens that are looked for before normalisation.
    pub(super) fn split(&self, text: &str, special: Special, shields: &[usize]) -> Vec<Fragment> {
        self.raw.split(text, |token, range| {
            allowed(token, special, shields, || range)
        })
    }

    /// Cuts text that has been normalised at the tokens that are looked for afterwards.
    pub(super) fn split_normalized(
        &self,
        piece: &NormalizedString,
        special: Special,
        shields: &[usize],
    ) -> Vec<Fragment> {
        let start = piece.offsets_original().0;
        self.normalized.split(piece.get(), |token, range| {
            allowed(token, special, shields, || {
                let range = tokenizers::tokenizer::normalizer::Range::Normalized(range.clone());
                let original = piece.convert_offsets(range).unwrap_or_default();
                original.start + start..original.end + start
            })
        })
    }

    /// Offsets one character into each control token that `text` spells, overlapping ones
    /// included.
    pub(super) fn control_tokens_in(&self, text: &str) -> Vec<usize> {
        text.char_indices()
            .filter(|(at, _)| {
                [&self.raw, &self.normalized].iter().any(|matcher| {
                    matcher
                        .candidates(&text.as_bytes()[*at..])
                        .iter()
                        .any(|found| matcher.tokens[*found].token.special)
                })
            })
            .map(|(at, character)| at + character.len_utf8())
            .collect()
    }
}

/// Whether a token may be read at a place (given in the original text).
fn allowed(
    token: &AddedToken,
    special: Special,
    shields: &[usize],
    original: impl FnOnce() -> Range<usize>,
) -> bool {
    if !token.special || (special == Special::Parse && shields.is_empty()) {
        return true;
    }
    if special == Special::AsText {
        return false;
    }
    let range = original();
    let next = shields.partition_point(|shield| *shield <= range.start);
    shields.get(next).is_none_or(|shield| *shield >= range.end)
}

/// A trie over the bytes of the tokens' patterns.
#[derive(Debug)]
struct Matcher {
    tokens: Vec<Entry>,
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    next: HashMap<u8, usize>,
    token: Option<usize>,
}

#[derive(Debug)]
struct Entry {
    id: TokenId,
    length: usize,
    token: AddedToken,
}

impl Default for Matcher {
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            nodes: vec![Node::default()],
        }
    }
}

impl Matcher {
    fn add(&mut self, pattern: &str, id: TokenId, token: AddedToken) {
        if pattern.is_empty() {
            return;
        }
        let mut node = 0;
        for byte in pattern.bytes() {
            let fresh = self.nodes.len();
            node = *self.nodes[node].next.entry(byte).or_insert(fresh);
            if node == fresh {
                self.nodes.push(Node::default());
            }
        }
        self.nodes[node].token = Some(self.tokens.len());
        self.tokens.push(Entry {
            id,
            length: pattern.len(),
            token,
        });
    }

    /// Tokens (as indices) whose pattern `text` begins with, shortest first.
    fn candidates(&self, text: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        let mut node = &self.nodes[0];
        for byte in text {
            let Some(next) = node.next.get(byte) else {
                break;
            };
            node = &self.nodes[*next];
            found.extend(node.token);
        }
        found
    }

    fn split(
        &self,
        text: &str,
        allowed: impl Fn(&AddedToken, Range<usize>) -> bool,
    ) -> Vec<Fragment> {
        let mut fragments = Vec::new();
        let mut done = 0; // everything before this is in a fragment
        let mut at = 0;
        while at < text.len() {
            let here = self
                .candidates(&text.as_bytes()[at..])
                .into_iter()
                .rev()
                .find_map(|index| {
                    let entry = &self.tokens[index];
                    let range = at..at + entry.length;
                    let fits = whole_word(&entry.token, text, &range);
                    (fits && allowed(&entry.token, range.clone())).then_some((entry, range))
                });
            let Some((entry, range)) = here else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
                continue;
            };
            let range = stripped(&entry.token, text, range, done);
            if done < range.start {
                fragments.push(Fragment::Text(done..range.start));
            }
            at = range.end;
            done = range.end;
            fragments.push(Fragment::Token(entry.id, range));
        }
        if done < text.len() {
            fragments.push(Fragment::Text(done..text.len()));
        }
        fragments
    }
}

fn whole_word(token: &AddedToken, text: &str, range: &Range<usize>) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    !token.single_word
        || !(text[..range.start].chars().next_back().is_some_and(is_word)
            || text[range.end..].chars().next().is_some_and(is_word))
}

/// The range with the whitespace around it that the token swallows, but nothing before `from`.
fn stripped(token: &AddedToken, text: &str, range: Range<usize>, from: usize) -> Range<usize> {
    let start = if token.lstrip {
        text[from..range.start].trim_end().len() + from
    } else {
        range.start
    };
    let after = &text[range.end..];
    let end = if token.rstrip {
        text.len() - after.trim_start().len()
    } else {
        range.end
    };
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(tokens: &[(&str, bool)]) -> AddedTokens {
        let tokens = tokens
            .iter()
            .zip(0..)
            .map(|((text, special), id)| (id, AddedToken::from(*text, *special).normalized(false)));
        AddedTokens::new(tokens, str::to_owned)
    }

    fn check(
        tokens: &[(&str, bool)],
        text: &str,
        special: Special,
        shields: &[usize],
        expected: &[&str],
    ) {
        let fragments = added(tokens).split(text, special, shields);
        let shown: Vec<String> = fragments
            .iter()
            .map(|fragment| match fragment {
                Fragment::Text(range) => text[range.clone()].to_owned(),
                Fragment::Token(id, _) => format!("#{id}"),
            })
            .collect();
        assert_eq!(shown, expected, "{text}");
        assert_eq!(
            fragments
                .iter()
                .map(|fragment| fragment.range().len())
                .sum::<usize>(),
            text.len()
        );
    }

    #[test]
    fn leftmost_longest_and_what_is_allowed() {
        let tokens = [("<a>", true), ("<a><b>", true), ("b>", false)];
        check(&tokens, "x<a><b>y", Special::Parse, &[], &["x", "#1", "y"]);
        check(&tokens, "x<a>y", Special::Parse, &[], &["x", "#0", "y"]);
        check(
            &tokens,
            "x<a><b>y",
            Special::AsText,
            &[],
            &["x<a><", "#2", "y"],
        );
        check(&tokens, "x<a>y<a>", Special::Parse, &[2], &["x<a>y", "#0"]);
        check(
            &tokens,
            "x<a>y<a>",
            Special::Parse,
            &[1, 4],
            &["x", "#0", "y", "#0"],
        );
        check(&tokens, "é<a", Special::Parse, &[], &["é<a"]);
        check(&tokens, "", Special::Parse, &[], &[]);
        assert_eq!(added(&tokens).control_tokens_in("é<a>z<a><b>"), [3, 7]);
    }

    #[test]
    fn words_and_whitespace() {
        let text = "ab  a \n b";
        let token = AddedToken::from("a", true)
            .single_word(true)
            .lstrip(true)
            .rstrip(true);
        let added = AddedTokens::new([(9, token.normalized(false))], str::to_owned);
        let fragments = added.split(text, Special::Parse, &[]);
        assert_eq!(
            fragments,
            [
                Fragment::Text(0..2),
                Fragment::Token(9, 2..8),
                Fragment::Text(8..9)
            ]
        );
    }
}
