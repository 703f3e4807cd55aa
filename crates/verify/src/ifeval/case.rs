//! Rules about language and case.

use super::Relation;
use crate::language;
use crate::nltk;
use crate::python;
use crate::runner::Verdict;

pub(super) fn language(asked: &str, text: &str) -> Verdict {
    match language::detect(text) {
        // The original counts a text without features as followed.
        None => Verdict::followed(),
        Some(found) => Verdict::when(found == asked, || {
            format!("the language is {found}, asked: {asked}")
        }),
    }
}

pub(super) fn capital_words(relation: Relation, asked: usize, text: &str) -> Verdict {
    let tokens = nltk::word_tokenize(text);
    let count = tokens
        .iter()
        .filter(|token| python::is_upper(token))
        .count();
    Verdict::when(relation.holds(count, asked), || {
        format!("{count} words in capitals, asked: {relation} {asked}")
    })
}

pub(super) fn english_capital(text: &str) -> Verdict {
    if !python::is_upper(text) {
        return Verdict::failed("not all in capitals");
    }
    language("en", text)
}

pub(super) fn english_lowercase(text: &str) -> Verdict {
    if !python::is_lower(text) {
        return Verdict::failed("not all in small letters");
    }
    language("en", text)
}
