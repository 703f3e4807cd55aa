//! The classes of instructions in the published data of From Complex to Simple that no answer
//! can meet, or hardly any, each as a predicate of its own (it shares no code with the rules)
//! and as a case that the rules must refuse.

use super::*;
use crate::Keyword;

/// Whether two constraints, in this order, fall into a class.
type Spoils = fn(&Constraint, &Constraint) -> bool;

/// The name of the class that a list falls into.
pub(super) fn class_of(list: &[Constraint]) -> Option<&'static str> {
    let classes: [(&str, Spoils); 15] = [
        (
            "repeat_prompt with commas and no_comma",
            repeat_prompt_and_no_comma,
        ),
        (
            "lower case and a splitter with capitals",
            lowercase_and_splitter,
        ),
        (
            "capitals and a splitter with small letters",
            capitals_and_splitter,
        ),
        ("existence word forbidden", existence_word_forbidden),
        ("first word forbidden", first_word_forbidden),
        ("must-appear word forbidden", frequent_word_forbidden),
        (
            "few capital words, but a marker or splitters in capitals",
            capital_words_exceeded,
        ),
        (
            "no_comma and a closing phrase with a comma",
            no_comma_and_end_phrase,
        ),
        ("letter cap exceeded by required text", letter_cap_exceeded),
        (
            "foreign language and English first word",
            language_and_first_word,
        ),
        ("foreign language and Latin letter", language_and_letter),
        (
            "foreign language and capital words",
            language_and_capital_words,
        ),
        (
            "too few sentences for the sections",
            few_sentences_for_sections,
        ),
        (
            "too few sentences for the paragraphs",
            few_sentences_for_paragraphs,
        ),
        ("few words for many parts", few_words),
    ];
    classes
        .into_iter()
        .find(|(_, holds)| list.iter().any(|a| list.iter().any(|b| holds(a, b))))
        .map(|(name, _)| name)
}

use Constraint as C;
use Relation::{AtLeast, LessThan};

fn repeat_prompt_and_no_comma(a: &C, b: &C) -> bool {
    matches!((a, b), (C::RepeatPrompt { prompt }, C::NoComma) if prompt.contains(','))
}

fn lowercase_and_splitter(a: &C, b: &C) -> bool {
    matches!((a, b), (C::EnglishLowercase, C::MultipleSections { splitter, .. })
        if splitter.as_str() != splitter.as_str().to_lowercase())
}

fn capitals_and_splitter(a: &C, b: &C) -> bool {
    matches!((a, b), (C::EnglishCapital, C::MultipleSections { splitter, .. })
        if splitter.as_str() != splitter.as_str().to_uppercase())
}

fn existence_word_forbidden(a: &C, b: &C) -> bool {
    matches!((a, b), (C::Existence { keywords }, C::ForbiddenWords { words })
        if keywords.iter().any(|k| words.iter().any(|w| k.as_str().eq_ignore_ascii_case(w.as_str()))))
}

fn first_word_forbidden(a: &C, b: &C) -> bool {
    matches!((a, b), (C::NthParagraphFirstWord { first_word, .. }, C::ForbiddenWords { words })
        if words.iter().any(|w| w.as_str() == first_word))
}

fn frequent_word_forbidden(a: &C, b: &C) -> bool {
    matches!((a, b), (C::Frequency { keyword, relation: AtLeast, .. }, C::ForbiddenWords { words })
        if words.iter().any(|w| w.as_str() == keyword.as_str()))
}

fn capital_words_exceeded(a: &C, b: &C) -> bool {
    let C::CapitalWordFrequency {
        relation: LessThan,
        count: most,
    } = a
    else {
        return false;
    };
    match b {
        C::MultipleSections { splitter, count } => {
            splitter.as_str() == splitter.as_str().to_uppercase() && count >= most
        }
        C::Postscript { .. } => *most <= 1,
        C::EndChecker { phrase } => {
            phrase == &phrase.to_uppercase() && phrase.split(' ').count() >= *most
        }
        _ => false,
    }
}

fn no_comma_and_end_phrase(a: &C, b: &C) -> bool {
    matches!((a, b), (C::NoComma, C::EndChecker { phrase }) if phrase.contains(','))
}

fn letter_cap_exceeded(a: &C, b: &C) -> bool {
    let C::LetterFrequency {
        letter,
        relation: LessThan,
        count: most,
    } = a
    else {
        return false;
    };
    let letters = |text: &str| text.to_lowercase().matches(*letter).count();
    let found = match b {
        C::EndChecker { phrase } => letters(phrase),
        C::MultipleSections { splitter, count } => letters(splitter.as_str()) * count,
        C::Existence { keywords } => keywords.iter().map(|k| letters(k.as_str())).sum(),
        C::Frequency {
            keyword,
            relation: AtLeast,
            count,
        } => letters(keyword.as_str()) * count,
        C::NthParagraphFirstWord { first_word, .. } => letters(first_word),
        C::Postscript { marker } => letters(marker.as_str()),
        _ => 0,
    };
    found >= *most
}

fn language_and_first_word(a: &C, b: &C) -> bool {
    matches!(
        (a, b),
        (C::ResponseLanguage { .. }, C::NthParagraphFirstWord { .. })
    )
}

fn language_and_letter(a: &C, b: &C) -> bool {
    matches!(
        (a, b),
        (C::ResponseLanguage { .. }, C::LetterFrequency { .. })
    )
}

fn language_and_capital_words(a: &C, b: &C) -> bool {
    matches!(
        (a, b),
        (C::ResponseLanguage { .. }, C::CapitalWordFrequency { .. })
    )
}

fn few_sentences_for_sections(a: &C, b: &C) -> bool {
    matches!((a, b), (
        C::NumberSentences { relation: LessThan, count: most },
        C::MultipleSections { count, .. },
    ) if count >= most)
}

fn few_sentences_for_paragraphs(a: &C, b: &C) -> bool {
    match (a, b) {
        (C::NumberSentences { .. }, C::NumberParagraphs { .. }) => true,
        (
            C::NumberSentences {
                relation: LessThan,
                count: most,
            },
            C::NthParagraphFirstWord { paragraphs, .. },
        ) => paragraphs >= most,
        _ => false,
    }
}

fn few_words(a: &C, b: &C) -> bool {
    let C::NumberWords {
        relation: LessThan,
        count: most,
    } = a
    else {
        return false;
    };
    let words = match b {
        C::NumberParagraphs { count } => 3 * count,
        C::NthParagraphFirstWord { paragraphs, .. } => 3 * paragraphs,
        C::MultipleSections { count, .. } => 4 * count,
        C::NumberSentences {
            relation: AtLeast,
            count,
        } => 3 * count,
        C::NumberBulletLists { count } => 2 * count,
        C::Frequency {
            relation: AtLeast,
            count,
            ..
        } => *count,
        C::CapitalWordFrequency {
            relation: AtLeast,
            count,
        } => *count,
        C::EndChecker { phrase } => phrase.split(' ').count(),
        _ => 0,
    };
    words >= *most
}

fn word(make: fn(&str) -> Result<Keyword, crate::Error>, text: &str) -> Keyword {
    make(text).unwrap()
}

fn existence(text: &str) -> C {
    C::Existence {
        keywords: vec![word(Keyword::anywhere, text)],
    }
}

fn forbidden(text: &str) -> C {
    C::ForbiddenWords {
        words: vec![word(Keyword::whole_word, text)],
    }
}

fn frequency(text: &str, relation: Relation, count: usize) -> C {
    C::Frequency {
        keyword: word(Keyword::counted, text),
        relation,
        count,
    }
}

fn sections(text: &str, count: usize) -> C {
    C::MultipleSections {
        splitter: word(Keyword::section, text),
        count,
    }
}

fn postscript() -> C {
    C::Postscript {
        marker: word(Keyword::postscript, "P.S."),
    }
}

fn nth(first_word: &str) -> C {
    C::NthParagraphFirstWord {
        paragraphs: 3,
        nth: 2,
        first_word: first_word.to_owned(),
    }
}

fn ends(phrase: &str) -> C {
    C::EndChecker {
        phrase: phrase.to_owned(),
    }
}

fn repeats(prompt: &str) -> C {
    C::RepeatPrompt {
        prompt: prompt.to_owned(),
    }
}

fn words(relation: Relation, count: usize) -> C {
    C::NumberWords { relation, count }
}

fn sentences(relation: Relation, count: usize) -> C {
    C::NumberSentences { relation, count }
}

fn letter(letter: char, relation: Relation, count: usize) -> C {
    C::LetterFrequency {
        letter,
        relation,
        count,
    }
}

fn capitals(relation: Relation, count: usize) -> C {
    C::CapitalWordFrequency { relation, count }
}

fn language(code: &str) -> C {
    C::ResponseLanguage {
        language: code.to_owned(),
    }
}

/// Class (as in the published data, with how many instructions it spoils there), and a pair.
fn published() -> Vec<(&'static str, [C; 2])> {
    vec![
        (
            "63 repeat_prompt + no_comma",
            [repeats("Sing, please."), C::NoComma],
        ),
        (
            "38 lowercase + Section",
            [C::EnglishLowercase, sections("Section", 3)],
        ),
        (
            "38 lowercase + SECTION",
            [sections("SECTION", 3), C::EnglishLowercase],
        ),
        (
            "24 existence word = forbidden word",
            [existence("river"), forbidden("River")],
        ),
        (
            "21 all-caps + Section",
            [C::EnglishCapital, sections("Section", 3)],
        ),
        (
            "19 first word = forbidden word",
            [nth("today"), forbidden("today")],
        ),
        (
            "16 few caps words + P.S.",
            [capitals(LessThan, 1), postscript()],
        ),
        (
            "16 few caps words + SECTION",
            [capitals(LessThan, 3), sections("SECTION", 3)],
        ),
        (
            "9 must-appear word = forbidden",
            [frequency("sea", AtLeast, 2), forbidden("sea")],
        ),
        (
            "9 no_comma + end phrase",
            [C::NoComma, ends("your love, and thanks.")],
        ),
        (
            "9 letter cap exceeded",
            [letter('p', LessThan, 3), frequency("puppet", AtLeast, 2)],
        ),
        (
            "32 foreign language + first word",
            [language("fr"), nth("today")],
        ),
        (
            "16 foreign language + letter",
            [language("ru"), letter('q', AtLeast, 4)],
        ),
        (
            "43 foreign language + caps words",
            [language("hi"), capitals(AtLeast, 3)],
        ),
        (
            "15 few sentences + sections",
            [sentences(LessThan, 3), sections("Day", 3)],
        ),
        (
            "6 few sentences + paragraphs",
            [sentences(LessThan, 3), nth("today")],
        ),
    ]
}

#[test]
fn the_published_classes_are_refused() {
    for (class, pair) in published() {
        assert!(conflict(&pair).is_some(), "{class}");
        assert!(class_of(&pair).is_some(), "{class}");
        let [a, b] = pair;
        assert!(conflict(&[b, a]).is_some(), "{class}, turned round");
    }
}

#[test]
fn further_contradictions_are_refused() {
    let cases = [
        (
            "keyword holds a forbidden word",
            vec![existence("firefly"), forbidden("fire")],
        ),
        (
            "phrase holds a forbidden word",
            vec![ends("That is all."), forbidden("all")],
        ),
        (
            "lower case, phrase in capitals",
            vec![C::EnglishLowercase, ends("THE END")],
        ),
        (
            "capitals, phrase in small letters",
            vec![C::EnglishCapital, ends("the end")],
        ),
        (
            "lower case, postscript marker",
            vec![C::EnglishLowercase, postscript()],
        ),
        (
            "language, English keyword",
            vec![language("de"), existence("river")],
        ),
        (
            "language, English phrase",
            vec![language("de"), ends("the end")],
        ),
    ];
    refuses(&cases);
}

#[test]
fn counts_that_cannot_meet_are_refused() {
    let cases = [
        (
            "30 words, 10 paragraphs",
            vec![words(LessThan, 30), C::NumberParagraphs { count: 10 }],
        ),
        (
            "words over many small parts",
            vec![
                words(LessThan, 60),
                sections("Day", 4),
                C::NumberBulletLists { count: 8 },
                ends("That is all for now."),
            ],
        ),
        ("JSON without commas", vec![C::JsonFormat, C::NoComma]),
        (
            "keyword counted below its use",
            vec![frequency("cat", LessThan, 2), ends("cat and cat")],
        ),
        (
            "400 words in 3 sentences",
            vec![words(AtLeast, 400), sentences(LessThan, 4)],
        ),
        (
            "15 sentences in 50 words",
            vec![words(LessThan, 50), sentences(AtLeast, 15)],
        ),
        (
            "few w in 300 words",
            vec![letter('w', LessThan, 4), words(AtLeast, 300)],
        ),
        ("words of Thai", vec![language("th"), words(AtLeast, 50)]),
        (
            "sentences of Hindi",
            vec![language("hi"), sentences(AtLeast, 5)],
        ),
        ("unknown language", vec![language("zz")]),
        (
            "one type twice",
            vec![existence("river"), existence("stone")],
        ),
        (
            "paragraph 4 of 3",
            vec![C::NthParagraphFirstWord {
                paragraphs: 3,
                nth: 4,
                first_word: "today".to_owned(),
            }],
        ),
    ];
    refuses(&cases);
}

fn refuses(cases: &[(&str, Vec<C>)]) {
    for (name, list) in cases {
        assert!(conflict(list).is_some(), "{name}");
    }
}

#[test]
fn neighbours_of_the_contradictions_are_allowed_and_can_be_met() {
    let cases = [
        vec![repeats("Sing please."), C::NoComma],
        vec![C::EnglishCapital, sections("SECTION", 3)],
        vec![existence("river"), forbidden("stone")],
        vec![nth("today"), forbidden("river")],
        vec![capitals(LessThan, 5), sections("SECTION", 3), postscript()],
        vec![C::NoComma, ends("the end")],
        vec![letter('p', LessThan, 5), frequency("paper", AtLeast, 2)],
        vec![sentences(LessThan, 5), sections("Day", 3)],
        vec![C::EnglishLowercase, ends("the end")],
        vec![C::EnglishCapital, ends("THE END"), postscript()],
        vec![C::JsonFormat, existence("river"), forbidden("stone")],
        vec![frequency("cat", LessThan, 2), existence("cat")],
        vec![words(AtLeast, 100), sentences(LessThan, 5)],
        vec![
            language("fi"),
            words(LessThan, 80),
            C::NumberBulletLists { count: 3 },
        ],
    ];
    for list in cases {
        assert_eq!(conflict(&list), None, "{list:?}");
        assert_eq!(class_of(&list), None, "{list:?}");
        assert!(satisfying_text(&list).is_some(), "{list:?}");
    }
}
