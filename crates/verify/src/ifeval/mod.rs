//! The 25 instructions of IFEval.
//!
//! Rules: lm-evaluation-harness 4e7e0d4 (`tasks/ifeval`, version 4.0), which are Google's own
//! apart from the letter-frequency rule, where Google's newer one is taken: the symbol asked
//! for is the symbol counted.

mod arguments;
mod case;
mod format;
mod keywords;
mod length;
mod parse;

pub use parse::constraints;

use crate::keyword::Keyword;
use crate::runner::{Check, Verdict};
use std::fmt;

/// How a count must stand to the number asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// Strictly fewer.
    LessThan,
    /// As many or more.
    AtLeast,
}

impl Relation {
    /// Whether `count` stands so to `asked`.
    #[must_use]
    pub fn holds(self, count: usize, asked: usize) -> bool {
        match self {
            Self::LessThan => count < asked,
            Self::AtLeast => count >= asked,
        }
    }

    /// The spelling in the data.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LessThan => "less than",
            Self::AtLeast => "at least",
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One instruction with its parameters. Counts are of code points where characters are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// `keywords:existence`: every keyword occurs, in any case.
    Existence {
        /// Regular expressions, searched anywhere. At least one.
        keywords: Vec<Keyword>,
    },
    /// `keywords:frequency`: the keyword occurs so often.
    Frequency {
        /// Regular expression, counted anywhere.
        keyword: Keyword,
        /// How the count must stand to `count`.
        relation: Relation,
        /// `frequency` in the data.
        count: usize,
    },
    /// `keywords:forbidden_words`: none of the words occurs.
    ForbiddenWords {
        /// Regular expressions, searched between word boundaries. At least one.
        words: Vec<Keyword>,
    },
    /// `keywords:letter_frequency`: the character occurs so often in the lower-cased text.
    LetterFrequency {
        /// The character; its lower case is counted.
        letter: char,
        /// How the count must stand to `count`.
        relation: Relation,
        /// `let_frequency` in the data.
        count: usize,
    },
    /// `language:response_language`: langdetect's answer is this language, or it has none.
    ResponseLanguage {
        /// One of [`crate::language::CHECKABLE`].
        language: String,
    },
    /// `length_constraints:number_sentences`, as Punkt cuts them.
    NumberSentences {
        /// How the count must stand to `count`.
        relation: Relation,
        /// `num_sentences` in the data.
        count: usize,
    },
    /// `length_constraints:number_paragraphs`: exactly so many, divided by `***`.
    NumberParagraphs {
        /// `num_paragraphs` in the data.
        count: usize,
    },
    /// `length_constraints:number_words`: runs of `\w`.
    NumberWords {
        /// How the count must stand to `count`.
        relation: Relation,
        /// `num_words` in the data.
        count: usize,
    },
    /// `length_constraints:nth_paragraph_first_word`: exactly so many paragraphs, divided by
    /// an empty line, and the first word of one of them.
    NthParagraphFirstWord {
        /// `num_paragraphs` in the data.
        paragraphs: usize,
        /// `nth_paragraph` in the data, 1 to `paragraphs`.
        nth: usize,
        /// Compared in lower case.
        first_word: String,
    },
    /// `detectable_content:number_placeholders`: at least so many `[...]`.
    NumberPlaceholders {
        /// `num_placeholders` in the data.
        count: usize,
    },
    /// `detectable_content:postscript`.
    Postscript {
        /// `P.S.` and `P.P.S` have rules of their own; the lower case of anything else is a
        /// regular expression.
        marker: Keyword,
    },
    /// `detectable_format:number_bullet_lists`: exactly so many lines with `*` or `-`.
    NumberBulletLists {
        /// `num_bullets` in the data.
        count: usize,
    },
    /// `detectable_format:constrained_response`: one of three sentences occurs.
    ConstrainedResponse,
    /// `detectable_format:number_highlighted_sections`: at least so many `*...*`.
    NumberHighlightedSections {
        /// `num_highlights` in the data.
        count: usize,
    },
    /// `detectable_format:multiple_sections`: at least so many headings with a number.
    MultipleSections {
        /// `section_spliter` in the data: a case-sensitive regular expression.
        splitter: Keyword,
        /// `num_sections` in the data.
        count: usize,
    },
    /// `detectable_format:json_format`: JSON as Python reads it, perhaps fenced.
    JsonFormat,
    /// `detectable_format:title`: something in `<<...>>`.
    Title,
    /// `combination:two_responses`: two different ones, divided by `******`.
    TwoResponses,
    /// `combination:repeat_prompt`: starts with this request, in any case.
    RepeatPrompt {
        /// `prompt_to_repeat` in the data.
        prompt: String,
    },
    /// `startend:end_checker`: ends with this phrase, in any case.
    EndChecker {
        /// `end_phrase` in the data.
        phrase: String,
    },
    /// `change_case:capital_word_frequency`: so many tokens all in capitals.
    CapitalWordFrequency {
        /// How the count must stand to `count`.
        relation: Relation,
        /// `capital_frequency` in the data.
        count: usize,
    },
    /// `change_case:english_capital`: all in capitals, and English to langdetect.
    EnglishCapital,
    /// `change_case:english_lowercase`: all in small letters, and English to langdetect.
    EnglishLowercase,
    /// `punctuation:no_comma`.
    NoComma,
    /// `startend:quotation`: begins and ends with `"`.
    Quotation,
}

impl Constraint {
    /// The ids of all 25, in the order of the enum.
    pub const IDS: [&str; 25] = [
        "keywords:existence",
        "keywords:frequency",
        "keywords:forbidden_words",
        "keywords:letter_frequency",
        "language:response_language",
        "length_constraints:number_sentences",
        "length_constraints:number_paragraphs",
        "length_constraints:number_words",
        "length_constraints:nth_paragraph_first_word",
        "detectable_content:number_placeholders",
        "detectable_content:postscript",
        "detectable_format:number_bullet_lists",
        "detectable_format:constrained_response",
        "detectable_format:number_highlighted_sections",
        "detectable_format:multiple_sections",
        "detectable_format:json_format",
        "detectable_format:title",
        "combination:two_responses",
        "combination:repeat_prompt",
        "startend:end_checker",
        "change_case:capital_word_frequency",
        "change_case:english_capital",
        "change_case:english_lowercase",
        "punctuation:no_comma",
        "startend:quotation",
    ];

    /// The id of the instruction, e.g. `keywords:existence`.
    #[must_use]
    pub fn id(&self) -> &'static str {
        Self::IDS[self.index()]
    }

    fn index(&self) -> usize {
        match self {
            Self::Existence { .. } => 0,
            Self::Frequency { .. } => 1,
            Self::ForbiddenWords { .. } => 2,
            Self::LetterFrequency { .. } => 3,
            Self::ResponseLanguage { .. } => 4,
            Self::NumberSentences { .. } => 5,
            Self::NumberParagraphs { .. } => 6,
            Self::NumberWords { .. } => 7,
            Self::NthParagraphFirstWord { .. } => 8,
            Self::NumberPlaceholders { .. } => 9,
            Self::Postscript { .. } => 10,
            Self::NumberBulletLists { .. } => 11,
            Self::ConstrainedResponse => 12,
            Self::NumberHighlightedSections { .. } => 13,
            Self::MultipleSections { .. } => 14,
            Self::JsonFormat => 15,
            Self::Title => 16,
            Self::TwoResponses => 17,
            Self::RepeatPrompt { .. } => 18,
            Self::EndChecker { .. } => 19,
            Self::CapitalWordFrequency { .. } => 20,
            Self::EnglishCapital => 21,
            Self::EnglishLowercase => 22,
            Self::NoComma => 23,
            Self::Quotation => 24,
        }
    }

    /// Whether the text, as it is, follows the instruction. A blank text is checked like any
    /// other here; [`crate::strict`] and [`crate::loose`] let it follow nothing.
    #[must_use]
    pub fn check(&self, text: &str) -> Verdict {
        match self {
            Self::Existence { keywords } => keywords::existence(keywords, text),
            Self::Frequency {
                keyword,
                relation,
                count,
            } => keywords::frequency(keyword, *relation, *count, text),
            Self::ForbiddenWords { words } => keywords::forbidden(words, text),
            Self::LetterFrequency {
                letter,
                relation,
                count,
            } => keywords::letter_frequency(*letter, *relation, *count, text),
            Self::ResponseLanguage { language } => case::language(language, text),
            Self::NumberSentences { relation, count } => length::sentences(*relation, *count, text),
            Self::NumberParagraphs { count } => length::paragraphs(*count, text),
            Self::NumberWords { relation, count } => length::words(*relation, *count, text),
            Self::NthParagraphFirstWord {
                paragraphs,
                nth,
                first_word,
            } => length::nth_paragraph_first_word(*paragraphs, *nth, first_word, text),
            Self::NumberPlaceholders { count } => format::placeholders(*count, text),
            Self::Postscript { marker } => keywords::postscript(marker, text),
            Self::NumberBulletLists { count } => format::bullets(*count, text),
            Self::ConstrainedResponse => format::constrained_response(text),
            Self::NumberHighlightedSections { count } => format::highlights(*count, text),
            Self::MultipleSections { splitter, count } => {
                keywords::sections(splitter, *count, text)
            }
            Self::JsonFormat => format::json(text),
            Self::Title => format::title(text),
            Self::TwoResponses => format::two_responses(text),
            Self::RepeatPrompt { prompt } => format::repeat_prompt(prompt, text),
            Self::EndChecker { phrase } => format::end(phrase, text),
            Self::CapitalWordFrequency { relation, count } => {
                case::capital_words(*relation, *count, text)
            }
            Self::EnglishCapital => case::english_capital(text),
            Self::EnglishLowercase => case::english_lowercase(text),
            Self::NoComma => format::no_comma(text),
            Self::Quotation => format::quotation(text),
        }
    }
}

impl Check for Constraint {
    fn id(&self) -> &str {
        Constraint::id(self)
    }

    fn check(&self, text: &str) -> Verdict {
        Constraint::check(self, text)
    }
}
