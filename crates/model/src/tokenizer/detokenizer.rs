//! Tokens to text, one at a time.

use super::{Show, Tokenizer};
use data::TokenId;
use std::ops::Deref;

/// Where decoding starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the beginning of a text: the space that a SentencePiece vocabulary puts before the
    /// first word is dropped.
    OfText,
    /// In the middle of a text: every space counts.
    Continuation,
}

/// Turns a stream of tokens into text without ever splitting a character: the pieces it
/// returns, put together, are the decoded text of all tokens.
///
/// `T` is a `&Tokenizer` or an `Arc<Tokenizer>`.
#[derive(Debug, Clone)]
pub struct Detokenizer<T> {
    tokenizer: T,
    show: Show,
    at_start: bool,
    pending: Vec<u8>,
}

impl<T: Deref<Target = Tokenizer>> Detokenizer<T> {
    /// At the start of a stream.
    pub fn new(tokenizer: T, start: Start, show: Show) -> Self {
        let at_start = start == Start::OfText && tokenizer.strip_leading_space;
        Self {
            tokenizer,
            show,
            at_start,
            pending: Vec::new(),
        }
    }

    /// The text that is certain after one more token; empty while a character is incomplete.
    /// An id that no token has, and a control token that is not to be shown, add nothing.
    pub fn push(&mut self, token: TokenId) -> String {
        if self.show == Show::TextOnly && self.tokenizer.is_control(token) {
            return String::new();
        }
        let mut bytes = self.tokenizer.token_bytes(token).unwrap_or_default();
        if self.at_start && !bytes.is_empty() {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            self.at_start = false;
        }
        self.pending.extend_from_slice(bytes);
        let certain = certain_length(&self.pending);
        let text = String::from_utf8_lossy(&self.pending[..certain]).into_owned();
        self.pending.drain(..certain);
        text
    }

    /// What is left when no more tokens come: U+FFFD for an incomplete character.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// Length of the part that further bytes cannot change: all but an incomplete last character.
fn certain_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match std::str::from_utf8(&bytes[at..]) {
            Ok(_) => return bytes.len(),
            Err(error) => {
                at += error.valid_up_to();
                match error.error_len() {
                    None => return at,
                    Some(length) => at += length,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_incomplete_last_character_waits() {
        let check = |bytes: &[u8], length| assert_eq!(certain_length(bytes), length, "{bytes:?}");
        check(b"", 0);
        check(b"ab", 2);
        check("aé".as_bytes(), 3);
        check(&"aé".as_bytes()[..2], 1);
        check(&"😀".as_bytes()[..3], 0);
        check(b"\xff\xfeab", 4);
        check(b"\x80\xf0\x9f", 1);
        check(b"\xc3a\xc3", 2);
    }
}
