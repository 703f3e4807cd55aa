//! Which constraints an instruction gets.

use super::settings::{Drawing, Parameters, Settings};
use crate::rules::constraint_in;
use serde_json::{Value, json};
use verify::Constraint;
use verify::compose::draws::{between, pick};
use verify::compose::{Choice, Draws, Kind, Material, conflict, sample, types_exclude};

/// Draws that do not go with the others before the released code gives up.
const REJECTIONS_MAX: usize = 1000;
/// Letters that the released code counts.
const LETTERS: [&str; 14] = [
    "t", "o", "c", "e", "p", "l", "j", "q", "n", "a", "y", "i", "w", "m",
];
/// Those of them that a text can be asked to use seldom.
const RARE_LETTERS: [&str; 5] = ["p", "j", "q", "y", "w"];

/// What the rules of an instruction come from.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Drawn {
    /// Drawn for it; fewer than `settings.fewest` if there are no more that go together.
    pub(super) added: Vec<Constraint>,
    /// What the seed itself demands, as far as a rule reads it, in its words.
    pub(super) own: Vec<(Constraint, String)>,
}

/// Constraints for a seed.
pub(super) fn draw(material: &Material<'_>, seed: u64, settings: &Settings) -> Drawn {
    let mut draws = Draws::new(seed);
    let bits = &mut || draws.bits();
    let count = between(bits, settings.fewest, settings.most);
    match settings.drawing {
        Drawing::Compatible => compatible(material, count, settings, bits),
        Drawing::AsPublished => Drawn {
            added: published(material, count, settings, bits),
            own: Vec::new(),
        },
    }
}

/// Constraints that go together, and with what the seed itself demands.
fn compatible(
    material: &Material<'_>,
    count: usize,
    settings: &Settings,
    bits: &mut dyn FnMut() -> u64,
) -> Drawn {
    let own = demands_of(material.prompt.unwrap_or_default());
    let held: Vec<Constraint> = own
        .iter()
        .map(|(constraint, _)| constraint.clone())
        .collect();
    let choice = Choice {
        kinds: &settings.kinds(),
        held: &held,
        draw: &|kind, bits| Some(parameters(kind, material, settings, bits)),
    };
    Drawn {
        added: choice.compatible(count, bits),
        own,
    }
}

/// What a rule recognises of the seed's own demands, sentence by sentence; nothing if that
/// contradicts itself: then it was read wrongly.
fn demands_of(seed: &str) -> Vec<(Constraint, String)> {
    let sentences = seed.split_inclusive(['.', '!', '?', '\n']).map(str::trim);
    let found = sentences
        .filter_map(|sentence| Some((constraint_in(sentence, seed)?, sentence.to_owned())));
    let found: Vec<(Constraint, String)> = found.collect();
    let rules: Vec<Constraint> = found.iter().map(|(rule, _)| rule.clone()).collect();
    match conflict(&rules) {
        None => found,
        Some(_) => Vec::new(),
    }
}

/// The released code's way: see [`Settings::as_published`].
fn published(
    material: &Material<'_>,
    count: usize,
    settings: &Settings,
    bits: &mut dyn FnMut() -> u64,
) -> Vec<Constraint> {
    let kinds = settings.kinds();
    let mut list: Vec<Kind> = Vec::new();
    let mut rejections = 0;
    while list.len() < count && rejections <= REJECTIONS_MAX {
        let kind = pick(bits, &kinds);
        if list.iter().any(|one| types_exclude(*one, kind)) {
            rejections += 1;
            continue;
        }
        list.push(kind);
        match (list.len(), kind) {
            (1, Kind::ConstrainedResponse) => break,
            (1, Kind::JsonFormat) => {
                list.push(pick(bits, &[Kind::ForbiddenWords, Kind::Existence]));
                break;
            }
            _ => {}
        }
    }
    let drawn = list.into_iter();
    drawn
        .map(|kind| parameters(kind, material, settings, bits))
        .collect()
}

fn parameters(
    kind: Kind,
    material: &Material<'_>,
    settings: &Settings,
    bits: &mut dyn FnMut() -> u64,
) -> Constraint {
    let wide = sample(kind, material, bits);
    if settings.parameters == Parameters::Wide {
        return wide;
    }
    let Some(kwargs) = narrow(kind, &wide, settings, bits) else {
        return wide;
    };
    let narrowed = kwargs
        .as_object()
        .and_then(|kwargs| Constraint::from_ifeval(kind.id(), kwargs).ok());
    narrowed.expect("a test draws every type")
}

/// The released code's ranges, where they are narrower: the parameters by IFEval's names.
fn narrow(
    kind: Kind,
    wide: &Constraint,
    settings: &Settings,
    bits: &mut dyn FnMut() -> u64,
) -> Option<Value> {
    use Constraint as C;
    let relation = pick(bits, &["at least", "less than"]);
    Some(match (kind, wide) {
        (Kind::Existence, C::Existence { keywords }) => {
            json!({"keywords": [keywords.first()?.as_str()]})
        }
        (Kind::ForbiddenWords, C::ForbiddenWords { words }) => {
            json!({"forbidden_words": [words.first()?.as_str()]})
        }
        (Kind::Frequency, C::Frequency { keyword, .. }) => {
            json!({"keyword": keyword.as_str(), "relation": relation, "frequency": between(bits, 2, 4)})
        }
        (Kind::LetterFrequency, _) => {
            let letter = match (relation, settings.drawing) {
                // No answer of some length does with few of a common letter.
                ("less than", Drawing::Compatible) => pick(bits, &RARE_LETTERS),
                _ => pick(bits, &LETTERS),
            };
            json!({"letter": letter, "let_relation": relation, "let_frequency": between(bits, 3, 8)})
        }
        (Kind::NumberSentences, _) => {
            json!({"relation": relation, "num_sentences": between(bits, 3, 5)})
        }
        (Kind::NumberWords, _) => {
            let words = match relation {
                "at least" => between(bits, 10, 25),
                _ => between(bits, 30, 100),
            };
            json!({"relation": relation, "num_words": words})
        }
        (Kind::NumberParagraphs, _) => json!({"num_paragraphs": between(bits, 2, 4)}),
        (Kind::NthParagraphFirstWord, C::NthParagraphFirstWord { first_word, .. }) => {
            let paragraphs = between(bits, 2, 4);
            let nth = between(bits, 1, paragraphs);
            json!({"num_paragraphs": paragraphs, "nth_paragraph": nth, "first_word": first_word})
        }
        (Kind::NumberPlaceholders, _) => json!({"num_placeholders": between(bits, 1, 3)}),
        (Kind::NumberBulletLists, _) => json!({"num_bullets": between(bits, 2, 4)}),
        (Kind::NumberHighlightedSections, _) => json!({"num_highlights": between(bits, 1, 3)}),
        (Kind::MultipleSections, _) => {
            let splitter = pick(bits, &["SECTION", "Section"]);
            json!({"section_spliter": splitter, "num_sections": between(bits, 3, 5)})
        }
        (Kind::CapitalWordFrequency, _) => {
            json!({"capital_relation": relation, "capital_frequency": between(bits, 1, 4)})
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn lists(settings: &Settings, count: u64) -> Vec<Vec<Constraint>> {
        (0..count)
            .map(|seed| draw(&Material::default(), seed, settings).added)
            .collect()
    }

    /// Pearson's statistic against equal shares.
    fn chi_squared(counts: &BTreeMap<usize, usize>) -> f64 {
        let all: usize = counts.values().sum();
        let expected = all as f64 / counts.len() as f64;
        let squares = counts.values().map(|n| (*n as f64 - expected).powi(2));
        squares.sum::<f64>() / expected
    }

    #[test]
    fn counts_are_as_stated_and_lists_can_be_met() {
        let mut counts = BTreeMap::new();
        for list in lists(&Settings::default(), 3000) {
            *counts.entry(list.len()).or_insert(0) += 1;
            assert_eq!(conflict(&list), None);
        }
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [3, 4, 5]);
        // The 99.9 % quantile of chi-squared with 2 degrees of freedom is 13.8.
        assert!(chi_squared(&counts) < 13.8, "{counts:?}");
    }

    #[test]
    fn single_constraints_are_of_every_type_alike() {
        let settings = Settings {
            fewest: 1,
            most: 1,
            ..Settings::default()
        };
        let mut kinds = BTreeMap::new();
        for list in lists(&settings, 5000) {
            *kinds.entry(Kind::of(&list[0]) as usize).or_insert(0) += 1;
        }
        // The 99.9 % quantile of chi-squared with 24 degrees of freedom is 51.2.
        assert_eq!(kinds.len(), 25);
        assert!(chi_squared(&kinds) < 51.2, "{kinds:?}");
    }

    #[test]
    fn published_lists_are_those_of_the_released_code() {
        let mut counts = BTreeMap::new();
        let mut impossible = 0;
        for list in lists(&Settings::as_published(), 6000) {
            *counts.entry(list.len()).or_insert(0) += 1;
            impossible += usize::from(conflict(&list).is_some());
        }
        let share = |k: usize| counts[&k] as f64 / 6000.0;
        // Alone: the first draw is `constrained_response`, one in 25; pairs likewise with JSON.
        for (k, expected) in [(1, 0.04), (2, 0.04), (3, 0.307), (4, 0.33), (5, 0.283)] {
            assert!((share(k) - expected).abs() < 0.03, "{k}: {}", share(k));
        }
        // Parameters contradict each other now and then: that is what `Compatible` is for.
        assert!(impossible > 300, "{impossible}");
    }

    #[test]
    fn draws_depend_on_the_seed_alone() {
        assert_eq!(
            lists(&Settings::default(), 50),
            lists(&Settings::default(), 50)
        );
        let one = draw(&Material::default(), 1, &Settings::default());
        assert_ne!(one, draw(&Material::default(), 2, &Settings::default()));
    }

    #[test]
    fn what_the_seed_demands_is_not_contradicted() {
        let prompt = "Describe a harbour. Do not use any commas.";
        let own = demands_of(prompt);
        let text = "Do not use any commas.".to_owned();
        assert_eq!(own, [(Constraint::NoComma, text)]);
        let material = Material {
            prompt: Some(prompt),
            keywords: &[],
        };
        for seed in 0..300 {
            let drawn = draw(&material, seed, &Settings::default());
            assert_eq!(drawn.own, own);
            let list = drawn.added;
            let kinds: Vec<Kind> = list.iter().map(Kind::of).collect();
            assert!(!kinds.contains(&Kind::NoComma), "{kinds:?}");
            let mut all = list.clone();
            all.push(Constraint::NoComma);
            assert_eq!(conflict(&all), None);
        }
        let prompt = "Use at least 90 words. Use fewer than 20 words.";
        assert_eq!(demands_of(prompt), []);
    }

    #[test]
    fn every_type_can_be_drawn_narrow_and_wide() {
        for parameters in [Parameters::Published, Parameters::Wide] {
            for kind in Kind::ALL {
                let settings = Settings {
                    fewest: 1,
                    most: 1,
                    kinds: vec![kind.id().to_owned()],
                    parameters,
                    ..Settings::default()
                };
                for list in lists(&settings, 20) {
                    assert_eq!(list.iter().map(Kind::of).collect::<Vec<_>>(), [kind]);
                }
            }
        }
    }
}
