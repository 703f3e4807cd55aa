//! The parts together: what is drawn can be met, is said, and breaks no rule.

use super::*;
use crate::{Constraint, Relation};

fn holds_all(constraints: &[Constraint], text: &str) -> bool {
    constraints.iter().all(|constraint| holds(constraint, text))
}

/// The constraints of one type that the first seeds draw.
fn drawn(kind: Kind, count: u64) -> impl Iterator<Item = Constraint> {
    (0..count).map(move |seed| {
        let mut draws = Draws::new(seed);
        sample(kind, &Material::default(), &mut || draws.bits())
    })
}

#[test]
fn each_type_is_met_by_a_built_text_and_failed_by_another() {
    for kind in Kind::ALL {
        for constraint in drawn(kind, 40) {
            assert_eq!(Kind::of(&constraint), kind);
            assert_eq!(constraint.id(), kind.id());
            let list = std::slice::from_ref(&constraint);
            assert_eq!(conflict(list), None, "{constraint:?}");
            let good = satisfying_text(list).unwrap_or_else(|| panic!("{constraint:?}"));
            assert!(holds(&constraint, &good), "{constraint:?}: {good}");
            let bad = violating_text(&constraint).unwrap_or_else(|| panic!("{constraint:?}"));
            assert!(!bad.trim().is_empty(), "{constraint:?}");
            let judged = crate::judge(list, &bad);
            let verdicts = judged.strict.iter().chain(&judged.loose);
            assert!(
                verdicts.into_iter().all(|verdict| !verdict.followed),
                "{constraint:?}: {bad}"
            );
        }
    }
}

#[test]
fn each_language_of_the_checker_can_be_written() {
    for language in LANGUAGES {
        let constraint = Constraint::ResponseLanguage {
            language: language.code.to_owned(),
        };
        for sentence in language.sentences {
            assert!(
                holds(&constraint, sentence),
                "{}: {sentence}",
                language.code
            );
            assert!(!sentence.contains(','), "{sentence}");
        }
        assert!(
            satisfying_text(&[constraint]).is_some(),
            "{}",
            language.code
        );
    }
}

#[test]
fn equal_seeds_draw_equal_lists_and_others_differ() {
    let lists: Vec<_> = (0..50).map(|seed| compose(seed, 3)).collect();
    assert_eq!(
        lists,
        (0..50).map(|seed| compose(seed, 3)).collect::<Vec<_>>()
    );
    let distinct = lists
        .iter()
        .enumerate()
        .filter(|(i, list)| !lists[..*i].contains(list));
    assert!(distinct.count() >= 49);
}

#[test]
fn lists_have_the_length_asked_for() {
    for k in 0..=8 {
        for seed in 0..50 {
            assert_eq!(compose(seed, k).len(), k, "seed {seed}");
        }
    }
}

#[test]
fn every_type_is_drawn() {
    for kind in Kind::ALL {
        let k = if kind == Kind::ConstrainedResponse {
            1
        } else {
            2
        };
        let found = (0..4000).any(|seed| compose(seed, k).iter().any(|c| Kind::of(c) == kind));
        assert!(found, "{kind}");
    }
}

#[test]
fn material_gives_keywords_and_prompt() {
    let keywords = [
        "Andorra",
        "valley",
        "a.c",
        "ski",
        "",
        "border",
        "tax",
        "Pyrenees",
        "lake",
        "tourism",
        "duty(",
        "co prince",
    ];
    let material = Material {
        prompt: Some(" What is Andorra, please? "),
        keywords: &keywords,
    };
    for seed in 0..200 {
        let mut draws = Draws::new(seed);
        let mut bits = || draws.bits();
        let Constraint::Existence { keywords: drawn } =
            sample(Kind::Existence, &material, &mut bits)
        else {
            panic!("another type")
        };
        for (i, keyword) in drawn.iter().enumerate() {
            assert!(keywords.contains(&keyword.as_str()));
            assert!(
                keyword.as_str().chars().all(char::is_alphanumeric),
                "{keyword:?}"
            );
            assert!(!drawn[..i].contains(keyword));
        }
        let Constraint::RepeatPrompt { prompt } = sample(Kind::RepeatPrompt, &material, &mut bits)
        else {
            panic!("another type")
        };
        assert_eq!(prompt, "What is Andorra, please?");
        let list = compose_with(&material, seed, 2);
        let commas = list.iter().any(|c| Kind::of(c) == Kind::NoComma)
            && list.iter().any(|c| Kind::of(c) == Kind::RepeatPrompt);
        assert!(!commas);
    }
}

/// Draws and judges lists of 1 to 5 constraints; how often each length was full.
fn check_draws(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let k = 1 + (seed % 5) as usize;
        let list = compose(seed, k);
        assert_eq!(list.len(), k, "seed {seed}");
        if let Some(found) = conflict(&list) {
            panic!("seed {seed}: {found}: {list:?}");
        }
        if let Some(class) = impossible::class_of(&list) {
            panic!("seed {seed}: {class}: {list:?}");
        }
    }
}

#[test]
fn no_draw_breaks_a_rule() {
    check_draws(0..4_000);
}

#[test]
#[ignore = "bench: a million draws, for a release build"]
fn a_million_draws_break_no_rule() {
    check_draws(0..1_000_000);
}

fn check_built(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let k = 1 + (seed % 5) as usize;
        let list = compose(seed, k);
        let text = satisfying_text(&list).unwrap_or_else(|| panic!("seed {seed}: {list:?}"));
        assert!(holds_all(&list, &text), "seed {seed}");
    }
}

#[test]
fn every_draw_is_met_by_a_built_text() {
    check_built(0..1_000);
}

#[test]
#[ignore = "bench: fifty thousand texts, for a release build"]
fn fifty_thousand_draws_are_met_by_built_texts() {
    check_built(0..50_000);
}

mod describing;
mod impossible;
