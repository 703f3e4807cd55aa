//! Sentences and words as NLTK 3.9.1 cuts them.

mod parameters;
mod punkt;
mod words;

pub use punkt::sentence_spans;

/// The sentences of [`sentence_spans`].
#[must_use]
pub fn sentences(text: &str) -> Vec<&str> {
    let spans = sentence_spans(text).into_iter();
    spans.map(|span| &text[span]).collect()
}

/// `nltk.word_tokenize(text)`: the tokens of each sentence. Double quotes come out as two
/// backquotes or two apostrophes.
#[must_use]
pub fn word_tokenize(text: &str) -> Vec<String> {
    sentences(text)
        .into_iter()
        .flat_map(words::tokenize)
        .collect()
}
