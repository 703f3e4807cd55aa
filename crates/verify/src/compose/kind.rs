//! The 25 constraint types without their parameters, to draw from and to tabulate.

use crate::Constraint;
use std::fmt;

/// A constraint type of IFEval, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `keywords:existence`
    Existence,
    /// `keywords:frequency`
    Frequency,
    /// `keywords:forbidden_words`
    ForbiddenWords,
    /// `keywords:letter_frequency`
    LetterFrequency,
    /// `language:response_language`
    ResponseLanguage,
    /// `length_constraints:number_sentences`
    NumberSentences,
    /// `length_constraints:number_paragraphs`
    NumberParagraphs,
    /// `length_constraints:number_words`
    NumberWords,
    /// `length_constraints:nth_paragraph_first_word`
    NthParagraphFirstWord,
    /// `detectable_content:number_placeholders`
    NumberPlaceholders,
    /// `detectable_content:postscript`
    Postscript,
    /// `detectable_format:number_bullet_lists`
    NumberBulletLists,
    /// `detectable_format:constrained_response`
    ConstrainedResponse,
    /// `detectable_format:number_highlighted_sections`
    NumberHighlightedSections,
    /// `detectable_format:multiple_sections`
    MultipleSections,
    /// `detectable_format:json_format`
    JsonFormat,
    /// `detectable_format:title`
    Title,
    /// `combination:two_responses`
    TwoResponses,
    /// `combination:repeat_prompt`
    RepeatPrompt,
    /// `startend:end_checker`
    EndChecker,
    /// `change_case:capital_word_frequency`
    CapitalWordFrequency,
    /// `change_case:english_capital`
    EnglishCapital,
    /// `change_case:english_lowercase`
    EnglishLowercase,
    /// `punctuation:no_comma`
    NoComma,
    /// `startend:quotation`
    Quotation,
}

impl Kind {
    /// All types, in the order of the registry.
    pub const ALL: [Self; 25] = [
        Self::Existence,
        Self::Frequency,
        Self::ForbiddenWords,
        Self::LetterFrequency,
        Self::ResponseLanguage,
        Self::NumberSentences,
        Self::NumberParagraphs,
        Self::NumberWords,
        Self::NthParagraphFirstWord,
        Self::NumberPlaceholders,
        Self::Postscript,
        Self::NumberBulletLists,
        Self::ConstrainedResponse,
        Self::NumberHighlightedSections,
        Self::MultipleSections,
        Self::JsonFormat,
        Self::Title,
        Self::TwoResponses,
        Self::RepeatPrompt,
        Self::EndChecker,
        Self::CapitalWordFrequency,
        Self::EnglishCapital,
        Self::EnglishLowercase,
        Self::NoComma,
        Self::Quotation,
    ];

    /// The type of a constraint.
    #[must_use]
    pub fn of(constraint: &Constraint) -> Self {
        use Constraint as C;
        match constraint {
            C::Existence { .. } => Self::Existence,
            C::Frequency { .. } => Self::Frequency,
            C::ForbiddenWords { .. } => Self::ForbiddenWords,
            C::LetterFrequency { .. } => Self::LetterFrequency,
            C::ResponseLanguage { .. } => Self::ResponseLanguage,
            C::NumberSentences { .. } => Self::NumberSentences,
            C::NumberParagraphs { .. } => Self::NumberParagraphs,
            C::NumberWords { .. } => Self::NumberWords,
            C::NthParagraphFirstWord { .. } => Self::NthParagraphFirstWord,
            C::NumberPlaceholders { .. } => Self::NumberPlaceholders,
            C::Postscript { .. } => Self::Postscript,
            C::NumberBulletLists { .. } => Self::NumberBulletLists,
            C::ConstrainedResponse => Self::ConstrainedResponse,
            C::NumberHighlightedSections { .. } => Self::NumberHighlightedSections,
            C::MultipleSections { .. } => Self::MultipleSections,
            C::JsonFormat => Self::JsonFormat,
            C::Title => Self::Title,
            C::TwoResponses => Self::TwoResponses,
            C::RepeatPrompt { .. } => Self::RepeatPrompt,
            C::EndChecker { .. } => Self::EndChecker,
            C::CapitalWordFrequency { .. } => Self::CapitalWordFrequency,
            C::EnglishCapital => Self::EnglishCapital,
            C::EnglishLowercase => Self::EnglishLowercase,
            C::NoComma => Self::NoComma,
            C::Quotation => Self::Quotation,
        }
    }

    /// The id that IFEval's files use.
    #[must_use]
    pub const fn id(self) -> &'static str {
        Constraint::IDS[self as usize]
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}
