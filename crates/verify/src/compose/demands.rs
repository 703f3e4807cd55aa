//! What a list of constraints asks of one text, gathered by subject: the view that the
//! conflict rules and the text builder share.

use super::Kind;
use super::languages::{self, Language};
use crate::{Constraint, Keyword, Relation};

/// A bound on a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) relation: Relation,
    pub(super) n: usize,
}

impl Bound {
    /// The largest count allowed.
    pub(super) fn most(self) -> Option<usize> {
        (self.relation == Relation::LessThan).then(|| self.n.saturating_sub(1))
    }

    /// The smallest count allowed, zero where only an upper bound is asked.
    pub(super) fn least(self) -> usize {
        if self.relation == Relation::AtLeast {
            self.n
        } else {
            0
        }
    }
}

/// The parameters by subject. Where a type occurs twice the last one counts: the type table
/// has refused such a list before.
#[derive(Debug, Default)]
pub(super) struct Demands<'a> {
    pub(super) kinds: Vec<Kind>,
    pub(super) keywords: Vec<&'a str>,
    pub(super) frequency: Option<(&'a str, Bound)>,
    pub(super) forbidden: Vec<&'a str>,
    pub(super) letter: Option<(char, Bound)>,
    pub(super) language_code: Option<&'a str>,
    pub(super) sentences: Option<Bound>,
    pub(super) paragraphs: Option<usize>,
    pub(super) words: Option<Bound>,
    pub(super) nth: Option<NthParagraph<'a>>,
    pub(super) placeholders: usize,
    pub(super) postscript: Option<&'a str>,
    pub(super) bullets: Option<usize>,
    pub(super) highlights: usize,
    pub(super) sections: Option<(&'a str, usize)>,
    pub(super) prompt: Option<&'a str>,
    pub(super) end_phrase: Option<&'a str>,
    pub(super) capital_words: Option<Bound>,
}

/// `nth_paragraph_first_word` with its three parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct NthParagraph<'a> {
    pub(super) num_paragraphs: usize,
    pub(super) nth: usize,
    pub(super) first_word: &'a str,
}

impl<'a> Demands<'a> {
    pub(super) fn of(constraints: &'a [Constraint]) -> Self {
        let mut demands = Self::default();
        for constraint in constraints {
            demands.kinds.push(Kind::of(constraint));
            demands.add(constraint);
        }
        demands
    }

    fn add(&mut self, constraint: &'a Constraint) {
        use Constraint as C;
        let bound = |relation: &Relation, n: &usize| Bound {
            relation: *relation,
            n: *n,
        };
        match constraint {
            C::Existence { keywords } => {
                self.keywords = keywords.iter().map(Keyword::as_str).collect()
            }
            C::Frequency {
                keyword,
                relation,
                count,
            } => {
                self.frequency = Some((keyword.as_str(), bound(relation, count)));
            }
            C::ForbiddenWords { words } => {
                self.forbidden = words.iter().map(Keyword::as_str).collect();
            }
            C::LetterFrequency {
                letter,
                relation,
                count,
            } => {
                self.letter = Some((*letter, bound(relation, count)));
            }
            C::ResponseLanguage { language } => self.language_code = Some(language),
            C::NumberSentences { relation, count } => {
                self.sentences = Some(bound(relation, count));
            }
            C::NumberParagraphs { count } => self.paragraphs = Some(*count),
            C::NumberWords { relation, count } => {
                self.words = Some(bound(relation, count));
            }
            C::NthParagraphFirstWord {
                paragraphs,
                nth,
                first_word,
            } => {
                let (num_paragraphs, nth) = (*paragraphs, *nth);
                self.nth = Some(NthParagraph {
                    num_paragraphs,
                    nth,
                    first_word,
                });
            }
            C::NumberPlaceholders { count } => self.placeholders = *count,
            C::Postscript { marker } => self.postscript = Some(marker.as_str()),
            C::NumberBulletLists { count } => self.bullets = Some(*count),
            C::NumberHighlightedSections { count } => self.highlights = *count,
            C::MultipleSections { splitter, count } => {
                self.sections = Some((splitter.as_str(), *count));
            }
            C::RepeatPrompt { prompt } => self.prompt = Some(prompt),
            C::EndChecker { phrase } => self.end_phrase = Some(phrase),
            C::CapitalWordFrequency { relation, count } => {
                self.capital_words = Some(bound(relation, count));
            }
            C::ConstrainedResponse
            | C::JsonFormat
            | C::Title
            | C::TwoResponses
            | C::EnglishCapital
            | C::EnglishLowercase
            | C::NoComma
            | C::Quotation => {}
        }
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    pub(super) fn language(&self) -> Option<&'static Language> {
        self.language_code.and_then(languages::by_code)
    }

    /// Texts that every answer must contain as they are written, with who asks for them.
    pub(super) fn verbatim(&self) -> Vec<(Kind, &'a str)> {
        let mut texts = Vec::new();
        texts.extend(self.prompt.map(|text| (Kind::RepeatPrompt, text)));
        texts.extend(self.end_phrase.map(|text| (Kind::EndChecker, text)));
        texts.extend(
            self.sections
                .map(|(splitter, _)| (Kind::MultipleSections, splitter)),
        );
        texts.extend(self.postscript.map(|marker| (Kind::Postscript, marker)));
        texts
    }

    /// Words that every answer must contain in any case, with who asks for them.
    pub(super) fn required_words(&self) -> Vec<(Kind, &'a str)> {
        let mut words: Vec<_> = self
            .keywords
            .iter()
            .map(|k| (Kind::Existence, *k))
            .collect();
        words.extend(
            self.nth
                .map(|nth| (Kind::NthParagraphFirstWord, nth.first_word)),
        );
        if let Some((keyword, bound)) = self.frequency {
            let required = bound.least() > 0;
            words.extend(required.then_some((Kind::Frequency, keyword)));
        }
        words
    }

    /// All that every answer must contain, each as often as it must occur at least. A keyword
    /// that is part of another required text is left out, since one occurrence serves both.
    pub(super) fn required_texts(&self) -> Vec<(&'a str, usize)> {
        let mut texts: Vec<(&str, usize)> = Vec::new();
        for (kind, text) in self.verbatim() {
            let times = match (kind, self.sections) {
                (Kind::MultipleSections, Some((_, n))) => n,
                _ => 1,
            };
            texts.push((text, times));
        }
        texts.extend(self.nth.map(|nth| (nth.first_word, 1)));
        if let Some((keyword, bound)) = self.frequency {
            texts.extend((bound.least() > 0).then_some((keyword, bound.least())));
        }
        for keyword in &self.keywords {
            let lower = keyword.to_lowercase();
            if !texts
                .iter()
                .any(|(text, _)| text.to_lowercase().contains(&lower))
            {
                texts.push((keyword, 1));
            }
        }
        texts
    }
}
