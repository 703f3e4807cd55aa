//! Constraints from the benchmark's ids and parameters, and back.

use super::arguments::Arguments;
use super::{Constraint, Relation};
use crate::error::Error;
use crate::keyword::Keyword;
use crate::language;
use serde_json::{Map, Value, json};

impl Constraint {
    /// The constraint with this id and these parameters, spelled as in IFEval's data.
    ///
    /// Nulls, and the other values that Python calls false, count as absent.
    ///
    /// # Errors
    ///
    /// The id is unknown, a parameter is absent, unknown or of the wrong kind, or a keyword is
    /// no regular expression.
    pub fn from_ifeval(id: &str, kwargs: &Map<String, Value>) -> Result<Self, Error> {
        let known = Self::IDS.iter().position(|known| *known == id);
        let index = known.ok_or_else(|| Error::UnknownId { id: id.to_owned() })?;
        let arguments = &Arguments { id, values: kwargs };
        arguments.only(parameters(index))?;
        match id {
            "detectable_format:constrained_response" => Ok(Self::ConstrainedResponse),
            "detectable_format:json_format" => Ok(Self::JsonFormat),
            "detectable_format:title" => Ok(Self::Title),
            "combination:two_responses" => Ok(Self::TwoResponses),
            "change_case:english_capital" => Ok(Self::EnglishCapital),
            "change_case:english_lowercase" => Ok(Self::EnglishLowercase),
            "punctuation:no_comma" => Ok(Self::NoComma),
            "startend:quotation" => Ok(Self::Quotation),
            _ => match parse_words(id, arguments)? {
                Some(constraint) => Ok(constraint),
                None => parse_counts(id, arguments),
            },
        }
    }

    /// The parameters under the names that IFEval's data uses; the inverse of
    /// [`Self::from_ifeval`].
    #[must_use]
    pub fn kwargs(&self) -> Map<String, Value> {
        let texts = |list: &[Keyword]| {
            list.iter()
                .map(|k| k.as_str().into())
                .collect::<Vec<Value>>()
        };
        let names = parameters(self.index())
            .iter()
            .map(|name| (*name).to_owned());
        names.zip(self.values(&texts)).collect()
    }

    fn values(&self, texts: &dyn Fn(&[Keyword]) -> Vec<Value>) -> Vec<Value> {
        let compared =
            |relation: &Relation, count: &usize| vec![json!(relation.as_str()), json!(count)];
        match self {
            Self::Existence { keywords } => vec![texts(keywords).into()],
            Self::ForbiddenWords { words } => vec![texts(words).into()],
            Self::Frequency {
                keyword,
                relation,
                count,
            } => {
                vec![
                    json!(keyword.as_str()),
                    json!(relation.as_str()),
                    json!(count),
                ]
            }
            Self::LetterFrequency {
                letter,
                relation,
                count,
            } => {
                vec![json!(letter), json!(relation.as_str()), json!(count)]
            }
            Self::ResponseLanguage { language } => vec![json!(language)],
            Self::NumberSentences { relation, count }
            | Self::NumberWords { relation, count }
            | Self::CapitalWordFrequency { relation, count } => compared(relation, count),
            Self::NumberParagraphs { count }
            | Self::NumberPlaceholders { count }
            | Self::NumberBulletLists { count }
            | Self::NumberHighlightedSections { count } => vec![json!(count)],
            Self::NthParagraphFirstWord {
                paragraphs,
                nth,
                first_word,
            } => {
                vec![json!(paragraphs), json!(nth), json!(first_word)]
            }
            Self::Postscript { marker } => vec![json!(marker.as_str())],
            Self::MultipleSections { splitter, count } => {
                vec![json!(splitter.as_str()), json!(count)]
            }
            Self::RepeatPrompt { prompt } => vec![json!(prompt)],
            Self::EndChecker { phrase } => vec![json!(phrase)],
            Self::ConstrainedResponse
            | Self::JsonFormat
            | Self::Title
            | Self::TwoResponses
            | Self::EnglishCapital
            | Self::EnglishLowercase
            | Self::NoComma
            | Self::Quotation => Vec::new(),
        }
    }
}

/// Parameter names by place in [`Constraint::IDS`], in the order of [`Constraint::values`].
fn parameters(index: usize) -> &'static [&'static str] {
    match index {
        0 => &["keywords"],
        1 => &["keyword", "relation", "frequency"],
        2 => &["forbidden_words"],
        3 => &["letter", "let_relation", "let_frequency"],
        4 => &["language"],
        5 => &["relation", "num_sentences"],
        6 => &["num_paragraphs"],
        7 => &["relation", "num_words"],
        8 => &["num_paragraphs", "nth_paragraph", "first_word"],
        9 => &["num_placeholders"],
        10 => &["postscript_marker"],
        11 => &["num_bullets"],
        13 => &["num_highlights"],
        14 => &["section_spliter", "num_sections"],
        18 => &["prompt_to_repeat"],
        19 => &["end_phrase"],
        20 => &["capital_relation", "capital_frequency"],
        _ => &[],
    }
}

/// The instructions with words among their parameters; none for another id.
fn parse_words(id: &str, arguments: &Arguments<'_>) -> Result<Option<Constraint>, Error> {
    Ok(Some(match id {
        "keywords:existence" => {
            let words = arguments.texts("keywords")?.into_iter();
            let keywords = words.map(Keyword::anywhere).collect::<Result<_, _>>()?;
            Constraint::Existence { keywords }
        }
        "keywords:forbidden_words" => {
            let words = arguments.texts("forbidden_words")?.into_iter();
            let words = words.map(Keyword::whole_word).collect::<Result<_, _>>()?;
            Constraint::ForbiddenWords { words }
        }
        "keywords:frequency" => Constraint::Frequency {
            keyword: Keyword::counted(arguments.text("keyword")?)?,
            relation: arguments.relation("relation")?,
            count: arguments.count("frequency")?,
        },
        "keywords:letter_frequency" => {
            let mut letters = arguments.text("letter")?.chars();
            let (Some(letter), None) = (letters.next(), letters.next()) else {
                return Err(arguments.bad("letter", "one character"));
            };
            Constraint::LetterFrequency {
                letter,
                relation: arguments.relation("let_relation")?,
                count: arguments.count("let_frequency")?,
            }
        }
        "language:response_language" => {
            let language = arguments.text("language")?;
            if !language::CHECKABLE.contains(&language) {
                return Err(arguments.bad("language", "a code of the checker's 30 languages"));
            }
            Constraint::ResponseLanguage {
                language: language.to_owned(),
            }
        }
        "detectable_content:postscript" => Constraint::Postscript {
            marker: Keyword::postscript(arguments.text("postscript_marker")?)?,
        },
        "combination:repeat_prompt" => Constraint::RepeatPrompt {
            prompt: arguments.text("prompt_to_repeat")?.to_owned(),
        },
        "startend:end_checker" => Constraint::EndChecker {
            phrase: arguments.text("end_phrase")?.to_owned(),
        },
        _ => return Ok(None),
    }))
}

/// The instructions that count.
fn parse_counts(id: &str, arguments: &Arguments<'_>) -> Result<Constraint, Error> {
    Ok(match id {
        "length_constraints:number_sentences" => Constraint::NumberSentences {
            relation: arguments.relation("relation")?,
            count: arguments.count("num_sentences")?,
        },
        "length_constraints:number_paragraphs" => Constraint::NumberParagraphs {
            count: arguments.count("num_paragraphs")?,
        },
        "length_constraints:number_words" => Constraint::NumberWords {
            relation: arguments.relation("relation")?,
            count: arguments.count("num_words")?,
        },
        "length_constraints:nth_paragraph_first_word" => {
            let paragraphs = arguments.count("num_paragraphs")?;
            let nth = arguments.count("nth_paragraph")?;
            if nth > paragraphs {
                return Err(arguments.bad("nth_paragraph", "a number up to num_paragraphs"));
            }
            Constraint::NthParagraphFirstWord {
                paragraphs,
                nth,
                first_word: arguments.text("first_word")?.to_owned(),
            }
        }
        "detectable_content:number_placeholders" => Constraint::NumberPlaceholders {
            count: arguments.count("num_placeholders")?,
        },
        "detectable_format:number_bullet_lists" => Constraint::NumberBulletLists {
            count: arguments.count("num_bullets")?,
        },
        "detectable_format:number_highlighted_sections" => Constraint::NumberHighlightedSections {
            count: arguments.count("num_highlights")?,
        },
        "detectable_format:multiple_sections" => Constraint::MultipleSections {
            splitter: Keyword::section(arguments.text("section_spliter")?)?,
            count: arguments.count("num_sections")?,
        },
        "change_case:capital_word_frequency" => Constraint::CapitalWordFrequency {
            relation: arguments.relation("capital_relation")?,
            count: arguments.count("capital_frequency")?,
        },
        _ => return Err(Error::UnknownId { id: id.to_owned() }),
    })
}

/// The constraints of one row, spelled as in IFEval's data.
///
/// # Errors
///
/// The lists differ in length, or as for [`Constraint::from_ifeval`].
pub fn constraints(
    ids: &[String],
    kwargs: &[Map<String, Value>],
) -> Result<Vec<Constraint>, Error> {
    if ids.len() != kwargs.len() {
        return Err(Error::LengthMismatch {
            ids: ids.len(),
            kwargs: kwargs.len(),
        });
    }
    let pairs = ids.iter().zip(kwargs);
    pairs
        .map(|(id, kwargs)| Constraint::from_ifeval(id, kwargs))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(id: &str, kwargs: &Value) -> Result<Constraint, String> {
        let kwargs = kwargs.as_object().expect("an object");
        Constraint::from_ifeval(id, kwargs).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (id, kwargs, expected) in [
            ("x:y", json!({}), "unknown instruction \"x:y\""),
            (
                "punctuation:no_comma",
                json!({"num_words": 3}),
                "punctuation:no_comma: unknown parameter \"num_words\"",
            ),
            (
                "length_constraints:number_words",
                json!({"relation": "at least", "num_words": null}),
                "length_constraints:number_words: parameter num_words is missing",
            ),
            (
                "length_constraints:number_words",
                json!({"relation": "at most", "num_words": 3}),
                "length_constraints:number_words: parameter relation: expected \"less than\" or \"at least\", got \"at most\"",
            ),
            (
                "length_constraints:number_paragraphs",
                json!({"num_paragraphs": 2.5}),
                "length_constraints:number_paragraphs: parameter num_paragraphs: expected a whole number, 1 or more, got 2.5",
            ),
            (
                "length_constraints:number_paragraphs",
                json!({"num_paragraphs": -1}),
                "length_constraints:number_paragraphs: parameter num_paragraphs: expected a whole number, 1 or more, got -1",
            ),
            (
                "keywords:letter_frequency",
                json!({"letter": "ab", "let_relation": "at least", "let_frequency": 1}),
                "keywords:letter_frequency: parameter letter: expected one character, got \"ab\"",
            ),
            (
                "language:response_language",
                json!({"language": "zh-cn"}),
                "language:response_language: parameter language: expected a code of the checker's 30 languages, got \"zh-cn\"",
            ),
            (
                "keywords:existence",
                json!({"keywords": ["a(b"]}),
                "keyword \"a(b\" is no valid regular expression: missing ), unterminated subpattern (at character 1)",
            ),
        ] {
            assert_eq!(parse(id, &kwargs), Err(expected.to_owned()));
        }
    }

    #[test]
    fn nulls_and_floats_are_understood() {
        let kwargs = json!({"num_paragraphs": 3.0, "num_words": null, "keywords": []});
        let parsed = parse("length_constraints:number_paragraphs", &kwargs);
        assert_eq!(parsed, Ok(Constraint::NumberParagraphs { count: 3 }));
    }
}
