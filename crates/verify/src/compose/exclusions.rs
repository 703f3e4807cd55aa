//! Which constraint types exclude which, whatever their parameters.
//!
//! The table is that of IFEval's registry (one type never twice; made symmetric), with
//! additions: `multiple_sections` with `number_paragraphs`, as From Complex to Simple has it
//! (both cut the answer into parts, by different marks), and `response_language` with three
//! types that think in English: `nth_paragraph_first_word` (whose word would be English),
//! `letter_frequency` and `capital_word_frequency`.

use super::Kind;

/// Whether the two types may not be asked of one answer. Symmetric; true of a type and itself.
#[must_use]
pub fn types_exclude(a: Kind, b: Kind) -> bool {
    a == b || registry_lists(a, b) || registry_lists(b, a) || added(a, b) || added(b, a)
}

/// Whether the registry lists `b` under `a`.
pub(super) fn registry_lists(a: Kind, b: Kind) -> bool {
    use Kind as K;
    match a {
        K::ConstrainedResponse => true,
        K::JsonFormat => !matches!(b, K::ForbiddenWords | K::Existence),
        K::TwoResponses => !matches!(
            b,
            K::ForbiddenWords | K::Existence | K::ResponseLanguage | K::Title | K::NoComma
        ),
        K::RepeatPrompt => !matches!(b, K::Existence | K::Title | K::NoComma),
        K::ResponseLanguage => matches!(
            b,
            K::MultipleSections
                | K::Existence
                | K::Frequency
                | K::ForbiddenWords
                | K::EndChecker
                | K::EnglishCapital
                | K::EnglishLowercase
        ),
        K::NumberParagraphs => matches!(b, K::NthParagraphFirstWord | K::NumberSentences),
        K::MultipleSections => b == K::NumberHighlightedSections,
        K::CapitalWordFrequency => matches!(b, K::EnglishCapital | K::EnglishLowercase),
        K::EnglishLowercase => b == K::EnglishCapital,
        K::Quotation => b == K::Title,
        _ => false,
    }
}

fn added(a: Kind, b: Kind) -> bool {
    matches!(
        (a, b),
        (Kind::MultipleSections, Kind::NumberParagraphs)
            | (
                Kind::ResponseLanguage,
                Kind::NthParagraphFirstWord | Kind::LetterFrequency | Kind::CapitalWordFrequency
            )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compatible_pairs(exclude: impl Fn(Kind, Kind) -> bool) -> usize {
        let pairs = Kind::ALL
            .iter()
            .enumerate()
            .flat_map(|(i, a)| Kind::ALL[i + 1..].iter().map(move |b| (*a, *b)));
        pairs.filter(|(a, b)| !exclude(*a, *b)).count()
    }

    #[test]
    fn the_registry_leaves_206_pairs_and_ours_202() {
        // From Complex to Simple counts 207 after freeing two pairs and closing one.
        let registry = |a, b| registry_lists(a, b) || registry_lists(b, a);
        assert_eq!(compatible_pairs(registry), 206);
        assert_eq!(compatible_pairs(types_exclude), 202);
    }

    #[test]
    fn the_table_is_symmetric_and_no_type_goes_with_itself() {
        for a in Kind::ALL {
            assert!(types_exclude(a, a), "{a}");
            for b in Kind::ALL {
                assert_eq!(types_exclude(a, b), types_exclude(b, a), "{a} {b}");
            }
        }
    }

    #[test]
    fn the_named_types_stand_nearly_alone() {
        let partners = |a: Kind| Kind::ALL.into_iter().filter(move |b| !types_exclude(a, *b));
        assert_eq!(partners(Kind::ConstrainedResponse).count(), 0);
        assert_eq!(partners(Kind::JsonFormat).count(), 2);
        assert_eq!(partners(Kind::TwoResponses).count(), 5);
        assert_eq!(partners(Kind::RepeatPrompt).count(), 3);
        assert!(types_exclude(Kind::NoComma, Kind::JsonFormat));
    }
}
