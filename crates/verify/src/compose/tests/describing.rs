//! Descriptions carry their parameters, and rewordings that lose one are noticed.

use super::*;
use crate::Keyword;

#[test]
fn every_phrasing_mentions_every_parameter() {
    for kind in Kind::ALL {
        for constraint in drawn(kind, 60) {
            let all = phrasings(&constraint);
            assert!(all.len() >= 4, "{kind}");
            for (choice, text) in all.iter().enumerate() {
                assert_eq!(mentions_parameters(&constraint, text), Ok(()), "{text}");
                assert!(!text.contains(['{', '}']) && !text.contains("  "), "{text}");
                assert_eq!(describe(&constraint, choice as u64), *text);
            }
            assert_eq!(describe(&constraint, all.len() as u64), all[0]);
        }
    }
}

#[test]
fn a_joined_instruction_mentions_the_parameters_of_each() {
    for seed in 0..300 {
        let list = compose(seed, 4);
        let text: Vec<_> = list
            .iter()
            .map(|constraint| describe(constraint, seed))
            .collect();
        let text = text.join(" ");
        for constraint in &list {
            assert_eq!(mentions_parameters(constraint, &text), Ok(()), "{text}");
        }
    }
}

/// A constraint with another count, the same in all else.
fn with_other_count(constraint: &Constraint) -> Option<Constraint> {
    use Constraint as C;
    let mut other = constraint.clone();
    match &mut other {
        C::Frequency { count, .. }
        | C::LetterFrequency { count, .. }
        | C::NumberSentences { count, .. }
        | C::NumberParagraphs { count }
        | C::NumberWords { count, .. }
        | C::NumberPlaceholders { count }
        | C::NumberBulletLists { count }
        | C::NumberHighlightedSections { count }
        | C::MultipleSections { count, .. }
        | C::CapitalWordFrequency { count, .. } => *count += 40,
        C::NthParagraphFirstWord { paragraphs, .. } => *paragraphs += 40,
        _ => return None,
    }
    Some(other)
}

fn with_other_relation(constraint: &Constraint) -> Option<Constraint> {
    use Constraint as C;
    let mut other = constraint.clone();
    match &mut other {
        C::Frequency { relation, .. }
        | C::LetterFrequency { relation, .. }
        | C::NumberSentences { relation, .. }
        | C::NumberWords { relation, .. }
        | C::CapitalWordFrequency { relation, .. } => {
            *relation = match relation {
                Relation::AtLeast => Relation::LessThan,
                Relation::LessThan => Relation::AtLeast,
            };
        }
        _ => return None,
    }
    Some(other)
}

#[test]
fn another_count_or_bound_is_not_mentioned() {
    let mut changed = 0;
    for constraint in Kind::ALL.into_iter().flat_map(|kind| drawn(kind, 20)) {
        for other in [
            with_other_count(&constraint),
            with_other_relation(&constraint),
        ] {
            let Some(other) = other else { continue };
            changed += 1;
            for text in phrasings(&constraint) {
                let missing = mentions_parameters(&other, &text);
                assert!(missing.is_err(), "{other:?} in {text}");
            }
        }
    }
    assert!(changed > 200);
}

/// Checks which parameter of the constraint the text lacks.
fn lacks(constraint: &Constraint, text: &str, expected: Option<&str>) {
    let lost = mentions_parameters(constraint, text).err();
    assert_eq!(lost.map(|missing| missing.parameter), expected, "{text}");
}

#[test]
fn each_lost_count_and_word_is_named() {
    let splitter = Keyword::section("SECTION").unwrap();
    let sections = Constraint::MultipleSections { splitter, count: 3 };
    let first_word = "today".to_owned();
    let nth = Constraint::NthParagraphFirstWord {
        paragraphs: 4,
        nth: 2,
        first_word,
    };
    let keywords = ["sea", "sand"]
        .map(|text| Keyword::anywhere(text).unwrap())
        .into();
    let existence = Constraint::Existence { keywords };
    for (constraint, text, expected) in [
        (
            &sections,
            "Use at least 3 sections marked Section.",
            Some("section_spliter"),
        ),
        (
            &sections,
            "Use at least 2 parts marked SECTION.",
            Some("num_sections"),
        ),
        (&sections, "Use three or more parts marked SECTION.", None),
        (
            &nth,
            "Four paragraphs, the second beginning with today",
            None,
        ),
        (
            &nth,
            "Four paragraphs, the third beginning with today",
            Some("nth_paragraph"),
        ),
        (
            &nth,
            "Four paragraphs, the second beginning with now",
            Some("first_word"),
        ),
        (&existence, "Talk of the sea.", Some("keywords")),
        (&existence, "Talk of SAND and Sea.", None),
        (
            &existence,
            "Talk of the seaside and sand.",
            Some("keywords"),
        ),
    ] {
        lacks(constraint, text, expected);
    }
}

#[test]
fn each_lost_text_and_mark_is_named() {
    let ends = Constraint::EndChecker {
        phrase: "The end.".to_owned(),
    };
    let persian = Constraint::ResponseLanguage {
        language: "fa".to_owned(),
    };
    let relation = Relation::AtLeast;
    let letter = Constraint::LetterFrequency {
        letter: 'a',
        relation,
        count: 4,
    };
    for (constraint, text, expected) in [
        (&ends, "Stop with the end.", Some("end_phrase")),
        (&persian, "Answer in Farsi.", None),
        (&persian, "Answer in Arabic.", Some("language")),
        (
            &letter,
            "Write a text, at least 4 times a day.",
            Some("letter"),
        ),
        (&letter, "The letter A comes up four times or more.", None),
        (
            &Constraint::TwoResponses,
            "Give two answers.",
            Some("separator"),
        ),
        (&Constraint::Title, "Give it a title.", Some("format")),
    ] {
        lacks(constraint, text, expected);
    }
}

#[test]
fn bounds_survive_rewording_only_in_their_own_sense() {
    let at_least = Constraint::NumberWords {
        relation: Relation::AtLeast,
        count: 30,
    };
    let less_than = Constraint::NumberWords {
        relation: Relation::LessThan,
        count: 30,
    };
    let exactly = Constraint::NumberParagraphs { count: 3 };
    let cases = [
        (&at_least, "Write 30 words or more.", true),
        (&at_least, "Write no fewer than thirty words.", true),
        (&at_least, "Write more than 29 words.", true),
        (&at_least, "Use a minimum of 30 words.", true),
        (&at_least, "Write more than 30 words.", false),
        (&at_least, "Write 30 words.", false),
        (&at_least, "Write at least 30 lines.", false),
        (&at_least, "Write at most 30 words.", false),
        (&less_than, "Stay under 30 words.", true),
        (&less_than, "Use 29 words at most.", true),
        (&less_than, "Use no more than twenty-nine words.", true),
        (&less_than, "Use at most 30 words.", false),
        (&less_than, "Write 30 or more words.", false),
        (&exactly, "Exactly three paragraphs, split by ***", true),
        (&exactly, "3 paragraphs between ***", true),
        // Wordings of the published data that said the opposite, or more, or less.
        (
            &less_than,
            "I do not want anything less than 30 words.",
            false,
        ),
        (&at_least, "Write at least 30 words or less.", false),
        (&exactly, "At least 3 paragraphs, split by ***", false),
    ];
    for (constraint, text, expected) in cases {
        assert_eq!(
            mentions_parameters(constraint, text).is_ok(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn parameters_with_braces_stay_as_they_are() {
    let constraint = Constraint::EndChecker {
        phrase: "so {n} it {goes".to_owned(),
    };
    for text in phrasings(&constraint) {
        assert!(text.contains("so {n} it {goes"), "{text}");
    }
}
