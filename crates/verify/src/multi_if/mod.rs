//! Multi-IF's instructions: IFEval's, three of them changed for other languages.
//!
//! Source: facebookresearch/Multi-IF 1cdb53e. The counters of words and sentences first ask
//! langdetect (seed 0; English where it has no answer). Thai is not supported: the reference
//! counts it with a dictionary and a statistical model of PyThaiNLP's.

mod counters;

pub use counters::{cjk_sentences, cjk_words, hindi_sentences};

use serde_json::{Map, Value};

use crate::{Check, Constraint, Error, Relation, Verdict, language, loose_variants, nltk, python};

/// One instruction with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub enum MultiIf {
    /// `length_constraints:number_words`, by language.
    NumberWords {
        /// How the count must stand to `count`.
        relation: Relation,
        /// `num_words` in the data.
        count: usize,
    },
    /// `length_constraints:number_sentences`, by language.
    NumberSentences {
        /// How the count must stand to `count`.
        relation: Relation,
        /// `num_sentences` in the data.
        count: usize,
    },
    /// `startend:quotation`, with the quotation marks of English, Chinese or Japanese.
    Quotation,
    /// Any other, as in IFEval.
    Unchanged(Constraint),
}

/// How a language counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    Cjk,
    Hindi,
    Thai,
    Other,
}

impl MultiIf {
    /// The instruction with this id and these parameters, spelled as in IFEval's data.
    ///
    /// # Errors
    ///
    /// As [`Constraint::from_ifeval`].
    pub fn parse(id: &str, kwargs: &Map<String, Value>) -> Result<Self, Error> {
        Ok(match Constraint::from_ifeval(id, kwargs)? {
            Constraint::NumberWords { relation, count } => Self::NumberWords { relation, count },
            Constraint::NumberSentences { relation, count } => {
                Self::NumberSentences { relation, count }
            }
            Constraint::Quotation => Self::Quotation,
            other => Self::Unchanged(other),
        })
    }

    /// Why no verdict is given on `response`; none where one is. Looks at the response and at
    /// its loose variants.
    #[must_use]
    pub fn unsupported(&self, response: &str) -> Option<&'static str> {
        let why = match self {
            Self::NumberWords { .. } => "words of Thai cannot be counted",
            Self::NumberSentences { .. } => "sentences of Thai cannot be counted",
            Self::Quotation | Self::Unchanged(_) => return None,
        };
        let mut variants = loose_variants(response).into_iter();
        variants
            .any(|text| !python::is_blank(&text) && script(&text) == Script::Thai)
            .then_some(why)
    }
}

impl Check for MultiIf {
    fn id(&self) -> &str {
        match self {
            Self::NumberWords { .. } => "length_constraints:number_words",
            Self::NumberSentences { .. } => "length_constraints:number_sentences",
            Self::Quotation => "startend:quotation",
            Self::Unchanged(constraint) => constraint.id(),
        }
    }

    fn check(&self, text: &str) -> Verdict {
        match self {
            Self::NumberWords { relation, count } => match words(text) {
                Some(found) => compare(found, "words", *relation, *count),
                None => Verdict::failed("not supported: words of Thai cannot be counted"),
            },
            Self::NumberSentences { relation, count } => match sentences(text) {
                Some(found) => compare(found, "sentences", *relation, *count),
                None => Verdict::failed("not supported: sentences of Thai cannot be counted"),
            },
            Self::Quotation => Verdict::when(is_quoted(text), || {
                "the text is not in double quotation marks".to_owned()
            }),
            Self::Unchanged(constraint) => constraint.check(text),
        }
    }
}

fn compare(found: usize, what: &str, relation: Relation, asked: usize) -> Verdict {
    Verdict::when(relation.holds(found, asked), || {
        format!("{found} {what}, {relation} {asked} wanted")
    })
}

/// Number of words as the text's language counts them; none for Thai.
#[must_use]
pub fn words(text: &str) -> Option<usize> {
    match script(text) {
        Script::Cjk => Some(cjk_words(text)),
        Script::Thai => None,
        Script::Hindi | Script::Other => Some(python::words(text).count()),
    }
}

/// Number of sentences as the text's language counts them; none for Thai.
#[must_use]
pub fn sentences(text: &str) -> Option<usize> {
    match script(text) {
        Script::Cjk => Some(cjk_sentences(text)),
        Script::Hindi => Some(hindi_sentences(text)),
        Script::Thai => None,
        Script::Other => Some(nltk::sentences(text).len()),
    }
}

fn script(text: &str) -> Script {
    match language::detect(text).as_deref() {
        Some("zh-cn" | "zh-tw" | "ja") => Script::Cjk,
        Some("hi") => Script::Hindi,
        Some("th") => Script::Thai,
        _ => Script::Other,
    }
}

fn is_quoted(text: &str) -> bool {
    let text = python::strip(text);
    [('"', '"'), ('“', '”'), ('「', '」')]
        .iter()
        .any(|(open, close)| {
            let rest = text.strip_prefix(*open);
            rest.is_some_and(|rest| rest.ends_with(*close))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotation_marks_of_three_languages() {
        for (text, expected) in [
            ("\"a\"", true),
            (" “a”\n", true),
            ("「」", true),
            ("\"", false),
            ("\"a”", false),
            ("„a“", false),
            ("", false),
        ] {
            assert_eq!(is_quoted(text), expected, "{text:?}");
        }
    }

    #[test]
    fn thai_is_reported_not_guessed() {
        let kwargs = serde_json::json!({"relation": "at least", "num_words": 1});
        let rule = MultiIf::parse(
            "length_constraints:number_words",
            kwargs.as_object().unwrap(),
        );
        let rule = rule.unwrap();
        let thai = "ขอบคุณสำหรับความร่วมมือและการสนับสนุน";
        assert_eq!(words(thai), None);
        assert_eq!(sentences(thai), None);
        assert!(rule.unsupported(thai).is_some());
        assert_eq!(rule.unsupported("thank you for your help"), None);
        assert!(!rule.check(thai).followed);
    }

    #[test]
    fn japanese_counts_characters() {
        assert_eq!(words("これは日本語の文章です。"), Some(11));
        assert_eq!(
            sentences("これは日本語の文章です。はい、そうです。"),
            Some(2)
        );
    }
}
